/**
 * Client for the two Kapso requests that Parley sends. No retries and no hidden state: each result says what is known about the send, and
 * the caller decides. Based on Kapso's and Meta's documentation as of November 2026.
 */
import { z } from 'zod';
import { type ConnectionFailure, connectionFailure } from '../../platform/connection-failure';
import { withDeadline } from '../../platform/deadline';
import { type HttpAnswer, sendRequest } from '../../platform/http-request';
import { retryAfterMs } from '../../platform/retry-after';

/** Maximum length of a WhatsApp text (Meta, send messages). */
export const MAX_TEXT_LENGTH = 4096;

/** A minute or two of messages at Meta's default throughput of 80 messages/s. */
const MAX_PAGES = 100;

export const SEND_PATH_VERSION = 'v24.0';

export interface Recipient {
  /** Digits only. */
  phone?: string | undefined;
  businessScopedUserId?: string | undefined;
}

export interface TextSend {
  phoneNumberId: string;
  recipient: Recipient;
  text: string;
  /** WhatsApp's id of the message that this one quotes. */
  quotedId?: string | undefined;
  /** Returned in the status webhooks (`biz_opaque_callback_data`, at most 512 characters). */
  correlationId: string;
  /** Called right before the request is sent. If it throws, nothing is sent, and the result is `not_sent`. */
  beforeSending?: () => void;
}

/**
 * What is known after a send. `accepted`: WhatsApp has the message. `refused`: it certainly does not. `not_sent`: the request was never
 * sent. `unknown`: it may have the message, and sending again could show it twice.
 */
export type SendAnswer =
  | { kind: 'accepted'; providerMessageId: string }
  | { kind: 'refused'; httpStatus: number; graphCode?: number; kapsoError?: string; retryAfterMs?: number }
  | ConnectionFailure;

/** An outbound message as Kapso lists it. */
export interface ListedMessage {
  providerMessageId: string;
  text?: string;
  /** Digits of the recipient's number, if Kapso gives one. */
  to?: string;
  sentAtMs: number;
  correlationIds: string[];
  statuses: { status: string; atMs: number }[];
}

/** Kapso's message list. */
export interface SentList {
  messages: ListedMessage[];
  /** Rows in an unknown format, unchanged. */
  unreadable: unknown[];
}

export interface KapsoClient {
  sendText(send: TextSend): Promise<SendAnswer>;
  /** The outbound messages between two times (milliseconds since 1970), newest first. @throws if Kapso is unreachable, or the list is too long */
  listSent(query: { phoneNumberId: string; sinceMs: number; untilMs: number }): Promise<SentList>;
}

const accepted = z.object({ messages: z.array(z.object({ id: z.string().min(1) })).min(1) });
const graphError = z.object({ error: z.object({ code: z.number() }) });
const kapsoError = z.object({ error: z.string() });
const text = z.string().nullish().catch(undefined);
const listPage = z.object({ data: z.array(z.unknown()), paging: z.object({ next: text }).nullish().catch(undefined) });
/** Invalid optional fields are ignored; a row is unreadable only without an id. */
const listRow = z.object({
  id: z.string().min(1),
  timestamp: z.coerce.number().catch(0),
  to: text,
  text: z.object({ body: z.string() }).nullish().catch(undefined),
  kapso: z
    .object({ phone_number: text, statuses: z.array(z.unknown()).nullish().catch(undefined) })
    .nullish()
    .catch(undefined),
});
const listedStatus = z.object({
  status: z.string(),
  timestamp: z.coerce.number().catch(0),
  biz_opaque_callback_data: text,
});

/** Stands in for Kapso if WhatsApp is not configured: refuses every send. */
export function unconfiguredKapso(): KapsoClient {
  return {
    sendText: async () => ({ kind: 'refused', httpStatus: 401, kapsoError: 'KAPSO_API_KEY is not set' }),
    listSent: async () => {
      throw new Error('WhatsApp is not configured (KAPSO_API_KEY)');
    },
  };
}

/** Stands in for Kapso if the workspace's key cannot be decrypted. It sends nothing, and sends are retried until the key can be decrypted. */
export function unreadableKapso(): KapsoClient {
  return {
    sendText: async () => ({ kind: 'not_sent', code: 'ENCRYPTION_KEY' }),
    listSent: async () => {
      throw new Error("the workspace's credentials cannot be decrypted (ENCRYPTION_KEY)");
    },
  };
}

