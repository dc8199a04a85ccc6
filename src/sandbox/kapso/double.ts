/** A double of Kapso: its send API, its lists, its webhooks, and the customers on their phones. It misbehaves on request only. */
import { randomUUID } from 'node:crypto';
import type { Router } from 'express';
import type { Logger } from 'pino';
import { Background, Changes, Timers } from '../waiting';
import { type Delivery, type DeliveryResult, type WebhookCounts, WebhookSender, type WebhookTargets } from '../webhook-sender';
import {
  batchEvent,
  customerKey,
  type MessageStatus,
  receivedEvent,
  type StoredConversation,
  type StoredMessage,
  statusEvent,
} from './bodies';
import { type ChatEvent, type ChatLine, Chats, type VisibleMessage } from './chats';
import { type CustomerKind, customerContent } from './customer-content';
import { KapsoApi, type KapsoApiOptions, type SendRecord } from './http-api';
import type { KapsoFault } from './requests';
import { StatusWebhooks } from './statuses';
import { KapsoStore } from './store';
import { type KapsoEvent, type KapsoWebhookOptions, kapsoWebhook, rawKapsoWebhook } from './webhooks';

export interface KapsoDoubleOptions extends KapsoApiOptions {
  webhookUrls: WebhookTargets;
  webhookSecret: string;
  /** Waits before the second, third… attempt of a webhook, in ms (default 10 s, 40 s). */
  webhookRetryDelaysMs?: number[] | undefined;
  /** Time limit of a webhook attempt, in ms (default 10 s). */
  webhookTimeoutMs?: number | undefined;
  /** How many messages are remembered (default 200,000). */
  keepMessages?: number | undefined;
  log: Logger;
}

/** A message as a customer writes it. */
export interface CustomerMessage {
  /** Phone number in any spelling; anything else is a business-scoped id of a customer without a visible number. */
  from: string;
  name?: string | undefined;
  /** The words, caption, transcript, title, emoji or name, as the kind has it (default ''). */
  text?: string | undefined;
  kind?: CustomerKind | undefined;
  /** Id of the message that this one answers or reacts to. */
  replyTo?: string | undefined;
  /** Set to send the same message as before, or with an id of your own. */
  wamid?: string | undefined;
  /** `history_sync` for an imported message. */
  origin?: 'cloud_api' | 'history_sync' | undefined;
}

/** How the webhook of a customer's message ended. `status` is the last HTTP status, 0 when there was no answer. */
export interface CustomerDelivery extends DeliveryResult {
  wamid: string;
}

/** Totals since the start. `accepted` reached the customer (or will fail later), `refused` did not, `unanswered` are sends without an answer. */
export interface KapsoCounts {
  inbound: number;
  sends: number;
  accepted: number;
  refused: number;
  unanswered: number;
  markReads: number;
  lists: number;
  webhooks: WebhookCounts;
}

/** Kapso, played. Methods never throw because of Parley's answers. */
export class KapsoDouble {
  readonly #options: KapsoDoubleOptions;
  readonly #store: KapsoStore;
  readonly #chats: Chats;
  readonly #api: KapsoApi;
  readonly #webhooks: WebhookSender;
  readonly #webhookOptions: KapsoWebhookOptions;
  readonly #changes = new Changes();
  readonly #timers = new Timers();
  readonly #background: Background;
  #inboundCount = 0;

  constructor(options: KapsoDoubleOptions) {
    const failed = (error: unknown) => options.log.error({ err: error }, 'the sandbox failed in the background');
    this.#options = options;
    this.#store = new KapsoStore(options.keepMessages ?? 200_000);
    this.#chats = new Chats(this.#store, options.phoneNumberId);
    this.#background = new Background(failed);
    this.#webhooks = new WebhookSender(failed);
    this.#webhookOptions = {
      targets: options.webhookUrls,
      secret: options.webhookSecret,
      retryDelaysMs: options.webhookRetryDelaysMs,
      timeoutMs: options.webhookTimeoutMs,
    };
    const shared = { store: this.#store, chats: this.#chats, timers: this.#timers };
    const statuses = new StatusWebhooks({
      ...shared,
      background: this.#background,
      deliver: (event) => this.#deliver(event),
      onStatus: (wamid) => this.#changes.notify(wamid),
    });
    this.#api = new KapsoApi(options, { ...shared, statuses, changes: this.#changes });
  }

