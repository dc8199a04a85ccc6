/** Timeouts for simulated calls. */
import type { CallTimings } from '../../workflows/contract';

/** Shorter defaults than for real calls, because simulated ones are over in seconds. Values that are set are kept. */
export function simulatedCallTimings(environment: Record<string, string | undefined>): Record<keyof CallTimings, string> {
  const { CALL_REPORT_GRACE_SECONDS: grace, CALL_RING_TIMEOUT_SECONDS: ring } = environment;
  return { CALL_REPORT_GRACE_SECONDS: grace?.trim() || '10', CALL_RING_TIMEOUT_SECONDS: ring?.trim() || '30' };
}
