import { retryAfterMs } from './retry-after';

const MINUTE_MS = 60_000;
const read = (value: string) => retryAfterMs(new Headers({ 'Retry-After': value }));
const dateIn = (ms: number) => new Date(Date.now() + ms).toUTCString();

describe('Retry-After', () => {
  test.each([
    ['0', 0],
    ['2', 2_000],
    // Not allowed by the RFC, but used in practice.
    ['0.5', 500],
    [' 7 ', 7_000],
    ['900', 15 * MINUTE_MS],
    ['901', 15 * MINUTE_MS],
    ['99999999999999999999', 15 * MINUTE_MS],
  ])('when it is "%s", then it is that many seconds, at most 15 minutes', (value, ms) => {
    expect(read(value)).toBe(ms);
  });

  test('when it is an HTTP date, then it is the time until then', () => {
    const ms = read(dateIn(MINUTE_MS));
    expect(ms).toBeGreaterThan(MINUTE_MS - 5_000);
    expect(ms).toBeLessThanOrEqual(MINUTE_MS);
  });

  test('when the date is far away, then it is capped at 15 minutes', () => {
    expect(read(dateIn(24 * 60 * MINUTE_MS))).toBe(15 * MINUTE_MS);
  });

  test.each([[dateIn(-MINUTE_MS)], ['Sun, 06 Nov 1994 08:49:37 GMT'], ['Sunday, 06-Nov-94 08:49:37 GMT']])(
    'when the date %s is in the past, then it is 0',
    (value) => {
      expect(read(value)).toBe(0);
    },
  );

  test.each([
    [''],
    ['-5'],
    ['soon'],
    ['soon 5'],
    ['5 s'],
    ['1e3'],
    ['0x10'],
    ['Infinity'],
    ['2026-11-21T10:00:00Z'],
    ['Mon, 99 Foo 2026 08:49:37 GMT'],
  ])('when it is "%s", then it is ignored', (value) => {
    expect(read(value)).toBeUndefined();
  });

  test.each([
    [{ 'retry-after-ms': '1500', 'retry-after': '9' }, 1_500],
    [{ 'retry-after-ms': '250.4' }, 250],
    [{ 'retry-after-ms': 'soon', 'retry-after': '9' }, 9_000],
    [{ 'retry-after-ms': '99999999999' }, 15 * MINUTE_MS],
  ])('when the headers are %j, then valid milliseconds win', (headers, ms) => {
    expect(retryAfterMs(new Headers(headers as Record<string, string>))).toBe(ms);
  });

  test('when it is missing, then it is undefined', () => {
    expect(retryAfterMs(new Headers())).toBeUndefined();
    expect(retryAfterMs(undefined)).toBeUndefined();
  });
});
