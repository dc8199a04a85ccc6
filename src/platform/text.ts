/** Makes text and JSON from outside storable in PostgreSQL, within a size limit. */

/**
 * The value without NUL characters and with lone surrogates replaced, in strings and field names. Both are valid JSON, but
 * PostgreSQL cannot store them. @throws RangeError if the value is nested too deeply
 */
export function sanitizedJson(value: unknown): unknown {
  if (typeof value === 'string') return sanitizedText(value);
  if (Array.isArray(value)) return value.map(sanitizedJson);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [sanitizedText(name), sanitizedJson(inner)]));
}

function sanitizedText(text: string): string {
  return text.replaceAll('\0', '').toWellFormed();
}

/** The text cut to at most `length` UTF-16 code units; a surrogate pair that the cut splits is replaced, so the text stays storable. */
export function cutText(text: string, length: number): string {
  return sanitizedText(text.slice(0, length));
}

/** Length of the value as JSON; infinite if it is nested too deeply to serialise. */
export function jsonLength(value: unknown): number {
  try {
    return (JSON.stringify(value) ?? '').length;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** Maximum nesting depth. PostgreSQL and our recursive functions fail at some thousands; no legitimate value comes close to 64. */
export const MAX_DEPTH = 64;

/** The value after `sanitizedJson`; undefined if its JSON is longer than `maxLength` or nested too deeply. */
export function boundedJson(value: unknown, maxLength: number): unknown {
  return isDeeperThan(MAX_DEPTH, value) || jsonLength(value) > maxLength ? undefined : sanitizedJson(value);
}

function isDeeperThan(levels: number, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeperThan(levels - 1, inner));
}

/** Zero-width characters, and letters and symbols that look like a space: hangul fillers, the empty braille pattern. */
const LOOKS_EMPTY = /[\p{Cc}\p{Cf}\p{Z}\p{M}\s\u115F\u1160\u2800\u3164\uFFA0]/gu;

/** Whether the text has no visible character. */
export function isBlank(text: string): boolean {
  return text.replace(LOOKS_EMPTY, '') === '';
}
