import { Chain } from './chain';

const A = { provider: 'deepseek', model: 'a' };
const B = { provider: 'openai', model: 'b' };
const busy = { text: 'busy', isPermanent: false };
const noKey = { text: 'no key', isPermanent: true };

function chain(...choices: { provider: string; model: string }[]) {
  const made = new Chain({ firstMs: 1_000, longestMs: 30_000 });
  made.use(choices);
  return made;
}

/** Lets the provider that is next fail at `nowMs`. */
function fail(tested: Chain<typeof A>, failure: Parameters<Chain<typeof A>['failed']>[1], nowMs: number): string {
  const candidate = tested.next(nowMs);
  if (!candidate) throw new Error('nobody may be asked');
  candidate.attempts += 1;
  tested.failed(candidate, failure, nowMs);
  return candidate.choice.provider;
}

describe('the chain', () => {
  test('when nobody has failed, then the first is next', () => {
    expect(chain(A, B).next(0)?.choice).toBe(A);
  });

  test('when one fails, then the next is asked at once; when both have, then the first whose pause is over', () => {
    const tested = chain(A, B);
    expect(fail(tested, busy, 0)).toBe('deepseek');
    expect(fail(tested, busy, 400)).toBe('openai');
    expect(tested.next(500)).toBeUndefined();
    expect(tested.nextAtMs).toBeLessThanOrEqual(1_000);
    expect(tested.next(tested.nextAtMs ?? 0)?.choice).toBe(A);
  });

  test('when one fails again and again, then its pauses double up to the longest, each up to a quarter shorter', () => {
    const tested = chain(A);
    let nowMs = 0;
    for (const pauseMs of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      fail(tested, busy, nowMs);
      const waitMs = (tested.nextAtMs ?? 0) - nowMs;
      expect(waitMs).toBeGreaterThanOrEqual(pauseMs * 0.75);
      expect(waitMs).toBeLessThanOrEqual(pauseMs);
      nowMs += waitMs;
    }
  });

  test('when many fail at the same moment, then they do not all come back at the same moment', () => {
    const waits = Array.from({ length: 20 }, () => {
      const tested = chain(A);
      fail(tested, busy, 0);
      return tested.nextAtMs;
    });
    expect(new Set(waits).size).toBeGreaterThan(10);
  });

  test.each([
    [85_000, 85_000],
    [5_000, 5_000],
  ])('when one names %i ms, then it is skipped for exactly so long, while the other is asked again', (retryAfterMs, waitMs) => {
    const tested = chain(A, B);
    fail(tested, { ...busy, retryAfterMs }, 0);
    fail(tested, busy, 0);
    expect(tested.next(1_000)?.choice).toBe(B);
    expect(tested.next(waitMs - 1)?.choice).toBe(B);
    expect(tested.next(waitMs)?.choice).toBe(A);
  });

  test('when the own pause has grown longer than a named time, then the named time counts', () => {
    const tested = chain(A);
    for (let count = 0; count < 6; count += 1) fail(tested, busy, tested.nextAtMs ?? 0);
    const nowMs = tested.nextAtMs ?? 0;
    fail(tested, { ...busy, retryAfterMs: 6_000 }, nowMs);
    expect((tested.nextAtMs ?? 0) - nowMs).toBe(6_000);
  });

  test('when a short wait is named again and again, then the pause grows beyond it all the same, and is never shorter', () => {
    const tested = chain(A);
    const waits: number[] = [];
    for (let nowMs = 0; waits.length < 6; nowMs = tested.nextAtMs ?? 0) {
      fail(tested, { ...busy, retryAfterMs: 2_000 }, nowMs);
      waits.push((tested.nextAtMs ?? 0) - nowMs);
    }
    expect(Math.min(...waits)).toBe(2_000);
    expect(Math.max(...waits)).toBeGreaterThan(20_000);
  });

  test('when one fails for good, then it is not asked again; when all have, then nobody is left', () => {
    const tested = chain(A, B);
    fail(tested, noKey, 0);
    fail(tested, busy, 0);
    expect(tested.next(60_000)?.choice).toBe(B);
    fail(tested, noKey, 60_000);
    expect([tested.next(120_000), tested.nextAtMs]).toEqual([undefined, undefined]);
    expect(tested.report).toBe('no key; no key (2 attempts)');
  });

  test('when one answers with nothing, then it is asked again, but not without end', () => {
    const tested = chain(A);
    const empty = { text: 'empty', isPermanent: false, isEmptyAnswer: true };
    fail(tested, empty, 0);
    fail(tested, busy, 10_000);
    fail(tested, empty, 20_000);
    expect(tested.nextAtMs).toBeDefined();
    fail(tested, empty, 60_000);
    expect(tested.nextAtMs).toBeUndefined();
  });

  describe('the timeout of an attempt', () => {
    const slow = { text: 'slow', isPermanent: false, isTimeout: true };
    const MINUTE_MS = 60_000;

    /** The timeouts of consecutive attempts, each of which times out. */
    function bounds(tested: Chain<typeof A>, leftMs: number, count: number, everyMs = 60_000): [string, number][] {
      return Array.from({ length: count }, (_, index) => {
        const candidate = tested.next(index * everyMs);
        if (!candidate) throw new Error('nobody may be asked');
        candidate.attempts += 1;
        const bound: [string, number] = [candidate.choice.provider, tested.boundMs(candidate, 30_000, leftMs)];
        tested.failed(candidate, slow, index * everyMs);
        return bound;
      });
    }

    test('when a provider times out, then it gets twice as long next time, up to four times the first', () => {
      expect(bounds(chain(A), 15 * MINUTE_MS, 4).map(([, bound]) => bound)).toEqual([30_000, 60_000, 120_000, 120_000]);
    });

    test('when it fails in another way, then its timeout stays', () => {
      const tested = chain(A);
      fail(tested, busy, 0);
      const candidate = tested.next(60_000);
      expect(candidate && tested.boundMs(candidate, 30_000, 15 * MINUTE_MS)).toBe(30_000);
    });

    test('when no other attempt would fit, then it gets the rest of the turn', () => {
      expect(bounds(chain(A), 59_000, 1)).toEqual([['deepseek', 59_000]]);
      expect(bounds(chain(A), 5_000, 1)).toEqual([['deepseek', 5_000]]);
      expect(bounds(chain(A), -5, 1)).toEqual([['deepseek', 1]]);
    });

    test('when another provider has been called less often, then some time is left for it', () => {
      expect(bounds(chain(A, B), 50_000, 2, 0)).toEqual([
        ['deepseek', 30_000],
        ['openai', 50_000],
      ]);
      const tested = chain(A, B);
      fail(tested, busy, 0);
      fail(tested, noKey, 0);
      const again = tested.next(60_000);
      if (again) again.attempts += 1;
      expect(again && tested.boundMs(again, 30_000, 50_000)).toBe(50_000);
    });
  });

  test('when the chain changes in the middle, then a new provider is next, and what the others have said stays', () => {
    const tested = chain(A);
    fail(tested, noKey, 0);
    tested.use([A, B]);
    expect(tested.next(0)?.choice).toBe(B);
    tested.use([A]);
    expect(tested.nextAtMs).toBeUndefined();
  });

  test('when it is asked why, then it says what the next one has said; what was never asked is named too', () => {
    const tested = chain(A, B);
    expect(tested.waitingFor).toBe('deepseek (a) has not answered yet');
    fail(tested, { text: 'deepseek (a) responded with 503', isPermanent: false }, 0);
    expect(tested.waitingFor).toBe('openai (b) has not answered yet');
    expect(tested.report).toBe('deepseek (a) responded with 503; openai (b) was not called');
    expect(chain().report).toBe('no provider of the chain has an API key: set one');
  });
});
