/** Reads a project's numbers and webhooks from Kapso, and changes webhooks (its platform API, November 2026). */
import { z } from 'zod';
import { connectionFailure } from '../../platform/connection-failure';
import { withDeadline } from '../../platform/deadline';
import { type HttpAnswer, sendRequest } from '../../platform/http-request';
import { retryAfterMs } from '../../platform/retry-after';

/** Where Kapso is, and the key of a project. */
export interface KapsoProject {
  baseUrl: string;
  apiKey: string;
}

/** The rows of a list. `refused`: Kapso responded with an error status. `unreachable`: there was no readable response. */
export type KapsoRows<T> = { kind: 'rows'; rows: T[] } | KapsoFailure;
/** `retryAfterMs`: Kapso asks to wait that long. */
export type KapsoFailure = { kind: 'refused'; status: number; retryAfterMs?: number } | { kind: 'unreachable'; reason: string };

/** A business number. A field is undefined if Kapso does not report it. */
export interface KapsoNumber {
  id: string;
  name: string | undefined;
  takesMessages: boolean | undefined;
}

/** A webhook of a number. `secret` must never be shown. */
export interface NumberWebhook {
  /** Kapso's id. */
  id: string | undefined;
  url: string;
  kind: string | undefined;
  events: string[];
  isActive: boolean;
  payloadVersion: string | undefined;
  isBuffered: boolean;
  secret: string | undefined;
}

const TIMEOUT_MS = 8_000;
const PAGE_SIZE = 100;
const MAX_PAGES = 20;

const text = z.string().nullish().catch(undefined);
const flag = z.boolean().nullish().catch(undefined);
const pageSchema = z.object({
  data: z.array(z.unknown()),
  meta: z.object({ total_pages: z.number() }).nullish().catch(undefined),
});
const numberRow = z.object({ id: z.string(), name: text, verified_name: text, inbound_processing_enabled: flag }).transform(
  (row): KapsoNumber => ({
    id: row.id,
    name: row.name ?? row.verified_name ?? undefined,
    takesMessages: row.inbound_processing_enabled ?? undefined,
  }),
);
const webhookRow = z
  .object({
    id: text,
    url: z.string(),
    kind: text,
    events: z.array(z.string()).catch([]),
    active: flag,
    payload_version: text,
    buffer_enabled: flag,
    secret_key: text,
  })
  .transform(
    (row): NumberWebhook => ({
      id: row.id ?? undefined,
      url: row.url,
      kind: row.kind ?? undefined,
      events: row.events,
      isActive: row.active !== false,
      payloadVersion: row.payload_version ?? undefined,
      isBuffered: row.buffer_enabled === true,
      secret: row.secret_key ?? undefined,
    }),
  );

/** The numbers of the project. */
export async function listNumbers(project: KapsoProject): Promise<KapsoRows<KapsoNumber>> {
  return await list(project, '/whatsapp/phone_numbers', numberRow);
}

/** The webhooks of a number. */
export async function listWebhooks(project: KapsoProject, phoneNumberId: string): Promise<KapsoRows<NumberWebhook>> {
  return await list(project, webhooksPath(phoneNumberId), webhookRow);
}

/** What can be set on a webhook. */
export interface WebhookChange {
  url?: string;
  events?: readonly string[];
  isActive?: boolean;
  payloadVersion?: 'v2';
  isBuffered?: false;
  secret?: string;
}

/** Creates a webhook of the kind `kapso`. */
export async function createWebhook(project: KapsoProject, phoneNumberId: string, wanted: WebhookChange): Promise<KapsoChange> {
  return await write(project, 'POST', webhooksPath(phoneNumberId), { kind: 'kapso', ...fieldsOf(wanted) });
}

/** Changes some fields of a webhook. */
export async function changeWebhook(
  project: KapsoProject,
  phoneNumberId: string,
  webhookId: string,
  change: WebhookChange,
): Promise<KapsoChange> {
  return await write(project, 'PATCH', `${webhooksPath(phoneNumberId)}/${encodeURIComponent(webhookId)}`, fieldsOf(change));
}

/** `done`: Kapso has taken the change; its response may have no body. */
export type KapsoChange = { kind: 'done' } | KapsoFailure;

function webhooksPath(phoneNumberId: string): string {
  return `/whatsapp/phone_numbers/${encodeURIComponent(phoneNumberId)}/webhooks`;
}

function fieldsOf({ url, events, isActive, payloadVersion, isBuffered, secret }: WebhookChange): Record<string, unknown> {
  const fields = {
    ...{ url, events, active: isActive, payload_version: payloadVersion, buffer_enabled: isBuffered, secret_key: secret },
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

async function write(
  { baseUrl, apiKey }: KapsoProject,
  method: 'POST' | 'PATCH',
  path: string,
  webhook: Record<string, unknown>,
): Promise<KapsoChange> {
  const headers = { 'X-API-Key': apiKey, 'Content-Type': 'application/json' };
  const body = JSON.stringify({ whatsapp_webhook: webhook });
  try {
    const response = await withDeadline(TIMEOUT_MS, (signal) =>
      sendRequest(`${baseUrl}/platform/v1${path}`, { method, headers, body, signal }),
    );
    return response.status >= 200 && response.status < 300 ? { kind: 'done' } : refusalOf(response);
  } catch (error) {
    return { kind: 'unreachable', reason: reasonOf(error) };
  }
}

function refusalOf({ status, headers }: HttpAnswer): KapsoFailure {
  const waitMs = retryAfterMs(headers);
  return { kind: 'refused', status, ...(waitMs === undefined ? {} : { retryAfterMs: waitMs }) };
}

/** Rows of an unknown form are left out. */
async function list<T>({ baseUrl, apiKey }: KapsoProject, path: string, rowSchema: z.ZodType<T>): Promise<KapsoRows<T>> {
  const rows: T[] = [];
  try {
    for (let page = 1; page <= MAX_PAGES; page += 1) {
      const url = `${baseUrl}/platform/v1${path}?page=${page}&per_page=${PAGE_SIZE}`;
      const request = { method: 'GET' as const, headers: { 'X-API-Key': apiKey } };
      const response = await withDeadline(TIMEOUT_MS, (signal) => sendRequest(url, { ...request, signal }));
      if (response.status !== 200) return refusalOf(response);
      const { data, meta } = pageSchema.parse(JSON.parse(response.text));
      rows.push(...data.flatMap((row) => rowSchema.safeParse(row).data ?? []));
      if (page >= (meta?.total_pages ?? 1)) break;
    }
    return { kind: 'rows', rows };
  } catch (error) {
    return { kind: 'unreachable', reason: reasonOf(error) };
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof SyntaxError || error instanceof z.ZodError) return 'its response cannot be read';
  const failure = connectionFailure(error);
  return failure.kind === 'not_sent' ? failure.code : failure.reason;
}
