/**
 * The only place that knows Kapso's and Meta's field names: turns any body of theirs into our events.
 * Tolerant by intent: an item that cannot be read is reported beside the others, never thrown, because a
 * well-signed body must not fail as a whole. Facts: Kapso's event types and Meta's webhook reference, as of November 2026; examples in test/fixtures/kapso.
 */
import { z } from 'zod';
import type { ContactIdentity, InboundMessage, ReportedStatus } from '../../../workflows/contract';
import { shapeOf } from '../../platform/shape';
import { cutText, jsonLength, sanitizedJson } from '../../platform/text';

export interface MessageEvent {
  type: 'message';
  /** Undefined when the body names no number. */
  phoneNumberId?: string;
  contact: ContactIdentity;
  message: Omit<InboundMessage, 'id'>;
}

export interface StatusEvent {
  type: 'status';
  phoneNumberId: string;
  providerMessageId: string;
  status: ReportedStatus;
  atMs: number;
  /** Our id of the reply, when it came back. */
  correlationId?: string;
  /** Meta's error object of a `failed` status. */
  error?: { code: number; title?: string };
}

/** Something that is not for us, or that could not be read. `shape` names fields and types, never content. */
export interface SkippedEvent {
  type: 'skipped';
  reason: 'not_for_us' | 'unreadable';
  shape: string;
}

export type KapsoEvent = MessageEvent | StatusEvent | SkippedEvent;

/** WhatsApp's texts end at 4096 characters; what is far over that is cut, because it would travel in a history. */
const MAX_TEXT = 65_536;
const MAX_PAYLOAD_JSON = 65_536;
const DAY_MS = 86_400_000;

const opaqueId = z.string().min(1).max(512);
/** Goes into a workflow id. */
const numberId = z
  .union([z.string(), z.number()])
  .transform(String)
  .pipe(z.string().regex(/^[\w.-]{1,64}$/));
/** Side fields never cost us the message: what is odd in them is left out. */
const optionalText = z
  .union([z.string(), z.number().transform(String)])
  .nullish()
  .catch(undefined);
const unixSeconds = z.union([z.string(), z.number()]).nullish().catch(undefined);

const statusSchema = z.object({
  id: opaqueId,
  status: z.string(),
  timestamp: unixSeconds,
  biz_opaque_callback_data: optionalText,
  errors: z
    .array(z.object({ code: z.number(), title: z.string().optional() }))
    .nullish()
    .catch(undefined),
});

const messageSchema = z.looseObject({
  id: opaqueId,
  timestamp: unixSeconds,
  type: z.string().min(1).max(64),
  from: optionalText,
  from_user_id: optionalText,
  username: optionalText,
  kapso: z
    .looseObject({
      direction: optionalText,
      origin: optionalText,
      status: optionalText,
      statuses: z.array(z.unknown()).nullish().catch(undefined),
      transcript: z.looseObject({ text: optionalText }).nullish().catch(undefined),
      media_data: z.looseObject({}).nullish().catch(undefined),
    })
    .nullish(),
});
type VendorMessage = z.output<typeof messageSchema>;

const v2Schema = z.object({
  message: messageSchema,
  conversation: z
    .looseObject({
      phone_number: optionalText,
      business_scoped_user_id: optionalText,
      username: optionalText,
      phone_number_id: numberId.nullish(),
      kapso: z.looseObject({ contact_name: optionalText }).nullish().catch(undefined),
    })
    .nullish(),
  phone_number_id: numberId.nullish(),
});

/** The legacy form that old webhooks still send; only the documented shape. */
const v1Schema = z.object({
  message: z.object({
    whatsapp_message_id: opaqueId,
    message_type: z.string(),
    content: optionalText,
    direction: z.string(),
    phone_number: z.string(),
    created_at: z.string().nullish(),
  }),
  whatsapp_config: z.object({ phone_number_id: numberId }),
});

const batchSchema = z.object({ batch: z.literal(true), data: z.array(z.unknown()) });

const metaSchema = z.object({ object: z.literal('whatsapp_business_account'), entry: z.array(z.unknown()) });
const metaEntrySchema = z.object({ changes: z.array(z.unknown()) });
const metaChangeSchema = z.object({ field: z.string(), value: z.unknown() });
const metaValueSchema = z.object({
  metadata: z.object({ phone_number_id: numberId }),
  contacts: z
    .array(
      z.object({
        profile: z.object({ name: optionalText, username: optionalText }).nullish(),
        wa_id: optionalText,
        user_id: optionalText,
      }),
    )
    .nullish()
    .catch(undefined),
  messages: z.array(z.unknown()).nullish(),
  statuses: z.array(z.unknown()).nullish(),
});
type MetaContact = NonNullable<z.output<typeof metaValueSchema>['contacts']>[number];

const plainSchema = z.object({ messages: z.array(z.unknown()), phone_number_id: numberId.nullish() });
const plainMessageSchema = z.looseObject({
  id: opaqueId,
  from: z.union([z.string(), z.number().transform(String)]),
  type: z.string().optional(),
  timestamp: unixSeconds,
});

