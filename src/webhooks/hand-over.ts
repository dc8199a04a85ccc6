/**
 * Hands verified events over to what keeps them: messages to Temporal, statuses and what nobody can read to the record. Returns only
 * when all of it is stored; the webhook's 200 depends on it. No model and no vendor is called on this path.
 * A spool for the time when Temporal is away belongs into `signalConversations`, in front of `NotStoredError`.
 */
import {
  CONVERSATION_WORKFLOW,
  type ContactIdentity,
  conversationStart,
  conversationWorkflowId,
  type InboundMessage,
  type MessagesReceived,
  messagesReceived,
  UNASSIGNED_NUMBER,
} from '../../workflows/contract';
import type { Database } from '../platform/database';
import { fromRecord, isRefused } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { type MessageEvent, type StatusEvent, statusesBody } from '../providers/kapso/events';
import { keepDeadLetters, type NewDeadLetter } from '../record/dead-letters';
import type { Identity } from '../record/identity';
import { signalDeadlineMs, type WorkflowSignaller } from './signaller';
import type { NumberedStatus, StatusKeeper } from './statuses';

/** Temporal or the record did not take an event: the sender must send it again. */
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
  /** Where events go whose body names no number. */
  defaultPhoneNumberId: string | undefined;
}

/** What one webhook brought. */
export interface Events {
  messages: MessageEvent[];
  statuses: StatusEvent[];
  /** What could not be read. */
  letters: NewDeadLetter[];
}

/** Signals of one webhook in flight at once. */
const SIGNALS_AT_ONCE = 20;
/** Bound of a signal's argument; Temporal's own limit is 2 MB. */
const MAX_SIGNAL_JSON = 500_000;

/** One signal. */
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

/** Stores the events of one webhook. @throws NotStoredError when any of them is not stored; the others may be */
export async function handOver(events: Events, dependencies: HandOverDependencies): Promise<HandedOver[]> {
  const deadlineMs = signalDeadlineMs();
  const conversations = groupByConversation(events.messages, dependencies);
  await Promise.all([
    signalConversations(conversations, deadlineMs, dependencies),
    keepStatuses(events.statuses, deadlineMs, dependencies),
    keepLetters(events.letters, dependencies),
  ]);
  return conversations.flat().map(handedOver);
}

function handedOver({ phoneNumberId, contactKey, received }: Delivery): HandedOver {
  return { workflowId: conversationWorkflowId(phoneNumberId, contactKey), messageIds: received.messages.map((message) => message.id) };
}

interface Arrival {
  contact: ContactIdentity;
  message: InboundMessage;
}

/** The deliveries of each conversation, which have to be signalled in this order. */
function groupByConversation(messages: MessageEvent[], { identity, defaultPhoneNumberId }: HandOverDependencies): Delivery[][] {
  const conversations = new Map<string, { phoneNumberId: string; contactKey: string; arrivals: Arrival[] }>();
  for (const { phoneNumberId = defaultPhoneNumberId ?? UNASSIGNED_NUMBER, contact, message } of messages) {
    const contactKey = identity.contactKey(phoneNumberId, contact);
    const known = conversations.get(contactKey) ?? { phoneNumberId, contactKey, arrivals: [] };
    conversations.set(contactKey, known);
    known.arrivals.push({ contact, message: { id: identity.messageId(phoneNumberId, message.providerMessageId), ...message } });
  }
  return [...conversations.values()].map(({ arrivals, ...conversation }) =>
    deliveriesOf(arrivals).map((one) => ({ ...conversation, ...one })),
  );
}

/**
 * In the order in which they were sent: a batch may have them in another one, with an old message once more. As one delivery, unless it
 * would grow too large for a signal, or the messages are not all of one person.
 */
