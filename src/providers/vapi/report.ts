/**
 * Translates Vapi's data about a call into our terms, from webhook messages and from the response of GET /call/{id}. Apart from
 * the client, the only code that knows Vapi's field names of a call.
 *
 * Two rules apply throughout:
 * - Tolerant: only the call's id is required; invalid fields are dropped and unknown ones ignored.
 * - Allow-list: a field passes only if a schema names it. Vapi's bodies contain account tokens, URLs that control a live call,
 *   and presigned links; none of them may slip through.
 *
 * Sources: Vapi's server events, its OpenAPI document and its call analysis page, as of November 2026; examples in test/fixtures/vapi.
 */
import { z } from 'zod';
import type { CallDirection, CallEvent, CallMessage, CallParties, CallReport } from '../../../workflows/contract';
import { normalisedPhone } from '../../platform/phone';
import { boundedJson, cutText, jsonLength } from '../../platform/text';
import { vapiId } from './id';

/** One hour of conversation is about 60,000 characters. */
const MAX_TRANSCRIPT = 1_000_000;
const MAX_MESSAGES = 2_000;
const MAX_MESSAGE_TEXT = 10_000;
const MAX_SUMMARY = 50_000;
const MAX_DATA_JSON = 200_000;
const MAX_METADATA_JSON = 20_000;
const MAX_ITEMS = 100;
/** Vapi's limits for `maxDurationSeconds`. */
const DURATION_BOUNDS = { min: 10, max: 43_200 };

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
/** Names of free-form metadata fields whose values are likely to be secret. */
const SECRET_NAME = /token|secret|passw|credential|authorization|api[-_ ]?key|sid$|controlurl|listenurl|presigned/i;

/** An invalid value counts as missing. */
const optional = <T extends z.ZodType>(schema: T) => schema.optional().catch(undefined);
const text = (max = 256) =>
  optional(z.union([z.string(), z.number().transform(String)]).transform((value) => cutText(value, max) || undefined));
/** An enum value of Vapi's, known or new. It ends up in signals and logs, so free text is rejected. */
const enumName = optional(z.string().regex(/^[\w.:-]{1,128}$/));
const number = optional(
  z
    .union([z.number(), z.string().trim().min(1).transform(Number)])
    .pipe(z.number())
    .refine((value) => value >= 0),
);
const time = optional(z.union([z.string(), z.number()]).transform(isoTime));
const data = optional(z.unknown().transform((value) => boundedJson(value ?? undefined, MAX_DATA_JSON)));
/** A URL without the parts that may grant access: query, fragment, user name and password. */
const reference = optional(
  z
    .string()
    .max(2_048)
    .transform((value) => {
      if (!URL.canParse(value)) return undefined;
      const { protocol, host, pathname } = new URL(value);
      return cutText(`${protocol}//${host}${pathname}`, 2_048);
    }),
);
/** Drops invalid items and keeps the others. */
const list = <T extends z.ZodType>(schema: T, max: number) =>
  optional(
    z.array(z.unknown()).transform((items) =>
      items.slice(0, max).flatMap((item): z.output<T>[] => {
        const parsed = schema.safeParse(item);
        return parsed.success ? [parsed.data] : [];
      }),
    ),
  );
const object = <T extends z.ZodRawShape>(shape: T) => optional(z.object(shape));

const messageSchema = z.object({
  role: z.string().transform((role) => (role === 'bot' ? 'assistant' : cutText(role, 64))),
  message: text(MAX_MESSAGE_TEXT),
  content: text(MAX_MESSAGE_TEXT),
  result: text(MAX_MESSAGE_TEXT),
  time,
  secondsFromStart: number,
  name: text(),
  toolCallId: text(),
});

const modelName = object({ provider: text(), model: text(), voiceId: text() });
const costSchema = z.object({
  type: text(),
  subType: text(),
  analysisType: text(),
  provider: text(),
  model: modelName,
  voice: modelName,
  transcriber: modelName,
  minutes: number,
  characters: number,
  promptTokens: number,
  completionTokens: number,
  cachedPromptTokens: number,
  cost: number,
});
const costBreakdown = object({
  transport: number,
  stt: number,
  llm: number,
  tts: number,
  vapi: number,
  chat: number,
  total: number,
  llmPromptTokens: number,
  llmCompletionTokens: number,
  llmCachedPromptTokens: number,
  ttsCharacters: number,
});
const metadata = optional(z.record(z.string(), z.unknown()).transform(withoutSecrets));

