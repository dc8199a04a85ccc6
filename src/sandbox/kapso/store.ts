/** The Kapso double's conversations and messages; when the limit is reached, the oldest messages are dropped. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Journal } from '../journal';
import {
  conversationCursorOf,
  conversationRow,
  cursorOf,
  cursorTarget,
  messageRow,
  type StoredConversation,
  type StoredMessage,
} from './bodies';

/** The query of a message list; `since` and `until` in ms since 1970. */
export interface ListQuery {
  phoneNumberId?: string | undefined;
  customer?: string | undefined;
  conversationId?: string | undefined;
  direction?: string | undefined;
  status?: string | undefined;
  since?: number | undefined;
  until?: number | undefined;
  after?: string | undefined;
  limit: number;
}

/** The query of a conversation list; times in ms since 1970. */
export interface ConversationQuery {
  phoneNumberId?: string | undefined;
  customer?: string | undefined;
  lastActiveAfter?: number | undefined;
  lastActiveBefore?: number | undefined;
  after?: string | undefined;
  limit: number;
}

/** A new message id. Real ones contain the phone number; these do not, so they may be logged. */
export function freshWamid(): string {
  return `wamid.${randomBytes(30).toString('base64')}`;
}

/** A message as the journal keeps it, with what only its conversation knows. */
export interface RememberedMessage {
  message: StoredMessage;
  conversation: Pick<StoredConversation, 'id' | 'contactName' | 'createdAtMs'>;
}

/** Stores messages in order of arrival, and their conversations. */
export class KapsoStore {
  readonly #messages = new Map<string, StoredMessage>();
  readonly #conversations = new Map<string, StoredConversation>();
  readonly #byCustomer = new Map<string, StoredMessage[]>();
  readonly #keep: number;
  readonly #journal: Journal<RememberedMessage> | undefined;
  #log: StoredMessage[] = [];
  #dropped = 0;
  #sequence = 0;

  /** `journal`: keeps messages across restarts (default: none). */
  constructor(keep: number, journal?: Journal<RememberedMessage> | undefined) {
    this.#keep = keep;
    this.#journal = journal;
    for (const { message, conversation } of journal?.rows() ?? []) {
      Object.assign(this.conversation(message.customer, message.phoneNumberId).conversation, conversation);
      this.#insert(message);
    }
  }

  /** Returns the conversation with a customer and whether it is new; creates it if there is none. */
  conversation(customer: string, phoneNumberId: string): { conversation: StoredConversation; isNew: boolean } {
    const found = this.#conversations.get(customer);
    if (found !== undefined) return { conversation: found, isNew: false };
    const now = Date.now();
    const conversation = {
      id: randomUUID(),
      customer,
      phoneNumberId,
      contactName: 'Sandbox Customer',
      createdAtMs: now,
      lastActiveAtMs: now,
      messagesCount: 0,
    };
    this.#conversations.set(customer, conversation);
    return { conversation, isNew: true };
  }

  /** The name that a customer last wrote under; undefined if they never wrote. */
  contactName(customer: string): string | undefined {
    return this.#conversations.get(customer)?.contactName;
  }

  /** Stores a message and updates its conversation. */
  add(fields: Omit<StoredMessage, 'sequence'>): StoredMessage {
    const message = this.#insert(fields);
    this.remember(message);
    return message;
  }