/** Reads one body, whatever form it has. @throws SyntaxError when it is not JSON */
export function readKapsoBody(rawBody: Buffer): KapsoEvent[] {
  const json = rawBody.toString('utf8');
  const body = sanitized(json, JSON.parse(json));
  // The form is told by one field; only that form's schema is tried, for speed and for a clear reason when it does not fit.
  if (property(body, 'batch') === true) return eachOf(batchSchema, body, ({ data }) => data.flatMap(readItem));
  if (property(body, 'object') !== undefined) return eachOf(metaSchema, body, ({ entry }) => entry.flatMap(readMetaEntry));
  if (property(body, 'messages') !== undefined) return eachOf(plainSchema, body, readPlain);
  return readItem(body);
}

function eachOf<T extends z.ZodType>(schema: T, body: unknown, read: (parsed: z.output<T>) => KapsoEvent[]): KapsoEvent[] {
  const parsed = schema.safeParse(body);
  return parsed.success ? read(parsed.data) : [skipped('unreadable', body)];
}

function readMetaEntry(entry: unknown): KapsoEvent[] {
  return eachOf(metaEntrySchema, entry, ({ changes }) => changes.flatMap((change) => eachOf(metaChangeSchema, change, readMetaChange)));
}

function readPlain({ messages, phone_number_id }: z.output<typeof plainSchema>): KapsoEvent[] {
  return messages.map((message) => readPlainMessage(message, phone_number_id ?? undefined));
}

function readItem(item: unknown): KapsoEvent[] {
  const v2 = v2Schema.safeParse(item);
  if (v2.success) return readV2(v2.data);
  const v1 = v1Schema.safeParse(item);
  if (v1.success) return [readV1(v1.data)];
  const hasMessage = typeof item === 'object' && item !== null && 'message' in item;
  return [skipped(hasMessage ? 'unreadable' : 'not_for_us', item)];
}

function readV2({ message, conversation, phone_number_id }: z.output<typeof v2Schema>): KapsoEvent[] {
  const phoneNumberId = phone_number_id ?? conversation?.phone_number_id ?? undefined;
  if (message.kapso?.direction === 'outbound') return readV2Statuses(message, phoneNumberId);
  const contact = identity({
    phone: message.from || conversation?.phone_number,
    businessScopedUserId: message.from_user_id || conversation?.business_scoped_user_id,
    name: conversation?.kapso?.contact_name,
    username: message.username ?? conversation?.username,
  });
  return [messageEvent(message, contact, phoneNumberId)];
}

/** An outbound event carries every status so far; a person's message from the phone app carries none. */
function readV2Statuses(message: VendorMessage, phoneNumberId: string | undefined): KapsoEvent[] {
  const reported = message.kapso?.statuses ?? [];
  if (reported.length > 0) return reported.map((status) => readStatus(status, phoneNumberId));
  return [readStatus({ id: message.id, status: message.kapso?.status, timestamp: message.timestamp }, phoneNumberId)];
}

function readV1({ message, whatsapp_config }: z.output<typeof v1Schema>): KapsoEvent {
  if (message.direction !== 'inbound') return skipped('not_for_us', message);
  const contact = identity({ phone: message.phone_number });
  if (!contact) return skipped('unreadable', message);
  return {
    type: 'message',
    phoneNumberId: whatsapp_config.phone_number_id,
    contact,
    message: {
      providerMessageId: message.whatsapp_message_id,
      kind: message.message_type,
      ...(message.content ? { text: cutText(message.content, MAX_TEXT) } : {}),
      sentAtMs: plausible(Date.parse(message.created_at ?? '')),
    },
  };
}

function readMetaChange({ field, value }: { field: string; value?: unknown }): KapsoEvent[] {
  if (field !== 'messages') return [skipped('not_for_us', value)];
  const parsed = metaValueSchema.safeParse(value);
  if (!parsed.success) return [skipped('unreadable', value)];
  const { metadata, contacts, messages, statuses } = parsed.data;
  return [
    ...(messages ?? []).map((message) => readMetaMessage(message, contacts ?? [], metadata.phone_number_id)),
    ...(statuses ?? []).map((status) => readStatus(status, metadata.phone_number_id)),
  ];
}

function readMetaMessage(item: unknown, contacts: MetaContact[], phoneNumberId: string): KapsoEvent {
  const parsed = messageSchema.safeParse(item);
  if (!parsed.success) return skipped('unreadable', item);
  const message = parsed.data;
  const person = contacts.find((contact) => (message.from ? contact.wa_id === message.from : contact.user_id === message.from_user_id));
  const contact = identity({
    phone: message.from,
    businessScopedUserId: message.from_user_id ?? person?.user_id,
    name: person?.profile?.name,
    username: person?.profile?.username,
  });
  return messageEvent(message, contact, phoneNumberId);
}

function readPlainMessage(item: unknown, phoneNumberId: string | undefined): KapsoEvent {
  const parsed = plainMessageSchema.safeParse(item);
  if (!parsed.success) return skipped('unreadable', item);
  const message: VendorMessage = { ...parsed.data, type: parsed.data.type ?? 'text' };
  return messageEvent(message, identity({ phone: parsed.data.from }), phoneNumberId);
}

