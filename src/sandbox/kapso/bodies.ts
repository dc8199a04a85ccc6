/** Bodies in Kapso's format: error responses, v2 webhook events, list rows. Pure functions. */
import type { SimulatedResponse } from '../responses';
import type { StatusStep } from './requests';

/** The statuses of an outbound message, in the order of a successful delivery; `failed` is the alternative end. */
export const MESSAGE_STATUSES = ['sent', 'delivered', 'read', 'failed'] as const;
export type MessageStatus = (typeof MESSAGE_STATUSES)[number];

function graphError(status: number, code: number, title: string, details: string): SimulatedResponse {
  const errorData = { messaging_product: 'whatsapp', details };
  return {
    status,
    body: {
      error: {
        message: `(#${code}) ${title}`,
        type: 'OAuthException',
        code,
        error_data: errorData,
        fbtrace_id: 'ASandboxTraceId000000001',
      },
    },
  };
}

/** Error responses by name. A string body is not JSON: an HTML page, or empty. */
export const KAPSO_ERRORS = {
  '100': graphError(400, 100, 'Invalid parameter', 'A parameter is missing or not valid.'),
  '130429': graphError(400, 130429, 'Rate limit hit', 'The throughput of this number was reached.'),
  '131000': graphError(500, 131000, 'Something went wrong', 'Unknown error.'),
  '131026': graphError(400, 131026, 'Message undeliverable', 'The recipient cannot receive messages.'),
  '131047': graphError(400, 131047, 'Re-engagement message', 'More than 24 hours have passed since the customer last wrote.'),
  '131056': graphError(
    400,
    131056,
    '(Business Account, Consumer Account) pair rate limit hit',
    'Too many messages to this recipient in a short time.',
  ),
  '190': {
    status: 401,
    body: {
      error: { message: 'Error validating access token', type: 'OAuthException', code: 190, fbtrace_id: 'ASandboxTraceId000000002' },
    },
  },
  '401': { status: 401, body: { error: 'Invalid or missing API key' } },
  '404': { status: 404, body: { error: 'Phone number not found' } },
  '409': { status: 409, body: { error: 'Another message is in flight for this conversation' } },
  '422_window': {
    status: 422,
    body: {
      error: 'Cannot send non-template messages outside the 24-hour window.',
      next_steps: 'Send a WhatsApp template message to reopen the session.',
    },
  },
  '422': { status: 422, body: { error: 'Phone number is not registered.' } },
  '429': {
    status: 429,
    body: { error: 'Rate limit exceeded', message: 'You have exceeded the rate limit. Please try again later.' },
    headers: { 'Retry-After': '60', 'X-RateLimit-Limit': '500', 'X-RateLimit-Remaining': '0' },
  },
  '500': { status: 500, body: { error: 'An unexpected error occurred', message: 'Please try again.' } },
  '502_html': { status: 502, body: '<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>' },
  '503_empty': { status: 503, body: '' },
} as const satisfies Record<string, SimulatedResponse>;
export type KapsoErrorName = keyof typeof KAPSO_ERRORS;

/** Meta's error for an invalid request (code 100). */
export function invalidParameter(details: string): SimulatedResponse {
  return graphError(400, 100, 'Invalid parameter', details);
}

const FAILURE_TITLES: Record<number, string> = {
  130472: "User's number is part of an experiment",
  131000: 'Something went wrong',
  131026: 'Message undeliverable',
  131047: 'Re-engagement message',
  131049: 'Message not delivered to keep the ecosystem healthy',
};

/** A status object in Meta's format. */
export interface StatusObject {
  id: string;
  status: MessageStatus;
  timestamp: string;
  recipient_id: string;
  biz_opaque_callback_data?: string;
  pricing?: object;
  errors?: object[];
}

