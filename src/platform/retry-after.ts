/** Parses the `Retry-After` headers. */

/** Upper limit: no customer waits longer for a reply, so a provider that asks for more is retried earlier. */
const MAX_MS = 15 * 60_000;

const NUMBER = /^\d+(?:\.\d+)?$/;
/** Checked before parsing: `Date.parse` alone takes "-5" and "soon 5" for dates in 2001. */
const HTTP_DATE = /^[A-Z][a-z]+, .+ GMT$/;

/**
 * The requested wait in milliseconds, at most 15 minutes: `retry-after-ms` (model providers send it), else `Retry-After`, in seconds or
 * as an HTTP date (RFC 9110, 10.2.3). 0 for a date in the past, so callers need a minimum pause of their own. Undefined if the headers
 * are missing or invalid.
 */
export function retryAfterMs(headers: Headers | undefined): number | undefined {
  const exact = headers?.get('retry-after-ms') ?? '';
  const ms = NUMBER.test(exact) ? Number(exact) : readMs(headers?.get('retry-after') ?? '');
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(0, Math.round(ms)), MAX_MS);
}

function readMs(value: string): number {
  if (NUMBER.test(value)) return Number(value) * 1_000;
  return HTTP_DATE.test(value) ? Date.parse(value) - Date.now() : Number.NaN;
}
