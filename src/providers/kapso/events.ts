/**
 * Converts any body from Kapso or Meta to our events; the only place with their field names in webhooks. Tolerant on purpose: an invalid
 * optional field counts as missing, and an item that cannot be read becomes an event too, so that nothing in a signed body is lost. Based
 * on Kapso's event types and Meta's webhook reference as of November 2026; examples are in test/fixtures/kapso.
 */
import { z } from 'zod';
import type { ContactIdentity, InboundMessage, ReportedStatus } from '../../../workflows/contract';
import { shapeOf } from '../../platform/shape';
import { boundedJson, cutText, sanitizedJson } from '../../platform/text';

export interface MessageEvent {
  type: 'message';
  /** Undefined if the body names no number. */
  phoneNumberId?: string;
  contact: ContactIdentity;
  message: Omit<InboundMessage, 'id'>;
}

export interface StatusEvent {
  type: 'status';
  /** Undefined if the body names no number. */
  phoneNumberId?: string;
  providerMessageId: string;
  status: ReportedStatus;
  atMs: number;
  /** Our id of the reply, if the webhook has it. */
  correlationId?: string;
  /** Meta's error object of a `failed` status. */
  error?: { code: number; title?: string };
}

/** Something understood but irrelevant. `shape` names fields and types, never values. */
export interface SkippedEvent {
  type: 'skipped';
  shape: string;
}

export type UnreadableReason = 'not_json' | 'too_deep' | 'unreadable' | 'no_id' | 'no_sender' | 'odd_number_id' | 'direction_unknown';

/** Something that may be relevant but cannot be read. `shape`: as above. */
export interface UnreadableEvent {
  type: 'unreadable';
  reason: UnreadableReason;
  /** The reason in words, without personal data. */
  detail: string;
  phoneNumberId?: string;
  providerMessageId?: string;
  /** A body with only this item, for a replay; undefined if it would be the whole body. */
  item?: unknown;
  shape: string;
}

export type KapsoEvent = MessageEvent | StatusEvent | SkippedEvent | UnreadableEvent;

const DETAILS: Record<UnreadableReason, string> = {
  not_json: 'The body is not JSON.',
  too_deep: 'The body is nested too deeply.',
  unreadable: 'Neither a message nor a status nor a known event.',
  no_id: 'A message or status without a message id.',
  no_sender: 'A message without a sender.',
  odd_number_id: 'The id of the business number (phone_number_id) is not a valid id.',
  direction_unknown: 'It is unclear or contradictory whether the customer sent or received this message.',
};

/** WhatsApp's limit is 4096 characters. Much longer texts are cut, because they are stored in a workflow history. */
const MAX_TEXT = 65_536;
const MAX_PAYLOAD_JSON = 65_536;
/** Ten times Meta's maximum per webhook. */
const MAX_ITEMS = 10_000;
/** Maximum nesting of bodies in bodies (`data`, a list of items). */
const MAX_WRAPPERS = 3;
const DAY_MS = 86_400_000;

/** Optional fields must not cost us the message: invalid ones count as missing. */
const optional = <T extends z.ZodType>(schema: T) => schema.nullish().catch(undefined);
const optionalText = optional(z.union([z.string(), z.number().transform(String)]));
/** Integers only: beyond a double's precision, a number may differ from the one that was sent. */
const optionalId = optional(z.union([z.string(), z.int().positive().transform(String)]).pipe(z.string().min(1).max(512)));
const optionalTime = optional(z.union([z.string(), z.number()]));
/** An object, or the first of a list. */
const optionalObject = <T extends z.ZodRawShape>(shape: T) =>
  optional(z.preprocess((value): unknown => (Array.isArray(value) ? value[0] : value), z.looseObject(shape)));

const statusSchema = z.object({
  id: optionalId,
  status: optionalText,
  timestamp: optionalTime,
  biz_opaque_callback_data: optionalText,
  errors: optionalObject({ code: z.coerce.number(), title: optionalText }),
});

