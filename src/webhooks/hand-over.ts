/**
 * Hands verified events over to what keeps them: messages to Temporal, statuses to the record.
 * Returns only when both are stored; the webhook's 200 depends on it. No model and no vendor call in this path.
 * A spool for the time when Temporal is away belongs into `signalConversations`, in front of `NotStoredError`.
 */
import {
  CONVERSATION_WORKFLOW,
  conversationStart,
  conversationWorkflowId,
  type InboundMessage,
  type MessagesReceived,
  messagesReceived,
  UNASSIGNED_NUMBER,
} from '../../workflows/contract';
import type { Database } from '../platform/database';
import type { Logger } from '../platform/logger';
import type { MessageEvent, StatusEvent } from '../providers/kapso/events';
import type { Identity } from '../record/identity';
import type { WorkflowSignaller } from './signaller';
import type { StatusKeeper } from './statuses';

/** The engine or the record did not take an event: the sender must come again. */
export class NotStoredError extends Error {
  override name = 'NotStoredError';
}

export interface HandOverDependencies {
  signaller: WorkflowSignaller;
  taskQueue: string;
  db: Database;
  identity: Identity;
  logger: Logger;
  statuses: StatusKeeper;
  /** Where a message goes whose body names no number. */
  defaultPhoneNumberId: string | undefined;
}

/** Signals of one delivery under way at once. */
const SIGNALS_AT_ONCE = 20;
/** A signal's arguments stay far below Temporal's limit of 2 MB. */
const MAX_SIGNAL_JSON = 500_000;

interface Delivery {
  phoneNumberId: string;
  contactKey: string;
  received: MessagesReceived;
  jsonLength: number;
}

/** Which messages went to which workflow; for the log. */
export interface HandedOver {
  workflowId: string;
  messageIds: string[];
}

/** Stores the events of one webhook. @throws NotStoredError when any of them is not stored */
export async function handOver(
  events: { messages: MessageEvent[]; statuses: StatusEvent[] },
  dependencies: HandOverDependencies,
): Promise<HandedOver[]> {
  const conversations = groupByConversation(events.messages, dependencies);
  await signalConversations(conversations, dependencies);
  if (events.statuses.length > 0) await keepStatuses(events.statuses, dependencies);
  return conversations.flat().map(handedOver);
}

function handedOver({ phoneNumberId, contactKey, received }: Delivery): HandedOver {
  return { workflowId: conversationWorkflowId(phoneNumberId, contactKey), messageIds: received.messages.map((message) => message.id) };
}

/** One delivery per conversation, however many messages it carries; several, in order, only where a signal would grow too large. */
function groupByConversation(messages: MessageEvent[], { identity, defaultPhoneNumberId }: HandOverDependencies): Delivery[][] {
  const conversations = new Map<string, Delivery[]>();
  for (const { phoneNumberId = defaultPhoneNumberId ?? UNASSIGNED_NUMBER, contact, message } of messages) {
    const contactKey = identity.contactKey(phoneNumberId, contact);
    const deliveries = conversations.get(contactKey) ?? [];
    conversations.set(contactKey, deliveries);
    const inbound: InboundMessage = { id: identity.messageId(phoneNumberId, message.providerMessageId), ...message };
    const jsonLength = JSON.stringify(inbound).length;
    const last = deliveries.at(-1);
    if (last && last.jsonLength + jsonLength <= MAX_SIGNAL_JSON) {
      last.received.messages.push(inbound);
      last.jsonLength += jsonLength;
    } else {
      deliveries.push({ phoneNumberId, contactKey, received: { contact, messages: [inbound] }, jsonLength });
    }
  }
  return [...conversations.values()];
}

async function signalConversations(conversations: Delivery[][], dependencies: HandOverDependencies): Promise<void> {
  for (let start = 0; start < conversations.length; start += SIGNALS_AT_ONCE) {
    await Promise.all(
      conversations.slice(start, start + SIGNALS_AT_ONCE).map(async (deliveries) => {
        for (const delivery of deliveries) await signalConversation(delivery, dependencies);
      }),
    );
  }
}

async function signalConversation(delivery: Delivery, { signaller, taskQueue, logger }: HandOverDependencies): Promise<void> {
  const { phoneNumberId, contactKey, received } = delivery;
  try {
    const start = conversationStart({ phoneNumberId, contactKey, taskQueue });
    await signaller.tell({ workflowType: CONVERSATION_WORKFLOW, start, signal: messagesReceived, fact: received });
  } catch (error) {
    logger.error({ error, ...handedOver(delivery) }, 'Temporal did not take the messages');
    throw new NotStoredError('Temporal did not take the messages');
  }
}

async function keepStatuses(events: StatusEvent[], { statuses, logger }: HandOverDependencies): Promise<void> {
  try {
    await statuses.keep(events);
  } catch (error) {
    logger.error({ error, statuses: events.length }, 'the record did not take the statuses');
    throw new NotStoredError('the record did not take the statuses');
  }
}
