/** Parses the `Retry-After` header. */

/** Upper limit: no customer waits longer for a reply, so a provider that asks for more is retried earlier. */
const MAX_MS = 15 * 60_000;

const SECONDS = /^\d+(?:\.\d+)?$/;
/** Checked before parsing: `Date.parse` alone takes "-5" and "soon 5" for dates in 2001. */
const HTTP_DATE = /^[A-Z][a-z]+, .+ GMT$/;

/**
 * `Retry-After` in milliseconds, at most 15 minutes; accepts seconds or an HTTP date (RFC 9110, 10.2.3). 0 for a date in the past,
 * so callers need a minimum pause of their own. Undefined if the header is missing or invalid.
 */
export function retryAfterMs(headers: Headers | undefined): number | undefined {
  const value = headers?.get('retry-after') ?? '';
  const ms = readMs(value);
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(0, Math.round(ms)), MAX_MS);
}

function readMs(value: string): number {
  if (SECONDS.test(value)) return Number(value) * 1_000;
  return HTTP_DATE.test(value) ? Date.parse(value) - Date.now() : Number.NaN;
}
