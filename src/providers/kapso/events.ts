/**
 * Converts any body from Kapso or Meta to our events; the only place with their field names in webhooks. Tolerant on purpose: an invalid
 * optional field counts as missing, and an item that cannot be read becomes an event too, so that nothing in a signed body is lost. Based
 * on Kapso's event types and Meta's webhook reference as of November 2026; examples are in test/fixtures/kapso.
 */
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

export type UnreadableReason =
  | 'not_json'
  | 'too_deep'
  | 'unreadable'
  | 'no_id'
  | 'no_sender'
  | 'no_recipient'
  | 'odd_number_id'
  | 'direction_unknown';

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
  no_recipient: "The owner's message, without the customer that it went to.",
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

type Fields = Record<string, unknown>;

/** The context of an item. */
interface Context {
  /** Kapso's name for the event; undefined for Meta's own webhooks. */
  event: string | undefined;
  number: NumberId;
  /** What Kapso says of the conversation. */
  conversation?: Fields | undefined;
  contacts?: Contacts;
  /** The field that the items stand in; `messages` holds what customers sent. */
  place: 'message' | 'messages' | 'statuses' | 'message_echoes';
  /** What has that field. */
  around: Fields;
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
export function statusesBody(statuses: readonly StatusEvent[]): object {
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
    if (field === ECHOES) return readEchoes(value, outside);
    // Templates, the account's state, imported history.
    if (typeof field === 'string' && field !== 'messages') return [skipped(value)];
    return isFields(value) ? readValue(value, outside) : [unreadable('unreadable', { changes: [change] })];
  };
}

/** Meta's field for what the owner does in the WhatsApp Business app. */
const ECHOES = 'smb_message_echoes';

function readEchoes(value: unknown, { event, phoneNumberId }: Outside): KapsoEvent[] {
  const whole = () => unreadable('unreadable', { changes: [{ field: ECHOES, value }] });
  if (!isFields(value)) return [whole()];
  const number = numberIdIn(objectIn(value.metadata)?.phone_number_id, value.phone_number_id, phoneNumberId);
  const context: Context = { event, number, contacts: contactsIn(value.contacts), place: 'message_echoes', around: value };
  return each(value.message_echoes, (item) => [readEcho(item, context)], whole);
}

function readEcho(item: unknown, context: Context): KapsoEvent {
  if (!isFields(item)) return unreadable('unreadable', alone(item, context));
  const id = idIn(item.id);
  return echoEvent({ fields: item, kapso: objectIn(item.kapso), isLegacy: false }, id, context);
}

/** What the owner wrote, changed or deleted. */
function echoEvent(message: VendorMessage, id: string | undefined, context: Context): KapsoEvent {
  const { fields } = message;
  if (context.number.isOdd) return unreadMessage('odd_number_id', fields, id, context);
  if (id === undefined) return unreadMessage('no_id', fields, id, context);
  const contact = recipientOf(fields, context);
  if (!contact) return unreadMessage('no_recipient', fields, id, context);
  const [edit, revoke] = [objectIn(fields.edit), objectIn(fields.revoke)];
  const [edits, deletes] = [idIn(edit?.original_message_id), idIn(revoke?.original_message_id)];
  const fromBusiness = { ...(edits === undefined ? {} : { edits }), ...(deletes === undefined ? {} : { deletes }) };
  const content = objectIn(edit?.message);
  const shown: VendorMessage = content ? { ...message, fields: { timestamp: fields.timestamp, ...content } } : message;
  const event = messageEvent(shown, { id, contact, phoneNumberId: context.number.id }, context.conversation);
  return { ...event, message: { ...event.message, isHistory: true, fromBusiness } };
}

/** The customer that a message of the business went to. */
function recipientOf(fields: Fields, { conversation, contacts }: Context): ContactIdentity | undefined {
  const [to, toId] = [phoneIn(textIn(fields.to)), scopedIdIn(fields.to_user_id)];
  const person = contacts && contactNamed(to, toId, contacts);
  const phone = to ?? phoneIn(textIn(conversation?.phone_number)) ?? phoneIn(textIn(person?.wa_id));
  const businessScopedUserId = toId ?? scopedIdIn(conversation?.business_scoped_user_id) ?? scopedIdIn(person?.user_id);
  if (phone === undefined && businessScopedUserId === undefined) return undefined;
  const name = textIn(objectIn(conversation?.kapso)?.contact_name) ?? textIn(objectIn(person?.profile)?.name);
  return { ...given({ phone, businessScopedUserId }), ...(name === undefined ? {} : { name: cutText(name, 256) }) };
}

