/**
 * Reads Kapso's lists of messages and conversations, a page at a time, newest first. Based on Kapso's documentation as of November 2026:
 * `next` of a page is the cursor of the following one, and a row need not name its sender.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { ContactIdentity, InboundMessage, ReportedStatus } from '../../../workflows/contract';
import { connectionFailure } from '../../platform/connection-failure';
import { withDeadline } from '../../platform/deadline';
import { sendRequest } from '../../platform/http-request';
import { retryAfterMs } from '../../platform/retry-after';
import { SEND_PATH_VERSION } from './client';
import { type KapsoEvent, readKapsoBody } from './events';
import type { KapsoProject } from './platform';

/** The query of a list: a number's messages, within a time (milliseconds since 1970), after a cursor. */
export interface MessageQuery {
  phoneNumberId: string;
  sinceMs?: number;
  untilMs?: number;
  after?: string;
}

export interface ListPage {
  rows: unknown[];
  /** Cursor of the next page; undefined on the last one. */
  next?: string;
}

/** A list could not be read. `retryAfterMs`: Kapso asks to wait that long. `status`: undefined if there was no readable response. */
export class KapsoListError extends Error {
  override name = 'KapsoListError';
  constructor(
    message: string,
    readonly status?: number,
    readonly retryAfterMs?: number,
  ) {
    super(message);
  }
}

export interface KapsoLists {
  /** @throws KapsoListError, or the signal's reason */
  messages(query: MessageQuery, signal: AbortSignal): Promise<ListPage>;
  /** @throws as `messages` */
  conversations(query: { phoneNumberId: string; after?: string }, signal: AbortSignal): Promise<ListPage>;
}

const PAGE_SIZE = 100;
const TIMEOUT_MS = 15_000;
/** Kapso counts requests per minute (429 without a header). */
const RATE_WINDOW_MS = 60_000;

const pageSchema = z.object({ data: z.array(z.unknown()), paging: z.object({ next: z.string().nullish().catch(undefined) }).nullish() });

/** Spaces requests evenly, because sends share the key's quota (docs/decisions/0020). */
export interface Pacer {
  /** Resolves when the next request may be sent. */
  turn(signal: AbortSignal): Promise<void>;
}

/** One per API key and process. */
export function createPacer(perMinute: number): Pacer {
  const gapMs = RATE_WINDOW_MS / perMinute;
  let freeAtMs = 0;
  return {
    async turn(signal) {
      const atMs = Math.max(Date.now(), freeAtMs);
      freeAtMs = atMs + gapMs;
      if (atMs > Date.now()) await sleep(atMs - Date.now(), undefined, { signal });
    },
  };
}

/** The lists of a Kapso project. */
export function createKapsoLists({ baseUrl, apiKey }: KapsoProject, pacer: Pacer): KapsoLists {
  async function page(path: string, query: Record<string, string | undefined>, signal: AbortSignal): Promise<ListPage> {
    await pacer.turn(signal);
    const given = Object.entries({ ...query, limit: String(PAGE_SIZE) }).filter(
      (entry): entry is [string, string] => entry[1] !== undefined,
    );
    const url = `${baseUrl}${path}?${new URLSearchParams(given)}`;
    const request = { method: 'GET' as const, headers: { 'X-API-Key': apiKey } };
    const response = await withDeadline(TIMEOUT_MS, (within) => sendRequest(url, { ...request, signal: within }), signal).catch(
      (error: unknown) => {
        signal.throwIfAborted();
        const failure = connectionFailure(error);
        throw new KapsoListError(`Kapso is unreachable (${failure.kind === 'not_sent' ? failure.code : failure.reason})`);
      },
    );
    if (response.status === 429)
      throw new KapsoListError('Kapso limits the requests', 429, retryAfterMs(response.headers) ?? RATE_WINDOW_MS);
    if (response.status !== 200)
      throw new KapsoListError(`Kapso responded with ${response.status}`, response.status, retryAfterMs(response.headers));
    return readPage(response.text, query.after);
  }

  return {
    messages: ({ phoneNumberId, sinceMs, untilMs, after }, signal) =>
      page(
        `/meta/whatsapp/${SEND_PATH_VERSION}/${encodeURIComponent(phoneNumberId)}/messages`,
        { since: isoTime(sinceMs), until: isoTime(untilMs), after },
        signal,
      ),
    conversations: ({ phoneNumberId, after }, signal) =>
      page('/platform/v1/whatsapp/conversations', { phone_number_id: phoneNumberId, after }, signal),
  };
}

function isoTime(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : new Date(ms).toISOString();
}

/** A page that is followed by itself, or is empty, is the last one. */
function readPage(text: string, after: string | undefined): ListPage {
  let parsed: z.output<typeof pageSchema>;
  try {
    parsed = pageSchema.parse(JSON.parse(text));
  } catch {
    throw new KapsoListError("Kapso's response cannot be read");
  }
  const next = parsed.paging?.next ?? undefined;
  return { rows: parsed.data, ...(next === undefined || next === '' || next === after || parsed.data.length === 0 ? {} : { next }) };
}

