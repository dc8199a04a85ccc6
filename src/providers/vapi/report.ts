/**
 * What Vapi says of a call, in our terms: from a webhook's message and from the answer of GET /call/{id}. Besides the
 * client, the only place that knows Vapi's field names of a call.
 *
 * Two rules hold everywhere here:
 * - Tolerant: nothing but the call's id is required; what is odd is left out, and what is new is not looked at.
 * - By allow-list: a schema names each field that may pass. Vapi's bodies carry account tokens, addresses that steer a
 *   live call and presigned links; a field that nobody named cannot bring one along.
 *
 * Facts: Vapi's server events, its OpenAPI document and its call analysis page, as of November 2026; examples in test/fixtures/vapi.
 */
import { z } from 'zod';
import type { CallDirection, CallEvent, CallMessage, CallParties, CallReport } from '../../../workflows/contract';
import { boundedJson, cutText, jsonLength } from '../../platform/text';
import { vapiId } from './id';

/** An hour of talk is some 60,000 characters. */
const MAX_TRANSCRIPT = 1_000_000;
const MAX_MESSAGES = 2_000;
const MAX_MESSAGE_TEXT = 10_000;
const MAX_SUMMARY = 50_000;
const MAX_DATA_JSON = 200_000;
const MAX_METADATA_JSON = 20_000;
const MAX_ITEMS = 100;
/** Vapi's own bounds of `maxDurationSeconds`. */
const DURATION_BOUNDS = { min: 10, max: 43_200 };

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
/** Fields of free-form metadata whose name says that the value is nobody's business. */
const SECRET_NAME = /token|secret|passw|credential|authorization|api[-_ ]?key|sid$|controlurl|listenurl|presigned/i;

/** What does not fit counts as missing. */
const optional = <T extends z.ZodType>(schema: T) => schema.optional().catch(undefined);
const text = (max = 256) =>
  optional(z.union([z.string(), z.number().transform(String)]).transform((value) => cutText(value, max) || undefined));
/** A name of Vapi's, known or new. It goes into signals and logs, so it may not be a sentence. */
const enumName = optional(z.string().regex(/^[\w.:-]{1,128}$/));
const number = optional(
  z
    .union([z.number(), z.string().trim().min(1).transform(Number)])
    .pipe(z.number())
    .refine((value) => value >= 0),
);
const time = optional(z.union([z.string(), z.number()]).transform(isoTime));
const data = optional(z.unknown().transform((value) => boundedJson(value ?? undefined, MAX_DATA_JSON)));
/** A reference without what may open it: query, fragment, user and password. */
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
/** Items that do not fit are left out; the others stay. */
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

/** Common to a report's message and to a call: what became of it. */
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

/** Reads the answer of GET /call/{id} or POST /call. Undefined when it is not a call. */
export function readCall(body: unknown): CallReport | undefined {
  const parsed = callSchema.safeParse(body);
  if (!parsed.success) return undefined;
  const call = parsed.data;
  const isEnded = call.status === 'ended' || call.endedReason !== undefined || call.endedAt !== undefined;
  return reportOf(call, call, call, isEnded);
}

/** Reads an end-of-call-report (what stands under `message`). Undefined when it names no call. */
export function readReport(message: unknown): CallReport | undefined {
  const parsed = messageOfCallSchema.safeParse(message);
  if (!parsed.success) return undefined;
  const { call, type, timestamp, ...result } = parsed.data;
  // The call inside is a snapshot of an earlier time: its status may say anything.
  return reportOf({ ...result, status: 'ended' }, call, result, true, { type, timestamp });
}

/** Reads a status-update or a report (what stands under `message`) as a fact. Undefined when it names no call. */
export function readCallEvent(message: unknown, type: CallEvent['type']): CallEvent | undefined {
  const parsed = messageOfCallSchema.safeParse(message);
  if (!parsed.success) return undefined;
  const { call, timestamp, status, endedReason, startedAt, endedAt, ...sides } = parsed.data;
  return present({
    ...partiesOf(call, sides),
    type,
    status: type === 'status-update' ? status : undefined,
    endedReason,
    startedAt,
    endedAt,
    atMs: timestamp === undefined ? Date.now() : Date.parse(timestamp),
  });
}

function reportOf(result: Result, call: Call, sides: Sides, isEnded: boolean, envelope: Record<string, unknown> = {}): CallReport {
  const { analysis, artifact } = result;
  return present({
    ...partiesOf(call, sides),
    status: result.status,
    endedReason: result.endedReason,
    startedAt: result.startedAt,
    endedAt: result.endedAt,
    durationSeconds: durationOf(result),
    cost: result.cost ?? result.costBreakdown?.total,
    transcript: artifact?.transcript ?? result.transcript,
    messages: conversationOf(artifact?.messages) ?? conversationOf(result.messages),
    recordingUrl: recordingOf(result),
    summary: analysis?.summary ?? result.summary,
    structuredData: structuredDataOf(result),
    successEvaluation: analysis?.successEvaluation,
    isEnded,
    providerContext: contextOf(call, sides),
    raw: rawOf(result, call, envelope),
  });
}

