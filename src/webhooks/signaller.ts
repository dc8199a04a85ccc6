/**
 * Signals the workflow that a webhook is about, and starts it when it does not run. Most webhooks are about a workflow that was
 * signalled a moment ago, and still runs: it gets a plain signal, which costs Temporal and the waiting sender less than a signal
 * with all that a start needs (docs/decisions/0005).
 */
import { type Client, WorkflowNotFoundError, type WorkflowStartOptions } from '@temporalio/client';
import type { SignalDefinition } from '@temporalio/common';

/** Timeout of all signals of a webhook together; its sender waits 10 s at most. */
export const SIGNAL_TIMEOUT_MS = 1_500;

/** The default session timeout: a conversation that was silent for longer has probably ended, and asking it first costs a request. */
const GUESS_FOR_MS = 30 * 60_000;
/** Workflows that a process keeps in mind; their ids take a megabyte. */
const MOST_REMEMBERED = 10_000;

/** When the signals of a webhook that comes now must be stored, in milliseconds since 1970. */
export function signalDeadlineMs(): number {
  return Date.now() + SIGNAL_TIMEOUT_MS;
}

export interface SignalOrder<Fact> {
  workflowType: string;
  /** How it is started when it does not run. */
  start: WorkflowStartOptions;
  signal: SignalDefinition<[Fact]>;
  fact: Fact;
}

export interface WorkflowSignaller {
  /** Resolves when Temporal has stored the signal. Rejects with what the client throws, soon after the deadline at the latest. */
  tell<Fact>(order: SignalOrder<Fact>, deadlineMs: number): Promise<void>;
}

/** Bounds of what is kept in mind. Every field has a default. */
export interface SignallerMemory {
  mostRemembered?: number;
  guessForMs?: number;
}

/** One per process. What it keeps in mind is a guess: Temporal knows which workflows run, and a wrong guess costs a request. */
export function createWorkflowSignaller(
  temporal: Client,
  { mostRemembered = MOST_REMEMBERED, guessForMs = GUESS_FOR_MS }: SignallerMemory = {},
): WorkflowSignaller {
  /** When each was signalled last, the one that was silent for longest first: a map keeps its order. */
  const toldAtMs = new Map<string, number>();

  function probablyRuns(workflowId: string): boolean {
    return Date.now() - (toldAtMs.get(workflowId) ?? Number.NEGATIVE_INFINITY) < guessForMs;
  }

  function remember(workflowId: string): void {
    toldAtMs.delete(workflowId);
    toldAtMs.set(workflowId, Date.now());
    for (const oldest of toldAtMs.keys()) {
      if (toldAtMs.size <= mostRemembered) return;
      toldAtMs.delete(oldest);
    }
  }

  /** False when it does not run any more. Any other error says nothing about that, and the signal may have been stored. */
  async function signalRunning<Fact>({ start: { workflowId }, signal, fact }: SignalOrder<Fact>): Promise<boolean> {
    try {
      await temporal.workflow.getHandle(workflowId).signal<[Fact]>(signal, fact);
      return true;
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error;
      toldAtMs.delete(workflowId);
      return false;
    }
  }

  async function tell<Fact>(order: SignalOrder<Fact>): Promise<void> {
    const { workflowType, start, signal, fact } = order;
    if (!probablyRuns(start.workflowId) || !(await signalRunning(order)))
      await temporal.workflow.signalWithStart(workflowType, { ...start, signal, signalArgs: [fact] });
    remember(start.workflowId);
  }

  return { tell: (order, deadlineMs) => temporal.connection.withDeadline(deadlineMs, () => tell(order)) };
}
