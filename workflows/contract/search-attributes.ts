/** Search attributes of the workflows, and the bound that every workflow task has. */
import { defineSearchAttributeKey } from '@temporalio/common';

/** Names of the search attributes; registered at start. No number and no text may stand in one. */
export const searchAttributes = {
  workspace: 'ParleyWorkspace',
  mode: 'ParleyMode',
  attention: 'ParleyAttention',
  callStatus: 'ParleyCallStatus',
  callOutcome: 'ParleyCallOutcome',
} as const;

export const workspaceAttribute = defineSearchAttributeKey(searchAttributes.workspace, 'KEYWORD');
export const modeAttribute = defineSearchAttributeKey(searchAttributes.mode, 'KEYWORD');
export const attentionAttribute = defineSearchAttributeKey(searchAttributes.attention, 'BOOL');
export const callStatusAttribute = defineSearchAttributeKey(searchAttributes.callStatus, 'KEYWORD');
export const callOutcomeAttribute = defineSearchAttributeKey(searchAttributes.callOutcome, 'KEYWORD');

/** A workflow task that was lost with its worker is given to another one after this long. */
export const WORKFLOW_TASK_TIMEOUT_MS = 5_000;
