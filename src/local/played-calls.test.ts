import { readSettings } from '../platform/config';
import { playedCallTimings } from './played-calls';

test('when calls are played, then the waits are short, but for those that are set', () => {
  expect(playedCallTimings({})).toEqual({ CALL_REPORT_GRACE_SECONDS: '10', CALL_RING_TIMEOUT_SECONDS: '30' });
  expect(playedCallTimings({ CALL_REPORT_GRACE_SECONDS: '5', CALL_RING_TIMEOUT_SECONDS: ' ' })).toEqual({
    CALL_REPORT_GRACE_SECONDS: '5',
    CALL_RING_TIMEOUT_SECONDS: '30',
  });
  expect(() => readSettings(playedCallTimings({}))).not.toThrow();
});
