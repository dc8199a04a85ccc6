/**
 * Webhook events that could not be stored because the database is down. A workflow keeps them until it is back; then they are processed
 * like a new webhook.
 */
import { createHash } from 'node:crypto';
import { LATE_EVENTS_WORKFLOW, type LateEvents, lateEventsStart } from '../../workflows/contract';
import { signalDeadlineMs, type WorkflowSignaller } from './signaller';

/** Starts the workflow that keeps the events. @throws the client's error if Temporal does not accept it either */
export async function keepForLater(
  events: LateEvents,
  { signaller, taskQueue }: { signaller: WorkflowSignaller; taskQueue: string },
): Promise<void> {
  const key = createHash('sha256').update(JSON.stringify(events)).digest('hex').slice(0, 32);
  await signaller.startOnce(LATE_EVENTS_WORKFLOW, lateEventsStart(events, key, taskQueue), signalDeadlineMs());
}

/** The body of late events: as JSON where possible. */
export function lateBody(body: unknown): LateEvents['body'] {
  return Buffer.isBuffer(body) ? { base64: body.toString('base64') } : { json: body };
}
