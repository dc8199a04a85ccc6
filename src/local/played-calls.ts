/** Timings of calls that the sandbox plays. */
import type { CallTimings } from '../../workflows/contract';

/** For played calls, which are over in seconds: whoever tries one shall not wait as for a real one. What is set stays. */
export function playedCallTimings(environment: Record<string, string | undefined>): Record<keyof CallTimings, string> {
  const { CALL_REPORT_GRACE_SECONDS: grace, CALL_RING_TIMEOUT_SECONDS: ring } = environment;
  return { CALL_REPORT_GRACE_SECONDS: grace?.trim() || '10', CALL_RING_TIMEOUT_SECONDS: ring?.trim() || '30' };
}
