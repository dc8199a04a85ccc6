/** What a body looks like, for the log of a webhook that nobody understood. */

/** Names and types, two levels deep: enough to see what came, nothing of what it said. */
export function shapeOf(value: unknown, depth = 2): string {
  if (Array.isArray(value)) return `[${value.length}]`;
  if (typeof value !== 'object' || value === null) return value === null ? 'null' : typeof value;
  if (depth === 0) return '{…}';
  const fields = Object.entries(value).slice(0, 30);
  return `{${fields.map(([name, inner]) => `${/^[A-Za-z_]\w{0,39}$/.test(name) ? name : '?'}:${shapeOf(inner, depth - 1)}`).join(',')}}`;
}
