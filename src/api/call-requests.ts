/** What callers of the voice API send: the schemas that read it and that the OpenAPI document shows. */
import { z } from 'zod';
import { ApiError } from '../http/errors';
import { booleanParameter, integerParameter } from '../http/requests';
import { phoneSchema } from '../platform/phone';
import { boundedJson, MAX_DEPTH } from '../platform/text';
import { vapiId } from '../providers/vapi/id';
import { CALL_INCLUDES } from './views/call';

/** Below the minute after which proxies usually give an idle request up. */
const MAX_WAIT_SECONDS = 55;
/** The first moment of PostgreSQL's calendar that ISO 8601 writes with four digits: there is no year 0. */
const FIRST_TIME_MS = Date.parse('0001-01-01T00:00:00Z');

const freeObject = z.record(z.string().max(100), z.json());
/** PostgreSQL keeps no NUL; half a surrogate is no text. */
const text = (max: number) =>
  z
    .string()
    .min(1)
    .max(max)
    .refine((value) => !value.includes('\0') && value.isWellFormed(), 'must be text');

export const startBody = z
  .strictObject({
    to: phoneSchema,
    assistantId: vapiId.optional().meta({ description: 'Default: VAPI_ASSISTANT_ID.' }),
    phoneNumberId: vapiId.optional().meta({ description: 'Number to call from, as Vapi names it. Default: VAPI_PHONE_NUMBER_ID.' }),
    variables: freeObject
      .optional()
      .meta({ description: `Values of the assistant's template variables; at most ${MAX_DEPTH} levels deep.` }),
    metadata: freeObject.optional().meta({ description: `Comes back with the result; at most ${MAX_DEPTH} levels deep.` }),
    maxDurationSeconds: z.int().min(10).max(43_200).default(600).meta({ description: 'The longest that the conversation may take.' }),
    serviceRequestId: text(200).optional().meta({ description: 'Your own reference; calls can be listed by it.' }),
    callbackUrl: z
      .string()
      .max(2_000)
      .optional()
      .meta({ description: 'The result is posted there; its host must be allowed (CALLBACK_ALLOWED_HOSTS).' }),
  })
  .meta({ id: 'CallRequest' });
export type StartBody = z.output<typeof startBody>;

/** All that a call needs where the defaults are set. */
export const START_EXAMPLE = { to: '+15550100' } satisfies z.input<typeof startBody>;

/**
 * To be asked before `startBody`: zod walks into what is nested, and runs out of stack some thousand levels down.
 * @throws ApiError 400 that names the field of which PostgreSQL would not keep the value as it is
 */
export function refuseUnsafeText(body: unknown): void {
  if (typeof body !== 'object' || body === null) return;
  for (const [name, value] of Object.entries(body)) {
    if (!(name in startBody.shape)) continue;
    const stored = boundedJson(value, Number.POSITIVE_INFINITY);
    if (stored === undefined) throw new ApiError(400, `${name}: must not be nested deeper than ${MAX_DEPTH} levels`);
    if (JSON.stringify(stored) !== JSON.stringify(value))
      throw new ApiError(400, `${name}: must be text without NUL and without half surrogate pairs`);
  }
}

export const startHeaders = z.object({
  'Idempotency-Key': z
    .string({ error: 'is required' })
    .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible characters, the same for every attempt at the same call')
    .meta({
      description: 'The same key and body is the same call, however often it is sent with the same API key.',
      example: 'order-4711-confirm',
    }),
});

export const callIdParameter = z.object({
  callId: z
    .string()
    .min(1)
    .max(128)
    .meta({ description: "Our id of the call, or Vapi's.", example: '5f0c2b1e-2a51-8c11-a0d4-6c8b0a6f9b3e' }),
});

const include = z
  .string()
  .max(100)
  .transform((value) => value.split(',').filter((part) => part !== ''))
  .pipe(z.array(z.enum(CALL_INCLUDES)))
  .meta({
    description: `Long parts, comma separated: ${CALL_INCLUDES.join(', ')}.`,
    override: { type: 'string', pattern: '^((transcript|messages|raw)(,(transcript|messages|raw))*)?$' },
  });
export const showQuery = z.strictObject({
  wait: integerParameter(0, MAX_WAIT_SECONDS)
    .optional()
    .meta({ description: 'Seconds to wait for the result. Comes back with `done: false` when there is none by then.' }),
  include: include.optional(),
});

const cursor = z
  .string()
  .regex(/^\d{1,13}_[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/, 'must be the `next` of an earlier page')
  .transform((value) => {
    const [atMs = '0', id = ''] = value.split('_');
    return { at: new Date(Number(atMs)), id };
  });
/** A plus that was not escaped in an address arrives as a space. */
const since = z
  .string()
  .transform((written) => written.replace(/ (?=\d\d:\d\d$)/, '+'))
  .pipe(z.iso.datetime({ offset: true }))
  .transform((written) => new Date(written))
  .refine((time) => time.getTime() >= FIRST_TIME_MS, 'must be a time that the calendar has')
  .meta({
    description: 'Only calls created from this time on.',
    example: '2026-11-21T10:00:00+01:00',
    override: { type: 'string', format: 'date-time' },
  });
const page = { limit: integerParameter(1, 100).optional().meta({ description: 'Default 50.' }), before: cursor.optional() };
export const listQuery = z.strictObject({
  ...page,
  status: text(40).optional(),
  outcome: text(40).optional(),
  serviceRequestId: text(200).optional(),
  needsAttention: booleanParameter.optional().meta({ description: 'Only those that a person should look at, or only the others.' }),
  since: since.optional(),
});
export const pageQuery = z.strictObject(page);
export const phoneParameter = z.object({
  phone: z
    .string()
    .max(40)
    .meta({ description: 'A phone number with its country code; the plus may be written as %2B or left out.', example: '+15550100' }),
});
