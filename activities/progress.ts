import { Context } from '@temporalio/activity';

/** Tells Temporal that the activity is alive. @throws once Temporal has cancelled it or given it to another worker */
export function reportProgress(details: unknown): void {
  const { cancellationSignal } = Context.current();
  Context.current().heartbeat(details);
  cancellationSignal.throwIfAborted();
}