/** Covers both of Kapso's formats, and Meta's: they differ in a few names. */
const messageSchema = z.looseObject({
  id: optionalId,
  timestamp: optionalTime,
  type: optional(z.string().min(1).max(64)),
  from: optionalText,
  to: optionalText,
  from_user_id: optionalText,
  username: optionalText,
  kapso: optionalObject({
    direction: optionalText,
    origin: optionalText,
    status: optionalText,
    transcript: optionalObject({ text: optionalText }),
    media_data: optionalObject({}),
  }),
  // The legacy format (v1), which old webhooks still send.
  whatsapp_message_id: optionalId,
  message_type: optional(z.string().min(1).max(64)),
  content: optionalText,
  direction: optionalText,
  phone_number: optionalText,
  created_at: optionalTime,
});
type VendorMessage = z.output<typeof messageSchema>;

const itemSchema = z.object({
  conversation: optionalObject({
    phone_number: optionalText,
    business_scoped_user_id: optionalText,
    username: optionalText,
    phone_number_id: z.unknown().optional(),
    kapso: optionalObject({ contact_name: optionalText }),
  }),
  phone_number_id: z.unknown().optional(),
  whatsapp_config: optionalObject({ phone_number_id: z.unknown().optional() }),
});
type VendorConversation = z.output<typeof itemSchema>['conversation'];

const contactSchema = z.object({
  profile: optionalObject({ name: optionalText, username: optionalText }),
  wa_id: optionalText,
  user_id: optionalText,
});
type MetaContact = z.output<typeof contactSchema>;

/** `user_changed_number` has the new number as `wa_id`; `user_changed_user_id` has both ids, and may have no sender. */
const systemSchema = z.object({
  system: optionalObject({ type: optionalText, wa_id: optionalText, user_id: optionalText, previous_user_id: optionalText }),
});

type Fields = Record<string, unknown>;

/** The context of an item. */
interface Context {
  /** Kapso's name for the event; undefined for Meta's own webhooks. */
  event: string | undefined;
  number: NumberId;
  conversation?: VendorConversation;
  contacts?: MetaContact[];
  /** By definition of the format, the list contains only messages from customers. */
  isInboundList: boolean;
  /** Makes a body with only this item. */
  alone(item: unknown): unknown;
}

/** What a body says about everything in it. */
interface Outside {
  event: string | undefined;
  phoneNumberId: unknown;
  wrappers: number;
}

/**
 * Reads a body of any format; never throws. `eventName`: the header `X-Webhook-Event`, the only place where Kapso names the type of a
 * single event.
 */
export function readKapsoBody(rawBody: Buffer, eventName?: string): KapsoEvent[] {
  const json = rawBody.toString('utf8');
  try {
    return readKapsoJson(sanitized(json, JSON.parse(json)), eventName);
  } catch (error) {
    if (error instanceof SyntaxError) return [unreadable('not_json')];
    if (error instanceof RangeError) return [unreadable('too_deep')];
    throw error;
  }
}

/** Reads a parsed body. @throws RangeError if it is nested too deeply */
export function readKapsoJson(body: unknown, eventName?: string): KapsoEvent[] {
  return readForm(body, { event: eventName, phoneNumberId: undefined, wrappers: 0 });
}

/** Makes a body that reads as these statuses of one number. */
export function statusesBody(statuses: readonly StatusEvent[]): unknown {
  return {
    phone_number_id: statuses[0]?.phoneNumberId,
    statuses: statuses.map(({ providerMessageId, status, atMs, correlationId, error }) => ({
      ...{ id: providerMessageId, status, timestamp: String(Math.floor(atMs / 1_000)) },
      ...(correlationId === undefined ? {} : { biz_opaque_callback_data: correlationId }),
      ...(error === undefined ? {} : { errors: [error] }),
    })),
  };
}

