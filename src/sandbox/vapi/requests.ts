/** Request schemas of the Vapi double (unknown properties are rejected, as by Vapi), and the programmable faults and scenarios. */
import { z } from 'zod';
import { VAPI_ERRORS, type VapiErrorName } from './bodies';
import { PLAYS } from './plays';

const free = z.unknown().optional();
const json = z.record(z.string(), z.unknown());
const uuid = z.guid({ error: 'must be a UUID' });

/** The server that receives a call's events (schema Server, which no longer has `secret`). */
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

/** Schema AssistantOverrides; fields that the double does not use are not validated. */
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
 * The body of `POST /call` for one outbound phone call with a saved assistant. Top-level `metadata` is undocumented, but Vapi accepts
 * it. Batches (`customers`), squads and workflows are not simulated.
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

/** The query of `GET /call`. Vapi cannot filter by name, number or metadata. */
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
/** Limits a scenario or fault to matching calls; `number` by its last digits, `name` and `metadata` exactly. */
const match = z.strictObject({ number: z.string().optional(), name: z.string().optional(), metadata: json.optional() }).optional();
const counted = { times: z.number().int().min(1).optional(), skip: z.number().int().min(0).optional() };

/** A fault of the Vapi double, as JSON. Every field is optional; those that are not set keep the normal behaviour. */
export const vapiFaultSchema = z.strictObject({
  /** The kind of request: place a call (default), get a call, list calls, end a call, get a recording. */
  on: z.enum(['create', 'get', 'list', 'end', 'recording']).optional(),
  match,
  ...counted,
  /**
   * The response: success (default), no response (`hang`), a reset connection (`cut`), or an error by name. For `get` and `list` also
   * `stale`: the call as it was when it was placed, or an empty list.
   */
  answer: z.enum(['success', 'hang', 'cut', 'stale', ...errorNames]).optional(),
  /** Whether the call is placed or ended: even with an error (true), or not even with `success` (false). Default: only with `success`. */
  takesEffect: z.boolean().optional(),
  /** Retry-After header of an error response, in seconds. */
  retryAfterSeconds: z.number().int().min(0).optional(),
  /** Delay before the effect, and from then to the response, in ms; webhooks may arrive before the response. */
  delayBeforeMs: waitMs.optional(),
  delayAfterMs: waitMs.optional(),
});

/** Assigns a scenario to calls, as JSON. */
export const playProgramSchema = z.strictObject({
  play: z.enum(PLAYS),
  match,
  ...counted,
  /** Length of the conversation, in ms. */
  talkMs: waitMs.optional(),
});

/** A request, as matched against faults and scenarios; for a list, all fields but `on` are undefined. */
export interface VapiRequest {
  on: 'create' | 'get' | 'list' | 'end' | 'recording';
  number: string | undefined;
  name: string | undefined;
  metadata: Record<string, unknown> | undefined;
}

/** A fault of the Vapi double. `when` is available within the same process only. */
export interface VapiFault extends z.output<typeof vapiFaultSchema> {
  when?: ((request: VapiRequest) => boolean) | undefined;
}

/** Whether a fault or scenario applies to this request. */
export function appliesTo(program: Pick<VapiFault, 'match' | 'when'>, request: VapiRequest): boolean {
  const { number, name, metadata } = program.match ?? {};
  return (
    (number === undefined || (request.number ?? '').endsWith(number.replace(/\D/g, ''))) &&
    (name === undefined || name === request.name) &&
    Object.entries(metadata ?? {}).every(([key, value]) => JSON.stringify(request.metadata?.[key]) === JSON.stringify(value)) &&
    (program.when?.(request) ?? true)
  );
}

/** Validation errors in Vapi's wording, one string each. */
export function validationMessages(error: z.ZodError): string[] {
  return error.issues.flatMap((issue) => {
    const path = issue.path.join('.');
    if (issue.code === 'unrecognized_keys')
      return issue.keys.map((key) => `${path === '' ? '' : `${path}.`}property ${key} should not exist`);
    return [`${path || 'body'} ${issue.message}`];
  });
}
