/** The HTTP API of the Kapso double: sends, read receipts, lists, and the faults that apply to them. */
import { json, type NextFunction, type Request, type Response, Router } from 'express';
import { z } from 'zod';
import { Programs } from '../programs';
import { type SimulatedResponse, sendResponse, withholdResponse, withRetryAfter } from '../responses';
import type { Changes, Timers } from '../waiting';
import { conversationRow, customerKey, invalidParameter, isPhone, KAPSO_ERRORS } from './bodies';
import type { Chats } from './chats';
import type { KapsoPlatform } from './platform';
import { type KapsoFault, type KapsoRequest, markReadSchema, readableText, type SendBody, sendSchema } from './requests';
import { type StatusDelays, type StatusWebhooks, statusPlan } from './statuses';
import { type ConversationQuery, freshWamid, type KapsoStore, type ListQuery } from './store';

/** A received send request and its outcome. */
export interface SendRecord extends KapsoRequest {
  atMs: number;
  wamid: string | undefined;
  accepted: boolean;
  /** HTTP status of the response; 0: no response. */
  status: number;
}

/** Options of the API. */
export interface KapsoApiOptions {
  phoneNumberId: string;
  /** The required API key (default: any). */
  apiKey?: string | undefined;
  /** true: unknown number ids get a 404, and a send to a customer while another is in flight gets a 409. */
  strict?: boolean | undefined;
  /** Requests per fixed minute; more get a 429 (default: no limit). */
  requestsPerMinute?: number | undefined;
  /** Default 150, 400 and 1200 ms. */
  statusDelaysMs?: StatusDelays | undefined;
}

/** Dependencies of the API. */
export interface KapsoApiParts {
  platform: KapsoPlatform;
  store: KapsoStore;
  chats: Chats;
  statuses: StatusWebhooks;
  changes: Changes;
  timers: Timers;
}

const RECENT_SENDS = 1000;
const listQuery = z.object({
  phone_number_id: z.string().optional(),
  phone_number: z.string().optional(),
  conversation_id: z.string().optional(),
  direction: z.enum(['inbound', 'outbound']).optional(),
  status: z.string().optional(),
  since: z.coerce.date().optional(),
  until: z.coerce.date().optional(),
  after: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(100).default(20),
});

const conversationQuery = z.object({
  phone_number_id: z.string().optional(),
  phone_number: z.string().optional(),
  last_active_after: z.coerce.date().optional(),
  last_active_before: z.coerce.date().optional(),
  after: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(100).default(20),
});

const MINUTE_MS = 60_000;

/** Kapso's HTTP API. */
export class KapsoApi {
  readonly faults = new Programs<KapsoFault>();
  readonly counts = { sends: 0, accepted: 0, refused: 0, unanswered: 0, markReads: 0, lists: 0 };
  readonly #options: KapsoApiOptions;
  readonly #parts: KapsoApiParts;
  readonly #inFlight = new Set<string>();
  #minute = { startsAtMs: 0, requests: 0 };
  #sends: SendRecord[] = [];

  constructor(options: KapsoApiOptions, parts: KapsoApiParts) {
    this.#options = options;
    this.#parts = parts;
  }

