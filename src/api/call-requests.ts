/** Schemas of requests to the voice API. */
import { z } from 'zod';
import { CALL_STATUSES } from '../../workflows/contract';
import { ApiError } from '../http/errors';
import { booleanParameter, cursorFrom, integerParameter, orNull, validText, waitSeconds } from '../http/requests';
import { phoneSchema } from '../platform/phone';
import { boundedJson, MAX_DEPTH } from '../platform/text';
import { vapiId } from '../providers/vapi/id';
import { CALL_OUTCOMES } from '../record/call-outcome';
import { CALL_INCLUDES } from './views/call';

/** The earliest time that PostgreSQL accepts in ISO 8601 with four digits: there is no year 0. */
const FIRST_TIME_MS = Date.parse('0001-01-01T00:00:00Z');

const DEFAULT_DURATION_SECONDS = 600;

const freeObject = z.record(z.string().max(100), z.json());

export const startBody = z
  .strictObject({
    to: phoneSchema,
    workspaceId: orNull(z.guid()).meta({
      description: "The workspace that the call belongs to; its conversation gets the note. Default: the key's, or the first one.",
    }),
    assistantId: orNull(vapiId).meta({ description: 'Default: VAPI_ASSISTANT_ID.' }),
    phoneNumberId: orNull(vapiId).meta({
      description: "Vapi's id of the number to call from. Default: the workspace's number, or VAPI_PHONE_NUMBER_ID.",
    }),
    variables: orNull(freeObject).meta({ description: `Values of the assistant's template variables; at most ${MAX_DEPTH} levels deep.` }),
    metadata: orNull(freeObject).meta({ description: `Returned with the result; at most ${MAX_DEPTH} levels deep.` }),
    maxDurationSeconds: z
      .int()
      .min(10)
      .max(43_200)
      .nullish()
      .transform((seconds) => seconds ?? DEFAULT_DURATION_SECONDS)
      .meta({ description: 'Maximum duration of the conversation.', default: DEFAULT_DURATION_SECONDS }),
    serviceRequestId: orNull(validText(200)).meta({ description: 'Your own reference; lists can be filtered by it.' }),
    callbackUrl: orNull(z.string().max(2_000)).meta({
      description: 'The result is posted to this URL; its host must be allowed (CALLBACK_ALLOWED_HOSTS).',
    }),
  })
  .meta({ id: 'CallRequest', description: 'Every field but `to` may be left out or null.' });
export type StartBody = z.output<typeof startBody>;

/** A minimal request. */
export const START_EXAMPLE = { to: '+15550100' } satisfies z.input<typeof startBody>;

/**
 * Must run before parsing with `startBody`, because zod recurses and overflows the stack some thousand levels down.
 * @throws ApiError 400 that names a field whose value PostgreSQL could not store unchanged
 */
export function refuseUnsafeText(body: unknown): void {
  if (typeof body !== 'object' || body === null) return;
  for (const [name, value] of Object.entries(body)) {
    if (!(name in startBody.shape)) continue;
    const stored = boundedJson(value, Number.POSITIVE_INFINITY);
    if (stored === undefined) throw new ApiError(400, `${name}: must not be nested deeper than ${MAX_DEPTH} levels`);
    if (JSON.stringify(stored) !== JSON.stringify(value))
      throw new ApiError(400, `${name}: must be text without NUL and without lone surrogates`);
  }
}

export const startHeaders = z.object({
  'Idempotency-Key': z
    .string({ error: 'is required' })
    .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible characters, the same for every attempt at the same call')
    .meta({
      description: 'Repeating a request with the same key, body and API key returns the same call.',
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
    description: `Large fields to include, comma-separated: ${CALL_INCLUDES.join(', ')}.`,
    override: { type: 'string', pattern: '^((transcript|messages|raw)(,(transcript|messages|raw))*)?$' },
  });
export const showQuery = z.strictObject({
  wait: waitSeconds
    .optional()
    .meta({ description: 'Seconds to wait for the result; if there is none by then, the response has `done: false`.' }),
  include: include.optional(),
});

const cursor = cursorFrom('next');
/** An unescaped plus in a URL arrives as a space. */
const since = z
  .string()
  .transform((written) => written.replace(/ (?=\d\d:\d\d$)/, '+'))
  .pipe(z.iso.datetime({ offset: true }))
  .transform((written) => new Date(written))
  .refine((time) => time.getTime() >= FIRST_TIME_MS, 'must not be before year 1')
  .meta({
    description: 'Only calls created at or after this time.',
    example: '2026-11-21T10:00:00+01:00',
    override: { type: 'string', format: 'date-time' },
  });
const workspaceId = z.guid().optional().meta({ description: 'Only calls of this workspace.' });
const page = { limit: integerParameter(1, 100).optional().meta({ description: 'Default 50.' }), before: cursor.optional() };
export const listQuery = z.strictObject({
  ...page,
  workspaceId,
  status: z.enum(CALL_STATUSES).optional().meta({ description: 'Only those in this state.' }),
  outcome: z.enum(CALL_OUTCOMES).optional().meta({ description: 'Only those that ended in this way.' }),
  serviceRequestId: validText(200).optional().meta({ description: 'Only those that were started with this reference.' }),
  needsAttention: booleanParameter.optional().meta({ description: 'Only those that need a person, or only the others.' }),
  since: since.optional(),
  wait: waitSeconds.optional().meta({
    description:
      'Seconds to wait until every call with this `serviceRequestId` is done; if some are not by then, the response has `done: false`. Needs `serviceRequestId`.',
  }),
});
export const pageQuery = z.strictObject({ ...page, workspaceId });

export const attentionBody = z.strictObject({ clear: z.literal(true) }).meta({ id: 'CallAttention' });
export const phoneParameter = z.object({
  phone: phoneSchema.meta({
    description: 'A phone number with its country code, in any spelling; write the plus as %2B, or omit it.',
    example: '+15550100',
  }),
});
