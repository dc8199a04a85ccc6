/** Webhook events that the database could not store: Temporal stores them until it can. */
import { WORKFLOW_TASK_TIMEOUT_MS } from './search-attributes';

/** The verified body of a webhook, or a part of it that reads as one. */
export interface LateEvents {
  source: 'kapso' | 'vapi';
  /** A JSON value, or the bytes of a body that is not JSON, in base64. */
  body: { json: unknown } | { base64: string };
  /** The sender's name for the event, if the body does not contain it. */
  event?: string;
  /** Whose secret proved it, if it is not the installation's. */
  workspaceId?: string;
}

export const LATE_EVENTS_WORKFLOW = 'lateEventsWorkflow';

/** Start options; `key` is the same for the same events, so that a repeated webhook starts nothing more. */
export function lateEventsStart(events: LateEvents, key: string, taskQueue: string) {
  return {
    workflowId: `late-events-${key}`,
    taskQueue,
    args: [events] as [LateEvents],
    workflowTaskTimeout: WORKFLOW_TASK_TIMEOUT_MS,
    workflowIdConflictPolicy: 'USE_EXISTING' as const,
    staticSummary: `events of ${events.source} that wait for the database`,
  };
}
