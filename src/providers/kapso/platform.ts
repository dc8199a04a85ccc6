/** Reads a project's numbers and webhooks from Kapso (its platform API, November 2026). */
import { z } from 'zod';
import { connectionFailure } from '../../platform/connection-failure';
import { withDeadline } from '../../platform/deadline';
import { sendRequest } from '../../platform/http-request';

/** Where Kapso is, and the key of a project. */
export interface KapsoProject {
  baseUrl: string;
  apiKey: string;
}

/** The rows of a list. `refused`: Kapso responded with an error status. `unreachable`: there was no readable response. */
export type KapsoRows<T> = { kind: 'rows'; rows: T[] } | { kind: 'refused'; status: number } | { kind: 'unreachable'; reason: string };

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
  return await list(project, `/whatsapp/phone_numbers/${encodeURIComponent(phoneNumberId)}/webhooks`, webhookRow);
}

/** Rows of an unknown form are left out. */
async function list<T>({ baseUrl, apiKey }: KapsoProject, path: string, rowSchema: z.ZodType<T>): Promise<KapsoRows<T>> {
  const rows: T[] = [];
  try {
    for (let page = 1; page <= MAX_PAGES; page += 1) {
      const url = `${baseUrl}/platform/v1${path}?page=${page}&per_page=${PAGE_SIZE}`;
      const request = { method: 'GET' as const, headers: { 'X-API-Key': apiKey } };
      const { status, text: body } = await withDeadline(TIMEOUT_MS, (signal) => sendRequest(url, { ...request, signal }));
      if (status !== 200) return { kind: 'refused', status };
      const { data, meta } = pageSchema.parse(JSON.parse(body));
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
