/** A double of Kapso: its send API, its lists, its webhooks, and the customers on their phones. It misbehaves on request only. */
import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { json, type NextFunction, type Request, type Response, Router } from 'express';
import type { Logger } from 'pino';
import { z } from 'zod';
import { type HttpAnswer, leave, reply, withRetryAfter } from '../answers';
import { Programs } from '../programs';
import { Background, Changes, Timers } from '../waiting';
import { type Delivery, type DeliveryResult, type WebhookCounts, WebhookSender, type WebhookTargets } from '../webhook-sender';
import {
  batchEvent,
  type CustomerKind,
  customerContent,
  customerKey,
  invalidParameter,
  isPhone,
  KAPSO_ERRORS,
  type MessageStatus,
  receivedEvent,
  type StoredConversation,
  type StoredMessage,
  statusEvent,
  statusObject,
} from './bodies';
import { type KapsoFault, type KapsoRequest, markReadSchema, readableText, type SendBody, type StatusStep, sendSchema } from './requests';
import { freshWamid, KapsoStore, type ListQuery } from './store';
import { type KapsoEvent, type KapsoWebhookOptions, kapsoWebhook, rawKapsoWebhook } from './webhooks';

export interface KapsoDoubleOptions {
  webhookUrls: WebhookTargets;
  webhookSecret: string;
  phoneNumberId: string;
  /** ms from acceptance to each status webhook (default 150, 400, 1200). */
  statusDelaysMs?: { sent: number; delivered: number; read: number } | undefined;
  /** Waits before the second, third… attempt of a webhook, in ms (default 10 s, 40 s). */
  webhookRetryDelaysMs?: number[] | undefined;
  /** Time limit of a webhook attempt, in ms (default 10 s). */
  webhookTimeoutMs?: number | undefined;
  /** The key to demand; not set: any. */
  apiKey?: string | undefined;
  /** true: other number ids get a 404, and a second send to a customer while one is in flight gets a 409. */
  strict?: boolean | undefined;
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

/** A message that a customer has on the phone. */
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

/** One line of a chat as the customer sees it. `read` of an inbound message: the business marked it as read. */
export interface ChatLine {
  wamid: string;
  direction: 'inbound' | 'outbound';
  text: string;
  atMs: number;
  statuses: (MessageStatus | 'taken')[];
}

/** What happens in a customer's chat. `ticks` of own messages: `taken` (webhook answered 200), `read`. */
export type ChatEvent =
  | { type: 'reply'; wamid: string; text: string; atMs: number }
  | { type: 'ticks'; wamid: string; direction: 'inbound' | 'outbound'; status: MessageStatus | 'taken' }
  | { type: 'typing' };

/** A send as it came in, and what became of it. */
export interface SendRecord extends KapsoRequest {
  atMs: number;
  wamid: string | undefined;
  accepted: boolean;
  /** HTTP status of the answer; 0 for none. */
  status: number;
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

const RECENT_SENDS = 1000;
const listQuery = z.object({
  phone_number_id: z.string().optional(),
  phone_number: z.string().optional(),
  direction: z.enum(['inbound', 'outbound']).optional(),
  status: z.string().optional(),
  since: z.coerce.date().optional(),
  until: z.coerce.date().optional(),
  after: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(100).default(20),
});

/** Kapso, played. Methods never throw because of Parley's answers. */
export class KapsoDouble {
  readonly #options: KapsoDoubleOptions;
  readonly #store: KapsoStore;
  readonly #webhooks: WebhookSender;
  readonly #webhookOptions: KapsoWebhookOptions;
  readonly #faults = new Programs<KapsoFault>();
  readonly #changes = new Changes();
  readonly #timers = new Timers();
  readonly #background: Background;
  readonly #chat = new EventEmitter().setMaxListeners(0);
  readonly #inFlight = new Set<string>();
  readonly #counts = { inbound: 0, sends: 0, accepted: 0, refused: 0, unanswered: 0, markReads: 0, lists: 0 };
  readonly #marks = new WeakMap<StoredMessage, 'taken' | 'read'>();
  #sends: SendRecord[] = [];

