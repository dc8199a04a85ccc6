/** What the worker bundles. */

export { callbackWorkflow } from './callback';
export { conversationWorkflow } from './conversation';
export { retentionWorkflow } from './retention';
