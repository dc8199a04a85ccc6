/** Hands messages to the workflow that owns the person's conversation. */
import { getClient } from '@temporalio/activity';
import { CONVERSATION_WORKFLOW, conversationStart, type MessagesReceived, messagesReceived } from '../workflows/contract';

export interface HandOverOrder {
  /** The owner, as it is started. */
  phoneNumberId: string;
  contactKey: string;
  deliveries: MessagesReceived[];
}

export interface HandOverActivities {
  /** Signals the owner, starting it if needed. Safe to repeat: the owner drops duplicates. Fails if Temporal is unreachable. */
  handOverMessages(order: HandOverOrder): Promise<void>;
}

/** The hand-over activity of the workers of one task queue. */
export function createHandOverActivities({ taskQueue }: { taskQueue: string }): HandOverActivities {
  return {
    async handOverMessages({ deliveries, ...owner }) {
      const start = conversationStart({ ...owner, taskQueue });
      for (const delivery of deliveries)
        await getClient().workflow.signalWithStart(CONVERSATION_WORKFLOW, { ...start, signal: messagesReceived, signalArgs: [delivery] });
    },
  };
}
