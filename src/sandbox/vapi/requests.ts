/** What Vapi accepts: the schema of a call to place (properties that it does not know are refused), and what may be programmed to go wrong. */
import { z } from 'zod';
import { VAPI_ERRORS, type VapiErrorName } from './bodies';
import { PLAYS } from './plays';

const free = z.unknown().optional();
const json = z.record(z.string(), z.unknown());
const uuid = z.guid({ error: 'must be a UUID' });

/** Where events of a call go (schema Server; `secret` is gone from it). */
const server = z.strictObject({
  url: z.url(),
  timeoutSeconds: z.number().min(1).max(300).optional(),
  credentialId: z.string().optional(),
  headers: z.record(z.string(), z.string()).optional(),
  backoffPlan: z
    .strictObject({
      type: z.enum(['fixed', 'exponential']),
      maxRetries: z.number().min(0).max(10),
      baseDelaySeconds: z.number().min(0).max(10),
      excludedStatusCodes: z.array(z.number()).optional(),
    })
    .optional(),
  staticIpAddressesEnabled: z.boolean().optional(),
  encryptedPaths: z.array(z.string()).optional(),
});
export type VapiServer = z.output<typeof server>;

/** Schema AssistantOverrides; what the double does not use may be anything. */
const assistantOverrides = z.strictObject({
  metadata: json.optional(),
  variableValues: json.optional(),
  server: server.optional(),
  serverMessages: z.array(z.string()).optional(),
  maxDurationSeconds: z.number().min(10).max(43_200).optional(),
  voicemailDetection: free,
  analysisPlan: free,
  artifactPlan: free,
  backgroundSound: free,
  backgroundSpeechDenoisingPlan: free,
  clientMessages: free,
  compliancePlan: free,
  credentialIds: free,
  credentials: free,
  endCallMessage: free,
  endCallPhrases: free,
  firstMessage: free,
  firstMessageInterruptionsEnabled: free,
  firstMessageMode: free,
  hooks: free,
  keypadInputPlan: free,
  model: free,
  modelOutputInMessagesEnabled: free,
  monitorPlan: free,
  name: free,
  observabilityPlan: free,
  startSpeakingPlan: free,
  stopSpeakingPlan: free,
  'tools:append': free,
  transcriber: free,
  transportConfigurations: free,
  voice: free,
  voicemailMessage: free,
});

const customer = z.strictObject({
  number: z.string().regex(/^\+[1-9]\d{4,14}$/, 'must be a valid phone number in the E.164 format'),
  numberE164CheckEnabled: z.boolean().optional(),
  name: z.string().max(40).optional(),
  externalId: z.string().max(40).optional(),
  email: z.string().max(40).optional(),
  extension: z.string().max(10).optional(),
  assistantOverrides: free,
});

/**
 * The body of `POST /call` for one outbound phone call with a saved assistant. Top-level `metadata` is in no schema and accepted all
 * the same. Batches (`customers`), squads and workflows are not played.
 */
export const createCallSchema = z.strictObject({
  name: z.string().max(40).optional(),
  assistantId: uuid,
  assistantVersion: z.string().optional(),
  assistantOverrides: assistantOverrides.optional(),
  phoneNumberId: uuid,
  customer,
  schedulePlan: z.strictObject({ earliestAt: z.iso.datetime().optional(), latestAt: z.iso.datetime().optional() }).optional(),
  transport: free,
  metadata: json.optional(),
});
export type CreateCall = z.output<typeof createCallSchema>;

/** The query of `GET /call`. There is no filter by name, number or metadata. */
export const listCallsSchema = z.strictObject({
  id: z.string().optional(),
  assistantId: z.string().optional(),
  phoneNumberId: z.string().optional(),
  limit: z.coerce.number().int().min(0).max(1000).default(100),
  createdAtGt: z.coerce.date().optional(),
  createdAtLt: z.coerce.date().optional(),
  createdAtGe: z.coerce.date().optional(),
  createdAtLe: z.coerce.date().optional(),
  updatedAtGt: z.coerce.date().optional(),
  updatedAtLt: z.coerce.date().optional(),
  updatedAtGe: z.coerce.date().optional(),
  updatedAtLe: z.coerce.date().optional(),
});
export type ListCalls = z.output<typeof listCallsSchema>;

const errorNames = Object.keys(VAPI_ERRORS) as [VapiErrorName, ...VapiErrorName[]];
const waitMs = z.number().int().min(0).max(600_000);
/** Only calls like this; `number` by its last digits, `name` and `metadata` exactly. */
const match = z.strictObject({ number: z.string().optional(), name: z.string().optional(), metadata: json.optional() }).optional();
const counted = { times: z.number().int().min(1).optional(), skip: z.number().int().min(0).optional() };

/** A fault of the Vapi double, as JSON. Every field is optional; what is not named goes as usual. */
export const vapiFaultSchema = z.strictObject({
  /** What is asked: to place a call (default), for a call, for the list, to end a call, for a recording. */
  on: z.enum(['create', 'get', 'list', 'end', 'recording']).optional(),
  match,
  ...counted,
  /**
   * What the client sees: the success, a named refusal, no answer ever, a cut connection; for get and list also `stale`: the call as
   * it was when it was placed, a list without the calls that match. Default: success.
   */
  answer: z.enum(['success', 'hang', 'cut', 'stale', ...errorNames]).optional(),
  /** Of a call to place or to end: whether that happens all the same. Default: only when the answer is success. */
  takesEffect: z.boolean().optional(),
  /** Seconds, as the header Retry-After of a refusal. */
  retryAfterSeconds: z.number().int().min(0).optional(),
  /** ms before it takes effect, and from there to the answer: webhooks may come first. */
  delayBeforeMs: waitMs.optional(),
  delayAfterMs: waitMs.optional(),
});

/** Which play a call gets, as JSON. */
export const playProgramSchema = z.strictObject({
  play: z.enum(PLAYS),
  match,
  ...counted,
  /** Replaces the usual length of the conversation, in ms. */
  talkMs: waitMs.optional(),
});

/** A call as faults and plays see it; of a list, all is undefined. */
export interface VapiRequest {
  on: 'create' | 'get' | 'list' | 'end' | 'recording';
  number: string | undefined;
  name: string | undefined;
  metadata: Record<string, unknown> | undefined;
}

/** A fault of the Vapi double; `when` is for callers in the same process. */
export interface VapiFault extends z.output<typeof vapiFaultSchema> {
  when?: ((request: VapiRequest) => boolean) | undefined;
}

/** Whether a fault or play is meant for this request. */
export function isMeantFor(program: Pick<VapiFault, 'match' | 'when'>, request: VapiRequest): boolean {
  const { number, name, metadata } = program.match ?? {};
  return (
    (number === undefined || (request.number ?? '').endsWith(number.replace(/\D/g, ''))) &&
    (name === undefined || name === request.name) &&
    Object.entries(metadata ?? {}).every(([key, value]) => JSON.stringify(request.metadata?.[key]) === JSON.stringify(value)) &&
    (program.when?.(request) ?? true)
  );
}

/** The problems as Vapi words them: one string each. */
export function validationMessages(error: z.ZodError): string[] {
  return error.issues.flatMap((issue) => {
    const path = issue.path.join('.');
    if (issue.code === 'unrecognized_keys')
      return issue.keys.map((key) => `${path === '' ? '' : `${path}.`}property ${key} should not exist`);
    return [`${path || 'body'} ${issue.message}`];
  });
}