/** Detects the format by the fields that are present. */
function readForm(body: unknown, outside: Outside): KapsoEvent[] {
  const whole = () => unreadable('unreadable', body);
  if (outside.wrappers > MAX_WRAPPERS) return [whole()];
  const inside = { ...outside, wrappers: outside.wrappers + 1 };
  if (Array.isArray(body)) return each(body, (item) => readForm(item, inside), whole);
  if (!isFields(body)) return [whole()];
  const { object, entry, changes, field, value, messages, statuses, message, data } = body;
  // Meta's other products use the same envelope.
  if (typeof object === 'string' && object !== '' && object !== 'whatsapp_business_account') return [skipped(body)];
  if (isGiven(entry)) return each(entry, readMetaEntry(outside), whole);
  if (isGiven(changes)) return readMetaEntry(outside)(body);
  if (isGiven(field) && isGiven(value)) return readMetaChange(outside)(body);
  if (isGiven(message)) return readItem(body, outside);
  if (isGiven(messages) || isGiven(statuses)) return readValue(body, outside);
  if (isGiven(data)) return each(data, (item) => readForm(item, wrappedBy(body, inside)), whole);
  return [isAboutMessage(body, outside) ? whole() : skipped(body)];
}

/** A batch has the common fields of its items: the event's name, and in some formats the number. */
function wrappedBy({ type, event, phone_number_id }: Fields, outside: Outside): Outside {
  const named = [outside.event, type, event].find((name) => typeof name === 'string' && name.startsWith('whatsapp.'));
  return { ...outside, event: named as string | undefined, phoneNumberId: phone_number_id ?? outside.phoneNumberId };
}

/** Whether a body without a message or status should have one. */
function isAboutMessage(body: Fields, { event }: Outside): boolean {
  return event?.startsWith('whatsapp.message.') || 'is_new_conversation' in body || 'batch' in body || 'object' in body;
}

function readMetaEntry(outside: Outside): (entry: unknown) => KapsoEvent[] {
  return (entry) => {
    const whole = () => unreadable('unreadable', { object: 'whatsapp_business_account', entry: [entry] });
    return isFields(entry) ? each(entry.changes, readMetaChange(outside), whole) : [whole()];
  };
}

function readMetaChange(outside: Outside): (change: unknown) => KapsoEvent[] {
  return (change) => {
    const { field, value } = isFields(change) ? change : {};
    // Templates, the account's state, messages from the business's own phone, imported history.
    if (typeof field === 'string' && field !== 'messages') return [skipped(value)];
    return isFields(value) ? readValue(value, outside) : [unreadable('unreadable', { changes: [change] })];
  };
}

/** Reads the value of a change by Meta, or a plain body, which has the number next to the list. */
function readValue(value: Fields, { event, phoneNumberId }: Outside): KapsoEvent[] {
  const { messages, statuses, errors, metadata, phone_number_id } = value;
  // Errors of the account itself come in place of messages.
  if (!isGiven(messages) && !isGiven(statuses)) return [isGiven(errors) ? skipped(value) : unreadable('unreadable', value)];
  const contacts = contactsIn(value.contacts);
  const number = numberIdIn(isFields(metadata) ? metadata.phone_number_id : undefined, phone_number_id, phoneNumberId);
  const contextOf = (list: 'messages' | 'statuses'): Context => ({
    ...{ event, number, contacts, isInboundList: list === 'messages' },
    alone: (item) => ({
      ...(number.given === undefined ? {} : { phone_number_id: number.given }),
      ...(list === 'messages' && isGiven(value.contacts) ? { contacts: contactsAround(item, value.contacts) } : {}),
      [list]: [item],
    }),
  });
  const inMessages = contextOf('messages');
  const inStatuses = contextOf('statuses');
  return [
    ...(isGiven(messages)
      ? each(
          messages,
          (item) => readMessage(item, inMessages),
          () => unreadable('unreadable', value),
        )
      : []),
    ...(isGiven(statuses)
      ? each(
          statuses,
          (item) => [readStatus(item, inStatuses)],
          () => unreadable('unreadable', value),
        )
      : []),
  ];
}

/** Reads an item by Kapso: a message with its conversation. */
function readItem(item: Fields, { event, phoneNumberId }: Outside): KapsoEvent[] {
  const { conversation, phone_number_id, whatsapp_config } = itemSchema.safeParse(item).data ?? {};
  const number = numberIdIn(phone_number_id, conversation?.phone_number_id, whatsapp_config?.phone_number_id, phoneNumberId);
  const context: Context = {
    ...{ event, number, conversation, isInboundList: false },
    alone: (message) => ({ ...item, ...(number.given === undefined ? {} : { phone_number_id: number.given }), message }),
  };
  return each(
    item.message,
    (message) => readMessage(message, context),
    () => unreadable('unreadable', item),
  );
}