  /** A customer writes; resolves when the webhook was taken or given up. */
  customerSends(message: CustomerMessage): Promise<CustomerDelivery> {
    const { stored, conversation, isNew } = this.#inbound(message);
    return this.#deliverInbound([stored], JSON.stringify(receivedEvent(stored, conversation, isNew)), undefined);
  }

  /** One customer writes several messages, delivered as one buffered webhook. */
  customerSendsBatch(messages: CustomerMessage[]): Promise<CustomerDelivery[]> {
    const inbound = messages.map((message) => this.#inbound(message));
    const items = inbound.map(({ stored, conversation, isNew }) => receivedEvent(stored, conversation, isNew));
    const first = inbound[0];
    if (first === undefined) return Promise.resolve([]);
    const body = JSON.stringify(batchEvent(items, first.stored.sequence, 5000, first.conversation.id));
    const stored = inbound.map((item) => item.stored);
    return this.#deliverInbound(stored, body, items.length).then((result) => stored.map(({ wamid }) => ({ ...result, wamid })));
  }

  /** Delivers a customer's message once more: with the same idempotency key as a retry, or with a new one. @throws Error for an unknown id */
  redeliver(wamid: string, { sameKey = true }: { sameKey?: boolean } = {}): Promise<CustomerDelivery> {
    const stored = this.#store.find(wamid);
    if (stored?.direction !== 'inbound') throw new Error(`no customer's message ${wamid}`);
    if (!sameKey) stored.idempotencyKey = randomUUID();
    const { conversation } = this.#store.conversation(stored.customer, stored.phoneNumberId);
    return this.#deliverInbound([stored], JSON.stringify(receivedEvent(stored, conversation, false)), undefined);
  }

  /** Somebody answers from the WhatsApp Business app: a `sent` event that Parley did not cause. */
  personReplies(to: string, text: string): Promise<CustomerDelivery> {
    const stored = this.#chats.add('outbound', customerKey(to), {
      type: 'text',
      content: { text: { body: text } },
      text,
      origin: 'business_app',
    });
    const { conversation } = this.#store.conversation(stored.customer, stored.phoneNumberId);
    this.#chats.emit(stored.customer, { type: 'reply', wamid: stored.wamid, text, atMs: stored.createdAtMs });
    const body = JSON.stringify(statusEvent(stored, conversation, 'sent', stored.createdAtMs));
    const { done } = this.#deliver({ event: 'whatsapp.message.sent', body, order: stored.customer });
    return done.then((result) => ({ ...result, wamid: stored.wamid }));
  }

  /** Delivers these bytes as a webhook, signed, with the headers of a received event; a header given wins, an empty one goes. */
  deliver(body: string | Buffer | object, headers: Record<string, string> = {}): Promise<DeliveryResult> {
    const bytes = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    return this.#webhooks.send(rawKapsoWebhook(this.#webhookOptions, bytes, headers)).done;
  }

  /** Adds a fault; the returned function takes it back. */
  fault(fault: KapsoFault): () => void {
    return this.#api.faults.add(fault);
  }

  /** Takes all faults back. */
  clearFaults(): void {
    this.#api.faults.clear();
  }

  /** The faults that still wait for requests. */
  faults(): KapsoFault[] {
    return this.#api.faults.list();
  }

  /** What a customer received, oldest first; without messages that failed. */
  visibleTo(phone: string): VisibleMessage[] {
    return this.#chats.visibleTo(phone);
  }

  /** Resolves when a customer has at least `count` messages. @throws Error after `timeoutMs` */
  waitForVisible(phone: string, count: number, timeoutMs: number): Promise<VisibleMessage[]> {
    const look = () => {
      const visible = this.visibleTo(phone);
      return visible.length >= count ? visible : undefined;
    };
    return this.#changes.until(
      customerKey(phone),
      look,
      timeoutMs,
      () => `${this.visibleTo(phone).length} of ${count} messages are visible`,
    );
  }

  /** Resolves when a message had this status from the double. @throws Error after `timeoutMs` */
  waitForStatus(wamid: string, status: MessageStatus, timeoutMs: number): Promise<void> {
    const look = () => this.#store.find(wamid)?.statuses.some((known) => known.status === status) || undefined;
    return this.#changes.until(wamid, look, timeoutMs, () => `the message has no status ${status}`).then(() => undefined);
  }

  /** Both directions of a chat with their ticks, oldest first. */
  chat(phone: string): ChatLine[] {
    return this.#chats.lines(phone);
  }

  /** Calls `listener` with what happens in a customer's chat; the returned function ends it. */
  subscribe(phone: string, listener: (event: ChatEvent) => void): () => void {
    return this.#chats.subscribe(phone, listener);
  }

  /** The latest sends (at most 1000) as they came in, oldest first. */
  sends(): SendRecord[] {
    return this.#api.sends();
  }

  /** Resolves when at least `count` sends came in, however they were answered. @throws Error after `timeoutMs` */
  waitForSends(count: number, timeoutMs: number): Promise<SendRecord[]> {
    const look = () => (this.#api.counts.sends >= count ? this.sends() : undefined);
    return this.#changes.until('sends', look, timeoutMs, () => `${this.#api.counts.sends} of ${count} sends came in`);
  }

  /** Totals since the start. */
  counts(): KapsoCounts {
    return { inbound: this.#inboundCount, ...this.#api.counts, webhooks: { ...this.#webhooks.counts } };
  }

  /** Resolves when all planned statuses were sent and all webhooks were taken or given up. */
  async settled(): Promise<void> {
    await this.#background.settled();
    await this.#webhooks.settled();
  }

  /** Ends timers, webhooks and waits. */
  async close(): Promise<void> {
    this.#timers.close();
    this.#changes.close();
    await this.#webhooks.close();
    await this.#background.settled();
  }

  /** Kapso's routes: mount at the root. */
  routes(): Router {
    return this.#api.routes();
  }

  #inbound(message: CustomerMessage): { stored: StoredMessage; conversation: StoredConversation; isNew: boolean } {
    const customer = customerKey(message.from);
    const { conversation, isNew } = this.#store.conversation(customer, this.#options.phoneNumberId);
    if (message.name !== undefined) conversation.contactName = message.name;
    const { content, ...rest } = customerContent(message.kind ?? 'text', message.text ?? '', message.replyTo);
    const quoted = message.replyTo !== undefined && message.kind !== 'reaction';
    const context = quoted ? { context: { from: this.#options.phoneNumberId, id: message.replyTo } } : {};
    const known = message.wamid === undefined ? undefined : this.#store.find(message.wamid);
    const fields = { ...rest, content: { ...context, ...content }, origin: message.origin ?? 'cloud_api', wamid: message.wamid };
    const stored = known ?? this.#chats.add('inbound', customer, fields);
    this.#inboundCount += known === undefined ? 1 : 0;
    return { stored, conversation, isNew };
  }

  async #deliverInbound(messages: StoredMessage[], body: string, batchSize: number | undefined): Promise<CustomerDelivery> {
    const first = messages[0];
    const event = { event: 'whatsapp.message.received', body, batchSize, order: first?.customer, idempotencyKey: first?.idempotencyKey };
    const result = await this.#deliver(event).done;
    if (result.status === 200) for (const message of messages) this.#chats.markTaken(message);
    return { ...result, wamid: first?.wamid ?? '' };
  }

  #deliver(event: KapsoEvent): Delivery {
    return this.#webhooks.send(kapsoWebhook(this.#webhookOptions, event));
  }
}
