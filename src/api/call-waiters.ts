/**
 * Waits for calls to end, with one request to Temporal per call, however many clients wait for it. The result is read from the database
 * afterwards; this only tells when.
 */
import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import type { Logger } from '../platform/logger';

/** Open waiters and Temporal requests, and all Temporal requests since the process started. */
export interface WaiterCounts {
  waiters: number;
  waits: number;
  waitsBegun: number;
}

export interface CallWaiters {
  /** Resolves to true once the workflow has ended; to false after `timeoutMs`, when `left` aborts, or when the process stops. Never rejects. */
  wait(workflowId: string, timeoutMs: number, left: AbortSignal): Promise<boolean>;
  /** Only waits. Resolves to true after `timeoutMs`; to false when `left` aborts or when the process stops. */
  rest(timeoutMs: number, left: AbortSignal): Promise<boolean>;
  counts(): WaiterCounts;
  /** Ends all waits, and any that begin later. */
  close(): void;
}

type Leave = (isOver: boolean) => void;

interface Wait {
  waiters: Set<Leave>;
  stop: AbortController;
}

/** Pause before retrying when Temporal was unavailable, as long as somebody is waiting. */
const AGAIN_MS = 1_000;

/** One per process. */
export function createCallWaiters({ temporal, logger }: { temporal: Client; logger: Logger }): CallWaiters {
  const waits = new Map<string, Wait>();
  const resting = new Set<Leave>();
  let begun = 0;
  let isClosed = false;

  function begin(workflowId: string): Wait {
    const wait: Wait = { waiters: new Set(), stop: new AbortController() };
    waits.set(workflowId, wait);
    void untilOver(workflowId, wait.stop.signal).then((isOver) => {
      if (waits.get(workflowId) === wait) waits.delete(workflowId);
      if (isOver) for (const leave of [...wait.waiters]) leave(true);
    });
    return wait;
  }

  /** False if nobody is waiting any more. A workflow that Temporal does not know counts as ended. */
  async function untilOver(workflowId: string, stopped: AbortSignal): Promise<boolean> {
    while (!stopped.aborted) {
      begun += 1;
      try {
        await temporal.connection.withAbortSignal(stopped, () => temporal.workflow.getHandle(workflowId).result());
        return true;
      } catch (error) {
        if (stopped.aborted) return false;
        if (error instanceof WorkflowNotFoundError || isFailedWorkflow(error)) return true;
        logger.warn({ error, workflowId }, 'waiting for a call was interrupted; trying again');
        await stay(new Set(), AGAIN_MS, stopped);
      }
    }
    return false;
  }

  return {
    async wait(workflowId, timeoutMs, left) {
      if (isClosed || left.aborted) return false;
      const wait = waits.get(workflowId) ?? begin(workflowId);
      const isOver = await stay(wait.waiters, timeoutMs, left);
      if (wait.waiters.size === 0) {
        wait.stop.abort();
        if (waits.get(workflowId) === wait) waits.delete(workflowId);
      }
      return isOver;
    },

    async rest(timeoutMs, left) {
      if (!isClosed && !left.aborted) await stay(resting, timeoutMs, left);
      return !isClosed && !left.aborted;
    },

    counts: () => ({
      waiters: [...waits.values()].reduce((sum, wait) => sum + wait.waiters.size, resting.size),
      waits: waits.size,
      waitsBegun: begun,
    }),

    close() {
      isClosed = true;
      for (const leave of [...waits.values()].flatMap(({ waiters }) => [...waiters]).concat(...resting)) leave(false);
    },
  };
}

/** Stays in `members` until told to leave, until the timeout, or until `left` aborts. */
function stay(members: Set<Leave>, timeoutMs: number, left: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const leave: Leave = (isOver) => {
      clearTimeout(timer);
      left.removeEventListener('abort', giveUp);
      members.delete(leave);
      resolve(isOver);
    };
    const giveUp = () => leave(false);
    const timer = setTimeout(giveUp, timeoutMs);
    left.addEventListener('abort', giveUp, { once: true });
    members.add(leave);
  });
}

/** Whether the workflow was terminated, timed out or failed: it has ended without a result. */
function isFailedWorkflow(error: unknown): boolean {
  return error instanceof Error && error.name === 'WorkflowFailedError';
}
