/**
 * Hands verified events over to what keeps them: messages to Temporal, statuses to the record.
 * Returns only when both are stored; the webhook's 200 depends on it. No model and no vendor call in this path.
 * A spool for the time when Temporal is away belongs into `signalConversations`, in front of `NotStoredError`.
 */
import type { Client } from '@temporalio/client';
import { joinEarlyReports, keepReports, type ReportedStatus, raiseReply } from '../../activities/outbox';
import {
  CONVERSATION_WORKFLOW,
  conversationStart,
  conversationWorkflowId,
  type InboundMessage,
  type MessagesReceived,
  messagesReceived,
  sendReported,
  UNASSIGNED_NUMBER,
} from '../../workflows/contract';
import type { Database } from '../database';
import type { Identity } from '../identity';
import type { Logger } from '../logger';
import type { MessageEvent, StatusEvent } from './kapso-events';

/** The engine or the record did not take an event: the sender must come again. */
export class NotStoredError extends Error {
  override name = 'NotStoredError';
}

export interface HandOverDependencies {
  temporal: Client;
  taskQueue: string;
  db: Database;
  identity: Identity;
  logger: Logger;
  /** Where a message goes whose body names no number. */
  defaultPhoneNumberId: string | undefined;
}

/** Temporal refuses or is slow after this long; the sender waits 10 s at most. */
export const SIGNAL_TIMEOUT_MS = 1_500;
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
  if (events.statuses.length > 0) await recordStatuses(events.statuses, dependencies);
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

async function signalConversation(delivery: Delivery, { temporal, taskQueue, logger }: HandOverDependencies): Promise<void> {
  const { phoneNumberId, contactKey, received } = delivery;
  try {
    await temporal.connection.withDeadline(Date.now() + SIGNAL_TIMEOUT_MS, () =>
      temporal.workflow.signalWithStart(CONVERSATION_WORKFLOW, {
        ...conversationStart({ phoneNumberId, contactKey, taskQueue }),
        signal: messagesReceived,
        signalArgs: [received],
      }),
    );
  } catch (error) {
    logger.error({ error, ...handedOver(delivery) }, 'Temporal did not take the messages');
    throw new NotStoredError('Temporal did not take the messages');
  }
}

const HEIGHT: Record<ReportedStatus, number> = { sent: 1, delivered: 2, read: 3, failed: 4 };

/** Facts about rows, not decisions: written at once, and told to a workflow only when one waits for it. */
async function recordStatuses(statuses: StatusEvent[], dependencies: HandOverDependencies): Promise<void> {
  const { db, logger } = dependencies;
  try {
    const done = await keepReports(db, statuses);
    logger.debug(
      { statuses: statuses.map(({ correlationId, status }) => ({ messageId: ownId(correlationId), status })) },
      'reply statuses kept',
    );
    const highest = new Map<string, StatusEvent>();
    for (const event of statuses.filter(({ providerMessageId }) => !done.has(providerMessageId))) {
      const known = highest.get(event.providerMessageId);
      if (!known || HEIGHT[event.status] > HEIGHT[known.status]) {
        highest.set(event.providerMessageId, { ...(known?.correlationId ? { correlationId: known.correlationId } : {}), ...event });
      }
    }
    for (const event of highest.values()) await applyStatus(event, dependencies);
  } catch (error) {
    logger.error({ error, statuses: statuses.length }, 'the record did not take the statuses');
    throw new NotStoredError('the record did not take the statuses');
  }
}

/** Our id, when what came back is one: anything else may say anything. */
function ownId(correlationId: string | undefined): string | undefined {
  return correlationId && UUID.test(correlationId) ? correlationId : undefined;
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

/** Must run after the event is written: see joinEarlyReports for why no order of the two can lose a status. */
async function applyStatus(event: StatusEvent, { db, temporal, logger }: HandOverDependencies): Promise<void> {
  const { providerMessageId, phoneNumberId, status, correlationId } = event;
  const fact = { status, phoneNumberId, providerMessageId, ...(event.error ? { failure: `whatsapp ${event.error.code}` } : {}) };
  const messageId = ownId(correlationId);
  const key = messageId ? { messageId } : { providerMessageId };
  const raised = await raiseReply(db, key, fact);
  if (!raised) return;
  const idIsNew = 'messageId' in key && ['pending', 'sending', 'unconfirmed'].includes(raised.previous);
  if (idIsNew) await joinEarlyReports(db, { providerMessageId, phoneNumberId });
  logger.info(
    { messageId: raised.messageId, workflowId: raised.workflowId, status: raised.status, previous: raised.previous },
    'reply status settled',
  );
  if (raised.status !== 'failed' && raised.previous !== 'unconfirmed') return;
  await tellWorkflow(raised, { temporal, logger });
}

/** The row is the truth, and the workflow looks there too: a signal that does not get through costs time, nothing else. */
async function tellWorkflow(
  raised: { messageId: string; workflowId: string; status: string },
  { temporal, logger }: Pick<HandOverDependencies, 'temporal' | 'logger'>,
): Promise<void> {
  try {
    const handle = temporal.workflow.getHandle(raised.workflowId);
    await temporal.connection.withDeadline(Date.now() + SIGNAL_TIMEOUT_MS, () =>
      handle.signal(sendReported, { messageId: raised.messageId, status: raised.status === 'failed' ? 'failed' : 'sent' }),
    );
  } catch (error) {
    logger.warn({ error, workflowId: raised.workflowId, messageId: raised.messageId }, 'the workflow was not told of the status');
  }
}
