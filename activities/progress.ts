import { Context } from '@temporalio/activity';

/** Sends a heartbeat. @throws if Temporal has cancelled the activity or given it to another worker */
export function reportProgress(details: unknown): void {
  const { cancellationSignal } = Context.current();
  Context.current().heartbeat(details);
  cancellationSignal.throwIfAborted();
}
