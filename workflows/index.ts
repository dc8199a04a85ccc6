/** The workflows in the worker's bundle. */
export { callbackWorkflow } from './call/callback';
export { callWorkflow } from './call/workflow';
export { conversationWorkflow } from './conversation/workflow';
export { syncWorkflow } from './history';
export { lateEventsWorkflow } from './late-events';
export { repairWorkflow } from './repair';
export { retentionWorkflow } from './retention';
export { settlementWorkflow } from './settlement';