const outputSchema = z.object({ name: text(128), result: data });

function namedOutputs(outputs: Record<string, unknown>): Record<string, z.output<typeof outputSchema>> {
  const entries = Object.entries(outputs).slice(0, MAX_ITEMS);
  return Object.fromEntries(
    entries.flatMap(([id, output]) => {
      const parsed = outputSchema.safeParse(output);
      return parsed.success ? [[cutText(id, 128), parsed.data]] : [];
    }),
  );
}

/** Result fields that a report's message and a call have in common. */
const resultShape = {
  status: enumName,
  endedReason: enumName,
  startedAt: time,
  endedAt: time,
  durationMs: number,
  durationSeconds: number,
  cost: number,
  costs: list(costSchema, MAX_ITEMS),
  costBreakdown,
  analysis: object({
    summary: text(MAX_SUMMARY),
    structuredData: data,
    structuredDataMulti: data,
    successEvaluation: optional(z.union([z.string(), z.number(), z.boolean()]).transform((value) => cutText(String(value), 1_000))),
  }),
  artifact: object({
    messages: list(messageSchema, MAX_MESSAGES),
    transcript: text(MAX_TRANSCRIPT),
    recordingUrl: reference,
    stereoRecordingUrl: reference,
    recording: object({ stereoUrl: reference, mono: object({ combinedUrl: reference }) }),
    structuredOutputs: optional(z.record(z.string(), z.unknown()).transform(namedOutputs)),
    performanceMetrics: object({
      turnLatencyAverage: number,
      modelLatencyAverage: number,
      voiceLatencyAverage: number,
      transcriberLatencyAverage: number,
      endpointingLatencyAverage: number,
    }),
  }),
  destination: object({ type: text(64), number: text(64), sipUri: text(), assistantName: text() }),
  summary: text(MAX_SUMMARY),
  transcript: text(MAX_TRANSCRIPT),
  messages: list(messageSchema, MAX_MESSAGES),
  recordingUrl: reference,
  stereoRecordingUrl: reference,
};

const customer = object({ number: text(64), sipUri: text(), name: text(), externalId: text() });
const phoneNumber = object({ id: text(), number: text(64), name: text() });
const assistant = object({ id: text(), name: text(), metadata, maxDurationSeconds: number });

const callSchema = z.object({
  ...resultShape,
  id: vapiId,
  orgId: text(),
  createdAt: time,
  updatedAt: time,
  type: text(64),
  name: text(),
  assistantId: text(),
  squadId: text(),
  workflowId: text(),
  phoneNumberId: text(),
  customerId: text(),
  campaignId: text(),
  phoneCallProvider: text(64),
  phoneCallTransport: text(64),
  customer,
  phoneNumber,
  assistant,
  assistantOverrides: object({ metadata, maxDurationSeconds: number }),
  metadata,
});

const messageOfCallSchema = z.object({
  ...resultShape,
  type: text(64),
  timestamp: time,
  call: callSchema,
  customer,
  phoneNumber,
  assistant,
});

type Result = z.output<z.ZodObject<typeof resultShape>>;
type Call = z.output<typeof callSchema>;
type Sides = Pick<z.output<typeof messageOfCallSchema>, 'customer' | 'phoneNumber' | 'assistant'>;

/** Parses the response of GET /call/{id} or POST /call. Undefined if it is not a call. */
export function readCall(body: unknown): CallReport | undefined {
  const parsed = callSchema.safeParse(body);
  if (!parsed.success) return undefined;
  const call = parsed.data;
  const isEnded = call.status === 'ended' || call.endedReason !== undefined || call.endedAt !== undefined;
  return reportOf([call], { status: call.status, isEnded }, { call, sides: call });
}

