/**
 * Waits until all calls with one reference are done. Per reference, a process reads the database at most once per `READ_EVERY_MS` and waits
 * at Temporal for one call at a time, however many clients wait and however many calls there are.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { type CallProgress, type CallReference, findCallProgress } from '../record/calls';
import type { CallWaiters } from './call-waiters';

export interface ProgressWaiters {
  /**
   * The progress once there are calls and all are done, or once `timeoutMs` is over, `left` aborts or the process stops. So it waits
   * even if there are no calls yet, because they may be about to be placed.
   * @throws ApiError 503 if the database is down
   */
  wait(reference: CallReference, timeoutMs: number, left: AbortSignal): Promise<CallProgress>;
}

/** Minimum time between two reads of one reference, in milliseconds, and so the maximum delay of a result. */
const READ_EVERY_MS = 250;
/** Interval of checks for calls whose workflow ended without a result, or that are not placed yet, in milliseconds. */
const LOOK_AGAIN_MS = 2_000;
/** How many calls to wait for at Temporal: the newest, which probably end last. If none of their workflows runs, the database is polled. */
const MAX_AWAITED = 20;

/** Whether the reference has calls, and all of them are done. */
export function isDone({ pending, counts }: CallProgress): boolean {
  return pending === 0 && Object.values(counts).some((count) => count > 0);
}

/** One per process. */
export function createProgressWaiters({ db, waiters }: { db: Database; waiters: CallWaiters }): ProgressWaiters {
  const read = sharedReads((reference: CallReference) => fromRecord(findCallProgress(db, reference, { awaited: MAX_AWAITED })));

  return {
    async wait(reference, timeoutMs, left) {
      const untilMs = Date.now() + timeoutMs;
      // Workflows that ended while their calls stayed pending: they were stopped from outside, or were not started yet.
      const passed = new Set<string>();
      for (;;) {
        const progress = await read(reference);
        const restMs = untilMs - Date.now();
        if (isDone(progress) || restMs <= 0 || left.aborted) return progress;
        const workflowId = progress.awaited.find((each) => !passed.has(each));
        if (workflowId !== undefined) passed.add(workflowId);
        else passed.clear();
        const goesOn =
          workflowId === undefined
            ? await waiters.rest(Math.min(restMs, LOOK_AGAIN_MS), left)
            : await waiters.wait(workflowId, restMs, left);
        if (!goesOn) return await read(reference);
      }
    },
  };
}

/** Callers with one subject share a read that has not begun, but never one that has, because its result could be too old for them. */
function sharedReads<S, T>(readNow: (subject: S) => Promise<T>): (subject: S) => Promise<T> {
  const queued = new Map<string, Promise<T>>();
  const paused = new Map<string, Promise<void>>();
  return (subject) => {
    const key = JSON.stringify(subject);
    const known = queued.get(key);
    if (known) return known;
    const reading = (paused.get(key) ?? Promise.resolve()).then(() => {
      queued.delete(key);
      const pause = delay(READ_EVERY_MS, undefined, { ref: false }).then(() => {
        if (paused.get(key) === pause) paused.delete(key);
      });
      paused.set(key, pause);
      return readNow(subject);
    });
    queued.set(key, reading);
    return reading;
  };
}