  /** The latest sends (at most 2000), oldest first. */
  sends(): SendRecord[] {
    return [...this.#sends];
  }

  /** Kapso's routes, to be mounted at the root. */
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
    router.get('/platform/v1/whatsapp/conversations', (request, response) => this.#conversations(request, response));
    router.get('/platform/v1/whatsapp/conversations/:id', (request, response) => this.#conversation(request, response));
    router.use('/platform/v1', this.#parts.platform.routes());
    return router;
  }

  #guard(request: Request, response: Response, next: NextFunction): void {
    const key = request.get('X-API-Key');
    const { apiKey, strict, phoneNumberId } = this.#options;
    const number = request.params.phoneNumberId;
    if (key === undefined || key === '' || (apiKey !== undefined && key !== apiKey)) sendResponse(response, KAPSO_ERRORS['401']);
    else if (strict === true && number !== undefined && number !== phoneNumberId) sendResponse(response, KAPSO_ERRORS['404']);
    else if (this.#isWithinRate(response)) next();
    else sendResponse(response, withRetryAfter(KAPSO_ERRORS['429'], Math.ceil((this.#minute.startsAtMs + MINUTE_MS - Date.now()) / 1_000)));
  }

  /** Counts the request, and sets headers with what is left of the limit. */
  #isWithinRate(response: Response): boolean {
    const { requestsPerMinute: limit } = this.#options;
    if (limit === undefined) return true;
    if (Date.now() >= this.#minute.startsAtMs + MINUTE_MS) this.#minute = { startsAtMs: Date.now(), requests: 0 };
    this.#minute.requests += 1;
    const remaining = Math.max(0, limit - this.#minute.requests);
    response.set({ 'X-RateLimit-Limit': String(limit), 'X-RateLimit-Remaining': String(remaining) });
    return this.#minute.requests <= limit;
  }

  async #post(request: Request, response: Response): Promise<void> {
    const body: unknown = request.body;
    if (typeof body === 'object' && body !== null && 'status' in body) return this.#markRead(body, response);
    const parsed = sendSchema.safeParse(body);
    if (!parsed.success) {
      this.counts.sends += 1;
      this.counts.refused += 1;
      return sendResponse(response, invalidParameter(explain(parsed.error)));
    }
    await this.#send(parsed.data, String(request.params.phoneNumberId), response);
  }

  async #send(body: SendBody, phoneNumberId: string, response: Response): Promise<void> {
    const { timers } = this.#parts;
    const record: SendRecord = { ...describeSend(body), atMs: Date.now(), wamid: undefined, accepted: false, status: 0 };
    const fault = this.#faultFor(record);
    this.#record(record);
    if (this.#options.strict === true && this.#inFlight.has(record.to)) return this.#refuse(record, response, KAPSO_ERRORS['409']);
    this.#inFlight.add(record.to);
    response.once('close', () => this.#inFlight.delete(record.to));
    await timers.sleep(fault.delayBeforeMs ?? 0);
    const answer = fault.answer ?? 'success';
    const accepts = fault.accepted ?? answer === 'success';
    const firstAttempt = accepts ? this.#accept(body, phoneNumberId, record, fault) : Promise.resolve();
    if (fault.statusBeforeAnswer === true) await firstAttempt;
    await timers.sleep(fault.delayAfterMs ?? 0);
    if (answer === 'success') return this.#succeed(record, response, sendSuccess(body, record.wamid ?? freshWamid()));
    if (answer === 'hang' || answer === 'cut') return this.#withholdResponse(answer, response);
    this.#refuse(record, response, errorResponse(answer, fault));
  }

  /** Accepts a send; the returned promise resolves after the first attempt of its first status webhook. */
  #accept(body: SendBody, phoneNumberId: string, record: SendRecord, fault: KapsoFault): Promise<void> {
    const { chats, changes, statuses } = this.#parts;
    const plan = statusPlan(body, fault, this.#options.statusDelaysMs);
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
    const stored = chats.add('outbound', record.to, {
      type,
      content,
      text: record.text,
      origin: 'cloud_api',
      phoneNumberId,
      correlation: record.correlation,
      listed: fault.omitFromList !== true,
      visible,
      plan,
    });
    Object.assign(record, { wamid: stored.wamid, accepted: true });
    this.counts.accepted += 1;
    if (visible) {
      const { wamid, text, createdAtMs: atMs, correlation } = stored;
      chats.emit(stored.customer, { type: 'reply', wamid, text, atMs, by: 'business', correlation });
    }
    changes.notify(stored.customer);
    return statuses.start(stored);
  }

  #markRead(body: object, response: Response): Promise<void> | void {
    const { store, chats } = this.#parts;
    const parsed = markReadSchema.safeParse(body);
    if (!parsed.success) return sendResponse(response, invalidParameter(explain(parsed.error)));
    this.counts.markReads += 1;
    const message = store.find(parsed.data.message_id);
    const request: KapsoRequest = { on: 'mark_read', to: message?.customer ?? '', text: '', correlation: undefined, body };
    return this.#withFault(request, response, () => {
      if (message !== undefined) chats.markRead(message);
      if (message !== undefined && parsed.data.typing_indicator !== undefined) chats.emit(message.customer, { type: 'typing' });
      return { status: 200, body: { success: true } };
    });
  }

  #list(request: Request, response: Response): Promise<void> | void {
    this.counts.lists += 1;
    const parsed = listQuery.safeParse(request.query);
    if (!parsed.success) return sendResponse(response, { status: 400, body: { error: explain(parsed.error) } });
    const { phone_number_id, phone_number, conversation_id, since, until, ...query } = parsed.data;
    const page: ListQuery = {
      ...query,
      phoneNumberId: typeof request.params.phoneNumberId === 'string' ? request.params.phoneNumberId : phone_number_id,
      customer: phone_number === undefined ? undefined : customerKey(phone_number),
      conversationId: conversation_id,
      since: since?.getTime(),
      until: until?.getTime(),
    };
    const kapsoRequest: KapsoRequest = { on: 'list', to: page.customer ?? '', text: '', correlation: undefined, body: parsed.data };
    return this.#withFault(kapsoRequest, response, () => ({ status: 200, body: this.#parts.store.page(page) }));
  }

  #conversations(request: Request, response: Response): Promise<void> | void {
    this.counts.lists += 1;
    const parsed = conversationQuery.safeParse(request.query);
    if (!parsed.success) return sendResponse(response, { status: 400, body: { error: explain(parsed.error) } });
    const { phone_number_id, phone_number, last_active_after, last_active_before, ...query } = parsed.data;
    const page: ConversationQuery = {
      ...query,
      phoneNumberId: phone_number_id,
      customer: phone_number === undefined ? undefined : customerKey(phone_number),
      lastActiveAfter: last_active_after?.getTime(),
      lastActiveBefore: last_active_before?.getTime(),
    };
    const kapsoRequest: KapsoRequest = { on: 'list', to: page.customer ?? '', text: '', correlation: undefined, body: parsed.data };
    return this.#withFault(kapsoRequest, response, () => ({ status: 200, body: this.#parts.store.conversationPage(page) }));
  }

  #conversation(request: Request, response: Response): void {
    const conversation = this.#parts.store.findConversation(String(request.params.id));
    if (conversation === undefined) sendResponse(response, { status: 404, body: { error: 'Conversation not found' } });
    else sendResponse(response, { status: 200, body: { data: conversationRow(conversation) } });
  }

  #one(request: Request, response: Response): void {
    const message = this.#parts.store.find(String(request.params.wamid));
    if (message?.listed !== true) sendResponse(response, { status: 404, body: { error: 'Message not found' } });
    else sendResponse(response, { status: 200, body: { data: this.#parts.store.row(message) } });
  }

  async #withFault(request: KapsoRequest, response: Response, answer: () => SimulatedResponse): Promise<void> {
    const fault = this.#faultFor(request);
    await this.#parts.timers.sleep((fault.delayBeforeMs ?? 0) + (fault.delayAfterMs ?? 0));
    const name = fault.answer ?? 'success';
    if (name === 'success') sendResponse(response, answer());
    else if (name === 'hang' || name === 'cut') withholdResponse(name, response);
    else sendResponse(response, errorResponse(name, fault));
  }

  #faultFor(request: KapsoRequest): KapsoFault {
    return this.faults.take((fault) => faultMatches(fault, request)) ?? {};
  }

  #record(record: SendRecord): void {
    this.counts.sends += 1;
    this.#sends.push(record);
    if (this.#sends.length > 2 * RECENT_SENDS) this.#sends = this.#sends.slice(-RECENT_SENDS);
    this.#parts.changes.notify('sends');
  }

  #succeed(record: SendRecord, response: Response, body: object): void {
    record.status = 200;
    this.#inFlight.delete(record.to);
    sendResponse(response, { status: 200, body });
  }

  #refuse(record: SendRecord, response: Response, answer: SimulatedResponse): void {
    record.status = answer.status;
    this.counts.refused += record.accepted ? 0 : 1;
    sendResponse(response, answer);
  }

  #withholdResponse(how: 'hang' | 'cut', response: Response): void {
    this.counts.unanswered += 1;
    withholdResponse(how, response);
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

function errorResponse(name: keyof typeof KAPSO_ERRORS, fault: KapsoFault): SimulatedResponse {
  return withRetryAfter(KAPSO_ERRORS[name], fault.retryAfterSeconds);
}

/** Paths and messages of the first three problems. */
function explain(error: z.ZodError): string {
  return error.issues
    .slice(0, 3)
    .map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`)
    .join('; ');
}
