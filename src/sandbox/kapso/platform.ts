/** The double of Kapso's platform API as far as it describes a project: its numbers, and the webhooks of each, which can be changed. */
import { randomBytes, randomUUID } from 'node:crypto';
import { json, type Request, type Response, Router } from 'express';
import { z } from 'zod';
import { sendResponse } from '../responses';

/** A number, as Kapso lists it. */
export interface NumberRow {
  id: string;
  internal_id: string;
  name: string;
  kind: 'production' | 'sandbox';
  inbound_processing_enabled: boolean;
  status: string;
}

/** A webhook, as Kapso lists it: with its secret in plain text. */
export interface WebhookRow {
  id: string;
  url: string;
  kind: 'kapso' | 'meta';
  events: string[];
  active: boolean;
  secret_key: string;
  payload_version: 'v1' | 'v2';
  buffer_enabled: boolean;
  buffer_window_seconds: number;
  max_buffer_size: number;
  buffer_events: string[];
  headers: Record<string, string>;
  inactivity_minutes: number | null;
  phone_number_id: string;
  created_at: string;
  updated_at: string;
}

const EVENTS = ['received', 'sent', 'delivered', 'read', 'failed'].map((name) => `whatsapp.message.${name}`);

/** What can be set; unlike the real Kapso, the double also takes http for addresses on this machine. */
const webhookFields = z.object({
  url: z.url().refine(isHttpsOrLocal, 'URL must be a valid HTTPS URL'),
  events: z.array(z.string().regex(/^whatsapp\.(message|conversation)\.[a-z]+$/, 'is not an event of a phone number')),
  active: z.boolean(),
  secret_key: z.string().min(1),
  payload_version: z.enum(['v1', 'v2']),
  buffer_enabled: z.boolean(),
  buffer_window_seconds: z.int().min(1).max(60),
  max_buffer_size: z.int().min(1).max(100),
  buffer_events: z.array(z.literal('whatsapp.message.received')),
  headers: z.record(z.string(), z.string()),
  inactivity_minutes: z.int().min(1).max(1_440).nullable(),
});
const createSchema = z.object({
  whatsapp_webhook: webhookFields
    .partial()
    .required({ url: true })
    .extend({ kind: z.enum(['kapso', 'meta']).default('kapso') }),
});
/** The kind cannot be changed. */
const changeSchema = z.object({ whatsapp_webhook: webhookFields.partial() });
const pageQuery = z.object({
  page: z.coerce.number().int().min(1).default(1),
  per_page: z.coerce.number().int().min(1).max(100).default(20),
  kind: z.enum(['kapso', 'meta']).optional(),
  url_contains: z.string().optional(),
});

function isHttpsOrLocal(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === 'https:' || hostname === '127.0.0.1' || hostname === 'localhost';
}

/** A project with one number and one webhook per target, all set up correctly. A test may change the rows. */
export class KapsoPlatform {
  numbers: NumberRow[];
  webhooks: WebhookRow[];

  constructor({ phoneNumberId, urls, secret }: { phoneNumberId: string; urls: readonly string[]; secret: string }) {
    this.numbers = [
      {
        ...{ id: phoneNumberId, internal_id: randomUUID(), name: 'Sandbox number', kind: 'sandbox' },
        ...{ inbound_processing_enabled: true, status: 'CONNECTED' },
      },
    ];
    this.webhooks = urls.map((url) => newWebhook({ url, secret_key: secret, events: [...EVENTS] }, 'kapso', phoneNumberId));
  }

  /** The webhooks that get an event: those that are active and have it. */
  receivers(event: string): WebhookRow[] {
    return this.webhooks.filter(({ active, kind, events }) => active && kind === 'kapso' && events.includes(event));
  }

