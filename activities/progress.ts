import { Context } from '@temporalio/activity';

/** Tells Temporal that the step lives, and ends it when Temporal has given it to another worker. */
export function progress(details: unknown): void {
  const { cancellationSignal } = Context.current();
  Context.current().heartbeat(details);
  cancellationSignal.throwIfAborted();
}
