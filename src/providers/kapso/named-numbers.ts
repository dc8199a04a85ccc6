/** Finds the business numbers that a body names, before its signature is verified: they decide whose secret verifies it. */

const KEY = '"phone_number_id"';
/** A genuine body is about one number. */
const MOST_NUMBERS = 3;
const VALUE = /^\s{0,20}:\s{0,20}"?([\w.-]{1,64})/;
/** Longest text that `VALUE` matches. */
const VALUE_LENGTH = 110;

/**
 * The different numbers named in a body, at most three, in their order. Looks for the bytes instead of parsing, because anybody can send
 * megabytes. If it misses one, the right secret is not tried; it never accepts too much, because the parsed events decide afterwards.
 */
export function namedNumbers(rawBody: Buffer): string[] {
  const numbers = new Set<string>();
  for (let at = rawBody.indexOf(KEY); at >= 0 && numbers.size < MOST_NUMBERS; at = rawBody.indexOf(KEY, at + KEY.length)) {
    const start = at + KEY.length;
    const number = VALUE.exec(rawBody.toString('latin1', start, start + VALUE_LENGTH))?.[1];
    if (number !== undefined) numbers.add(number);
  }
  return [...numbers];
}