/** A stored message. */
export interface StoredMessage {
  /** Position in the order of all messages. */
  sequence: number;
  wamid: string;
  direction: 'inbound' | 'outbound';
  /** Digits of the phone number, or the business-scoped id of a customer without one. */
  customer: string;
  phoneNumberId: string;
  createdAtMs: number;
  type: string;
  /** The fields specific to the type: `text`, `image`, `context`… */
  content: Record<string, unknown>;
  /** The message as shown to a person. */
  text: string;
  origin: 'cloud_api' | 'business_app' | 'history_sync';
  correlation?: string | undefined;
  /** For media: the additional fields inside `kapso`. */
  media?: Record<string, unknown> | undefined;
  statuses: StatusObject[];
  /** Of a send through the API: every status that it gets. */
  plan?: StatusStep[] | undefined;
  /** Of a customer's message: the business's webhook has accepted it, or the business has read it. */
  mark?: 'taken' | 'read' | undefined;
  /** Whether it appears in lists. */
  listed: boolean;
  /** Whether it reaches the customer: false if its plan contains a `failed` status. */
  visible: boolean;
  idempotencyKey?: string | undefined;
}

/** A stored conversation. */
export interface StoredConversation {
  id: string;
  customer: string;
  phoneNumberId: string;
  contactName: string;
  username?: string | undefined;
  createdAtMs: number;
  lastActiveAtMs: number;
  messagesCount: number;
  last?: StoredMessage | undefined;
  lastInboundAtMs?: number | undefined;
  lastOutboundAtMs?: number | undefined;
}

/** Normalises a phone number to its digits; leaves a business-scoped id unchanged. */
export function customerKey(address: string): string {
  const bare = address.replace(/[\s()-]/g, '');
  return /^\+?\d+$/.test(bare) ? bare.replace('+', '') : address;
}

/** Whether a customer key is a phone number rather than a business-scoped id. */
export function isPhone(customer: string): boolean {
  return /^\d+$/.test(customer);
}

function seconds(ms: number): string {
  return String(Math.floor(ms / 1000));
}

function iso(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}

function isoOrNull(ms: number | undefined): string | null {
  return ms === undefined ? null : iso(ms);
}

/** The raw status object of a message; `errorCode` is used for `failed` only. */
export function statusObject(message: StoredMessage, status: MessageStatus, atMs: number, errorCode: number | undefined): StatusObject {
  return {
    id: message.wamid,
    status,
    timestamp: seconds(atMs),
    recipient_id: message.customer,
    ...(message.correlation === undefined ? {} : { biz_opaque_callback_data: message.correlation }),
    ...(status === 'sent' || status === 'delivered' ? { pricing: PRICING } : {}),
    ...(status === 'failed' ? { errors: [statusError(errorCode ?? 131000)] } : {}),
  };
}

const PRICING = { billable: false, pricing_model: 'PMP', type: 'free_customer_service', category: 'service' };

function statusError(code: number): object {
  const title = FAILURE_TITLES[code] ?? 'Message failed';
  return {
    code,
    title,
    message: title,
    error_data: { details: title },
    href: 'https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/',
  };
}

function conversationBody(conversation: StoredConversation, withKapso: boolean): object {
  const phone = isPhone(conversation.customer);
  return {
    id: conversation.id,
    phone_number: phone ? `+${conversation.customer}` : null,
    ...(phone ? {} : { business_scoped_user_id: conversation.customer, username: conversation.username }),
    status: 'active',
    last_active_at: iso(conversation.lastActiveAtMs),
    created_at: iso(conversation.createdAtMs),
    updated_at: iso(conversation.lastActiveAtMs),
    metadata: {},
    phone_number_id: conversation.phoneNumberId,
    ...(withKapso ? { kapso: conversationKapso(conversation) } : {}),
  };
}

/** The row of a conversation in the lists, where its number has no plus. */
export function conversationRow(conversation: StoredConversation): object {
  const body = conversationBody(conversation, true);
  return isPhone(conversation.customer) ? { ...body, phone_number: conversation.customer } : body;
}

function conversationKapso({ contactName, messagesCount, last, lastInboundAtMs, lastOutboundAtMs }: StoredConversation): object {
  return {
    contact_name: contactName,
    messages_count: messagesCount,
    last_message_id: last?.wamid ?? null,
    last_message_type: last?.type ?? null,
    last_message_timestamp: isoOrNull(last?.createdAtMs),
    last_message_text: last?.text ?? null,
    last_inbound_at: isoOrNull(lastInboundAtMs),
    last_outbound_at: isoOrNull(lastOutboundAtMs),
  };
}

function senderFields(message: StoredMessage, conversation: StoredConversation): object {
  return isPhone(message.customer)
    ? { from: message.customer }
    : { from_user_id: message.customer, ...(conversation.username === undefined ? {} : { username: conversation.username }) };
}

