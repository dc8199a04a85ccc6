/**
 * Waiting for calls to be over: however many requests wait for one call, Temporal is asked once.
 * The answer itself is read from the record afterwards; this says only when it is worth reading.
 */
import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import type { Logger } from '../logger';

/** What is open at the moment, and how often Temporal was asked to wait since the process began. */
export interface WaiterCounts {
  waiters: number;
  waits: number;
  waitsBegun: number;
}

export interface CallWaiters {
  /** Resolves when the workflow is over, after `timeoutMs`, when `left` fires, or when the process stops. Never rejects. */
  wait(workflowId: string, timeoutMs: number, left: AbortSignal): Promise<void>;
  counts(): WaiterCounts;
  /** Sends everybody home who waits, and whoever comes later. */
  close(): void;
}

interface Wait {
  waiters: Set<() => void>;
  stop: AbortController;
}

/** Temporal was away, or the request was lost: asked again after this long, as long as somebody waits. */
const AGAIN_MS = 1_000;

/** One per process. */
export function createCallWaiters({ temporal, logger }: { temporal: Client; logger: Logger }): CallWaiters {
  const waits = new Map<string, Wait>();
  let begun = 0;
  let isClosed = false;

  function begin(workflowId: string): Wait {
    const wait: Wait = { waiters: new Set(), stop: new AbortController() };
    waits.set(workflowId, wait);
    void untilOver(workflowId, wait.stop.signal).then((isOver) => {
      if (waits.get(workflowId) === wait) waits.delete(workflowId);
      if (isOver) for (const wake of [...wait.waiters]) wake();
    });
    return wait;
  }

  /** False when nobody waits any more. A workflow that Temporal does not know is over as far as it can tell. */
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
        await pause(AGAIN_MS, stopped);
      }
    }
    return false;
  }

  return {
    wait(workflowId, timeoutMs, left) {
      if (isClosed || left.aborted) return Promise.resolve();
      const wait = waits.get(workflowId) ?? begin(workflowId);
      return new Promise((resolve) => {
        const leave = () => {
          clearTimeout(timer);
          left.removeEventListener('abort', leave);
          wait.waiters.delete(leave);
          if (wait.waiters.size === 0) {
            wait.stop.abort();
            if (waits.get(workflowId) === wait) waits.delete(workflowId);
          }
          resolve();
        };
        const timer = setTimeout(leave, timeoutMs);
        left.addEventListener('abort', leave, { once: true });
        wait.waiters.add(leave);
      });
    },

    counts: () => ({
      waiters: [...waits.values()].reduce((sum, wait) => sum + wait.waiters.size, 0),
      waits: waits.size,
      waitsBegun: begun,
    }),

    close() {
      isClosed = true;
      for (const wait of [...waits.values()]) for (const leave of [...wait.waiters]) leave();
    },
  };
}

/** Terminated, timed out or failed: over, without a result of its own. */
function isFailedWorkflow(error: unknown): boolean {
  return error instanceof Error && error.name === 'WorkflowFailedError';
}

async function pause(ms: number, stopped: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = () => {
      clearTimeout(timer);
      stopped.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    stopped.addEventListener('abort', end, { once: true });
  });
}
