import { readSettings } from '../platform/config';
import { simulatedCallTimings } from './simulated-calls';

test('when calls are simulated, then the timeouts are short unless they are set', () => {
  expect(simulatedCallTimings({})).toEqual({ CALL_REPORT_GRACE_SECONDS: '10', CALL_RING_TIMEOUT_SECONDS: '30' });
  expect(simulatedCallTimings({ CALL_REPORT_GRACE_SECONDS: '5', CALL_RING_TIMEOUT_SECONDS: ' ' })).toEqual({
    CALL_REPORT_GRACE_SECONDS: '5',
    CALL_RING_TIMEOUT_SECONDS: '30',
  });
  expect(() => readSettings(simulatedCallTimings({}))).not.toThrow();
});