/** Parses an end-of-call-report (the value of `message`). Undefined if it names no call. */
export function readReport(message: unknown): CallReport | undefined {
  const parsed = messageOfCallSchema.safeParse(message);
  if (!parsed.success) return undefined;
  const { call, type, timestamp, ...result } = parsed.data;
  return reportOf([result, factsInside(call)], { status: 'ended', isEnded: true }, { call, sides: result, envelope: { type, timestamp } });
}

/**
 * The facts in the call inside a message. It is a snapshot, usually an older one: its status is unreliable, and unless it shows the end,
 * its costs are running totals.
 */
function factsInside(call: Call): Result {
  const { status: _status, ...facts } = call;
  if (facts.endedAt !== undefined || facts.endedReason !== undefined) return facts;
  const { cost: _cost, costs: _costs, costBreakdown: _breakdown, durationMs: _ms, durationSeconds: _seconds, ...lasting } = facts;
  return lasting;
}

/** Parses a status-update or a report (the value of `message`) as a fact. Undefined if it names no call. */
export function readCallEvent(message: unknown, type: CallEvent['type']): CallEvent | undefined {
  const parsed = messageOfCallSchema.safeParse(message);
  if (!parsed.success) return undefined;
  const { call, timestamp, ...sides } = parsed.data;
  // A message that names no status has at least that of the call inside. It may be outdated, but statuses only rise.
  const status = sides.status ?? call.status;
  const isOver = type === 'end-of-call-report' || status === 'ended';
  return omitUndefined({
    ...partiesOf(call, sides),
    type,
    status: type === 'status-update' ? status : undefined,
    endedReason: sides.endedReason ?? (isOver ? call.endedReason : undefined),
    startedAt: sides.startedAt ?? call.startedAt,
    endedAt: sides.endedAt ?? (isOver ? call.endedAt : undefined),
    atMs: timestamp === undefined ? Date.now() : Date.parse(timestamp),
  });
}

interface ReportedCall {
  call: Call;
  sides: Sides;
  /** Fields of the message itself, to be kept as they are. */
  envelope?: Record<string, unknown>;
}

/** `sources`: where the facts are; the first that has a fact decides. */
function reportOf(
  sources: readonly Result[],
  { status, isEnded }: { status: string | undefined; isEnded: boolean },
  { call, sides, envelope = {} }: ReportedCall,
): CallReport {
  const endedReason = firstOf(sources, (source) => source.endedReason);
  const startedAt = firstOf(sources, (source) => source.startedAt);
  const endedAt = firstOf(sources, (source) => source.endedAt);
  return omitUndefined({
    ...partiesOf(call, sides),
    status,
    endedReason,
    startedAt,
    endedAt,
    durationSeconds: firstOf(sources, (source) => durationOf({ ...source, startedAt, endedAt })),
    cost: firstOf(sources, ({ cost, costBreakdown: breakdown }) => cost ?? breakdown?.total),
    transcript: firstOf(sources, ({ artifact, transcript }) => artifact?.transcript ?? transcript),
    messages: firstOf(sources, ({ artifact, messages }) => conversationOf(artifact?.messages) ?? conversationOf(messages)),
    customerSpoke: isEnded ? didCustomerSpeak(sources, endedReason) : undefined,
    recordingUrl: firstOf(sources, recordingOf),
    summary: firstOf(sources, ({ analysis, summary }) => analysis?.summary ?? summary),
    structuredData: firstOf(sources, structuredDataOf),
    successEvaluation: firstOf(sources, ({ analysis }) => analysis?.successEvaluation),
    isEnded,
    providerContext: contextOf(call, sides),
    raw: rawOf(sources, status, call, envelope),
  });
}

function firstOf<T>(sources: readonly Result[], read: (source: Result) => T | undefined): T | undefined {
  for (const source of sources) {
    const found = read(source);
    if (found !== undefined) return found;
  }
  return undefined;
}

/**
 * Whether the person on the phone said anything, according to the messages or the transcript's lines (`AI: …`, `User: …`). An empty list
 * proves nothing, because an account may store no conversations, unless Vapi itself reports silence.
 */
