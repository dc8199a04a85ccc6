/** What the worker bundles. */
export { callWorkflow } from './call';
export { conversationWorkflow } from './conversation';
