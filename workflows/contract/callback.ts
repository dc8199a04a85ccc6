/** The callback that tells a caller how its call ended. */

export interface CallbackInput {
  /** Where to post to, and what, stands in the record only. */
  callId: string;
  /** Instead of the policy's total bound. */
  giveUpAfterMs?: number;
}

export const CALLBACK_WORKFLOW = 'callbackWorkflow';

/** One callback per call. */
export function callbackWorkflowId(callId: string): string {
  return `call-${callId}-callback`;
}