/** A client for one Kapso project. `timeoutMs`: timeout of each request, including the response body. */
export function createKapsoClient(options: { baseUrl: string; apiKey: string; timeoutMs: number }): KapsoClient {
  const headers = { 'X-API-Key': options.apiKey, 'Content-Type': 'application/json' };
  const messagesUrl = (phoneNumberId: string) =>
    `${options.baseUrl}/meta/whatsapp/${SEND_PATH_VERSION}/${encodeURIComponent(phoneNumberId)}/messages`;

  return {
    async sendText(send) {
      try {
        return await withDeadline(options.timeoutMs, async (signal) => {
          const body = JSON.stringify(sendBody(send));
          const { phoneNumberId, beforeSending } = send;
          const fenced = beforeSending === undefined ? {} : { beforeSending };
          return readSendAnswer(await sendRequest(messagesUrl(phoneNumberId), { method: 'POST', headers, body, signal, ...fenced }));
        });
      } catch (error) {
        return connectionFailure(error);
      }
    },

    async listSent({ phoneNumberId, sinceMs, untilMs }) {
      const list: SentList = { messages: [], unreadable: [] };
      let after: string | undefined;
      for (let page = 0; page < MAX_PAGES; page += 1) {
        const query = new URLSearchParams({
          direction: 'outbound',
          since: new Date(sinceMs).toISOString(),
          until: new Date(untilMs).toISOString(),
          limit: '100',
        });
        if (after) query.set('after', after);
        const { data, paging } = await withDeadline(options.timeoutMs, async (signal) => {
          const { status, text } = await sendRequest(`${messagesUrl(phoneNumberId)}?${query}`, { method: 'GET', headers, signal });
          if (status !== 200) throw new Error(`Kapso's message list responded with ${status}`);
          return listPage.parse(JSON.parse(text));
        });
        for (const row of data) addRow(list, row);
        if (!paging?.next || data.length === 0) return list;
        after = paging.next;
      }
      // An incomplete list proves nothing.
      throw new Error(`Kapso's message list has more than ${MAX_PAGES} pages for the time of one send`);
    },
  };
}

function sendBody({ recipient, text, quotedId, correlationId }: TextSend): Record<string, unknown> {
  return {
    messaging_product: 'whatsapp',
    recipient_type: 'individual',
    ...(recipient.phone ? { to: `+${recipient.phone}` } : { recipient: recipient.businessScopedUserId }),
    type: 'text',
    ...(quotedId === undefined ? {} : { context: { message_id: quotedId } }),
    text: { body: text, preview_url: false },
    biz_opaque_callback_data: correlationId,
  };
}

/** Reads Meta's error object, Kapso's error string, or neither (such as the HTML page of an outage), in this order. */
export function readSendAnswer({ status: httpStatus, headers, text }: HttpAnswer): SendAnswer {
  const json = parseJson(text);
  if (httpStatus >= 200 && httpStatus < 300) {
    const message = accepted.safeParse(json);
    return message.success
      ? { kind: 'accepted', providerMessageId: message.data.messages[0]?.id ?? '' }
      : { kind: 'unknown', reason: `responded with ${httpStatus} without a message id` };
  }
  const graphCode = graphError.safeParse(json).data?.error.code;
  if (httpStatus >= 500 && graphCode === undefined) return { kind: 'unknown', reason: `responded with ${httpStatus}` };
  const said = kapsoError.safeParse(json).data?.error;
  const waitMs = retryAfterMs(headers);
  return {
    kind: 'refused',
    httpStatus,
    ...(graphCode === undefined ? {} : { graphCode }),
    ...(said === undefined ? {} : { kapsoError: said }),
    ...(waitMs === undefined ? {} : { retryAfterMs: waitMs }),
  };
}

function addRow(list: SentList, row: unknown): void {
  const parsed = listRow.safeParse(row);
  if (parsed.success) list.messages.push(listedMessage(parsed.data));
  else list.unreadable.push(row);
}

function listedMessage(row: z.output<typeof listRow>): ListedMessage {
  const statuses = (row.kapso?.statuses ?? []).flatMap((entry) => listedStatus.safeParse(entry).data ?? []);
  const to = row.to ?? row.kapso?.phone_number ?? undefined;
  return {
    providerMessageId: row.id,
    ...(row.text ? { text: row.text.body } : {}),
    ...(to ? { to: to.replace(/\D/g, '') } : {}),
    sentAtMs: row.timestamp * 1000,
    correlationIds: [...new Set(statuses.flatMap((entry) => entry.biz_opaque_callback_data ?? []))],
    statuses: statuses.map((entry) => ({ status: entry.status, atMs: entry.timestamp * 1000 })),
  };
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
