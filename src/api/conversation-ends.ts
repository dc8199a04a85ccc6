/** Ends the running conversations of a number whose workspace was deleted. */
import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { CONVERSATION_WORKFLOW, searchAttributes } from '../../workflows/contract';
import type { Logger } from '../platform/logger';

/** Timeout of each request to Temporal. */
const TEMPORAL_TIMEOUT_MS = 5_000;

/**
 * Cancels them, so that each ends cleanly and without a reply. Those that are not found, or cannot be cancelled while Temporal is down, end
 * when their session times out. Never rejects.
 */
export function createConversationEnd({ temporal, taskQueue, logger }: { temporal: Client; taskQueue: string; logger: Logger }) {
  return async (phoneNumberId: string): Promise<void> => {
    const query = [
      `WorkflowType = '${CONVERSATION_WORKFLOW}'`,
      `ExecutionStatus = 'Running'`,
      `TaskQueue = '${taskQueue}'`,
      `${searchAttributes.workspace} = '${phoneNumberId}'`,
    ].join(' AND ');
    let ended = 0;
    try {
      for await (const { workflowId, runId } of temporal.workflow.list({ query })) {
        await temporal.connection.withDeadline(Date.now() + TEMPORAL_TIMEOUT_MS, () =>
          temporal.workflow
            .getHandle(workflowId, runId)
            .cancel()
            .catch((error: unknown) => {
              if (!(error instanceof WorkflowNotFoundError)) throw error;
            }),
        );
        ended += 1;
      }
      logger.info({ phoneNumberId, ended }, 'running conversations of a deleted workspace are ending');
    } catch (error) {
      logger.warn({ error, phoneNumberId, ended }, 'conversations of a deleted workspace could not be ended; they end when they are idle');
    }
  };
}
