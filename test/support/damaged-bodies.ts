/** Damages bodies of webhooks at random: fields deleted, of another type, or wrapped. */
import { randomNumbers } from './random';

const MOST_DAMAGES = 3;

type Path = (string | number)[];

function pathsIn(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path];
  const inside = Object.entries(value).flatMap(([name, inner]) => pathsIn(inner, [...path, Array.isArray(value) ? Number(name) : name]));
  return path.length === 0 ? inside : [path, ...inside];
}

const DELETE = Symbol('delete');
const DAMAGES: ((value: unknown) => unknown)[] = [
  () => DELETE,
  () => DELETE,
  () => null,
  () => 0,
  () => 12_345,
  () => 1e21,
  () => '',
  () => 'odd',
  () => true,
  () => [],
  () => ({}),
  (value) => [value],
  (value) => ({ nested: value }),
  (value) => JSON.stringify(value),
  (value) => `${value}\0\ud800`,
];

/** A copy of `body` with the value at `path` replaced or deleted. */
function damaged(body: unknown, path: Path, damage: (value: unknown) => unknown): unknown {
  const copy: unknown = structuredClone(body);
  const parent = path.slice(0, -1).reduce<unknown>((value, name) => (value as Record<string | number, unknown>)[name], copy);
  const name = path.at(-1) ?? '';
  const result = damage((parent as Record<string | number, unknown>)[name]);
  if (result !== DELETE) (parent as Record<string | number, unknown>)[name] = result;
  else if (Array.isArray(parent)) parent.splice(Number(name), 1);
  else delete (parent as Record<string, unknown>)[name];
  return copy;
}

/** A webhook's body and the name of its event in the header. */
export interface SentBody {
  body: unknown;
  event: string | undefined;
}

/**
 * The body with one to three damages; the header is lost in three of ten. The same seed does the same. `isOtherKind`: a word that says which
 * kind of webhook it is may be another one.
 */
export function damagedCase({ body, event }: SentBody, seed: number): SentBody & { isOtherKind: boolean } {
  const random = randomNumbers(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  let result = body;
  let isOtherKind = false;
  for (let count = Math.ceil(random() * MOST_DAMAGES); count > 0; count -= 1) {
    const paths = pathsIn(result);
    if (paths.length === 0) break;
    const path = pick(paths);
    result = damaged(result, path, pick(DAMAGES));
    // Another word there says that it is another kind of webhook, in the sender's own terms.
    isOtherKind ||= ['field', 'object'].includes(String(path.at(-1)));
  }
  return { body: result, event: random() < 0.3 ? undefined : event, isOtherKind };
}
