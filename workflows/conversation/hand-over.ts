/** Messages that belong to another workflow: it owns the conversation of the person who wrote them. */
import type { Elsewhere } from '../../activities';
import type { MessagesReceived } from '../contract';
import { owners } from '../proxies';
import type { Inbox } from './inbox';

/** Hands on what the database has placed elsewhere; resolves when Temporal has stored it for the owner. */
export async function handOver(deliveries: MessagesReceived[], elsewhere: Elsewhere[], inbox: Inbox): Promise<void> {
  for (const { messageIds, phoneNumberId, contactKey, workflowId } of elsewhere) {
    // They may come back, if the owner's conversation is merged into this one meanwhile.
    inbox.forget(deliveries, messageIds);
    const order = { phoneNumberId, contactKey, deliveries: pick(deliveries, new Set(messageIds)) };
    await owners.handOverMessages.executeWithOptions({ summary: `hand messages to ${workflowId}` }, [order]);
  }
}

function pick(deliveries: MessagesReceived[], messageIds: ReadonlySet<string>): MessagesReceived[] {
  return deliveries
    .map(({ contact, messages }) => ({
      contact,
      messages: messages.filter(({ id }) => messageIds.has(id)),
    }))
    .filter(({ messages }) => messages.length > 0);
}

export function countElsewhere(elsewhere: Elsewhere[] = []): number {
  return elsewhere.reduce((sum, { messageIds }) => sum + messageIds.length, 0);
}
