/** Signals conversations, and starts the workflow if it is not running. */
import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import type { SignalDefinition } from '@temporalio/common';
import {
  CONVERSATION_WORKFLOW,
  conversationStart,
  lookAgain,
  readConversationWorkflowId,
  type SendRequested,
  sendRequested,
} from '../../workflows/contract';

const SIGNAL_TIMEOUT_MS = 5_000;

/** Makes a conversation send a message that a person wrote. Rejects if Temporal does not accept the signal in time. */
export async function requestSend(temporal: Client, taskQueue: string, workflowId: string, request: SendRequested): Promise<void> {
  await signal(temporal, { taskQueue, workflowId }, sendRequested, request);
}

/** Makes a conversation read its mode. Rejects as above. */
export async function requestLook(temporal: Client, taskQueue: string, workflowId: string, conversationId: string): Promise<void> {
  await signal(temporal, { taskQueue, workflowId }, lookAgain, { conversationId });
}

/** The same, but only if the workflow is running; otherwise nothing has to be done. */
export async function requestLookIfRunning(temporal: Client, workflowId: string, conversationId: string): Promise<void> {
  try {
    await temporal.connection.withDeadline(Date.now() + SIGNAL_TIMEOUT_MS, () =>
      temporal.workflow.getHandle(workflowId).signal(lookAgain, { conversationId }),
    );
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw error;
  }
}

async function signal<Fact>(
  temporal: Client,
  { taskQueue, workflowId }: { taskQueue: string; workflowId: string },
  definition: SignalDefinition<[Fact]>,
  fact: Fact,
): Promise<void> {
  const start = conversationStart({ ...readConversationWorkflowId(workflowId), taskQueue });
  await temporal.connection.withDeadline(Date.now() + SIGNAL_TIMEOUT_MS, () =>
    temporal.workflow.signalWithStart(CONVERSATION_WORKFLOW, { ...start, signal: definition, signalArgs: [fact] }),
  );
}