/** Reads the value of a change by Meta, or a plain body, which has the number next to the list. */
function readValue(value: Fields, { event, phoneNumberId }: Outside): KapsoEvent[] {
  const { messages, statuses, errors, metadata, phone_number_id } = value;
  // Errors of the account itself come in place of messages.
  if (!isGiven(messages) && !isGiven(statuses)) return [isGiven(errors) ? skipped(value) : unreadable('unreadable', value)];
  const number = numberIdIn(isFields(metadata) ? metadata.phone_number_id : undefined, phone_number_id, phoneNumberId);
  const inMessages: Context = { event, number, contacts: contactsIn(value.contacts), place: 'messages', around: value };
  const inStatuses: Context = { event, number, place: 'statuses', around: value };
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
  const conversation = objectIn(item.conversation);
  const legacyNumber = objectIn(item.whatsapp_config)?.phone_number_id;
  const number = numberIdIn(item.phone_number_id, conversation?.phone_number_id, legacyNumber, phoneNumberId);
  const context: Context = { event, number, conversation, place: 'message', around: item };
  return each(
    item.message,
    (message) => readMessage(message, context),
    () => unreadable('unreadable', item),
  );
}

function readMessage(item: unknown, context: Context): KapsoEvent[] {
  if (!isFields(item)) return [unreadable('unreadable', alone(item, context))];
  const message: VendorMessage = {
    fields: item,
    kapso: objectIn(item.kapso),
    isLegacy: 'whatsapp_message_id' in item || 'message_type' in item,
  };
  const id = idOf(message);
  const direction = directionOf(message, context);
  if (direction === 'outbound') return readOutbound(message, id, context);
  if (direction === undefined) return [unreadMessage('direction_unknown', item, id, context)];
  if (context.number.isOdd) return [unreadMessage('odd_number_id', item, id, context)];
  if (id === undefined) return [unreadMessage('no_id', item, id, context)];
  const contact = senderOf(message, context);
  if (!contact) return [unreadMessage('no_sender', item, id, context)];
  return [messageEvent(message, { id, contact, phoneNumberId: context.number.id }, context.conversation)];
}

/** A body with this item alone, and with what its reader needs of the rest. */
function alone(item: unknown, { number, place, around, contacts }: Context): unknown {
  const numbered = number.given === undefined ? {} : { phone_number_id: number.given };
  if (place === 'message') return { ...around, ...numbered, message: item };
  if (place === 'message_echoes') {
    const { metadata, contacts: persons } = around;
    return {
      changes: [
        { field: ECHOES, value: { metadata, ...numbered, ...(isGiven(persons) ? { contacts: persons } : {}), message_echoes: [item] } },
      ],
    };
  }
  const persons = place === 'messages' && isGiven(around.contacts) ? { contacts: contactsAround(item, around.contacts, contacts) } : {};
  return { ...numbered, ...persons, [place]: [item] };
}

function unreadMessage(reason: UnreadableReason, item: unknown, id: string | undefined, context: Context): UnreadableEvent {
  return unreadable(reason, alone(item, context), { id, number: context.number });
}

/** A message in any of the three forms: Kapso's two and Meta's differ in a few names. */
interface VendorMessage {
  fields: Fields;
  /** Kapso's own part. */
  kapso: Fields | undefined;
  /** The form (v1) that old webhooks still send. */
  isLegacy: boolean;
}

/** The legacy form has the id of a database where the others have WhatsApp's. */
function idOf({ fields, isLegacy }: VendorMessage): string | undefined {
  return idIn(isLegacy ? fields.whatsapp_message_id : fields.id);
}

/**
 * Who sent a message: what the message itself says, or all other evidence, if it agrees. Our own messages must never be mistaken for the
 * customer's (they would be answered), nor the customer's for ours (they would be lost).
 */
function directionOf({ fields, kapso }: VendorMessage, context: Context): 'inbound' | 'outbound' | undefined {
  const said = wordIn(kapso?.direction ?? fields.direction);
  if (said === 'inbound' || said === 'outbound') return said;
  const { event, conversation, place } = context;
  const [from, to, fromId] = [textIn(fields.from), textIn(fields.to), textIn(fields.from_user_id)];
  const customer = phoneIn(textIn(conversation?.phone_number));
  const status = wordIn(kapso?.status);
  const isInbound =
    place === 'messages' ||
    event === RECEIVED ||
    status === 'received' ||
    (customer !== undefined && phoneIn(from) === customer) ||
    (fromId !== undefined && fromId === textIn(conversation?.business_scoped_user_id));
  const isOutbound =
    statusOfEvent(event) !== undefined ||
    isGiven(kapso?.statuses) ||
    kapso?.origin === 'business_app' ||
    OUTBOUND_STATUSES.has(status ?? '') ||
    fields.type === 'template' ||
    (customer !== undefined && phoneIn(to) === customer) ||
    (to !== undefined && from === undefined && fromId === undefined);
  if (isInbound === isOutbound) return undefined;
  return isInbound ? 'inbound' : 'outbound';
}

