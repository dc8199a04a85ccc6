/**
 * Brings what a webhook tells to the workflow that it is about, and starts that one when it does not run. Most of them
 * were told something before and run: those get a plain signal, which costs Temporal and the waiting sender less than
 * one that brings all along for a start (docs/decisions/0005).
 */
import { type Client, WorkflowNotFoundError, type WorkflowStartOptions } from '@temporalio/client';
import type { SignalDefinition } from '@temporalio/common';

/** Temporal refuses or is slow after this long; the sender waits 10 s at most. */
export const SIGNAL_TIMEOUT_MS = 1_500;

/** How many workflows a process keeps in mind; their ids take a megabyte. */
const MOST_REMEMBERED = 10_000;

export interface Telling<Fact> {
  workflowType: string;
  /** How it is started when it does not run. */
  start: WorkflowStartOptions;
  signal: SignalDefinition<[Fact]>;
  fact: Fact;
}

export interface WorkflowSignaller {
  /** Resolves when Temporal has stored the signal. Rejects after 1.5 s, and with what the client throws. */
  tell<Fact>(telling: Telling<Fact>): Promise<void>;
}

/** One per process. What it keeps in mind is a guess: Temporal says which workflows run, and a wrong guess costs a request. */
export function createWorkflowSignaller(temporal: Client, mostRemembered = MOST_REMEMBERED): WorkflowSignaller {
  const toldBefore = new Set<string>();

  function remember(workflowId: string): void {
    // A set keeps its order, so the first one is the one that was told nothing for the longest time.
    toldBefore.delete(workflowId);
    toldBefore.add(workflowId);
    for (const oldest of toldBefore) {
      if (toldBefore.size <= mostRemembered) return;
      toldBefore.delete(oldest);
    }
  }

  /** False when it does not run any more. */
  async function tellRunning<Fact>({ start: { workflowId }, signal, fact }: Telling<Fact>): Promise<boolean> {
    try {
      await temporal.workflow.getHandle(workflowId).signal<[Fact]>(signal, fact);
      return true;
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error;
      toldBefore.delete(workflowId);
      return false;
    }
  }

  async function tell<Fact>(telling: Telling<Fact>): Promise<void> {
    const { workflowType, start, signal, fact } = telling;
    if (!toldBefore.has(start.workflowId) || !(await tellRunning(telling)))
      await temporal.workflow.signalWithStart(workflowType, { ...start, signal, signalArgs: [fact] });
    remember(start.workflowId);
  }

  return { tell: (telling) => temporal.connection.withDeadline(Date.now() + SIGNAL_TIMEOUT_MS, () => tell(telling)) };
}
