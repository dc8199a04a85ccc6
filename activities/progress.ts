import { Context } from '@temporalio/activity';

/** Sends a heartbeat. @throws if Temporal has cancelled the activity or given it to another worker */
export function reportProgress(details: unknown): void {
  const { cancellationSignal } = Context.current();
  Context.current().heartbeat(details);
  cancellationSignal.throwIfAborted();
}

const BEAT_MS = 5_000;

/** Sends heartbeats while `work` runs, so that a dead worker is noticed long before the timeout. @throws what `work` throws */
export async function whileBeating<T>(work: () => Promise<T>): Promise<T> {
  const context = Context.current();
  context.heartbeat();
  const beats = setInterval(() => context.heartbeat(), BEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(beats);
  }
}
