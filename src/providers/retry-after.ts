/** Longer than this nobody waits for a reply; a provider that asks for more is asked again earlier. */
const LONGEST_MS = 15 * 60_000;

/** `Retry-After` in milliseconds, at most 15 minutes: seconds or an HTTP date (RFC 9110, 10.2.3). Undefined when missing or unreadable. */
export function retryAfterMs(headers: Headers | undefined): number | undefined {
  const value = headers?.get('retry-after');
  if (!value) return undefined;
  const seconds = Number(value);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(0, Math.round(ms)), LONGEST_MS);
}