function readMessage(item: unknown, context: Context): KapsoEvent[] {
  const parsed = messageSchema.safeParse(item);
  if (!parsed.success) return [unreadable('unreadable', context.alone(item))];
  const message = parsed.data;
  const id = idOf(message);
  const unread = (reason: UnreadableReason) => [unreadable(reason, context.alone(item), { id, number: context.number })];
  const direction = directionOf(message, context);
  if (direction === undefined) return unread('direction_unknown');
  if (direction === 'outbound') return readOutbound(item, message, context);
  if (context.number.isOdd) return unread('odd_number_id');
  if (id === undefined) return unread('no_id');
  const contact = senderOf(message, context);
  if (!contact) return unread('no_sender');
  return [messageEvent(message, { id, contact, phoneNumberId: context.number.id })];
}

function isLegacy(message: VendorMessage): boolean {
  return 'whatsapp_message_id' in message || 'message_type' in message;
}

/** In the legacy format, `id` is a database id, where the others have WhatsApp's. */
function idOf(message: VendorMessage): string | undefined {
  return (isLegacy(message) ? message.whatsapp_message_id : message.id) ?? undefined;
}

/**
 * Who sent a message: what the message itself says, or all other evidence, if it agrees. Our own messages must never be mistaken for the
 * customer's (they would be answered), nor the customer's for ours (they would be lost).
 */
function directionOf(message: VendorMessage, context: Context): 'inbound' | 'outbound' | undefined {
  const said = (message.kapso?.direction ?? message.direction)?.trim().toLowerCase();
  if (said === 'inbound' || said === 'outbound') return said;
  const { kapso, from, to, from_user_id } = message;
  const { event, conversation, isInboundList } = context;
  const customer = phoneIn(conversation?.phone_number);
  const isCustomer = (name: string | null | undefined) => customer !== undefined && phoneIn(name) === customer;
  const isInbound =
    isInboundList ||
    event === RECEIVED ||
    kapso?.status === 'received' ||
    isCustomer(from) ||
    (isGiven(from_user_id) && from_user_id === conversation?.business_scoped_user_id);
  const isOutbound =
    statusOfEvent(event) !== undefined ||
    isGiven(kapso?.statuses) ||
    kapso?.origin === 'business_app' ||
    OUTBOUND_STATUSES.has(kapso?.status ?? '') ||
    message.type === 'template' ||
    isCustomer(to) ||
    (isGiven(to) && !isGiven(from) && !isGiven(from_user_id));
  if (isInbound === isOutbound) return undefined;
  return isInbound ? 'inbound' : 'outbound';
}

const RECEIVED = 'whatsapp.message.received';
/** Not `delivered`, which inbound messages have had too. */
const OUTBOUND_STATUSES: ReadonlySet<string> = new Set(['pending', 'sent', 'read', 'failed']);

function statusOfEvent(event: string | undefined): string | undefined {
  return /^whatsapp\.message\.(sent|delivered|read|played|failed)$/.exec(event ?? '')?.[1];
}

/** An outbound event contains all statuses so far; a message that a person sent from the phone app has none. */
function readOutbound(item: unknown, message: VendorMessage, context: Context): KapsoEvent[] {
  const id = idOf(message);
  // Statuses in the legacy format were never supported.
  if (isLegacy(message)) return [skipped(item)];
  const whole = () => unreadable('unreadable', context.alone(item), { id, number: context.number });
  const { statuses, status = statusOfEvent(context.event) } = message.kapso ?? {};
  const reported = isGiven(statuses) ? each(statuses, (each) => [readStatus(each, context, id)], whole) : [];
  const readable = reported.filter(({ type }) => type !== 'unreadable');
  if (readable.length < reported.length) return [...readable, whole()];
  if (reported.length > 0) return reported;
  const own = readStatus({ id, status: status ?? statusOfEvent(context.event), timestamp: message.timestamp }, context, id);
  return [own.type === 'unreadable' ? { ...whole(), reason: own.reason, detail: own.detail } : own];
}

