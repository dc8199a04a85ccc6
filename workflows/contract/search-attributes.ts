/** Search attributes of the workflows, and the workflow task timeout. */
import { defineSearchAttributeKey } from '@temporalio/common';

/** Names of the search attributes; registered at startup. They must never contain a phone number or message text. */
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

/** How soon another worker gets a workflow task whose worker died. */
export const WORKFLOW_TASK_TIMEOUT_MS = 5_000;