const RECEIVED = 'whatsapp.message.received';
/** Not `delivered`, which inbound messages have had too. */
const OUTBOUND_STATUSES: ReadonlySet<string> = new Set(['pending', 'sent', 'read', 'failed']);

function statusOfEvent(event: string | undefined): string | undefined {
  return /^whatsapp\.message\.(sent|delivered|read|played|failed)$/.exec(event ?? '')?.[1];
}

/** An outbound event carries every status so far. A message that the owner typed in the phone app is an event too, at first without a status. */
function readOutbound(message: VendorMessage, id: string | undefined, context: Context): KapsoEvent[] {
  const { fields, isLegacy } = message;
  // The legacy form's statuses were never read.
  if (isLegacy) return [skipped(fields)];
  if (!isOwners(message)) return readStatuses(message, id, context);
  const echo = echoEvent(message, id, context);
  const isChange = isGiven(fields.edit) || isGiven(fields.revoke);
  return echo.type === 'unreadable' || isChange ? [echo] : [echo, ...readStatuses(message, id, context)];
}

/** Our own sends have our id. Without content there is nothing to show. */
function isOwners({ fields, kapso }: VendorMessage): boolean {
  if (wordIn(kapso?.origin) !== 'business_app') return false;
  const statuses: unknown[] = Array.isArray(kapso?.statuses) ? kapso.statuses : [kapso?.statuses];
  const isOurs = [fields, ...statuses].some((status) => isFields(status) && isGiven(status.biz_opaque_callback_data));
  return !isOurs && (isGiven(fields.type) || kindOf(fields) !== 'unknown');
}

function readStatuses({ fields, kapso }: VendorMessage, id: string | undefined, context: Context): KapsoEvent[] {
  const whole = () => unreadMessage('unreadable', fields, id, context);
  const reported = isGiven(kapso?.statuses) ? each(kapso.statuses, (status) => [readStatus(status, context, id)], whole) : [];
  const readable = reported.filter(({ type }) => type !== 'unreadable');
  if (readable.length < reported.length) return [...readable, whole()];
  if (reported.length > 0) return reported;
  const status = textIn(kapso?.status) ?? statusOfEvent(context.event);
  const own = readStatus({ id, status, timestamp: fields.timestamp }, context);
  return [own.type === 'unreadable' ? unreadMessage(own.reason, fields, id, context) : own];
}

function readStatus(item: unknown, context: Context, outboundId?: string): KapsoEvent {
  const fields = isFields(item) ? item : {};
  const id = idIn(fields.id) ?? outboundId;
  const status = wordIn(fields.status);
  if (status === undefined) return unreadMessage('unreadable', item, id, context);
  // A voice message that was played was read; `pending` and what comes later to Meta's list says nothing about a send.
  const known = STATUSES.get(status);
  if (!known) return skipped(item);
  if (id === undefined) return unreadMessage('no_id', item, id, context);
  if (context.number.isOdd) return unreadMessage('odd_number_id', item, id, context);
  const correlationId = textIn(fields.biz_opaque_callback_data);
  const error = errorIn(fields.errors);
  return {
    type: 'status',
    ...(context.number.id === undefined ? {} : { phoneNumberId: context.number.id }),
    providerMessageId: id,
    status: known,
    atMs: timeOf(fields.timestamp),
    ...(correlationId === undefined ? {} : { correlationId }),
    ...(error === undefined ? {} : { error }),
  };
}

/** The first error of a list; undefined without a code. */
function errorIn(value: unknown): StatusEvent['error'] {
  const { code, title } = objectIn(value) ?? {};
  if (!isGiven(code) || Number.isNaN(Number(code))) return undefined;
  const words = textIn(title);
  return { code: Number(code), ...(words === undefined ? {} : { title: words }) };
}

const STATUSES: ReadonlyMap<string, ReportedStatus> = new Map([
  ['sent', 'sent'],
  ['delivered', 'delivered'],
  ['read', 'read'],
  ['played', 'read'],
  ['failed', 'failed'],
]);