function readStatus(item: unknown, context: Context, outboundId?: string): KapsoEvent {
  const { id: ownId, status, timestamp, biz_opaque_callback_data, errors } = statusSchema.safeParse(item).data ?? {};
  const id = ownId ?? outboundId;
  const unread = (reason: UnreadableReason) => unreadable(reason, context.alone(item), { id, number: context.number });
  if (!isGiven(status)) return unread('unreadable');
  // `played` counts as read; `pending` and any future status say nothing about a send.
  const known = STATUSES[status.trim().toLowerCase()];
  if (!known) return skipped(item);
  if (id === undefined) return unread('no_id');
  if (context.number.isOdd) return unread('odd_number_id');
  return {
    type: 'status',
    ...(context.number.id === undefined ? {} : { phoneNumberId: context.number.id }),
    providerMessageId: id,
    status: known,
    atMs: timeOf(timestamp),
    ...(biz_opaque_callback_data ? { correlationId: biz_opaque_callback_data } : {}),
    ...(errors ? { error: { code: errors.code, ...(errors.title ? { title: errors.title } : {}) } } : {}),
  };
}

const STATUSES: Readonly<Record<string, ReportedStatus>> = {
  sent: 'sent',
  delivered: 'delivered',
  read: 'read',
  played: 'read',
  failed: 'failed',
};

function messageEvent(
  message: VendorMessage,
  { id, contact, phoneNumberId }: { id: string; contact: ContactIdentity; phoneNumberId: string | undefined },
): MessageEvent {
  const kind = kindOf(message);
  const text = textOf(message, kind);
  const payload = payloadOf(message, kind, text);
  return {
    type: 'message',
    ...(phoneNumberId === undefined ? {} : { phoneNumberId }),
    contact,
    message: {
      providerMessageId: id,
      kind,
      ...(text ? { text: cutText(text, MAX_TEXT) } : {}),
      ...(payload ? { payload } : {}),
      sentAtMs: timeOf(message.timestamp ?? message.created_at),
      ...(message.kapso?.origin === 'history_sync' ? { isHistory: true } : {}),
    },
  };
}

/** Kinds whose content is in a field of the same name. */
const KINDS = [
  'text',
  'image',
  'video',
  'audio',
  'document',
  'sticker',
  'location',
  'contacts',
  'interactive',
  'button',
  'reaction',
  'order',
];

function kindOf(message: VendorMessage): string {
  return message.type ?? message.message_type ?? KINDS.find((kind) => isGiven(message[kind])) ?? 'unknown';
}

/** What the customer wrote: the body, a caption, or the title of a pressed button. */
function textOf(message: VendorMessage, kind: string): string | undefined {
  const content = contentOf(message, kind);
  const text = ((): unknown => {
    switch (kind) {
      case 'text':
        return isFields(content) ? content.body : content;
      case 'button':
        return property(content, 'text');
      case 'interactive':
        return property(property(content, String(property(content, 'type'))), 'title');
      default:
        return property(content, 'caption');
    }
  })();
  if (typeof text === 'string' && text !== '') return text;
  return typeof text === 'number' ? String(text) : (message.content ?? undefined);
}

function contentOf(message: VendorMessage, kind: string): unknown {
  return Object.hasOwn(message, kind) ? message[kind] : undefined;
}

/** The content of the kind (media id, coordinates, contacts, …) without media URLs, which work without a key. */
function payloadOf(message: VendorMessage, kind: string, text: string | undefined): Fields | undefined {
  const content = kind === 'text' && text !== undefined ? undefined : withoutUrls(contentOf(message, kind));
  const media = message.kapso?.media_data;
  const payload = {
    ...(content === undefined ? {} : { [kind]: content }),
    ...(media ? { file: withoutUrls(media) } : {}),
    ...(message.kapso?.transcript?.text ? { transcript: message.kapso.transcript.text } : {}),
    ...('context' in message ? { context: message.context } : {}),
    ...('referral' in message ? { referral: message.referral } : {}),
    ...('errors' in message ? { errors: message.errors } : {}),
  };
  if (Object.keys(payload).length === 0) return undefined;
  return (boundedJson(payload, MAX_PAYLOAD_JSON) as Fields | undefined) ?? { tooLarge: true };
}