function messageEvent(message: VendorMessage, contact: ContactIdentity | undefined, phoneNumberId: string | undefined): KapsoEvent {
  if (!contact) return skipped('unreadable', message);
  const text = textOf(message);
  const payload = payloadOf(message);
  return {
    type: 'message',
    ...(phoneNumberId ? { phoneNumberId } : {}),
    contact,
    message: {
      providerMessageId: message.id,
      kind: message.type,
      ...(text ? { text: cutText(text, MAX_TEXT) } : {}),
      ...(payload ? { payload } : {}),
      sentAtMs: secondsToMs(message.timestamp),
      ...(message.kapso?.origin === 'history_sync' ? { isHistory: true } : {}),
    },
  };
}

function readStatus(item: unknown, phoneNumberId: string | undefined): KapsoEvent {
  const parsed = statusSchema.safeParse(item);
  if (!parsed.success || !phoneNumberId) return skipped('unreadable', item);
  const { id, status, timestamp, biz_opaque_callback_data, errors } = parsed.data;
  // A voice message that was played was read; `pending` and what comes later to Meta's list says nothing about a send.
  const known = ({ sent: 'sent', delivered: 'delivered', read: 'read', played: 'read', failed: 'failed' } as const)[status];
  if (!known) return skipped('not_for_us', item);
  const error = errors?.[0];
  return {
    type: 'status',
    phoneNumberId,
    providerMessageId: id,
    status: known,
    atMs: secondsToMs(timestamp),
    ...(biz_opaque_callback_data ? { correlationId: biz_opaque_callback_data } : {}),
    ...(error ? { error: { code: error.code, ...(error.title ? { title: error.title } : {}) } } : {}),
  };
}

/** What the customer wrote: the body, a caption, or the title of what was pressed. */
function textOf(message: VendorMessage): string | undefined {
  const content = message[message.type];
  const text = ((): unknown => {
    switch (message.type) {
      case 'text':
        return property(content, 'body');
      case 'button':
        return property(content, 'text');
      case 'interactive':
        return property(property(content, String(property(content, 'type'))), 'title');
      default:
        return property(content, 'caption');
    }
  })();
  return typeof text === 'string' ? text : undefined;
}

/** The kind's own object (media id, coordinates, contacts, …) without addresses of media: those open without a key. */
function payloadOf(message: VendorMessage): Record<string, unknown> | undefined {
  const content = message.type === 'text' ? undefined : withoutAddresses(message[message.type]);
  const media = message.kapso?.media_data;
  const payload = {
    ...(content === undefined ? {} : { [message.type]: content }),
    ...(media ? { file: withoutAddresses(media) } : {}),
    ...(message.kapso?.transcript?.text ? { transcript: message.kapso.transcript.text } : {}),
    ...('context' in message ? { context: message.context } : {}),
    ...('referral' in message ? { referral: message.referral } : {}),
    ...('errors' in message ? { errors: message.errors } : {}),
  };
  if (Object.keys(payload).length === 0) return undefined;
  return jsonLength(payload) <= MAX_PAYLOAD_JSON ? payload : { tooLarge: true };
}

function withoutAddresses(content: unknown): unknown {
  if (typeof content !== 'object' || content === null || Array.isArray(content)) return content;
  return Object.fromEntries(Object.entries(content).filter(([name]) => name !== 'url' && name !== 'link'));
}

function identity(known: {
  phone?: string | null | undefined;
  businessScopedUserId?: string | null | undefined;
  name?: string | null | undefined;
  username?: string | null | undefined;
}): ContactIdentity | undefined {
  const phone = known.phone?.replace(/\D/g, '').slice(0, 20);
  if (!phone && !known.businessScopedUserId) return undefined;
  return {
    ...(phone ? { phone } : {}),
    ...(known.businessScopedUserId ? { businessScopedUserId: cutText(known.businessScopedUserId, 256) } : {}),
    ...(known.name ? { name: cutText(known.name, 256) } : {}),
    ...(known.username ? { username: cutText(known.username, 256) } : {}),
  };
}

function secondsToMs(timestamp: string | number | null | undefined): number {
  return plausible(Number(timestamp ?? Number.NaN) * 1000);
}

/** A time that cannot be (missing, unreadable, before 1970, in the future) becomes now. */
function plausible(atMs: number): number {
  const nowMs = Date.now();
  return Number.isFinite(atMs) && atMs > 0 && atMs < nowMs + 365 * DAY_MS ? Math.round(atMs) : nowMs;
}

function property(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function skipped(reason: SkippedEvent['reason'], item: unknown): SkippedEvent {
  return { type: 'skipped', reason, shape: shapeOf(item) };
}

/** NUL and half surrogate pairs are JSON, but PostgreSQL stores neither: one would block its conversation for ever. */
function sanitized(json: string, value: unknown): unknown {
  return /\\u(?:0000|d[89a-f])/i.test(json) ? sanitizedJson(value) : value;
}