function deliveriesOf(arrivals: Arrival[]): Pick<Delivery, 'received' | 'jsonLength'>[] {
  const deliveries: Pick<Delivery, 'received' | 'jsonLength'>[] = [];
  for (const { contact, message } of arrivals.toSorted((one, other) => one.message.sentAtMs - other.message.sentAtMs)) {
    const jsonLength = JSON.stringify(message).length;
    const last = deliveries.at(-1);
    if (last && last.jsonLength + jsonLength <= MAX_SIGNAL_JSON && isSamePerson(last.received.contact, contact)) {
      last.received.contact = { ...last.received.contact, ...contact };
      last.received.messages.push(message);
      last.jsonLength += jsonLength;
    } else {
      deliveries.push({ received: { contact, messages: [message] }, jsonLength });
    }
  }
  return deliveries;
}

/** Numbers are given to new owners, so one that two messages share does not make their senders one when their ids differ. */
function isSamePerson(one: ContactIdentity, other: ContactIdentity): boolean {
  const agree = (alias: 'phone' | 'businessScopedUserId') =>
    one[alias] === undefined || other[alias] === undefined || one[alias] === other[alias];
  return agree('phone') && agree('businessScopedUserId');
}

async function signalConversations(conversations: Delivery[][], deadlineMs: number, dependencies: HandOverDependencies): Promise<void> {
  for (let start = 0; start < conversations.length; start += SIGNALS_AT_ONCE) {
    await Promise.all(
      conversations.slice(start, start + SIGNALS_AT_ONCE).map(async (deliveries) => {
        for (const delivery of deliveries) await signalConversation(delivery, deadlineMs, dependencies);
      }),
    );
  }
}

async function signalConversation(
  delivery: Delivery,
  deadlineMs: number,
  { signaller, taskQueue, logger }: HandOverDependencies,
): Promise<void> {
  const { phoneNumberId, contactKey, received } = delivery;
  try {
    const start = conversationStart({ phoneNumberId, contactKey, taskQueue });
    await signaller.tell({ workflowType: CONVERSATION_WORKFLOW, start, signal: messagesReceived, fact: received }, deadlineMs);
  } catch (error) {
    logger.error({ error, ...handedOver(delivery) }, 'Temporal did not take the messages');
    throw new NotStoredError('Temporal did not take the messages');
  }
}

async function keepStatuses(events: StatusEvent[], deadlineMs: number, dependencies: HandOverDependencies): Promise<void> {
  if (events.length === 0) return;
  const { statuses, logger, defaultPhoneNumberId } = dependencies;
  const numbered = events.map(
    (event): NumberedStatus => ({ ...event, phoneNumberId: event.phoneNumberId ?? defaultPhoneNumberId ?? UNASSIGNED_NUMBER }),
  );
  try {
    await fromRecord(statuses.keep(numbered, deadlineMs));
  } catch (error) {
    logger.error({ error, statuses: events.length }, 'the record did not take the statuses');
    if (!isRefused(error)) throw new NotStoredError('the record did not take the statuses');
    await keepLetters(refusedStatuses(numbered), dependencies);
  }
}

/** Refused for good: sent again, they would be refused again, until the sender gives the webhook up. */
function refusedStatuses(statuses: NumberedStatus[]): NewDeadLetter[] {
  const numbers = [...new Set(statuses.map(({ phoneNumberId }) => phoneNumberId))];
  return numbers.map((number) => ({
    source: 'kapso',
    reason: 'record_refused',
    detail: 'The database refused statuses of replies; the log has its error.',
    phoneNumberId: number,
    body: statusesBody(statuses.filter(({ phoneNumberId }) => phoneNumberId === number)),
  }));
}

async function keepLetters(letters: NewDeadLetter[], { db, logger }: Pick<HandOverDependencies, 'db' | 'logger'>): Promise<void> {
  if (letters.length === 0) return;
  try {
    const deadLetterIds = await fromRecord(keepDeadLetters(db, letters));
    logger.warn({ deadLetterIds }, 'kept as dead letters');
  } catch (error) {
    logger.error({ error, letters: letters.length }, 'the record did not take the dead letters');
    throw new NotStoredError('the record did not take the dead letters');
  }
}