function withoutUrls(content: unknown): unknown {
  if (!isFields(content)) return content;
  return Object.fromEntries(Object.entries(content).filter(([name]) => name !== 'url' && name !== 'link'));
}

/** Finds the sender by what is there: a message without one, next to a single contact, is from that person. */
function senderOf(message: VendorMessage, { conversation, contacts = [] }: Context): ContactIdentity | undefined {
  const person = contactOf(message, contacts);
  const phones = [message.from, message.phone_number, conversation?.phone_number, person?.wa_id];
  const phone = phones.map(phoneIn).find((digits) => digits !== undefined);
  const ids = [message.from_user_id, conversation?.business_scoped_user_id, person?.user_id];
  const aliases = changedAliases(message, { phone, businessScopedUserId: ids.map(scopedIdIn).find((id) => id !== undefined) });
  if (aliases.phone === undefined && aliases.businessScopedUserId === undefined) return undefined;
  const name = conversation?.kapso?.contact_name ?? person?.profile?.name;
  const username = message.username ?? conversation?.username ?? person?.profile?.username;
  return {
    ...given(aliases),
    ...(name ? { name: cutText(name, 256) } : {}),
    ...(username ? { username: cutText(username, 256) } : {}),
  };
}

type Aliases = { [Alias in 'phone' | 'businessScopedUserId' | 'formerPhone' | 'formerBusinessScopedUserId']?: string | undefined };

/** A system message may say that the sender has a new number or id. WhatsApp changes the id along with the number. */
function changedAliases(message: VendorMessage, known: Aliases): Aliases {
  const change = message.type === 'system' ? systemSchema.safeParse(message).data?.system : undefined;
  const { phone, businessScopedUserId } = known;
  const newPhone = phoneIn(change?.wa_id);
  if (change?.type === 'user_changed_number' && newPhone !== undefined && newPhone !== phone)
    return { phone: newPhone, formerPhone: phone, formerBusinessScopedUserId: businessScopedUserId };
  const [newId, formerId] = [scopedIdIn(change?.user_id), scopedIdIn(change?.previous_user_id)];
  if (change?.type === 'user_changed_user_id' && newId !== undefined)
    return { phone, businessScopedUserId: newId, formerBusinessScopedUserId: formerId ?? businessScopedUserId };
  return { phone, businessScopedUserId: businessScopedUserId ?? formerId };
}

function given(aliases: Aliases): ContactIdentity {
  return Object.fromEntries(Object.entries(aliases).filter(([, value]) => value !== undefined));
}

function scopedIdIn(value: string | null | undefined): string | undefined {
  return value?.trim() ? cutText(value.trim(), 256) : undefined;
}

/** Meta lists the people of a webhook next to their messages. */
function contactOf({ from, from_user_id }: VendorMessage, contacts: readonly MetaContact[]): MetaContact | undefined {
  const phone = phoneIn(from);
  const single = contacts.length === 1 ? contacts[0] : undefined;
  if (phone !== undefined)
    return contacts.find(({ wa_id }) => phoneIn(wa_id) === phone) ?? (single && phoneIn(single.wa_id) === undefined ? single : undefined);
  if (from_user_id) return contacts.find(({ user_id }) => user_id === from_user_id);
  return single;
}

function contactsIn(value: unknown): MetaContact[] {
  return (Array.isArray(value) ? value : [value]).slice(0, MAX_ITEMS).flatMap((item) => {
    const parsed = contactSchema.safeParse(item);
    return parsed.success ? [parsed.data] : [];
  });
}

/** Maximum number of contacts that a dead letter repeats if the sender is unknown. */
const MAX_CONTACTS_AROUND = 5;

