/** A voice call: the input, signals, id and start options of its workflow. */
import { defineSignal } from '@temporalio/workflow';
import { attentionAttribute, callStatusAttribute, WORKFLOW_TASK_TIMEOUT_MS } from './search-attributes';

/** A fact about a call from a webhook, as stored in the database: ids and statuses only, because Vapi's payloads contain secrets and personal data. */
export interface CallReported {
  providerCallId: string;
  type: 'status-update' | 'end-of-call-report';
  /** Of a status-update, as Vapi names it; open to new values. */
  status?: string;
  endedReason?: string;
  /** Milliseconds since 1970, by Vapi's clock if it gives a time. */
  atMs: number;
}

/** Vapi's statuses, from lowest to highest. Any other status is stored, but never applied. */
export const CALL_STATUSES = ['scheduled', 'queued', 'ringing', 'in-progress', 'forwarding', 'ended'] as const;
export type CallStatus = (typeof CALL_STATUSES)[number];

/** The position of a status in that order; -1 if it is unknown. */
export function statusRank(status: string): number {
  return (CALL_STATUSES as readonly string[]).indexOf(status);
}

export interface CallInput {
  /** Our id, the key of the row. The phone number is in the database only. */
  callId: string;
  /** True if this workflow is to place the call; false for a call started elsewhere. */
  dials: boolean;
  /** If no event arrives for this long after dialling, Vapi is queried. */
  ringTimeoutMs: number;
  /** How long to wait for the report after the end, before querying Vapi. */
  reportGraceMs: number;
  /** Maximum duration of the conversation. */
  maxDurationMs: number;
  /** How long a call is retried if there is no free slot. */
  queueForMs: number;
}

/** The result of a finished call; the rest is in the database. */
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
/** Requests that the call be ended, or not be placed. */
export const endRequested = defineSignal('endRequested');

/** Workflow type, for clients that do not load its code. */
export const CALL_WORKFLOW = 'callWorkflow';

/** How long a call is retried if there is no free slot; later, it may have become pointless. */
export const QUEUE_FOR_MS = 30 * 60_000;

/** Settings that apply to every call. */
export interface CallTimings {
  CALL_RING_TIMEOUT_SECONDS: number;
  CALL_REPORT_GRACE_SECONDS: number;
}

/** The input for a row; `maxDurationSeconds` limits the conversation. */
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

/** Start options, for a request to place a call and for the first event of a call placed elsewhere. */
export function callStart(input: CallInput, taskQueue: string) {
  return {
    workflowId: callWorkflowId(input.callId),
    taskQueue,
    args: [input] as [CallInput],
    workflowTaskTimeout: WORKFLOW_TASK_TIMEOUT_MS,
    // A closed call is never followed again; a second start finds the running workflow.
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
