/** Waits for changes of rows. A process reads the database once per interval, however many clients wait, and not at all if none does. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../platform/logger';
import type { CallWaiters } from './call-waiters';

export interface SharedPoll<State> {
  /**
   * Resolves once `subject` has a wanted state or is gone, after `timeoutMs`, when `left` aborts, or when the process stops. Never rejects:
   * read the state afterwards.
   */
  wait(subject: string, isWanted: (state: State) => boolean, timeoutMs: number, left: AbortSignal): Promise<void>;
}

interface Waiter<State> {
  subject: string;
  isWanted(state: State): boolean;
  reached: AbortController;
}

/** One per process and kind of row. `read` returns the states of all subjects with one query. */
export function createSharedPoll<State>({
  waiters,
  read,
  everyMs,
  logger,
}: {
  waiters: Pick<CallWaiters, 'rest'>;
  read(subjects: string[]): Promise<ReadonlyMap<string, State>>;
  everyMs: number;
  logger: Logger;
}): SharedPoll<State> {
  const waiting = new Set<Waiter<State>>();
  let isPolling = false;

  async function poll(): Promise<void> {
    isPolling = true;
    while (waiting.size > 0) {
      await delay(everyMs, undefined, { ref: false });
      // Requests that come during the read are served by the next one: this one may be too old for them.
      await lookFor([...waiting]);
    }
    isPolling = false;
  }

  async function lookFor(asking: Waiter<State>[]): Promise<void> {
    if (asking.length === 0) return;
    try {
      const states = await read([...new Set(asking.map(({ subject }) => subject))]);
      for (const { subject, isWanted, reached } of asking) {
        const state = states.get(subject);
        if (state === undefined || isWanted(state)) reached.abort();
      }
    } catch (error) {
      logger.warn({ error }, 'waiting for rows was interrupted; trying again');
    }
  }

  return {
    async wait(subject, isWanted, timeoutMs, left) {
      const waiter = { subject, isWanted, reached: new AbortController() };
      waiting.add(waiter);
      if (!isPolling) void poll();
      await waiters.rest(timeoutMs, AbortSignal.any([left, waiter.reached.signal]));
      waiting.delete(waiter);
    },
  };
}
