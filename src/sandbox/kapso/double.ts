/** A double of Kapso: its send API, lists and webhooks, and the customers on their phones. Misbehaves only as programmed. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Router } from 'express';
import type { Logger } from 'pino';
import { Journal } from '../journal';
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
  statusObject,
} from './bodies';
import { type ChatEvent, type ChatLine, Chats, type VisibleMessage } from './chats';
import { type CustomerKind, customerContent } from './customer-content';
import { KapsoApi, type KapsoApiOptions, type SendRecord } from './http-api';
import { KapsoPlatform } from './platform';
import type { KapsoFault } from './requests';
import { StatusWebhooks } from './statuses';
import { freshWamid, KapsoStore, type RememberedMessage } from './store';
import { type KapsoEvent, type KapsoWebhookOptions, kapsoWebhook, rawKapsoWebhook, receiverWebhook } from './webhooks';

/** About two megabytes: more than a person types. */
const REMEMBERED_MESSAGES = 2_000;

/** Options of the Kapso double. */
export interface KapsoDoubleOptions extends KapsoApiOptions {
  webhookUrls: WebhookTargets;
  webhookSecret: string;
  /** Delays before the second, third… attempt of a webhook, in ms (default 10 s, 40 s). */
  webhookRetryDelaysMs?: number[] | undefined;
  /** Timeout of a webhook attempt, in ms (default 10 s). */
  webhookTimeoutMs?: number | undefined;
  /** Maximum number of stored messages (default 200,000). */
  keepMessages?: number | undefined;
  /** Folder in which the chats survive a restart (default: none). */
  memoryDir?: string | undefined;
  log: Logger;
}

/** A message from a customer. */
export interface CustomerMessage {
  /** Phone number in any format; anything else is the business-scoped id of a customer whose number is hidden. */
  from: string;
  name?: string | undefined;
  /** Text, caption, transcript, title, emoji or name, depending on the kind (default ''). */
  text?: string | undefined;
  kind?: CustomerKind | undefined;
  /** Id of the message that this one replies or reacts to. */
  replyTo?: string | undefined;
  /** Set it to resend an earlier message, or to choose the id. */
  wamid?: string | undefined;
  /** `history_sync` for an imported message. */
  origin?: 'cloud_api' | 'history_sync' | undefined;
}

/** An earlier message, which comes by no webhook. */
export interface PastMessage {
  /** The customer: a phone number in any format, or a business-scoped id. */
  with: string;
  name?: string | undefined;
  direction: 'inbound' | 'outbound';
  text: string;
  atMs: number;
  wamid?: string | undefined;
  origin?: StoredMessage['origin'] | undefined;
  /** Our id of the send, for an outbound message. */
  correlation?: string | undefined;
}

/** How the webhook of a customer's message ended. `status` is the last HTTP status (0: no response). */
export interface CustomerDelivery extends DeliveryResult {
  wamid: string;
}

/** Totals since the start. Sends are `accepted` (delivered, or failing later), `refused`, or `unanswered` (no response sent). */
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

/** Simulates Kapso. Methods never throw because of Parley's responses. */
export class KapsoDouble {
  /** What Kapso reports about the project's numbers and webhooks. */
  readonly platform: KapsoPlatform;
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
    const { memoryDir } = options;
    const journal =
      memoryDir === undefined ? undefined : new Journal<RememberedMessage>(join(memoryDir, 'chats.jsonl'), REMEMBERED_MESSAGES);
    this.#store = new KapsoStore(options.keepMessages ?? 200_000, journal);
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
    for (const message of this.#store.all()) void statuses.start(message);
    const urls = typeof options.webhookUrls === 'function' ? [] : options.webhookUrls;
    this.platform = new KapsoPlatform({ phoneNumberId: options.phoneNumberId, urls, secret: options.webhookSecret });
    this.#api = new KapsoApi(options, { ...shared, statuses, changes: this.#changes, platform: this.platform });
  }

