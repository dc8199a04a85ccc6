/** What Kapso accepts: the schema of a send, as far as Meta checks it, and what may be programmed to go wrong. */
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

/** The body of a send. */
export const sendSchema = envelope
  .and(contents)
  .refine((body) => body.to !== undefined || body.recipient !== undefined, 'to or recipient is required');
export type SendBody = z.output<typeof sendSchema>;

/** The body that marks a message as read, and shows that an answer is being typed. */
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
  /** How many webhooks say it (default 1). */
  copies: z.number().int().min(1).max(20).optional(),
  /** Meta's code, for `failed` (default 131000). */
  errorCode: z.number().int().optional(),
});

/** A fault of the Kapso double, as JSON. Every field is optional; what is not named goes as usual. */
export const kapsoFaultSchema = z.strictObject({
  /** What is asked: a send (default), a mark-read, or a list of messages. */
  on: z.enum(['send', 'mark_read', 'list']).optional(),
  /** Only requests like this; `to` in any spelling, `text` and `correlation` as substrings. */
  match: z.strictObject({ to: z.string().optional(), text: z.string().optional(), correlation: z.string().optional() }).optional(),
  times: z.number().int().min(1).optional(),
  skip: z.number().int().min(0).optional(),
  /** What the client sees: the success, a named refusal, no answer ever, or a cut connection. Default: success. */
  answer: z.enum(['success', 'hang', 'cut', ...errorNames]).optional(),
  /** Whether the message is accepted all the same. Default: only when the answer is success. */
  accepted: z.boolean().optional(),
  /** Replaces the header of a 429, or adds one to another refusal. */
  retryAfterSeconds: z.number().int().min(0).optional(),
  /** ms before the message is accepted, and from there to the answer. */
  delayBeforeMs: waitMs.optional(),
  delayAfterMs: waitMs.optional(),
  /** The answer waits until the first status webhook was tried, so that Parley hears of the message by webhook first. */
  statusBeforeAnswer: z.boolean().optional(),
  /** Replaces the usual sent, delivered, read. */
  statuses: z.array(statusStep).max(20).optional(),
  /** Takes statuses out of the plan. */
  dropStatuses: z.array(z.enum(MESSAGE_STATUSES)).optional(),
  /** Sends these statuses twice. */
  duplicateStatuses: z.array(z.enum(MESSAGE_STATUSES)).optional(),
  /** Keeps the message out of the lists. */
  omitFromList: z.boolean().optional(),
});
export type StatusStep = z.output<typeof statusStep>;

/** A request as faults see it. */
export interface KapsoRequest {
  on: 'send' | 'mark_read' | 'list';
  /** Digits of the phone number, or the business-scoped id. */
  to: string;
  text: string;
  correlation: string | undefined;
  body: unknown;
}

/** A fault of the Kapso double; `when` is for callers in the same process. */
export interface KapsoFault extends z.output<typeof kapsoFaultSchema> {
  when?: ((request: KapsoRequest) => boolean) | undefined;
}

/** Statuses of a message that was sent and then failed. */
export function failedAfterSent(errorCode = 131047, afterMs = 20): StatusStep[] {
  return [
    { status: 'sent', afterMs: 0 },
    { status: 'failed', afterMs, errorCode },
  ];
}

/** Statuses of a message that failed without a `sent`. */
export function failedWithoutSent(errorCode = 131026, afterMs = 20): StatusStep[] {
  return [{ status: 'failed', afterMs, errorCode }];
}

/** Statuses whose `delivered` comes before `sent`. */
export function deliveredBeforeSent(gapMs = 20): StatusStep[] {
  return [
    { status: 'delivered', afterMs: 0 },
    { status: 'sent', afterMs: gapMs },
    { status: 'read', afterMs: 2 * gapMs },
  ];
}

/** The words of a message that a business sends, as its customer reads them. */
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
