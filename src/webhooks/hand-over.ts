/**
 * Stores verified events. Messages go to Temporal, or to the spool while Temporal is down (./spool.ts). Statuses and unreadable items go to
 * the database, or to Temporal while the database is down (./late-events.ts). Returns only after everything is stored, because the webhook
 * then responds with 200. No model or vendor is called on this path.
 */
import {
  CONVERSATION_WORKFLOW,
  type ContactIdentity,
  conversationStart,
  conversationWorkflowId,
  type InboundMessage,
  type LateEvents,
  type MessagesReceived,
  messagesReceived,
  UNASSIGNED_NUMBER,
} from '../../workflows/contract';
import type { Database } from '../platform/database';
import { fromRecord, isRefused } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import type { WebhookResult } from '../platform/metrics';
import { type MessageEvent, type StatusEvent, statusesBody } from '../providers/kapso/events';
import { keepDeadLetters, type WebhookLetter } from '../record/dead-letters';
import type { Identity } from '../record/identity';
import { keepForLater, lateBody } from './late-events';
import { signalDeadlineMs, type WorkflowSignaller } from './signaller';
import type { NumberedStatus, StatusKeeper } from './statuses';

/** An event was not stored, so the sender must send it again. */
export class NotStoredError extends Error {
  override name = 'NotStoredError';
}

/** Startup is not complete. The sender repeats the webhook, so nothing is lost. */
export class NotStartedError extends NotStoredError {
  override name = 'NotStartedError';
  constructor() {
    super('not started yet');
  }
}

/** The label in the metrics of a webhook that was not stored. */
export function unstoredResult(error: unknown): WebhookResult {
  return error instanceof NotStartedError ? 'not_started' : 'not_stored';
}

/** The log level of a webhook that was not stored. */
export function levelOf(error: unknown): 'info' | 'error' {
  return error instanceof NotStartedError ? 'info' : 'error';
}

export interface HandOverDependencies {
  signaller: WorkflowSignaller;
  taskQueue: string;
  db: Database;
  identity: Identity;
  logger: Logger;
  statuses: StatusKeeper;
  /** The number for events whose body names none. */
  defaultPhoneNumberId: string | undefined;
}

/** The content of one webhook. */
export interface Events {
  messages: MessageEvent[];
  statuses: StatusEvent[];
  /** What could not be read or stored. */
  letters: WebhookLetter[];
}

/** Maximum number of concurrent signals per webhook. */
const SIGNALS_AT_ONCE = 20;
/** Maximum length of a signal's argument in JSON; Temporal's own limit is 2 MB. */
const MAX_SIGNAL_JSON = 500_000;

/** One signal. */
interface Delivery {
  phoneNumberId: string;
  contactKey: string;
  received: MessagesReceived;
  jsonLength: number;
}

/** Which messages went to which workflow, for the log. */
export interface HandedOver {
  workflowId: string;
  messageIds: string[];
}

/** Stores the events of one webhook. @throws NotStoredError if any of them is not stored; the others may be */
export async function handOver(events: Events, dependencies: HandOverDependencies): Promise<HandedOver[]> {
  const deadlineMs = signalDeadlineMs();
  const conversations = groupByConversation(events.messages, dependencies);
  const steps: Promise<void>[] = [];
  if (conversations.length > 0) steps.push(signalConversations(conversations, deadlineMs, dependencies));
  if (events.statuses.length > 0) steps.push(keepStatuses(events.statuses, deadlineMs, dependencies));
  if (events.letters.length > 0) steps.push(keepLetters(events.letters, dependencies));
  // Most webhooks bring one thing.
  await (steps.length === 1 ? steps[0] : Promise.all(steps));
  return conversations.flat().map(handedOver);
}

function handedOver({ phoneNumberId, contactKey, received }: Delivery): HandedOver {
  return { workflowId: conversationWorkflowId(phoneNumberId, contactKey), messageIds: received.messages.map((message) => message.id) };
}

interface Arrival {
  contact: ContactIdentity;
  message: InboundMessage;
}

/** The deliveries of each conversation, in the order in which they must be signalled. */
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
 * Sorts the messages by the time they were sent: a batch may be in another order, and may repeat an old message. One delivery, unless it
 * would be too large for a signal or the messages come from different people.
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

/** Numbers are reassigned, so two senders with the same number but different ids are different people. */
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
    logger.error({ error, ...handedOver(delivery) }, 'nothing accepted the messages');
    throw new NotStoredError('nothing accepted the messages');
  }
}

async function keepStatuses(events: StatusEvent[], deadlineMs: number, dependencies: HandOverDependencies): Promise<void> {
  const { statuses, logger, defaultPhoneNumberId } = dependencies;
  const numbered = events.map(
    (event): NumberedStatus => ({ ...event, phoneNumberId: event.phoneNumberId ?? defaultPhoneNumberId ?? UNASSIGNED_NUMBER }),
  );
  try {
    await statuses.keep(numbered, deadlineMs);
  } catch (error) {
    logger.error({ error, statuses: events.length }, 'the database did not accept the statuses');
    if (isRefused(error)) await keepLetters(refusedStatuses(numbered), dependencies);
    else
      await keepAllForLater(
        byNumber(numbered).map((body) => ({ source: 'kapso', body: { json: body } })),
        dependencies,
      );
  }
}

/** Rejected for good: if the sender repeated them, they would be rejected again. */
function refusedStatuses(statuses: NumberedStatus[]): WebhookLetter[] {
  return byNumber(statuses).map((body) => ({
    source: 'kapso',
    reason: 'record_refused',
    detail: 'The database rejected statuses of replies; its error is in the log.',
    phoneNumberId: body.phone_number_id,
    body,
  }));
}

/** A body for the statuses of each number. */
function byNumber(statuses: NumberedStatus[]): { phone_number_id: string }[] {
  const numbers = [...new Set(statuses.map(({ phoneNumberId }) => phoneNumberId))];
  return numbers.map((number) => ({
    ...statusesBody(statuses.filter(({ phoneNumberId }) => phoneNumberId === number)),
    phone_number_id: number,
  }));
}

/** @throws NotStoredError if Temporal does not accept them either */
async function keepAllForLater(events: LateEvents[], dependencies: HandOverDependencies): Promise<void> {
  try {
    for (const each of events) await keepForLater(each, dependencies);
  } catch (error) {
    dependencies.logger.error({ error, events: events.length }, 'nothing accepted the events');
    throw new NotStoredError('nothing accepted the events');
  }
}

async function keepLetters(letters: WebhookLetter[], dependencies: HandOverDependencies): Promise<void> {
  const { db, logger } = dependencies;
  try {
    const deadLetterIds = await fromRecord(keepDeadLetters(db, letters));
    logger.warn({ deadLetterIds }, 'stored as dead letters');
  } catch (error) {
    logger.error({ error, letters: letters.length }, 'the database did not accept the dead letters');
    const late = letters.map(({ source, body, event, workspaceId }) => ({
      ...{ source, body: lateBody(body) },
      ...(event === undefined ? {} : { event }),
      ...(workspaceId === undefined ? {} : { workspaceId }),
    }));
    await keepAllForLater(late, dependencies);
  }
}