  /** Stores messages that are older than others, where they belong in the order of all messages. */
  addPast(messages: readonly Omit<StoredMessage, 'sequence'>[]): void {
    for (const message of messages) this.remember(this.#insert(message));
    this.#log.sort((one, other) => one.createdAtMs - other.createdAtMs);
    for (const [index, message] of this.#log.entries()) message.sequence = this.#dropped + index;
    this.#sequence = this.#dropped + this.#log.length;
    for (const customer of new Set(messages.map((message) => message.customer)))
      this.of(customer).sort((one, other) => one.sequence - other.sequence);
  }

  /** Must be called whenever a stored message has changed. */
  remember(message: StoredMessage): void {
    const { id, contactName, createdAtMs } = this.conversation(message.customer, message.phoneNumberId).conversation;
    this.#journal?.write(message.wamid, { message, conversation: { id, contactName, createdAtMs } });
  }

  #insert(fields: Omit<StoredMessage, 'sequence'>): StoredMessage {
    const message = { ...fields, sequence: this.#sequence++ };
    const { conversation } = this.conversation(message.customer, message.phoneNumberId);
    conversation.messagesCount += 1;
    const { createdAtMs } = message;
    conversation.createdAtMs = Math.min(conversation.createdAtMs, createdAtMs);
    if (createdAtMs >= (conversation.last?.createdAtMs ?? 0)) {
      conversation.last = message;
      conversation.lastActiveAtMs = createdAtMs;
    }
    const side = message.direction === 'inbound' ? 'lastInboundAtMs' : 'lastOutboundAtMs';
    conversation[side] = Math.max(conversation[side] ?? 0, createdAtMs);
    this.#messages.set(message.wamid, message);
    this.#log.push(message);
    const own = this.#byCustomer.get(message.customer);
    if (own === undefined) this.#byCustomer.set(message.customer, [message]);
    else own.push(message);
    if (this.#messages.size > this.#keep) this.#dropOldest();
    return message;
  }

  /** The message with this id. */
  find(wamid: string): StoredMessage | undefined {
    return this.#messages.get(wamid);
  }

  /** All stored messages, oldest first. */
  all(): readonly StoredMessage[] {
    return this.#log;
  }

  /** All stored messages of a customer's chat, oldest first. */
  of(customer: string): StoredMessage[] {
    return this.#byCustomer.get(customer) ?? [];
  }

  /** A page of list rows, newest first. */
  page(query: ListQuery): object {
    const found: StoredMessage[] = [];
    let place = this.#startOf(query.after);
    let more = false;
    for (; place >= 0 && !more; place -= 1) {
      const message = this.#log[place];
      if (message === undefined || (query.since !== undefined && message.createdAtMs < query.since)) break;
      if (!this.#matches(message, query)) continue;
      more = found.length === query.limit;
      if (!more) found.push(message);
    }
    return this.#pageBody(found, more);
  }

  /** A page of conversations, the newest first by the time they began. */
  conversationPage(query: ConversationQuery): object {
    const all = [...this.#conversations.values()]
      .filter((conversation) => isListed(conversation, query))
      .sort((one, other) => other.createdAtMs - one.createdAtMs || other.id.localeCompare(one.id));
    const target = query.after === undefined ? undefined : cursorTarget(query.after);
    const start = query.after === undefined ? 0 : all.findIndex(({ id }) => id === target) + 1;
    const found = query.after !== undefined && start === 0 ? [] : all.slice(start, start + query.limit);
    const [first, last] = [found[0], found.at(-1)];
    const after = last === undefined ? null : conversationCursorOf(last);
    const before = first === undefined ? null : conversationCursorOf(first);
    return {
      data: found.map(conversationRow),
      paging: { cursors: { before, after }, next: start + query.limit < all.length ? after : null, previous: null },
    };
  }

  /** The conversation with this id. */
  findConversation(id: string): StoredConversation | undefined {
    return [...this.#conversations.values()].find((conversation) => conversation.id === id);
  }

  /** The list row of a message. */
  row(message: StoredMessage): object {
    return messageRow(message, this.conversation(message.customer, message.phoneNumberId).conversation);
  }

  #matches(message: StoredMessage, query: ListQuery): boolean {
    const { conversationId } = query;
    const isOfConversation = conversationId === undefined || this.#conversations.get(message.customer)?.id === conversationId;
    return isOfConversation && matches(message, query);
  }

  #pageBody(found: StoredMessage[], more: boolean): object {
    const [first, last] = [found[0], found.at(-1)];
    const after = last === undefined ? null : cursorOf(last);
    const before = first === undefined ? null : cursorOf(first);
    return {
      data: found.map((message) => this.row(message)),
      paging: { cursors: { before, after }, next: more ? after : null, previous: null },
    };
  }

  #startOf(after: string | undefined): number {
    if (after === undefined) return this.#log.length - 1;
    const target = this.#messages.get(cursorTarget(after) ?? '');
    return target === undefined ? -1 : target.sequence - this.#dropped - 1;
  }

  /** Drops a tenth at once, to amortise the cost of copying the list. */
  #dropOldest(): void {
    const count = Math.ceil(this.#keep / 10);
    const gone = this.#log.slice(0, count);
    this.#log = this.#log.slice(count);
    this.#dropped += gone.length;
    for (const message of gone) this.#messages.delete(message.wamid);
    for (const customer of new Set(gone.map((message) => message.customer))) this.#prune(customer);
  }

  #prune(customer: string): void {
    const left = this.of(customer).filter((message) => this.#messages.has(message.wamid));
    if (left.length > 0) this.#byCustomer.set(customer, left);
    else this.#byCustomer.delete(customer);
  }
}

function matches(message: StoredMessage, query: ListQuery): boolean {
  const status = message.direction === 'inbound' ? 'received' : (message.statuses.at(-1)?.status ?? 'pending');
  return (
    message.listed &&
    (query.phoneNumberId === undefined || query.phoneNumberId === message.phoneNumberId) &&
    (query.customer === undefined || message.customer.includes(query.customer)) &&
    (query.direction === undefined || query.direction === message.direction) &&
    (query.status === undefined || query.status === status) &&
    (query.until === undefined || message.createdAtMs <= query.until)
  );
}

function isListed(conversation: StoredConversation, query: ConversationQuery): boolean {
  const { lastActiveAfter = 0, lastActiveBefore = Number.POSITIVE_INFINITY } = query;
  return (
    conversation.last !== undefined &&
    (query.phoneNumberId === undefined || query.phoneNumberId === conversation.phoneNumberId) &&
    (query.customer === undefined || conversation.customer.includes(query.customer)) &&
    conversation.lastActiveAtMs >= lastActiveAfter &&
    conversation.lastActiveAtMs <= lastActiveBefore
  );
}
