/** Request schemas of the Kapso double (checked as far as Meta does), and the faults that can be programmed. */
import { z } from 'zod';
import { KAPSO_ERRORS, type KapsoErrorName, MESSAGE_STATUSES } from './bodies';

const media = z
  .looseObject({ id: z.string().min(1).optional(), link: z.url().optional(), caption: z.string().max(1024).optional() })
  .refine((value) => (value.id === undefined) !== (value.link === undefined), 'either id or link is required');
const button = z.object({
  type: z.literal('reply'),
  reply: z.object({ id: z.string().min(1).max(256), title: z.string().min(1).max(20) }),
});
const row = z.object({ id: z.string().min(1).max(200), title: z.string().min(1).max(24), description: z.string().max(72).optional() });
const section = z.object({ title: z.string().max(24).optional(), rows: z.array(row).min(1).max(10) });
const interactive = z.looseObject({
  type: z.enum(['button', 'list']),
  body: z.object({ text: z.string().min(1).max(1024) }),
  action: z.object({
    buttons: z.array(button).min(1).max(3).optional(),
    button: z.string().min(1).max(20).optional(),
    sections: z.array(section).min(1).max(10).optional(),
  }),
});

const contents = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text'), text: z.object({ body: z.string().min(1).max(4096), preview_url: z.boolean().optional() }) }),
  z.object({ type: z.literal('image'), image: media }),
  z.object({ type: z.literal('video'), video: media }),
  z.object({ type: z.literal('audio'), audio: media }),
  z.object({ type: z.literal('document'), document: media }),
  z.object({ type: z.literal('sticker'), sticker: media }),
  z.object({ type: z.literal('location'), location: z.looseObject({ latitude: z.number(), longitude: z.number() }) }),
  z.object({ type: z.literal('reaction'), reaction: z.object({ message_id: z.string().min(1), emoji: z.string() }) }),
  z.object({ type: z.literal('interactive'), interactive }),
  z.object({
    type: z.literal('template'),
    template: z.looseObject({ name: z.string().min(1), language: z.looseObject({ code: z.string() }) }),
  }),
]);
const envelope = z.object({
  messaging_product: z.literal('whatsapp'),
  recipient_type: z.literal('individual').optional(),
  to: z
    .string()
    .regex(/^\+?[\d\s()-]{5,24}$/, 'to is not a phone number')
    .optional(),
  recipient: z.string().min(1).optional(),
  context: z.object({ message_id: z.string().min(1) }).optional(),
  biz_opaque_callback_data: z.string().max(512).optional(),
});

/** The body of a send request. */
export const sendSchema = envelope
  .and(contents)
  .refine((body) => body.to !== undefined || body.recipient !== undefined, 'to or recipient is required');
export type SendBody = z.output<typeof sendSchema>;

/** The body of a read receipt, optionally with a typing indicator. */
export const markReadSchema = z.object({
  messaging_product: z.literal('whatsapp'),
  status: z.literal('read'),
  message_id: z.string().min(1),
  typing_indicator: z.object({ type: z.literal('text') }).optional(),
});

const errorNames = Object.keys(KAPSO_ERRORS) as [KapsoErrorName, ...KapsoErrorName[]];
const waitMs = z.number().int().min(0).max(600_000);

const statusStep = z.object({
  status: z.enum(MESSAGE_STATUSES),
  /** ms after the message was accepted. */
  afterMs: waitMs,
  /** Number of webhooks with this status (default 1). */
  copies: z.number().int().min(1).max(20).optional(),
  /** Meta's error code, for `failed` (default 131000). */
  errorCode: z.number().int().optional(),
});

/** A fault of the Kapso double, as JSON. Every field is optional; those that are not set keep the normal behaviour. */
export const kapsoFaultSchema = z.strictObject({
  /** The kind of request: a send (default), a read receipt, or a list of messages. */
  on: z.enum(['send', 'mark_read', 'list']).optional(),
  /** Limits the fault to matching requests; `to` in any format, `text` and `correlation` as substrings. */
  match: z.strictObject({ to: z.string().optional(), text: z.string().optional(), correlation: z.string().optional() }).optional(),
  times: z.number().int().min(1).optional(),
  skip: z.number().int().min(0).optional(),
  /** The response: success (default), no response (`hang`), a reset connection (`cut`), or an error by name. */
  answer: z.enum(['success', 'hang', 'cut', ...errorNames]).optional(),
  /** Whether the message is accepted regardless of the response (default: only with `success`). */
  accepted: z.boolean().optional(),
  /** Sets the Retry-After header of an error response. */
  retryAfterSeconds: z.number().int().min(0).optional(),
  /** Delay before the message is accepted, and from then to the response, in ms. */
  delayBeforeMs: waitMs.optional(),
  delayAfterMs: waitMs.optional(),
  /** Delays the response until the first status webhook has been attempted, so that Parley learns of the message by webhook first. */
  statusBeforeAnswer: z.boolean().optional(),
  /** Replaces the default plan of sent, delivered, read. */
  statuses: z.array(statusStep).max(20).optional(),
  /** Removes statuses from the plan. */
  dropStatuses: z.array(z.enum(MESSAGE_STATUSES)).optional(),
  /** Sends these statuses twice. */
  duplicateStatuses: z.array(z.enum(MESSAGE_STATUSES)).optional(),
  /** Omits the message from lists. */
  omitFromList: z.boolean().optional(),
});
export type StatusStep = z.output<typeof statusStep>;

/** A request, as matched against faults. */
export interface KapsoRequest {
  on: 'send' | 'mark_read' | 'list';
  /** Digits of the phone number, or the business-scoped id. */
  to: string;
  text: string;
  correlation: string | undefined;
  body: unknown;
}

/** A fault of the Kapso double. `when` is available within the same process only. */
export interface KapsoFault extends z.output<typeof kapsoFaultSchema> {
  when?: ((request: KapsoRequest) => boolean) | undefined;
}

/** Status plan of a message that is sent and then fails. */
export function failedAfterSent(errorCode = 131047, afterMs = 20): StatusStep[] {
  return [
    { status: 'sent', afterMs: 0 },
    { status: 'failed', afterMs, errorCode },
  ];
}

/** Status plan of a message that fails without `sent`. */
export function failedWithoutSent(errorCode = 131026, afterMs = 20): StatusStep[] {
  return [{ status: 'failed', afterMs, errorCode }];
}

/** Status plan in which `delivered` comes before `sent`. */
export function deliveredBeforeSent(gapMs = 20): StatusStep[] {
  return [
    { status: 'delivered', afterMs: 0 },
    { status: 'sent', afterMs: gapMs },
    { status: 'read', afterMs: 2 * gapMs },
  ];
}

/** The text of an outbound message as the customer sees it. */
export function readableText(body: SendBody): string {
  switch (body.type) {
    case 'text':
      return body.text.body;
    case 'interactive':
      return body.interactive.body.text;
    case 'reaction':
      return body.reaction.emoji;
    case 'template':
      return `[template ${body.template.name}]`;
    case 'location':
      return '[location]';
    default:
      return `[${body.type}]`;
  }
}
