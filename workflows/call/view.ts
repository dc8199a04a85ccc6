/** What operators see of a call: the details in the Temporal UI, the search attributes, and the texts of its phases. */
import { setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow';
import { attentionAttribute, type CallInput, type CallResult, callOutcomeAttribute, callStatusAttribute } from '../contract';

/** What is shown of a call. */
export interface ShownCall {
  readonly input: CallInput;
  readonly providerCallId: string | undefined;
  readonly status: string;
  readonly endedReason: string | undefined;
  readonly hasReport: boolean;
}

/** Shows where the call is, in words, together with what is known of it. */
export function showPhase({ input, providerCallId, status, endedReason, hasReport }: ShownCall, phase: string): void {
  setCurrentDetails(
    [
      `Voice call · ${input.dials ? 'placed by us' : 'followed; not placed by this run'}`,
      `**${phase}**`,
      `status ${status}${endedReason ? ` · ended: ${endedReason}` : ''}${hasReport ? ' · report is here' : ''}`,
      `call ${input.callId} · at Vapi ${providerCallId ?? 'not known yet'}`,
    ].join('\n\n'),
  );
}

/** Makes the call findable by its status. */
export function showStatus(status: string): void {
  upsertSearchAttributes([{ key: callStatusAttribute, value: status }]);
}

/** Makes the call findable by whether a person must look at it. */
export function showAttention(needsAttention: boolean): void {
  upsertSearchAttributes([{ key: attentionAttribute, value: needsAttention }]);
}

/** Makes the call findable by its result. */
export function showResult({ status, outcome, needsAttention }: CallResult): void {
  upsertSearchAttributes([
    { key: callStatusAttribute, value: status },
    { key: callOutcomeAttribute, value: outcome },
    { key: attentionAttribute, value: needsAttention },
  ]);
}

/** The phase of a call that is followed. */
export function phaseOf(status: string): string {
  return status === 'ended' ? 'ended; waiting for the report' : `following: ${status}`;
}

/** What the timer of a state stands for. */
export function waitSummary(status: string): string {
  if (status === 'ended') return 'the report may still come';
  return status === 'in-progress' || status === 'forwarding' ? 'until the call must be over' : 'until somebody must have answered';
}
