import { ClaimExpiredError, startFence } from './claim-fence';
import { connectionFailure } from './connection-failure';

afterEach(() => {
  jest.restoreAllMocks();
});

const MAX_AGE_MS = 5_000;

/** A fence, and a way to pass time on each of the two clocks. */
function fenceWithClocks(signal = new AbortController().signal) {
  const now = { wallMs: 1_790_000_000_000, monotonicMs: 1_000 };
  jest.spyOn(Date, 'now').mockImplementation(() => now.wallMs);
  jest.spyOn(performance, 'now').mockImplementation(() => now.monotonicMs);
  const fence = startFence({ maxAgeMs: MAX_AGE_MS, signal });
  const pass = (wallMs: number, monotonicMs: number) => {
    now.wallMs += wallMs;
    now.monotonicMs += monotonicMs;
  };
  return { check: () => fence.check(), pass };
}

test('when a claim is as old as it may be, then it holds; when it is older, then not', () => {
  const { check, pass } = fenceWithClocks();
  pass(MAX_AGE_MS, MAX_AGE_MS);
  check();
  pass(1, 1);
  expect(check).toThrow(ClaimExpiredError);
});

test.each([
  ['the process was stopped', MAX_AGE_MS + 1, MAX_AGE_MS + 1],
  ['the machine slept, and only the wall clock went on', MAX_AGE_MS + 1, 10],
  ['the wall clock was set back meanwhile', -3_600_000, MAX_AGE_MS + 1],
])('when %s, then the claim does not hold', (_what, wallMs, monotonicMs) => {
  const { check, pass } = fenceWithClocks();
  pass(wallMs, monotonicMs);
  expect(check).toThrow('the claim was too old');
});

test('when the activity is cancelled, then even a fresh claim does not hold', () => {
  const cancelling = new AbortController();
  const { check } = fenceWithClocks(cancelling.signal);
  check();
  cancelling.abort();
  expect(check).toThrow('the claim was cancelled');
});

test('when a request fails at the fence, then it counts as not sent', () => {
  expect(connectionFailure(new ClaimExpiredError('the claim was too old'))).toEqual({ kind: 'not_sent', code: 'CLAIM_EXPIRED' });
});
