/** How long a provider asks us to wait. */

/** Longer than this nobody waits for a reply; a provider that asks for more is asked again earlier. */
const LONGEST_MS = 15 * 60_000;

const SECONDS = /^\d+(?:\.\d+)?$/;
/** By its form first: `Date.parse` alone takes "-5" and "soon 5" for days of 2001. */
const HTTP_DATE = /^[A-Z][a-z]+, .+ GMT$/;

/**
 * `Retry-After` in milliseconds, at most 15 minutes: seconds or an HTTP date (RFC 9110, 10.2.3). 0 for a date that is past: then the
 * caller's own pause must keep it from asking without end. Undefined when missing or unreadable.
 */
export function retryAfterMs(headers: Headers | undefined): number | undefined {
  const value = headers?.get('retry-after') ?? '';
  const ms = readMs(value);
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(0, Math.round(ms)), LONGEST_MS);
}

function readMs(value: string): number {
  if (SECONDS.test(value)) return Number(value) * 1_000;
  return HTTP_DATE.test(value) ? Date.parse(value) - Date.now() : Number.NaN;
}