function partiesOf(call: Call, sides: Sides): CallParties {
  const person = call.customer?.number ?? sides.customer?.number ?? call.customer?.sipUri ?? sides.customer?.sipUri;
  const business = call.phoneNumber?.number ?? sides.phoneNumber?.number;
  const direction = directionOf(call.type);
  const maxDurationSeconds = call.assistantOverrides?.maxDurationSeconds ?? (sides.assistant ?? call.assistant)?.maxDurationSeconds;
  const isPossible =
    maxDurationSeconds !== undefined && maxDurationSeconds >= DURATION_BOUNDS.min && maxDurationSeconds <= DURATION_BOUNDS.max;
  return present({
    providerCallId: call.id,
    ownCallId: ownIdOf(call, sides),
    direction,
    fromNumber: direction === 'inbound' ? person : business,
    toNumber: direction === 'inbound' ? business : person,
    assistantId: call.assistantId ?? call.assistant?.id ?? sides.assistant?.id,
    phoneNumberId: call.phoneNumberId ?? call.phoneNumber?.id ?? sides.phoneNumber?.id,
    maxDurationSeconds: isPossible ? Math.round(maxDurationSeconds) : undefined,
  });
}

/** Nearly every call says its type; one that does not was more likely placed than taken. */
function directionOf(type: string | undefined): CallDirection {
  if (type === undefined || type.startsWith('outbound')) return 'outbound';
  if (type.startsWith('inbound')) return 'inbound';
  return /web/i.test(type) ? 'web' : 'outbound';
}

/** Where our id was put, in the order in which Vapi was seen to give it back. */
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

/** By the two times; Vapi's own fields of it are in no document. */
function durationOf({ startedAt, endedAt, durationSeconds, durationMs }: Result): number | undefined {
  if (startedAt === undefined || endedAt === undefined)
    return durationSeconds ?? (durationMs === undefined ? undefined : durationMs / 1_000);
  const seconds = (Date.parse(endedAt) - Date.parse(startedAt)) / 1_000;
  return seconds >= 0 ? seconds : undefined;
}

function conversationOf(messages: z.output<typeof messageSchema>[] | undefined): CallMessage[] | undefined {
  const said = (messages ?? []).filter(({ role }) => role !== 'system');
  if (said.length === 0) return undefined;
  return said.map(({ role, message, content, result, time: at, secondsFromStart, name, toolCallId }) =>
    present({ role, text: message ?? content ?? result, time: at, secondsFromStart, toolName: name, toolCallId }),
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

/** The deprecated analysis where there is one; else the structured outputs, by name. */
function structuredDataOf({ analysis, artifact }: Result): unknown {
  const old = analysis?.structuredData;
  if (old !== undefined && old !== null && jsonLength(old) > 2) return old;
  const outputs = Object.entries(artifact?.structuredOutputs ?? {}).filter(([, { result }]) => result !== undefined);
  if (outputs.length > 0) return Object.fromEntries(outputs.map(([id, { name, result }]) => [name ?? id, result]));
  return analysis?.structuredDataMulti ?? undefined;
}

function contextOf(call: Call, sides: Sides): Record<string, unknown> {
  return present({
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

function rawOf(result: Result, call: Call, envelope: Record<string, unknown>): Record<string, unknown> {
  const { status, endedReason, startedAt, endedAt, cost, costs, costBreakdown: breakdown, analysis, artifact, destination } = result;
  const { id, type, createdAt, updatedAt } = call;
  const { messages: _messages, transcript: _transcript, ...kept } = artifact ?? {};
  const raw = { ...envelope, status, endedReason, startedAt, endedAt, cost, costs, costBreakdown: breakdown, analysis, destination };
  return present({ ...raw, artifact: artifact ? kept : undefined, call: { id, type, createdAt, updatedAt } });
}

/** Seconds or milliseconds since 1970, as number or text, or a date: as ISO 8601. Undefined for a time that cannot be. */
function isoTime(value: string | number): string | undefined {
  const count = typeof value === 'number' ? value : /^\d+(\.\d+)?$/.test(value.trim()) ? Number(value) : Number.NaN;
  const atMs = Number.isNaN(count) ? Date.parse(String(value)) : count > 1e11 ? count : count * 1_000;
  const isPossible = atMs >= Date.UTC(2000, 0) && atMs < Date.UTC(2100, 0);
  return isPossible ? new Date(atMs).toISOString() : undefined;
}

/** Free-form fields without those whose name tells of a secret. */
function withoutSecrets(fields: Record<string, unknown>): Record<string, unknown> | undefined {
  return scrubbed(boundedJson(fields, MAX_METADATA_JSON)) as Record<string, unknown> | undefined;
}

function scrubbed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(scrubbed);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => !SECRET_NAME.test(name))
      .map(([name, inner]) => [name, scrubbed(inner)]),
  );
}

/** Fields that are undefined become fields that are not there. */
type Present<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

function present<T extends object>(fields: T): Present<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Present<T>;
}
