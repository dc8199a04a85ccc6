/** What the worker bundles. */
export { conversationWorkflow } from './conversation';
