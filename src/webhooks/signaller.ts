/**
 * Signals the workflow that a webhook concerns, and starts it if it is not running. Most webhooks concern a workflow that was signalled
 * recently and is still running: it gets a plain signal, which is cheaper and faster than a signal with everything that a start needs
 * (docs/decisions/0005).
 */
import { type Client, WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError, type WorkflowStartOptions } from '@temporalio/client';
import type { SignalDefinition } from '@temporalio/common';

/** Timeout for all signals of a webhook together; its sender waits at most 10 s. */
export const SIGNAL_TIMEOUT_MS = 1_500;

/** The default session timeout: a conversation idle for longer has probably ended, and trying a plain signal first costs a request. */
const GUESS_FOR_MS = 30 * 60_000;
/** Maximum number of remembered workflows; their ids take a megabyte. */
const MOST_REMEMBERED = 10_000;

/** The deadline for the signals of a webhook that arrives now, in milliseconds since 1970. */
export function signalDeadlineMs(): number {
  return Date.now() + SIGNAL_TIMEOUT_MS;
}

export interface SignalOrder<Fact> {
  workflowType: string;
  /** How to start it if it is not running. */
  start: WorkflowStartOptions;
  signal: SignalDefinition<[Fact]>;
  fact: Fact;
}

export interface WorkflowSignaller {
  /** Resolves once Temporal has stored the signal. Rejects with the client's error, shortly after the deadline at the latest. */
  tell<Fact>(order: SignalOrder<Fact>, deadlineMs: number): Promise<void>;
  /** Starts a workflow unless its id was used before. Rejects as `tell` does. */
  startOnce(workflowType: string, start: WorkflowStartOptions, deadlineMs: number): Promise<void>;
}

/** Limits of the memory. Every field has a default. */
export interface SignallerMemory {
  mostRemembered?: number;
  guessForMs?: number;
}

/** One per process. It guesses which workflows are running; a wrong guess only costs a request, because Temporal corrects it. */
export function createWorkflowSignaller(
  temporal: Client,
  { mostRemembered = MOST_REMEMBERED, guessForMs = GUESS_FOR_MS }: SignallerMemory = {},
): WorkflowSignaller {
  /** When each workflow was last signalled, the oldest first (a map keeps insertion order). */
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

  /** Returns false if the workflow is no longer running. Throws any other error: the signal may have been stored. */
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

  async function startOnce(workflowType: string, start: WorkflowStartOptions): Promise<void> {
    try {
      await temporal.workflow.start(workflowType, start);
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    }
  }

  return {
    tell: (order, deadlineMs) => temporal.connection.withDeadline(deadlineMs, () => tell(order)),
    startOnce: (type, start, deadlineMs) => temporal.connection.withDeadline(deadlineMs, () => startOnce(type, start)),
  };
}