  constructor(options: KapsoDoubleOptions) {
    const failed = (error: unknown) => options.log.error({ err: error }, 'the sandbox failed in the background');
    this.#options = options;
    this.#store = new KapsoStore(options.keepMessages ?? 200_000);
    this.#background = new Background(failed);
    this.#webhooks = new WebhookSender(failed);
    this.#webhookOptions = {
      targets: options.webhookUrls,
      secret: options.webhookSecret,
      retryDelaysMs: options.webhookRetryDelaysMs,
      timeoutMs: options.webhookTimeoutMs,
    };
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
    const stored = this.#add('outbound', customerKey(to), {
      type: 'text',
      content: { text: { body: text } },
      text,
      origin: 'business_app',
    });
    const { conversation } = this.#store.conversation(stored.customer, stored.phoneNumberId);
    this.#tell(stored.customer, { type: 'reply', wamid: stored.wamid, text, atMs: stored.createdAtMs });
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
    return this.#faults.add(fault);
  }

  /** Takes all faults back. */
  clearFaults(): void {
    this.#faults.clear();
  }

  /** The faults that still wait for requests. */
  faults(): KapsoFault[] {
    return this.#faults.list();
  }

  /** What a customer received, oldest first; without messages that failed. */
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
    const lines = this.#store.of(customerKey(phone)).filter((message) => message.visible);
    return lines.map((message) => ({
      wamid: message.wamid,
      direction: message.direction,
      text: message.text,
      atMs: message.createdAtMs,
      statuses: this.#ticks(message),
    }));
  }

  /** Calls `listener` with what happens in a customer's chat; the returned function ends it. */
  subscribe(phone: string, listener: (event: ChatEvent) => void): () => void {
    const key = customerKey(phone);
    this.#chat.on(key, listener);
    return () => this.#chat.off(key, listener);
  }

  /** The latest sends (at most 1000) as they came in, oldest first. */
  sends(): SendRecord[] {
    return [...this.#sends];
  }

  /** Resolves when at least `count` sends came in, however they were answered. @throws Error after `timeoutMs` */
  waitForSends(count: number, timeoutMs: number): Promise<SendRecord[]> {
    const look = () => (this.#counts.sends >= count ? this.sends() : undefined);
    return this.#changes.until('sends', look, timeoutMs, () => `${this.#counts.sends} of ${count} sends came in`);
  }

  /** Totals since the start. */
  counts(): KapsoCounts {
    return { ...this.#counts, webhooks: { ...this.#webhooks.counts } };
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
    const router = Router();
    const guard = (request: Request, response: Response, next: NextFunction) => this.#guard(request, response, next);
    router.use('/meta/whatsapp/v24.0/:phoneNumberId/messages', guard);
    router.use('/platform/v1', guard);
    router.post('/meta/whatsapp/v24.0/:phoneNumberId/messages', json({ limit: '1mb' }), (request, response) =>
      this.#post(request, response),
    );
    router.get('/meta/whatsapp/v24.0/:phoneNumberId/messages', (request, response) => this.#list(request, response));
    router.get('/platform/v1/whatsapp/messages', (request, response) => this.#list(request, response));
    router.get('/platform/v1/whatsapp/messages/:wamid', (request, response) => this.#one(request, response));
    return router;
  }

  #guard(request: Request, response: Response, next: NextFunction): void {
    const key = request.get('X-API-Key');
    const { apiKey, strict, phoneNumberId } = this.#options;
    const number = request.params.phoneNumberId;
    if (key === undefined || key === '' || (apiKey !== undefined && key !== apiKey)) reply(response, KAPSO_ERRORS['401']);
    else if (strict === true && number !== undefined && number !== phoneNumberId) reply(response, KAPSO_ERRORS['404']);
    else next();
  }

  async #post(request: Request, response: Response): Promise<void> {
    const body: unknown = request.body;
    if (typeof body === 'object' && body !== null && 'status' in body) return this.#markRead(body, response);
    const parsed = sendSchema.safeParse(body);
    if (!parsed.success) {
      this.#counts.sends += 1;
      this.#counts.refused += 1;
      return reply(response, invalidParameter(explain(parsed.error)));
    }
    await this.#send(parsed.data, String(request.params.phoneNumberId), response);
  }

  async #send(body: SendBody, phoneNumberId: string, response: Response): Promise<void> {
    const record: SendRecord = { ...describeSend(body), atMs: Date.now(), wamid: undefined, accepted: false, status: 0 };
    const fault = this.#faultFor(record);
    this.#record(record);
    if (this.#options.strict === true && this.#inFlight.has(record.to)) return this.#refuse(record, response, KAPSO_ERRORS['409']);
    this.#inFlight.add(record.to);
    response.once('close', () => this.#inFlight.delete(record.to));
    await this.#timers.sleep(fault.delayBeforeMs ?? 0);
    const answer = fault.answer ?? 'success';
    const accepts = fault.accepted ?? answer === 'success';
    const firstTried = accepts ? this.#accept(body, phoneNumberId, record, fault) : Promise.resolve();
    if (fault.statusBeforeAnswer === true) await firstTried;
    await this.#timers.sleep(fault.delayAfterMs ?? 0);
    if (answer === 'success') return this.#succeed(record, response, sendSuccess(body, record.wamid ?? freshWamid()));
    if (answer === 'hang' || answer === 'cut') return this.#leave(answer, response);
    this.#refuse(record, response, namedAnswer(answer, fault));
  }

  /** Accepts a send; the returned promise resolves when its first status webhook was tried. */
  #accept(body: SendBody, phoneNumberId: string, record: SendRecord, fault: KapsoFault): Promise<void> {
    const plan = this.#plan(body, fault);
    const {
      messaging_product: _,
      recipient_type: _type,
      to: _to,
      recipient: _recipient,
      biz_opaque_callback_data: __,
      type,
      ...content
    } = body;
    const visible = !plan.some((step) => step.status === 'failed');
    const stored = this.#add('outbound', record.to, {
      type,
      content,
      text: record.text,
      origin: 'cloud_api',
      phoneNumberId,
      correlation: record.correlation,
      listed: fault.omitFromList !== true,
      visible,
    });
    Object.assign(record, { wamid: stored.wamid, accepted: true });
    this.#counts.accepted += 1;
    if (visible) this.#tell(stored.customer, { type: 'reply', wamid: stored.wamid, text: stored.text, atMs: stored.createdAtMs });
    this.#changes.notify(stored.customer);
    return new Promise((resolve) => this.#background.run(this.#runPlan(stored, plan, resolve).finally(resolve)));
  }

  /** A reaction gets no more than `sent`. */
  #plan(body: SendBody, fault: KapsoFault): StatusStep[] {
    const delays = this.#options.statusDelaysMs ?? { sent: 150, delivered: 400, read: 1200 };
    const names = body.type === 'reaction' ? (['sent'] as const) : (['sent', 'delivered', 'read'] as const);
    const steps: StatusStep[] = fault.statuses ?? names.map((status) => ({ status, afterMs: delays[status] }));
    return steps
      .filter((step) => !fault.dropStatuses?.includes(step.status))
      .map((step) => (fault.duplicateStatuses?.includes(step.status) ? { ...step, copies: 2 } : step))
      .sort((one, other) => one.afterMs - other.afterMs);
  }

  /** Each status waits for the first attempt of the one before, not for its retries: so they keep their order unless a webhook fails. */
  async #runPlan(message: StoredMessage, plan: StatusStep[], tried: () => void): Promise<void> {
    for (const step of plan) {
      const dueInMs = message.createdAtMs + step.afterMs - Date.now();
      if (!(await this.#timers.sleep(dueInMs))) return;
      await this.#emitStatus(message, step);
      tried();
    }
  }

  async #emitStatus(message: StoredMessage, step: StatusStep): Promise<void> {
    const atMs = Date.now();
    const { conversation } = this.#store.conversation(message.customer, message.phoneNumberId);
    message.statuses.push(statusObject(message, step.status, atMs, step.errorCode));
    this.#tell(message.customer, { type: 'ticks', wamid: message.wamid, direction: 'outbound', status: step.status });
    const body = JSON.stringify(statusEvent(message, conversation, step.status, atMs));
    const order = step.status === 'sent' ? message.customer : undefined;
    const copies = Array.from({ length: step.copies ?? 1 }, () => ({ event: `whatsapp.message.${step.status}`, body, order }));
    await Promise.all(copies.map((event) => this.#deliver(event).first));
    this.#changes.notify(message.wamid);
  }

  #markRead(body: object, response: Response): Promise<void> | void {
    const parsed = markReadSchema.safeParse(body);
    if (!parsed.success) return reply(response, invalidParameter(explain(parsed.error)));
    this.#counts.markReads += 1;
    const message = this.#store.find(parsed.data.message_id);
    const request: KapsoRequest = { on: 'mark_read', to: message?.customer ?? '', text: '', correlation: undefined, body };
    return this.#withFault(request, response, () => {
      if (message !== undefined) this.#readByBusiness(message, parsed.data.typing_indicator !== undefined);
      return { status: 200, body: { success: true } };
    });
  }

  /** Reading a message reads the earlier ones too. */
  #readByBusiness(message: StoredMessage, typing: boolean): void {
    const earlier = this.#store.of(message.customer).filter((other) => other.direction === 'inbound' && other.sequence <= message.sequence);
    for (const read of earlier) this.#mark(read, 'read');
    if (typing) this.#tell(message.customer, { type: 'typing' });
  }

  #list(request: Request, response: Response): Promise<void> | void {
    this.#counts.lists += 1;
    const parsed = listQuery.safeParse(request.query);
    if (!parsed.success) return reply(response, { status: 400, body: { error: explain(parsed.error) } });
    const { phone_number_id, phone_number, since, until, ...query } = parsed.data;
    const page: ListQuery = {
      ...query,
      phoneNumberId: typeof request.params.phoneNumberId === 'string' ? request.params.phoneNumberId : phone_number_id,
      customer: phone_number === undefined ? undefined : customerKey(phone_number),
      since: since?.getTime(),
      until: until?.getTime(),
    };
    const asked: KapsoRequest = { on: 'list', to: page.customer ?? '', text: '', correlation: undefined, body: parsed.data };
    return this.#withFault(asked, response, () => ({ status: 200, body: this.#store.page(page) }));
  }

  #one(request: Request, response: Response): void {
    const message = this.#store.find(String(request.params.wamid));
    if (message?.listed !== true) reply(response, { status: 404, body: { error: 'Message not found' } });
    else reply(response, { status: 200, body: { data: this.#store.row(message) } });
  }

  async #withFault(request: KapsoRequest, response: Response, answer: () => HttpAnswer): Promise<void> {
    const fault = this.#faultFor(request);
    await this.#timers.sleep((fault.delayBeforeMs ?? 0) + (fault.delayAfterMs ?? 0));
    const name = fault.answer ?? 'success';
    if (name === 'success') reply(response, answer());
    else if (name === 'hang' || name === 'cut') leave(name, response);
    else reply(response, namedAnswer(name, fault));
  }

  #faultFor(request: KapsoRequest): KapsoFault {
    return this.#faults.take((fault) => faultMatches(fault, request)) ?? {};
  }

  #record(record: SendRecord): void {
    this.#counts.sends += 1;
    this.#sends.push(record);
    if (this.#sends.length > 2 * RECENT_SENDS) this.#sends = this.#sends.slice(-RECENT_SENDS);
    this.#changes.notify('sends');
  }

  #succeed(record: SendRecord, response: Response, body: object): void {
    record.status = 200;
    this.#inFlight.delete(record.to);
    reply(response, { status: 200, body });
  }

  #refuse(record: SendRecord, response: Response, answer: HttpAnswer): void {
    record.status = answer.status;
    this.#counts.refused += record.accepted ? 0 : 1;
    reply(response, answer);
  }

  #leave(how: 'hang' | 'cut', response: Response): void {
    this.#counts.unanswered += 1;
    leave(how, response);
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
    const stored = known ?? this.#add('inbound', customer, fields);
    this.#counts.inbound += known === undefined ? 1 : 0;
    return { stored, conversation, isNew };
  }

  async #deliverInbound(messages: StoredMessage[], body: string, batchSize: number | undefined): Promise<CustomerDelivery> {
    const first = messages[0];
    const event = { event: 'whatsapp.message.received', body, batchSize, order: first?.customer, idempotencyKey: first?.idempotencyKey };
    const result = await this.#deliver(event).done;
    if (result.status === 200) for (const message of messages) this.#mark(message, 'taken');
    return { ...result, wamid: first?.wamid ?? '' };
  }

  #deliver(event: KapsoEvent): Delivery {
    return this.#webhooks.send(kapsoWebhook(this.#webhookOptions, event));
  }

  #add(
    direction: 'inbound' | 'outbound',
    customer: string,
    fields: Pick<StoredMessage, 'type' | 'content' | 'text' | 'origin'> & { [K in keyof StoredMessage]?: StoredMessage[K] | undefined },
  ): StoredMessage {
    return this.#store.add({
      ...fields,
      direction,
      customer,
      wamid: fields.wamid ?? freshWamid(),
      phoneNumberId: fields.phoneNumberId ?? this.#options.phoneNumberId,
      createdAtMs: Date.now(),
      statuses: [],
      listed: fields.listed ?? true,
      visible: fields.visible ?? true,
      idempotencyKey: direction === 'inbound' ? randomUUID() : undefined,
    });
  }

  #mark(message: StoredMessage, mark: 'taken' | 'read'): void {
    const before = this.#marks.get(message);
    if (before === 'read' || before === mark) return;
    this.#marks.set(message, mark);
    this.#tell(message.customer, { type: 'ticks', wamid: message.wamid, direction: 'inbound', status: mark });
  }

  #ticks(message: StoredMessage): ChatLine['statuses'] {
    if (message.direction === 'outbound') return message.statuses.map(({ status }) => status);
    const mark = this.#marks.get(message);
    return mark === undefined ? [] : mark === 'read' ? ['taken', 'read'] : ['taken'];
  }

  #tell(customer: string, event: ChatEvent): void {
    this.#chat.emit(customer, event);
  }
}

