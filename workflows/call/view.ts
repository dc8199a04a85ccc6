/** What operators see of a call in the Temporal UI: its details, search attributes and phases. */
import { setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow';
import { attentionAttribute, type CallInput, type CallResult, callOutcomeAttribute, callStatusAttribute } from '../contract';

/** The part of a call that is shown. */
export interface ShownCall {
  readonly input: CallInput;
  readonly providerCallId: string | undefined;
  readonly status: string;
  readonly endedReason: string | undefined;
  readonly hasReport: boolean;
}

/** Shows the phase of the call, and what is known about it. */
export function showPhase({ input, providerCallId, status, endedReason, hasReport }: ShownCall, phase: string): void {
  setCurrentDetails(
    [
      `call ${input.callId} · at Vapi ${providerCallId ?? 'not known yet'}`,
      `**${phase}**`,
      `status ${input.dials && status === 'queued' && providerCallId ? 'queued or ringing' : status}${endedReason ? ` · ended: ${endedReason}` : ''}${hasReport ? ' · report received' : ''}`,
      `${input.dials ? 'placed by us' : 'followed; not placed by this run'}`,
    ].join('\n\n'),
  );
}

/** Sets the search attribute for the status. */
export function showStatus(status: string): void {
  upsertSearchAttributes([{ key: callStatusAttribute, value: status }]);
}

/** Sets the search attribute for attention. */
export function showAttention(needsAttention: boolean): void {
  upsertSearchAttributes([{ key: attentionAttribute, value: needsAttention }]);
}

/** Sets the search attributes of the result. */
export function showResult({ status, outcome, needsAttention }: CallResult): void {
  upsertSearchAttributes([
    { key: callStatusAttribute, value: status },
    { key: callOutcomeAttribute, value: outcome },
    { key: attentionAttribute, value: needsAttention },
  ]);
}

/** The phase of a followed call. */
export function phaseOf(status: string): string {
  if (status === 'ended') return 'ended; waiting for the report';
  return status === 'in-progress' || status === 'forwarding' ? `following: ${status}` : 'waiting for an answer';
}

/** The summary of the timer of a state. */
export function waitSummary(status: string): string {
  if (status === 'ended') return 'the report may still come';
  return status === 'in-progress' || status === 'forwarding' ? 'until the call must be over' : 'until somebody must have answered';
}
