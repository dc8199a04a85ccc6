/** A voice call: what goes in, what is signalled, and how its workflow is named and started. */
import { defineSignal } from '@temporalio/workflow';
import { attentionAttribute, callStatusAttribute, WORKFLOW_TASK_TIMEOUT_MS } from './search-attributes';

/**
 * A fact about a call, as a webhook brought it and the record keeps it: ids and states only, because Vapi's payloads carry
 * secrets and personal data.
 */
export interface CallReported {
  providerCallId: string;
  type: 'status-update' | 'end-of-call-report';
  /** Of a status-update, as Vapi names it; open to new values. */
  status?: string;
  endedReason?: string;
  /** Milliseconds since 1970, by Vapi's clock where it gives one. */
  atMs: number;
}

export interface CallInput {
  /** Ours; the row's key. Whom to call stands in the record only. */
  callId: string;
  /** True for a call that this workflow is to place; false for one that others started and a webhook told of. */
  dials: boolean;
  /** Nothing heard for this long after dialling: Vapi is asked. */
  ringTimeoutMs: number;
  /** After the end, the report is waited for this long: then Vapi is asked. */
  reportGraceMs: number;
  /** The longest that the conversation itself can take. */
  maxDurationMs: number;
  /** A call that finds no free slot is tried again for this long. */
  queueForMs: number;
}

/** What a finished call says of itself; the rest stands in the record. */
export interface CallResult {
  callId: string;
  providerCallId: string | null;
  status: string;
  outcome: string;
  endedReason: string | null;
  durationSeconds: number | null;
  needsAttention: boolean;
}

export const callReported = defineSignal<[CallReported]>('callReported');
/** Somebody wants the call to be ended, or not to be placed. */
export const endRequested = defineSignal('endRequested');

/** Type name of the workflow, for callers that do not load its code. */
export const CALL_WORKFLOW = 'callWorkflow';

/** A call that finds no free slot is tried again for this long; then its reason to be may be gone. */
export const QUEUE_FOR_MS = 30 * 60_000;

/** Settings of every call. */
export interface CallTimings {
  CALL_RING_TIMEOUT_SECONDS: number;
  CALL_REPORT_GRACE_SECONDS: number;
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

/** How a call is started: by the request to place it, or by the first event of one that others placed. */
export function callStart(input: CallInput, taskQueue: string) {
  return {
    workflowId: callWorkflowId(input.callId),
    taskQueue,
    args: [input] as [CallInput],
    workflowTaskTimeout: WORKFLOW_TASK_TIMEOUT_MS,
    // A closed call is never followed again; who starts it twice finds the one that runs.
    workflowIdReusePolicy: 'REJECT_DUPLICATE' as const,
    workflowIdConflictPolicy: 'USE_EXISTING' as const,
    staticSummary: input.dials ? 'Voice call, placed by us' : 'Voice call, followed only',
    typedSearchAttributes: [
      { key: callStatusAttribute, value: 'queued' },
      { key: attentionAttribute, value: false },
    ],
  };
}

/** One workflow per voice call. */
export function callWorkflowId(callId: string): string {
  return `call-${callId}`;
}
