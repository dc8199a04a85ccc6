/** The callback with a call's result. */

export interface CallbackInput {
  /** The URL and the body are in the database only. */
  callId: string;
  /** Overrides the total timeout of the policy. */
  giveUpAfterMs?: number;
}

export const CALLBACK_WORKFLOW = 'callbackWorkflow';

/** One callback per call. */
export function callbackWorkflowId(callId: string): string {
  return `call-${callId}-callback`;
}
