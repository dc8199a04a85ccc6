/** Signals to conversations whose workflow may not be running: it is started then. */
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

/** Makes a conversation send a message that a person wrote. Rejects if Temporal does not take the signal in time. */
export async function requestSend(temporal: Client, taskQueue: string, workflowId: string, request: SendRequested): Promise<void> {
  await signal(temporal, { taskQueue, workflowId }, sendRequested, request);
}

/** Makes a conversation see who answers. Rejects as above. */
export async function requestLook(temporal: Client, taskQueue: string, workflowId: string, conversationId: string): Promise<void> {
  await signal(temporal, { taskQueue, workflowId }, lookAgain, { conversationId });
}

/** The same, if the conversation's workflow is running: nothing has to be done without one. */
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
