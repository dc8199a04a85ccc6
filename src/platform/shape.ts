/** Describes the structure of a JSON body, for logging a webhook that could not be parsed. */

/** Field names and types, two levels deep by default, without any values. */
export function shapeOf(value: unknown, depth = 2): string {
  if (Array.isArray(value)) return `[${value.length}]`;
  if (typeof value !== 'object' || value === null) return value === null ? 'null' : typeof value;
  if (depth === 0) return '{…}';
  const fields = Object.entries(value).slice(0, 30);
  return `{${fields.map(([name, inner]) => `${/^[A-Za-z_]\w{0,39}$/.test(name) ? name : '?'}:${shapeOf(inner, depth - 1)}`).join(',')}}`;
}
