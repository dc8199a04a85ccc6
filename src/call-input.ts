/** What a call's workflow is started with, whoever starts it. */
import type { CallInput } from '../workflows/contract';
import type { Settings } from './config';

export type CallTimings = Pick<Settings, 'CALL_RING_TIMEOUT_SECONDS' | 'CALL_REPORT_GRACE_SECONDS'>;

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
