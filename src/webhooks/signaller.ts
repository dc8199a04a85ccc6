/**
 * Signals the workflow that a webhook concerns, and starts it if it is not running. Most webhooks concern a workflow that was signalled
 * recently and is still running: it gets a plain signal, which is cheaper and faster than a signal with everything that a start needs
 * (docs/decisions/0005).
 */
import { type Client, WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError, type WorkflowStartOptions } from '@temporalio/client';
import type { SignalDefinition } from '@temporalio/common';

/** Timeout for all signals of a webhook together. It leaves time to store them elsewhere, so that a webhook takes about 1.5 s at most. */
export const SIGNAL_TIMEOUT_MS = 1_200;

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

/** A request to Temporal as plain JSON, so that it can be stored. */
export type TemporalRequest =
  | { kind: 'signal_with_start'; workflowType: string; start: WorkflowStartOptions; signal: string; fact: unknown }
  /** Only if the workflow is running. */
  | { kind: 'signal'; workflowId: string; signal: string; fact: unknown }
  | { kind: 'start'; workflowType: string; start: WorkflowStartOptions };

/** The workflow that a request concerns. */
export function workflowIdOf(request: TemporalRequest): string {
  return request.kind === 'signal' ? request.workflowId : request.start.workflowId;
}

/** Resolves once the request is stored. Rejects with the client's error, shortly after the deadline at the latest. */
export type SendToTemporal = (request: TemporalRequest, deadlineMs: number) => Promise<void>;

export interface WorkflowSignaller {
  /** Resolves once the signal is stored. Rejects with the client's error, shortly after the deadline at the latest. */
  tell<Fact>(order: SignalOrder<Fact>, deadlineMs: number): Promise<void>;
  /** Signals a workflow that nobody needs to start. Rejects as `tell` does, and with a WorkflowNotFoundError if it is not running. */
  tellRunning<Fact>(workflowId: string, signal: SignalDefinition<[Fact]>, fact: Fact, deadlineMs: number): Promise<void>;
  /** Starts a workflow unless its id was used before. Rejects as `tell` does. */
  startOnce(workflowType: string, start: WorkflowStartOptions, deadlineMs: number): Promise<void>;
  /** Sends a request that was stored. Rejects as `tell` does. */
  send: SendToTemporal;
}

/** Limits of the memory. Every field has a default. */
export interface SignallerMemory {
  mostRemembered?: number;
  guessForMs?: number;
}

/** A signaller whose requests go directly to Temporal. */
export function createWorkflowSignaller(temporal: Client, memory: SignallerMemory = {}): WorkflowSignaller {
  return signallerOver(createTemporalSender(temporal, memory));
}

/** A signaller whose requests go through `send`. */
export function signallerOver(send: SendToTemporal): WorkflowSignaller {
  return {
    send,
    tell: ({ signal, ...order }, deadlineMs) => send({ kind: 'signal_with_start', ...order, signal: signal.name }, deadlineMs),
    tellRunning: (workflowId, signal, fact, deadlineMs) => send({ kind: 'signal', workflowId, signal: signal.name, fact }, deadlineMs),
    async startOnce(workflowType, start, deadlineMs) {
      try {
        await send({ kind: 'start', workflowType, start }, deadlineMs);
      } catch (error) {
        if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
      }
    },
  };
}

/** One per process. It guesses which workflows are running; a wrong guess only costs a request, because Temporal corrects it. */
export function createTemporalSender(
  temporal: Client,
  { mostRemembered = MOST_REMEMBERED, guessForMs = GUESS_FOR_MS }: SignallerMemory = {},
): SendToTemporal {
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
  async function signalRunning(workflowId: string, signal: string, fact: unknown): Promise<boolean> {
    try {
      await temporal.workflow.getHandle(workflowId).signal<[unknown]>(signal, fact);
      return true;
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error;
      toldAtMs.delete(workflowId);
      return false;
    }
  }

  async function tell(request: Extract<TemporalRequest, { kind: 'signal_with_start' }>): Promise<void> {
    const { workflowType, start, signal, fact } = request;
    if (!probablyRuns(start.workflowId) || !(await signalRunning(start.workflowId, signal, fact)))
      await temporal.workflow.signalWithStart(workflowType, { ...start, signal, signalArgs: [fact] });
    remember(start.workflowId);
  }

  async function send(request: TemporalRequest): Promise<void> {
    switch (request.kind) {
      case 'signal_with_start':
        return await tell(request);
      case 'signal':
        return await temporal.workflow.getHandle(request.workflowId).signal<[unknown]>(request.signal, request.fact);
      case 'start':
        await temporal.workflow.start(request.workflowType, request.start);
    }
  }

  return (request, deadlineMs) => temporal.connection.withDeadline(deadlineMs, () => send(request));
}
