/** Makes what others sent fit to be kept: text and JSON that PostgreSQL stores, within a size. */

/**
 * The same value without NUL and half surrogate pairs, in texts and in names of fields: both are JSON, but PostgreSQL
 * stores neither. @throws RangeError when it is nested too deep
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

/** At most `length` UTF-16 units, never through the middle of a character: half of one cannot be stored. */
export function cutText(text: string, length: number): string {
  return sanitizedText(text.slice(0, length));
}

/** How long the value is as JSON; infinite when it is nested too deep to be written down. */
export function jsonLength(value: unknown): number {
  try {
    return (JSON.stringify(value) ?? '').length;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** PostgreSQL and our own walks through a value end somewhere in the thousands; nothing that is meant goes this deep. */
export const MAX_DEPTH = 64;

/** The value as `sanitizedJson` makes it; undefined when it is longer than `maxLength` as JSON, or nested too deep. */
export function boundedJson(value: unknown, maxLength: number): unknown {
  return isDeeperThan(MAX_DEPTH, value) || jsonLength(value) > maxLength ? undefined : sanitizedJson(value);
}

function isDeeperThan(levels: number, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeperThan(levels - 1, inner));
}