/** The contacts, unchanged, that may belong to the item. */
function contactsAround(item: unknown, value: unknown): unknown {
  if (!Array.isArray(value) || value.length <= MAX_CONTACTS_AROUND) return value;
  const names: unknown[] = ['from', 'from_user_id'].map((name) => property(item, name)).filter(isGiven);
  const own = value.filter((contact) => names.includes(property(contact, 'wa_id')) || names.includes(property(contact, 'user_id')));
  return (own.length > 0 ? own : value).slice(0, MAX_CONTACTS_AROUND);
}

/** Allows separators, but no letters: a name with digits is not a number. E.164 numbers have at most 15 digits. */
const PHONE = /^[+\d\s().-]{1,40}$/;

function phoneIn(value: string | null | undefined): string | undefined {
  if (!value || !PHONE.test(value)) return undefined;
  const digits = value.replace(/\D/g, '');
  return digits === '' || digits.length > 20 ? undefined : digits;
}

/** Kapso's id of the business number. */
interface NumberId {
  id?: string;
  /** Unchanged, for a replay. */
  given?: unknown;
  /** The body has an id that is invalid: it would become part of a workflow id. */
  isOdd: boolean;
}

const NUMBER_ID = /^[\w.-]{1,64}$/;

/** The first candidate that is a valid id. Empty ones do not count. */
function numberIdIn(...candidates: unknown[]): NumberId {
  let odd: unknown;
  for (const given of candidates) {
    const text = typeof given === 'string' ? given.trim() : Number.isSafeInteger(given) ? String(given) : undefined;
    if (text !== undefined && NUMBER_ID.test(text)) return { id: text, given, isOdd: false };
    if (text !== '' && isGiven(given)) odd ??= given;
  }
  return { ...(odd === undefined ? {} : { given: odd }), isOdd: odd !== undefined };
}

/** Milliseconds (a number, or digits), seconds, or ISO 8601. */
function timeOf(timestamp: string | number | null | undefined): number {
  const count = Number(timestamp || Number.NaN);
  if (Number.isNaN(count)) return plausible(Date.parse(String(timestamp)));
  return plausible(count > MILLISECONDS_FROM ? count : count * 1_000);
}

/** In seconds, this would be the year 5138. */
const MILLISECONDS_FROM = 1e11;

/** Replaces an implausible time (missing, invalid, before 1970, over a year ahead) with the current time. */
function plausible(atMs: number): number {
  const nowMs = Date.now();
  return Number.isFinite(atMs) && atMs > 0 && atMs < nowMs + 365 * DAY_MS ? Math.round(atMs) : nowMs;
}

/** Reads a list item by item, or an object as its only item; anything else, or too long a list, becomes one unreadable event. */
function each(value: unknown, read: (item: unknown) => KapsoEvent[], whole: () => KapsoEvent): KapsoEvent[] {
  const items = Array.isArray(value) ? value : isFields(value) ? [value] : undefined;
  return items === undefined || items.length > MAX_ITEMS ? [whole()] : items.flatMap(read);
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Present and not empty. */
function isGiven<T>(value: T): value is NonNullable<T> {
  return value !== undefined && value !== null && value !== '' && !(Array.isArray(value) && value.length === 0);
}

function property(value: unknown, name: string): unknown {
  return isFields(value) && Object.hasOwn(value, name) ? value[name] : undefined;
}

function skipped(item: unknown): SkippedEvent {
  return { type: 'skipped', shape: shapeOf(item) };
}

function unreadable(reason: UnreadableReason, item?: unknown, known: { id?: string | undefined; number?: NumberId } = {}): UnreadableEvent {
  return {
    ...{ type: 'unreadable', reason, detail: DETAILS[reason] },
    ...(known.number?.id === undefined ? {} : { phoneNumberId: known.number.id }),
    ...(known.id === undefined ? {} : { providerMessageId: known.id }),
    ...(item === undefined ? {} : { item }),
    shape: shapeOf(item),
  };
}

/** Removes NUL and lone surrogates, which JSON allows but PostgreSQL cannot store. */
function sanitized(json: string, value: unknown): unknown {
  return /\\u(?:0000|d[89a-f])/i.test(json) ? sanitizedJson(value) : value;
}