function didCustomerSpeak(sources: readonly Result[], endedReason: string | undefined): boolean | undefined {
  const lists = sources.flatMap(({ artifact, messages }) => [artifact?.messages ?? [], messages ?? []]);
  const said = lists.flat().map(({ role, message, content }) => ({ role, text: message ?? content ?? '' }));
  const transcripts = sources.flatMap(({ artifact, transcript }) => [artifact?.transcript ?? '', transcript ?? '']);
  if (said.some(({ role, text: words }) => role === 'user' && words.trim() !== '')) return true;
  if (transcripts.some((lines) => /^\s*User:\s*\S/m.test(lines))) return true;
  const isTold = said.length > 0 || transcripts.some((lines) => /^\s*AI:/m.test(lines));
  return isTold || (endedReason === 'silence-timed-out' && hasMessages(sources)) ? false : undefined;
}

function hasMessages(sources: readonly Result[]): boolean {
  return sources.some(({ artifact, messages }) => artifact?.messages !== undefined || messages !== undefined);
}

function partiesOf(call: Call, sides: Sides): CallParties {
  const person = e164(call.customer?.number ?? sides.customer?.number) ?? call.customer?.sipUri ?? sides.customer?.sipUri;
  const business = e164(call.phoneNumber?.number ?? sides.phoneNumber?.number);
  const direction = directionOf(call.type);
  const maxDurationSeconds = call.assistantOverrides?.maxDurationSeconds ?? (sides.assistant ?? call.assistant)?.maxDurationSeconds;
  const isPlausible =
    maxDurationSeconds !== undefined && maxDurationSeconds >= DURATION_BOUNDS.min && maxDurationSeconds <= DURATION_BOUNDS.max;
  return omitUndefined({
    providerCallId: call.id,
    ownCallId: ownIdOf(call, sides),
    direction,
    fromNumber: direction === 'inbound' ? person : business,
    toNumber: direction === 'inbound' ? business : person,
    assistantId: call.assistantId ?? call.assistant?.id ?? sides.assistant?.id,
    phoneNumberId: call.phoneNumberId ?? call.phoneNumber?.id ?? sides.phoneNumber?.id,
    maxDurationSeconds: isPlausible ? Math.round(maxDurationSeconds) : undefined,
  });
}

/** Calls are found by their numbers, so each has one spelling if possible. */
function e164(number: string | undefined): string | undefined {
  return number === undefined ? undefined : (normalisedPhone(number) ?? number);
}

/** Nearly every call has a type; one without was more likely outbound. */
function directionOf(type: string | undefined): CallDirection {
  if (type === undefined || type.startsWith('outbound')) return 'outbound';
  if (type.startsWith('inbound')) return 'inbound';
  return /web/i.test(type) ? 'web' : 'outbound';
}

/** Our id, searched in the fields in which Vapi has been observed to return it, in that order. */
function ownIdOf(call: Call, sides: Sides): string | undefined {
  const places = [
    call.assistantOverrides?.metadata?.parleyCallId,
    call.metadata?.parleyCallId,
    call.assistant?.metadata?.parleyCallId,
    sides.assistant?.metadata?.parleyCallId,
    call.name,
  ];
  return places.find((value): value is string => typeof value === 'string' && UUID.test(value))?.toLowerCase();
}

/** In whole seconds. Computed from start and end if possible, because Vapi's duration fields are undocumented. */
function durationOf({ startedAt, endedAt, durationSeconds, durationMs }: Result): number | undefined {
  const told = durationSeconds ?? (durationMs === undefined ? undefined : durationMs / 1_000);
  const seconds = startedAt === undefined || endedAt === undefined ? told : (Date.parse(endedAt) - Date.parse(startedAt)) / 1_000;
  return seconds !== undefined && seconds >= 0 ? Math.round(seconds) : undefined;
}

function conversationOf(messages: z.output<typeof messageSchema>[] | undefined): CallMessage[] | undefined {
  const spoken = (messages ?? []).filter(({ role }) => role !== 'system');
  if (spoken.length === 0) return undefined;
  return spoken.map(({ role, message, content, result, time: at, secondsFromStart, name, toolCallId }) =>
    omitUndefined({ role, text: message ?? content ?? result, time: at, secondsFromStart, toolName: name, toolCallId }),
  );
}

