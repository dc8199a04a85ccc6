/** The chats of the Kapso double: the messages between customers and the business, as customers see them. */
import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { customerKey, type MessageStatus, type StoredMessage } from './bodies';
import { freshWamid, type KapsoStore } from './store';

/** A message on a customer's phone. */
export interface VisibleMessage {
  wamid: string;
  text: string;
  /** ms since 1970. */
  atMs: number;
  /** `biz_opaque_callback_data` of the send. */
  correlation: string | undefined;
  type: string;
  statuses: MessageStatus[];
}

/** One message of a chat as the customer sees it. An inbound message is `read` once the business has marked it as read. */
export interface ChatLine {
  wamid: string;
  direction: 'inbound' | 'outbound';
  text: string;
  atMs: number;
  statuses: (MessageStatus | 'taken')[];
}

/** An event in a customer's chat. A reply is sent through the API, or typed by the owner in the WhatsApp Business app. The customer's own messages have the ticks `taken` (the webhook got a 200) and `read`. */
export type ChatEvent =
  | { type: 'reply'; wamid: string; text: string; atMs: number; by: 'business' | 'owner'; correlation?: string | undefined }
  | { type: 'ticks'; wamid: string; direction: 'inbound' | 'outbound'; status: MessageStatus | 'taken' }
  | { type: 'typing' };

/** The fields of a new message; the others get defaults. */
export type NewMessage = Pick<StoredMessage, 'type' | 'content' | 'text' | 'origin'> & {
  [K in keyof StoredMessage]?: StoredMessage[K] | undefined;
};

/** All chats. Messages are in the store; ticks and subscribers are here. */
export class Chats {
  readonly #store: KapsoStore;
  readonly #phoneNumberId: string;
  readonly #events = new EventEmitter().setMaxListeners(0);

  constructor(store: KapsoStore, phoneNumberId: string) {
    this.#store = store;
    this.#phoneNumberId = phoneNumberId;
  }

  /** Adds a message that is being sent now. */
  add(direction: 'inbound' | 'outbound', customer: string, fields: NewMessage): StoredMessage {
    return this.#store.add({
      ...fields,
      direction,
      customer,
      wamid: fields.wamid ?? freshWamid(),
      phoneNumberId: fields.phoneNumberId ?? this.#phoneNumberId,
      createdAtMs: Date.now(),
      statuses: [],
      listed: fields.listed ?? true,
      visible: fields.visible ?? true,
      idempotencyKey: direction === 'inbound' ? randomUUID() : undefined,
    });
  }

  /** The messages that a customer has received, oldest first, without failed ones. */
  visibleTo(phone: string): VisibleMessage[] {
    return this.#store
      .of(customerKey(phone))
      .filter((message) => message.direction === 'outbound' && message.visible)
      .map(({ wamid, text, createdAtMs, correlation, type, statuses }) => ({
        wamid,
        text,
        atMs: createdAtMs,
        correlation,
        type,
        statuses: statuses.map(({ status }) => status),
      }));
  }

  /** All messages of a chat with their ticks, oldest first. */
  lines(phone: string): ChatLine[] {
    const messages = this.#store.of(customerKey(phone)).filter((message) => message.visible);
    return messages.map((message) => ({
      wamid: message.wamid,
      direction: message.direction,
      text: message.text,
      atMs: message.createdAtMs,
      statuses: this.#ticks(message),
    }));
  }

  /** Calls `listener` for each event in a customer's chat; the returned function unsubscribes. */
  subscribe(phone: string, listener: (event: ChatEvent) => void): () => void {
    const key = customerKey(phone);
    this.#events.on(key, listener);
    return () => this.#events.off(key, listener);
  }

  /** Notifies the subscribers of a customer's chat. */
  emit(customer: string, event: ChatEvent): void {
    this.#events.emit(customer, event);
  }

  /** Marks a customer's message as accepted by the business's webhook. */
  markTaken(message: StoredMessage): void {
    this.#mark(message, 'taken');
  }

  /** Marks a message and all earlier ones of the customer as read by the business. */
  markRead(message: StoredMessage): void {
    const earlier = this.#store.of(message.customer).filter((other) => other.direction === 'inbound' && other.sequence <= message.sequence);
    for (const read of earlier) this.#mark(read, 'read');
  }

  #mark(message: StoredMessage, mark: 'taken' | 'read'): void {
    if (message.mark === 'read' || message.mark === mark) return;
    message.mark = mark;
    this.#store.remember(message);
    this.emit(message.customer, { type: 'ticks', wamid: message.wamid, direction: 'inbound', status: mark });
  }

  #ticks(message: StoredMessage): ChatLine['statuses'] {
    if (message.direction === 'outbound') return message.statuses.map(({ status }) => status);
    return message.mark === undefined ? [] : message.mark === 'read' ? ['taken', 'read'] : ['taken'];
  }
}
