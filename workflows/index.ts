/** What the worker bundles. */
export { callWorkflow } from './call';

export { callbackWorkflow } from './callback';
export { conversationWorkflow } from './conversation/workflow';
export { retentionWorkflow } from './retention';
export { settlementWorkflow } from './settlement';