  /** The routes under /platform/v1. */
  routes(): Router {
    const router = Router();
    const webhooks = '/whatsapp/phone_numbers/:number/webhooks';
    router.get('/whatsapp/phone_numbers', (request, response) => sendRows(request, response, this.numbers));
    router.use(webhooks, json({ limit: '1mb' }));
    router.get(webhooks, (request, response) => this.#list(request, response));
    router.post(webhooks, (request, response) => this.#create(request, response));
    router.get(`${webhooks}/:id`, (request, response) => this.#withWebhook(request, response, (data) => sendOne(response, 200, data)));
    router.patch(`${webhooks}/:id`, (request, response) => this.#withWebhook(request, response, (row) => change(row, request, response)));
    router.delete(`${webhooks}/:id`, (request, response) =>
      this.#withWebhook(request, response, (row) => {
        this.webhooks = this.webhooks.filter((other) => other !== row);
        response.status(204).end();
      }),
    );
    return router;
  }

  #hasNumber(request: Request, response: Response): boolean {
    const has = this.numbers.some(({ id }) => id === request.params.number);
    if (!has) sendResponse(response, { status: 404, body: { error: 'Phone number not found' } });
    return has;
  }

  #list(request: Request, response: Response): void {
    if (!this.#hasNumber(request, response)) return;
    const query = pageQuery.safeParse(request.query);
    const { kind, url_contains } = query.success ? query.data : {};
    const rows = this.webhooks.filter(
      (row) =>
        row.phone_number_id === request.params.number &&
        (kind === undefined || row.kind === kind) &&
        (url_contains === undefined || row.url.includes(url_contains)),
    );
    sendRows(request, response, rows);
  }

  #create(request: Request, response: Response): void {
    if (!this.#hasNumber(request, response)) return;
    const parsed = createSchema.safeParse(request.body);
    if (!parsed.success) {
      refuse(response, parsed.error);
      return;
    }
    const { kind, ...fields } = parsed.data.whatsapp_webhook;
    const row = newWebhook(fields, kind, String(request.params.number));
    this.webhooks.push(row);
    sendOne(response, 201, row);
  }

  #withWebhook(request: Request, response: Response, work: (row: WebhookRow) => void): void {
    const row = this.webhooks.find(({ id, phone_number_id }) => id === request.params.id && phone_number_id === request.params.number);
    if (row === undefined) sendResponse(response, { status: 404, body: { error: 'Webhook not found' } });
    else work(row);
  }
}

type WebhookFields = Omit<z.output<typeof createSchema>['whatsapp_webhook'], 'kind'>;

function newWebhook(fields: WebhookFields, kind: WebhookRow['kind'], phoneNumberId: string): WebhookRow {
  const now = new Date().toISOString();
  return {
    ...{ id: randomUUID(), kind, events: [], active: true, secret_key: randomBytes(32).toString('hex'), payload_version: 'v2' },
    ...{ buffer_enabled: false, buffer_window_seconds: 5, max_buffer_size: 50, buffer_events: [], headers: {}, inactivity_minutes: null },
    ...given(fields),
    ...{ url: fields.url, phone_number_id: phoneNumberId, created_at: now, updated_at: now },
  };
}

/** A paused webhook stays paused until it is switched on here. The response has no body. */
function change(row: WebhookRow, request: Request, response: Response): void {
  const parsed = changeSchema.safeParse(request.body);
  if (!parsed.success) {
    refuse(response, parsed.error);
    return;
  }
  Object.assign(row, given(parsed.data.whatsapp_webhook), { updated_at: new Date().toISOString() });
  response.status(204).end();
}

type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function given<T extends object>(fields: T): Given<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Given<T>;
}

function refuse(response: Response, error: z.ZodError): void {
  const reasons = error.issues.map(({ path, message }) => `${path.join('.') || 'body'}: ${message}`).join('; ');
  sendResponse(response, { status: 422, body: { error: reasons } });
}

function sendOne(response: Response, status: number, data: object): void {
  sendResponse(response, { status, body: { data } });
}

function sendRows(request: Request, response: Response, rows: object[]): void {
  const query = pageQuery.safeParse(request.query);
  if (!query.success) {
    refuse(response, query.error);
    return;
  }
  const { page, per_page } = query.data;
  const meta = { page, per_page, total_pages: Math.max(1, Math.ceil(rows.length / per_page)), total_count: rows.length };
  sendResponse(response, { status: 200, body: { data: rows.slice((page - 1) * per_page, page * per_page), meta } });
}
