/** What a call's workflow is started with, whoever starts it. */
import type { CallInput } from '../workflows/contract';
import type { Settings } from './config';

/** A call that finds no free slot is tried again for this long; then its reason to be may be gone. */
export const QUEUE_FOR_MS = 30 * 60_000;

export type CallTimings = Pick<Settings, 'CALL_RING_TIMEOUT_SECONDS' | 'CALL_REPORT_GRACE_SECONDS'>;

/** For played calls, which are over in seconds: whoever tries one shall not wait as for a real one. What is set stays. */
export function playedCallTimings(environment: Record<string, string | undefined>): Record<keyof CallTimings, string> {
  const { CALL_REPORT_GRACE_SECONDS: grace, CALL_RING_TIMEOUT_SECONDS: ring } = environment;
  return { CALL_REPORT_GRACE_SECONDS: grace?.trim() || '10', CALL_RING_TIMEOUT_SECONDS: ring?.trim() || '30' };
}

/** `maxDurationSeconds`: of the conversation. */
export function callInput(
  row: { id: string; maxDurationSeconds: number },
  settings: CallTimings,
  kind: Pick<CallInput, 'dials' | 'queueForMs'>,
): CallInput {
  return {
    callId: row.id,
    ringTimeoutMs: settings.CALL_RING_TIMEOUT_SECONDS * 1_000,
    reportGraceMs: settings.CALL_REPORT_GRACE_SECONDS * 1_000,
    maxDurationMs: row.maxDurationSeconds * 1_000,
    ...kind,
  };
}