function describeSend(body: SendBody): KapsoRequest {
  const to = customerKey(body.to ?? body.recipient ?? '');
  return { on: 'send', to, text: readableText(body), correlation: body.biz_opaque_callback_data, body };
}

function faultMatches(fault: KapsoFault, request: KapsoRequest): boolean {
  const { to, text, correlation } = fault.match ?? {};
  return (
    (fault.on ?? 'send') === request.on &&
    (to === undefined || customerKey(to) === request.to) &&
    (text === undefined || request.text.includes(text)) &&
    (correlation === undefined || (request.correlation ?? '').includes(correlation)) &&
    (fault.when?.(request) ?? true)
  );
}

function sendSuccess(body: SendBody, wamid: string): object {
  const input = body.to ?? body.recipient ?? '';
  const customer = customerKey(input);
  const contact = isPhone(customer) ? { input, wa_id: customer } : { input, user_id: customer };
  return { messaging_product: 'whatsapp', contacts: [contact], messages: [{ id: wamid }] };
}

function namedAnswer(name: keyof typeof KAPSO_ERRORS, fault: KapsoFault): HttpAnswer {
  return withRetryAfter(KAPSO_ERRORS[name], fault.retryAfterSeconds);
}

/** Paths and messages of the first problems. */
function explain(error: z.ZodError): string {
  return error.issues
    .slice(0, 3)
    .map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`)
    .join('; ');
}
