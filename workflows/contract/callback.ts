/** The callback with a call's result. */
import { WORKFLOW_TASK_TIMEOUT_MS } from './search-attributes';

export interface CallbackInput {
  /** The URL and the body are in the database only. */
  callId: string;
  /** For the second callback of a call, after a late report has improved the result. */
  isUpdate?: boolean;
  /** Overrides the total timeout of the policy. */
  giveUpAfterMs?: number;
}

export const CALLBACK_WORKFLOW = 'callbackWorkflow';

/** One callback per call. */
export function callbackWorkflowId(callId: string): string {
  return `call-${callId}-callback`;
}

/** Start options of the one update per call. Starting it again does nothing, whether it is running or has ended. */
export function callbackUpdateStart(callId: string, taskQueue: string) {
  const input: CallbackInput = { callId, isUpdate: true };
  return {
    workflowId: `${callbackWorkflowId(callId)}-update`,
    taskQueue,
    args: [input] as [CallbackInput],
    workflowTaskTimeout: WORKFLOW_TASK_TIMEOUT_MS,
    workflowIdReusePolicy: 'REJECT_DUPLICATE' as const,
    workflowIdConflictPolicy: 'USE_EXISTING' as const,
    staticSummary: "callback with a call's improved result",
  };
}