const text = z.string().nullish().catch(undefined);
const rowSchema = z.looseObject({
  kapso: z
    .looseObject({
      direction: text,
      phone_number: text,
      phone_number_id: text,
      business_scoped_user_id: text,
      whatsapp_conversation_id: text,
      contact_name: text,
    })
    .nullish()
    .catch(undefined),
});

/** Reads a row of the message list like a webhook; never throws. */
export function readMessageRow(row: unknown, phoneNumberId: string): KapsoEvent[] {
  return readKapsoBody(Buffer.from(JSON.stringify(itemOf(row, phoneNumberId))));
}

/** A row as an item of a webhook. The person is given beside the message, because rows may lack `from`. */
function itemOf(row: unknown, phoneNumberId: string): unknown {
  const kapso = rowSchema.safeParse(row).data?.kapso ?? {};
  return {
    message: row,
    conversation: {
      phone_number: kapso.phone_number,
      business_scoped_user_id: kapso.business_scoped_user_id,
      kapso: { contact_name: kapso.contact_name },
    },
    phone_number_id: phoneNumberId,
  };
}

/** An earlier message, without any vendor's field names. */
export interface PastMessage {
  contact: ContactIdentity;
  direction: 'inbound' | 'outbound';
  message: Omit<InboundMessage, 'id'>;
  /** Of an outbound message: the highest status that is known; undefined while Kapso has not passed it on. */
  status?: ReportedStatus;
  /** Our ids of an outbound message that Parley may have sent. */
  correlationIds: string[];
}

/** A person, as Kapso's conversations name them. */
export interface PastConversation {
  contact: ContactIdentity;
  lastActiveAtMs: number;
}

const HEIGHT: readonly ReportedStatus[] = ['sent', 'delivered', 'read', 'failed'];

/** Reads a row of the message list for the import of history; undefined if it cannot be read. */
export function readPastMessage(row: unknown, phoneNumberId: string): PastMessage | undefined {
  const events = readMessageRow(row, phoneNumberId);
  if (!isOutbound(row)) {
    const [received] = events;
    if (received?.type !== 'message') return undefined;
    return { contact: received.contact, direction: 'inbound', message: received.message, correlationIds: [] };
  }
  // Its content has the form of a customer's message.
  const [sent] = readMessageRow(mirrored(row), phoneNumberId);
  if (sent?.type !== 'message') return undefined;
  const statuses = events.flatMap((event) => (event.type === 'status' ? [event] : []));
  const status = HEIGHT.findLast((candidate) => statuses.some((event) => event.status === candidate));
  return {
    ...{ contact: sent.contact, direction: 'outbound', message: sent.message },
    ...(status === undefined ? {} : { status }),
    correlationIds: [...new Set(statuses.flatMap(({ correlationId }) => correlationId ?? []))],
  };
}

type Fields = Record<string, unknown>;

function isOutbound(row: unknown): row is Fields {
  return rowSchema.safeParse(row).data?.kapso?.direction === 'outbound';
}

/** The row as if the customer had written it to us. Kapso's rendering replaces a missing text, such as a template's. */
function mirrored({ from: _business, to, to_user_id, to_parent_user_id: _parent, ...row }: Fields): Fields {
  const { statuses: _statuses, status: _status, origin: _origin, ...kapso } = row.kapso as Fields;
  const rendering = row.type === 'template' ? { content: kapso.content } : {};
  return {
    ...row,
    ...rendering,
    ...(to === undefined ? {} : { from: to }),
    ...(to_user_id === undefined ? {} : { from_user_id: to_user_id }),
    kapso: { ...kapso, direction: 'inbound' },
  };
}

const conversationSchema = z.looseObject({
  phone_number: text,
  business_scoped_user_id: text,
  username: text,
  last_active_at: text,
  kapso: z.looseObject({ contact_name: text }).nullish().catch(undefined),
});

/** Reads a row of the conversation list; undefined if it names nobody. */
export function readPastConversation(row: unknown, phoneNumberId: string): PastConversation | undefined {
  const parsed = conversationSchema.safeParse(row).data;
  if (parsed === undefined) return undefined;
  const lastActiveAtMs = Date.parse(parsed.last_active_at ?? '');
  // The message parser knows the formats of names and numbers.
  const message = {
    id: 'conversation',
    type: 'text',
    text: { body: '' },
    timestamp: parsed.last_active_at,
    kapso: { direction: 'inbound' },
  };
  const body = { message, conversation: row, phone_number_id: phoneNumberId };
  const [event] = readKapsoBody(Buffer.from(JSON.stringify(body)));
  if (event?.type !== 'message') return undefined;
  return { contact: event.contact, lastActiveAtMs: Number.isNaN(lastActiveAtMs) ? event.message.sentAtMs : lastActiveAtMs };
}