  /** Sends a message as a customer; resolves when the webhook has been accepted or abandoned. */
  customerSends(message: CustomerMessage): Promise<CustomerDelivery> {
    const { stored, conversation, isNew } = this.#inbound(message);
    return this.#deliverInbound([stored], JSON.stringify(receivedEvent(stored, conversation, isNew)), undefined);
  }

  /** Sends several messages as a customer, delivered as one buffered webhook. */
  customerSendsBatch(messages: CustomerMessage[]): Promise<CustomerDelivery[]> {
    const inbound = messages.map((message) => this.#inbound(message));
    const items = inbound.map(({ stored, conversation, isNew }) => receivedEvent(stored, conversation, isNew));
    const first = inbound[0];
    if (first === undefined) return Promise.resolve([]);
    const body = JSON.stringify(batchEvent(items, first.stored.sequence, 5000, first.conversation.id));
    const stored = inbound.map((item) => item.stored);
    return this.#deliverInbound(stored, body, items.length).then((result) => stored.map(({ wamid }) => ({ ...result, wamid })));
  }

  /** Adds earlier messages, which are listed but come by no webhook. Outbound ones have the status `read`. */
  remembers(messages: readonly PastMessage[]): void {
    const { phoneNumberId } = this.#options;
    const stored = messages.map(({ with: address, name, direction, text, atMs, wamid, origin, correlation }) => {
      const customer = customerKey(address);
      const { conversation } = this.#store.conversation(customer, phoneNumberId);
      if (name !== undefined) conversation.contactName = name;
      const message: Omit<StoredMessage, 'sequence'> = {
        ...{ wamid: wamid ?? freshWamid(), direction, customer, phoneNumberId, createdAtMs: atMs, type: 'text' },
        ...{
          content: { text: { body: text } },
          text,
          origin: origin ?? 'cloud_api',
          correlation,
          statuses: [],
          listed: true,
          visible: true,
        },
      };
      if (direction === 'outbound')
        message.statuses = (['sent', 'read'] as const).map((status) => statusObject({ ...message, sequence: 0 }, status, atMs, undefined));
      return message;
    });
    this.#store.addPast(stored);
  }

  /** Redelivers a customer's message, with the same idempotency key (as a retry) or a new one. @throws Error for an unknown id */
  redeliver(wamid: string, { sameKey = true }: { sameKey?: boolean } = {}): Promise<CustomerDelivery> {
    const stored = this.#store.find(wamid);
    if (stored?.direction !== 'inbound') throw new Error(`no customer message ${wamid}`);
    if (!sameKey) stored.idempotencyKey = randomUUID();
    const { conversation } = this.#store.conversation(stored.customer, stored.phoneNumberId);
    return this.#deliverInbound([stored], JSON.stringify(receivedEvent(stored, conversation, false)), undefined);
  }

  /** Replies from the WhatsApp Business app: a `sent` event that Parley did not cause. */
  personReplies(to: string, text: string): Promise<CustomerDelivery> {
    const stored = this.#chats.add('outbound', customerKey(to), {
      type: 'text',
      content: { text: { body: text } },
      text,
      origin: 'business_app',
    });
    const { conversation } = this.#store.conversation(stored.customer, stored.phoneNumberId);
    this.#chats.emit(stored.customer, { type: 'reply', wamid: stored.wamid, text, atMs: stored.createdAtMs, by: 'owner' });
    const body = JSON.stringify(statusEvent(stored, conversation, 'sent', stored.createdAtMs));
    const { done } = this.#deliver({ event: 'whatsapp.message.sent', body, order: stored.customer });
    return done.then((result) => ({ ...result, wamid: stored.wamid }));
  }

  /** Delivers the given body as a signed webhook with the headers of a received event; `headers` override them, empty ones remove them. */
  deliver(body: string | Buffer | object, headers: Record<string, string> = {}): Promise<DeliveryResult> {
    const bytes = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    return this.#webhooks.send(rawKapsoWebhook(this.#webhookOptions, bytes, headers)).done;
  }

  /** Adds a fault; the returned function removes it. */
  fault(fault: KapsoFault): () => void {
    return this.#api.faults.add(fault);
  }

  /** Removes all faults. */
  clearFaults(): void {
    this.#api.faults.clear();
  }

  /** The faults that are still active. */
  faults(): KapsoFault[] {
    return this.#api.faults.list();
  }

  /** The messages that a customer has received, oldest first, without failed ones. */
  visibleTo(phone: string): VisibleMessage[] {
    return this.#chats.visibleTo(phone);
  }

  /** Resolves once a customer has received at least `count` messages. @throws Error after `timeoutMs` */
  waitForVisible(phone: string, count: number, timeoutMs: number): Promise<VisibleMessage[]> {
    const check = () => {
      const visible = this.visibleTo(phone);
      return visible.length >= count ? visible : undefined;
    };
    return this.#changes.until(
      customerKey(phone),
      check,
      timeoutMs,
      () => `${this.visibleTo(phone).length} of ${count} messages are visible`,
    );
  }

  /** Resolves once the double has sent this status of a message. @throws Error after `timeoutMs` */
  waitForStatus(wamid: string, status: MessageStatus, timeoutMs: number): Promise<void> {
    const check = () => this.#store.find(wamid)?.statuses.some((known) => known.status === status) || undefined;
    return this.#changes.until(wamid, check, timeoutMs, () => `the message has no status ${status}`).then(() => undefined);
  }

  /** All messages of a chat with their ticks, oldest first. */
  chat(phone: string): ChatLine[] {
    return this.#chats.lines(phone);
  }

  /** The name that a customer last wrote under; undefined if they never wrote. */
  nameOf(phone: string): string | undefined {
    return this.#store.contactName(customerKey(phone));
  }

  /** Calls `listener` for each event in a customer's chat; the returned function unsubscribes. */
  subscribe(phone: string, listener: (event: ChatEvent) => void): () => void {
    return this.#chats.subscribe(phone, listener);
  }

  /** The latest sends (at most 2000), oldest first. */
  sends(): SendRecord[] {
    return this.#api.sends();
  }

  /** Resolves once at least `count` sends have arrived, whatever the responses. @throws Error after `timeoutMs` */
  waitForSends(count: number, timeoutMs: number): Promise<SendRecord[]> {
    const check = () => (this.#api.counts.sends >= count ? this.sends() : undefined);
    return this.#changes.until('sends', check, timeoutMs, () => `${this.#api.counts.sends} of ${count} sends arrived`);
  }

  /** Totals since the start. */
  counts(): KapsoCounts {
    return { inbound: this.#inboundCount, ...this.#api.counts, webhooks: { ...this.#webhooks.counts } };
  }

  /** Resolves when all planned statuses have been sent and all webhooks accepted or abandoned. */
  async settled(): Promise<void> {
    await this.#background.settled();
    await this.#webhooks.settled();
  }

  /** Ends all timers, webhooks and waits. */
  async close(): Promise<void> {
    this.#timers.close();
    this.#changes.close();
    await this.#webhooks.close();
    await this.#background.settled();
  }

  /** Kapso's routes, to be mounted at the root. */
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

  /** Sends to every active webhook of the number that has the event. Without any, the event is lost, as at Kapso. */
  #deliver(event: KapsoEvent): Delivery {
    if (typeof this.#options.webhookUrls === 'function') return this.#webhooks.send(kapsoWebhook(this.#webhookOptions, event));
    const deliveries = this.platform
      .receivers(event.event)
      .map((receiver) => this.#webhooks.send(receiverWebhook(this.#webhookOptions, receiver, event)));
    const [only] = deliveries;
    return only !== undefined && deliveries.length === 1 ? only : together(deliveries);
  }
}

/** Counts as accepted only if every receiver accepted it. */
function together(deliveries: Delivery[]): Delivery {
  const worst = (statuses: number[]) => statuses.find((status) => status !== 200) ?? statuses[0] ?? 0;
  return {
    first: Promise.all(deliveries.map(({ first }) => first)).then(worst),
    done: Promise.all(deliveries.map(({ done }) => done)).then((results) => ({
      status: worst(results.map(({ status }) => status)),
      attempts: Math.max(0, ...results.map(({ attempts }) => attempts)),
    })),
  };
}