function messageEvent(
  message: VendorMessage,
  { id, contact, phoneNumberId }: { id: string; contact: ContactIdentity; phoneNumberId: string | undefined },
  conversation: Fields | undefined,
): MessageEvent {
  const { fields, kapso } = message;
  const kind = kindOf(fields);
  const text = textOf(fields, kind);
  const payload = payloadOf(message, kind, text);
  const isInGroup = [fields.group_id, kapso?.group_id, conversation?.group_id].some(isGiven);
  return {
    type: 'message',
    ...(phoneNumberId === undefined ? {} : { phoneNumberId }),
    contact,
    message: {
      providerMessageId: id,
      kind,
      ...(text === undefined ? {} : { text: cutText(text, MAX_TEXT) }),
      ...(payload ? { payload } : {}),
      sentAtMs: timeOf(fields.timestamp ?? fields.created_at),
      ...(kapso?.origin === 'history_sync' ? { isHistory: true } : {}),
      ...(isInGroup ? { isInGroup } : {}),
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
const MAX_KIND = 64;

function kindOf(fields: Fields): string {
  const named = [fields.type, fields.message_type].find((name) => typeof name === 'string' && name !== '' && name.length <= MAX_KIND);
  return (named as string | undefined) ?? KINDS.find((kind) => isGiven(fields[kind])) ?? 'unknown';
}

/** What the customer wrote: the body, a caption, or the title of what was pressed. Undefined when that is nothing. */
function textOf(fields: Fields, kind: string): string | undefined {
  const content = contentOf(fields, kind);
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
  return textIn(text) ?? textIn(fields.content);
}

function contentOf(fields: Fields, kind: string): unknown {
  return Object.hasOwn(fields, kind) ? fields[kind] : undefined;
}

/** The kind's own object (media id, coordinates, contacts, …) without addresses of media: those open without a key. */
function payloadOf({ fields, kapso }: VendorMessage, kind: string, text: string | undefined): Fields | undefined {
  const content = kind === 'text' && text !== undefined ? undefined : withoutUrls(contentOf(fields, kind));
  const media = objectIn(kapso?.media_data);
  const transcript = textIn(objectIn(kapso?.transcript)?.text);
  const payload: Fields = {
    ...(content === undefined ? {} : { [kind]: content }),
    ...(media ? { file: withoutUrls(media) } : {}),
    ...(transcript === undefined ? {} : { transcript }),
  };
  for (const name of ['context', 'referral', 'errors', 'group_id']) if (name in fields) payload[name] = fields[name];
  if (Object.keys(payload).length === 0) return undefined;
  return (boundedJson(payload, MAX_PAYLOAD_JSON) as Fields | undefined) ?? { tooLarge: true };
}

function withoutUrls(content: unknown): unknown {
  if (!isFields(content)) return content;
  return Object.fromEntries(Object.entries(content).filter(([name]) => name !== 'url' && name !== 'link'));
}

/** Finds the sender by what is there: a message without one, next to a single contact, is from that person. */
function senderOf({ fields }: VendorMessage, { conversation, contacts }: Context): ContactIdentity | undefined {
  const person = contacts && contactOf(fields, contacts);
  const phone =
    phoneIn(textIn(fields.from)) ??
    phoneIn(textIn(fields.phone_number)) ??
    phoneIn(textIn(conversation?.phone_number)) ??
    phoneIn(textIn(person?.wa_id));
  const businessScopedUserId =
    scopedIdIn(fields.from_user_id) ?? scopedIdIn(conversation?.business_scoped_user_id) ?? scopedIdIn(person?.user_id);
  const aliases = fields.type === 'system' ? changedAliases(fields, { phone, businessScopedUserId }) : { phone, businessScopedUserId };
  if (aliases.phone === undefined && aliases.businessScopedUserId === undefined) return undefined;
  const profile = objectIn(person?.profile);
  const name = textIn(objectIn(conversation?.kapso)?.contact_name) ?? textIn(profile?.name);
  const username = textIn(fields.username) ?? textIn(conversation?.username) ?? textIn(profile?.username);
  return {
    ...given(aliases),
    ...(name === undefined ? {} : { name: cutText(name, 256) }),
    ...(username === undefined ? {} : { username: cutText(username, 256) }),
  };
}

type Aliases = { [Alias in 'phone' | 'businessScopedUserId' | 'formerPhone' | 'formerBusinessScopedUserId']?: string | undefined };

/**
 * A system message may say that the sender has a new number or id: `user_changed_number` has the new number as `wa_id`,
 * `user_changed_user_id` has both ids, and may have no sender. WhatsApp changes the id along with the number.
 */
function changedAliases(fields: Fields, { phone, businessScopedUserId }: Aliases): Aliases {
  const change = objectIn(fields.system);
  const newPhone = phoneIn(textIn(change?.wa_id));
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

function scopedIdIn(value: unknown): string | undefined {
  const id = textIn(value)?.trim();
  return id ? cutText(id, 256) : undefined;
}

/** The persons that Meta names beside their messages; a webhook may have a thousand of both. */
interface Contacts {
  byPhone: ReadonlyMap<string, Fields>;
  byScopedId: ReadonlyMap<string, Fields>;
  /** When there is only one. */
  single: Fields | undefined;
}

function contactsIn(value: unknown): Contacts {
  const contacts = (Array.isArray(value) ? value.slice(0, MAX_ITEMS) : [value]).filter(isFields);
  const by = (name: string, idOf: (text: string | undefined) => string | undefined): Map<string, Fields> =>
    new Map(
      contacts.flatMap((contact): [string, Fields][] => {
        const id = idOf(textIn(contact[name]));
        return id === undefined ? [] : [[id, contact]];
      }),
    );
  return { byPhone: by('wa_id', phoneIn), byScopedId: by('user_id', (id) => id), single: contacts.length === 1 ? contacts[0] : undefined };
}

/** The contact that the message is of, when it names one, or when there is only one that it can be. */
function contactOf(fields: Fields, contacts: Contacts): Fields | undefined {
  return contactNamed(phoneIn(textIn(fields.from)), textIn(fields.from_user_id), contacts);
}

function contactNamed(
  phone: string | undefined,
  scopedId: string | undefined,
  { byPhone, byScopedId, single }: Contacts,
): Fields | undefined {
  if (phone !== undefined) return byPhone.get(phone) ?? (byPhone.size === 0 ? single : undefined);
  return scopedId === undefined ? single : byScopedId.get(scopedId);
}

/** Maximum number of contacts that a dead letter repeats if the sender is unknown. */
const MAX_CONTACTS_AROUND = 5;

/** The contacts as they came, as far as they may belong to the item. */
function contactsAround(item: unknown, value: unknown, contacts: Contacts | undefined): unknown {
  if (!Array.isArray(value) || value.length <= MAX_CONTACTS_AROUND) return value;
  const own = isFields(item) && contacts ? contactOf(item, contacts) : undefined;
  return own ? [own] : value.slice(0, MAX_CONTACTS_AROUND);
}

/** Allows separators, but no letters: a name with digits is not a number. E.164 numbers have at most 15 digits. */
const PHONE = /^[+\d\s().-]{1,40}$/;

function phoneIn(value: string | undefined): string | undefined {
  if (value === undefined || !PHONE.test(value)) return undefined;
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

/** Milliseconds since 1970 or seconds, as a number or in digits, or ISO 8601. */
function timeOf(timestamp: unknown): number {
  const count = typeof timestamp === 'number' || (typeof timestamp === 'string' && timestamp !== '') ? Number(timestamp) : Number.NaN;
  if (Number.isNaN(count)) return plausible(Date.parse(textIn(timestamp) ?? ''));
  return plausible(count > MILLISECONDS_FROM ? count : count * 1_000);
}

/** In seconds, this would be the year 5138. */
const MILLISECONDS_FROM = 1e11;

/** Replaces an implausible time (missing, invalid, before 1970, in the future) with the current time. */
function plausible(atMs: number): number {
  const nowMs = Date.now();
  return atMs > 0 && atMs < nowMs ? Math.round(atMs) : nowMs;
}

/** Reads a list item by item, or an object as its only item; anything else, or too long a list, becomes one unreadable event. */
function each(value: unknown, read: (item: unknown) => KapsoEvent[], whole: () => KapsoEvent): KapsoEvent[] {
  const items = Array.isArray(value) ? value : isFields(value) ? [value] : undefined;
  return items === undefined || items.length > MAX_ITEMS ? [whole()] : items.flatMap(read);
}

/** A text that is not empty; a number counts as its digits. */
function textIn(value: unknown): string | undefined {
  if (typeof value === 'number') return String(value);
  return typeof value === 'string' && value.trim() !== '' ? value : undefined;
}

/** A word of a fixed set, however it is written. */
function wordIn(value: unknown): string | undefined {
  return typeof value === 'string' ? value.trim().toLowerCase() || undefined : undefined;
}

/** An id that WhatsApp made. A number beyond the doubles' precision may be another one than was sent. */
function idIn(value: unknown): string | undefined {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value > 0 ? String(value) : undefined;
  return typeof value === 'string' && value !== '' && value.length <= MAX_ID ? value : undefined;
}

const MAX_ID = 512;

/** An object, or the first of a list. */
function objectIn(value: unknown): Fields | undefined {
  const first: unknown = Array.isArray(value) ? value[0] : value;
  return isFields(first) ? first : undefined;
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