function recordingOf({ artifact, recordingUrl, stereoRecordingUrl }: Result): string | undefined {
  const { recording } = artifact ?? {};
  return (
    recording?.mono?.combinedUrl ??
    artifact?.recordingUrl ??
    recording?.stereoUrl ??
    artifact?.stereoRecordingUrl ??
    recordingUrl ??
    stereoRecordingUrl
  );
}

/** The deprecated analysis if there is one, otherwise the structured outputs by name. */
function structuredDataOf({ analysis, artifact }: Result): unknown {
  const old = analysis?.structuredData;
  if (old !== undefined && old !== null && jsonLength(old) > 2) return old;
  const outputs = Object.entries(artifact?.structuredOutputs ?? {}).filter(([, { result }]) => result !== undefined);
  if (outputs.length > 0) return Object.fromEntries(outputs.map(([id, { name, result }]) => [name ?? id, result]));
  return analysis?.structuredDataMulti ?? undefined;
}

function contextOf(call: Call, sides: Sides): Record<string, unknown> {
  return omitUndefined({
    orgId: call.orgId,
    type: call.type,
    name: call.name,
    createdAt: call.createdAt,
    phoneCallProvider: call.phoneCallProvider,
    phoneCallTransport: call.phoneCallTransport,
    assistantName: call.assistant?.name ?? sides.assistant?.name,
    squadId: call.squadId,
    workflowId: call.workflowId,
    customerId: call.customerId,
    customerName: call.customer?.name ?? sides.customer?.name,
    customerExternalId: call.customer?.externalId ?? sides.customer?.externalId,
    campaignId: call.campaignId,
    metadata: call.assistantOverrides?.metadata ?? call.metadata ?? call.assistant?.metadata ?? sides.assistant?.metadata,
  });
}

function rawOf(
  sources: readonly Result[],
  status: string | undefined,
  call: Call,
  envelope: Record<string, unknown>,
): Record<string, unknown> {
  const {
    endedReason,
    startedAt,
    endedAt,
    cost,
    costs,
    costBreakdown: breakdown,
    analysis,
    artifact,
    destination,
  } = Object.assign({}, ...sources.toReversed().map((source) => omitUndefined(source))) as Result;
  const { id, type, createdAt, updatedAt } = call;
  const { messages: _messages, transcript: _transcript, ...restOfArtifact } = artifact ?? {};
  const raw = { ...envelope, status, endedReason, startedAt, endedAt, cost, costs, costBreakdown: breakdown, analysis, destination };
  return omitUndefined({ ...raw, artifact: artifact ? restOfArtifact : undefined, call: { id, type, createdAt, updatedAt } });
}

/** Converts a date, or seconds or milliseconds since 1970 (number or text), to ISO 8601. Undefined for an implausible time. */
function isoTime(value: string | number): string | undefined {
  const count = typeof value === 'number' ? value : /^\d+(\.\d+)?$/.test(value.trim()) ? Number(value) : Number.NaN;
  const atMs = Number.isNaN(count) ? Date.parse(String(value)) : count > 1e11 ? count : count * 1_000;
  const isPlausible = atMs >= Date.UTC(2000, 0) && atMs < Date.UTC(2100, 0);
  return isPlausible ? new Date(atMs).toISOString() : undefined;
}

/** Free-form fields without those whose name suggests a secret. */
function withoutSecrets(fields: Record<string, unknown>): Record<string, unknown> | undefined {
  return withoutSecretFields(boundedJson(fields, MAX_METADATA_JSON)) as Record<string, unknown> | undefined;
}

/** The value without fields whose name suggests a secret, at every level. @throws RangeError if it is nested too deep */
export function withoutSecretFields(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutSecretFields);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => !SECRET_NAME.test(name))
      .map(([name, inner]) => [name, withoutSecretFields(inner)]),
  );
}

/** T with undefined values turned into absent fields. */
type OmitUndefined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

function omitUndefined<T extends object>(fields: T): OmitUndefined<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as OmitUndefined<T>;
}