function inboundKapso(message: StoredMessage): object {
  return {
    direction: 'inbound',
    status: 'received',
    processing_status: message.origin === 'history_sync' ? 'completed' : 'pending',
    origin: message.origin,
    has_media: message.media !== undefined,
    content: message.text,
    ...message.media,
  };
}

function outboundKapso(message: StoredMessage, status: string): object {
  return {
    direction: 'outbound',
    status,
    processing_status: 'completed',
    origin: message.origin,
    has_media: message.media !== undefined,
    ...(message.statuses.length === 0 ? {} : { statuses: [...message.statuses] }),
  };
}

/** Body of `whatsapp.message.received`. */
export function receivedEvent(message: StoredMessage, conversation: StoredConversation, isNew: boolean): object {
  return {
    message: {
      id: message.wamid,
      timestamp: seconds(message.createdAtMs),
      type: message.type,
      ...senderFields(message, conversation),
      ...message.content,
      kapso: inboundKapso(message),
    },
    conversation: conversationBody(conversation, true),
    is_new_conversation: isNew,
    phone_number_id: message.phoneNumberId,
  };
}

/** Body of `whatsapp.message.sent`, `.delivered`, `.read`, `.failed`. Only `sent` has `to` and the conversation's counters. */
export function statusEvent(message: StoredMessage, conversation: StoredConversation, status: MessageStatus, atMs: number): object {
  const sent = status === 'sent';
  return {
    message: {
      id: message.wamid,
      timestamp: seconds(atMs),
      type: message.type,
      ...message.content,
      ...(sent ? receiverFields(message.customer) : {}),
      kapso: outboundKapso(message, status),
    },
    conversation: conversationBody(conversation, sent),
    is_new_conversation: false,
    phone_number_id: message.phoneNumberId,
  };
}

function receiverFields(customer: string): object {
  return isPhone(customer) ? { to: customer } : { to_user_id: customer };
}

/** The envelope of a buffered webhook. */
export function batchEvent(items: object[], firstSequence: number, windowMs: number, conversationId: string): object {
  return {
    type: 'whatsapp.message.received',
    batch: true,
    data: items,
    batch_info: {
      size: items.length,
      window_ms: windowMs,
      first_sequence: firstSequence,
      last_sequence: firstSequence + items.length - 1,
      conversation_id: conversationId,
    },
  };
}

/** The row of a message in the lists. */
export function messageRow(message: StoredMessage, conversation: StoredConversation): object {
  const inbound = message.direction === 'inbound';
  const kapso = inbound ? inboundKapso(message) : outboundKapso(message, message.statuses.at(-1)?.status ?? 'pending');
  return {
    id: message.wamid,
    timestamp: seconds(message.createdAtMs),
    type: message.type,
    ...message.content,
    ...(inbound ? senderFields(message, conversation) : receiverFields(message.customer)),
    kapso: {
      ...kapso,
      ...(isPhone(message.customer) ? { phone_number: message.customer } : {}),
      phone_number_id: message.phoneNumberId,
      whatsapp_conversation_id: conversation.id,
      contact_name: conversation.contactName,
    },
  };
}

/** The cursor of a message's row, opaque to clients. */
export function cursorOf(message: StoredMessage): string {
  return cursor(message.createdAtMs, message.wamid);
}

/** The cursor of a conversation's row, opaque to clients. */
export function conversationCursorOf(conversation: StoredConversation): string {
  return cursor(conversation.createdAtMs, conversation.id);
}

function cursor(createdAtMs: number, id: string): string {
  return Buffer.from(JSON.stringify({ values: [iso(createdAtMs), id], columns: ['created_at', 'id'] })).toString('base64');
}

/** The id in a cursor; undefined if the cursor is invalid. */
export function cursorTarget(cursor: string): string | undefined {
  try {
    const decoded: unknown = JSON.parse(Buffer.from(cursor, 'base64').toString('utf8'));
    const values: unknown = typeof decoded === 'object' && decoded !== null && 'values' in decoded ? decoded.values : undefined;
    const id: unknown = Array.isArray(values) ? values[1] : undefined;
    return typeof id === 'string' ? id : undefined;
  } catch {
    return undefined;
  }
}
