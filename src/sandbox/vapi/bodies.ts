/** Bodies in Vapi's format, with fake secrets where real ones have secrets. Shapes: the fixtures in test/fixtures/vapi. */
import { randomBytes } from 'node:crypto';
import type { SimulatedResponse } from '../responses';
import type { PlayedEvent, PlayName, SpokenLine } from './plays';
import type { CreateCall } from './requests';

/** Secrets in every event and report: none may appear in the database, a log or a workflow history. */
export const FAKE_SECRETS = [
  'FAKE_TWILIO_AUTH_TOKEN',
  'FAKE_TWILIO_ACCOUNT_SID',
  'FAKE_TWILIO_API_SECRET',
  'FAKE-CALL-TOKEN',
  'FAKE-TOOL-SECRET',
  'sig=FAKE',
] as const;

/** The organisation's assistant and phone number. */
export const SANDBOX_ASSISTANT_ID = '22222222-2222-4222-8222-222222222222';
export const SANDBOX_VAPI_NUMBER_ID = '33333333-3333-4333-8333-333333333333';

const ORG_ID = '11111111-1111-4111-8111-111111111111';
const STRUCTURED_OUTPUT_ID = '44444444-4444-4444-8444-444444444444';
const BUSINESS_NUMBER = '+15555550100';
const SYSTEM_PROMPT = 'You confirm appointments.';
const PRESIGNED_FOR_MS = 3_600_000;
const MIN_MESSAGES_TO_ANALYSE = 2;

function error(status: number, message: string | string[], name?: string): SimulatedResponse {
  return { status, body: { message, ...(name === undefined ? {} : { error: name }), statusCode: status } };
}

/** Error responses by name. Only 400 and 500 are in Vapi's specification; the others occur in practice. */
export const VAPI_ERRORS = {
  '400': error(400, ['customer.number must be a valid phone number in the E.164 format'], 'Bad Request'),
  '400-concurrency': error(400, 'Over Concurrency Limit', 'Bad Request'),
  '400-phone-number': error(400, "Couldn't Get Phone Number.", 'Bad Request'),
  '401': error(401, 'Invalid Key.', 'Unauthorized'),
  '402': error(402, 'Wallet Balance is too low.', 'Payment Required'),
  '403': error(403, 'Key is not allowed to do this.', 'Forbidden'),
  '404': error(404, 'Call not found', 'Not Found'),
  '429': error(429, 'Rate limit exceeded', 'Too Many Requests'),
  '500': error(500, 'Internal server error'),
  '502': { status: 502, body: '<html><body><h1>502 Bad Gateway</h1></body></html>' },
  '503': error(503, 'Service Unavailable'),
} as const satisfies Record<string, SimulatedResponse>;
export type VapiErrorName = keyof typeof VAPI_ERRORS;

/** A simulated call with its true state. */
export interface StoredCall {
  id: string;
  direction: 'inbound' | 'outbound';
  request: CreateCall;
  play: PlayName;
  /** Base URL of the double, as used by the client. */
  baseUrl: string;
  /** The last part of the control URL, which needs no key. */
  controlToken: string;
  /** False if there was no free slot. */
  dialled: boolean;
  createdAtMs: number;
  updatedAtMs: number;
  /** All statuses so far, the current one last. */
  statuses: string[];
  startedAtMs?: number;
  endedAtMs?: number;
  endedReason?: string;
  spoken: { line: SpokenLine; atMs: number }[];
  /** Whether post-processing has finished: from then on, GET /call/{id} includes the contents of the report. */
  isReportReady: boolean;
}

/** A new call id in Vapi's format: UUID version 7. */
export function freshCallId(): string {
  const time = Date.now().toString(16).padStart(12, '0');
  const random = randomBytes(10).toString('hex');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(1, 4)}-a${random.slice(5, 8)}-${random.slice(8)}`;
}

/** Which state a body shows: when the call was placed, one status behind, or the current one. */
export type Snapshot = 'placed' | 'behind' | 'now';

/** The call object, in responses and inside events. */
export function callBody(call: StoredCall, snapshot: Snapshot): object {
  const { request } = call;
  const status = statusOf(call, snapshot);
  const sid = `FAKE_CALL_SID_${call.id.slice(-6)}`;
  return {
    id: call.id,
    orgId: ORG_ID,
    createdAt: iso(call.createdAtMs),
    updatedAt: iso(snapshot === 'placed' ? call.createdAtMs : call.updatedAtMs),
    type: call.direction === 'outbound' ? 'outboundPhoneCall' : 'inboundPhoneCall',
    status,
    phoneCallProvider: 'twilio',
    phoneCallProviderId: sid,
    phoneCallTransport: 'pstn',
    transport: {
      provider: 'twilio',
      conversationType: 'voice',
      callSid: sid,
      accountSid: 'FAKE_TWILIO_ACCOUNT_SID',
      callToken: 'FAKE-CALL-TOKEN',
    },
    monitor: {
      listenUrl: `${call.baseUrl.replace(/^http/, 'ws')}/listen/${call.id}`,
      controlUrl: controlUrl(call),
    },
    assistantId: request.assistantId,
    ...(request.assistantOverrides !== undefined && { assistantOverrides: request.assistantOverrides }),
    phoneNumberId: request.phoneNumberId,
    customer: request.customer,
    ...(request.name !== undefined && { name: request.name }),
    ...(request.metadata !== undefined && { metadata: request.metadata }),
    ...(status === 'ended' ? endedFields(call) : { cost: 0, ...startedField(call, snapshot) }),
  };
}

/** The URL that ends the live call, without a key. */
export function controlUrl({ baseUrl, id, controlToken }: StoredCall): string {
  return `${baseUrl}/control/${id}/${controlToken}`;
}

function statusOf({ statuses }: StoredCall, snapshot: Snapshot): string {
  if (snapshot === 'placed') return 'queued';
  return statuses.at(snapshot === 'behind' ? -2 : -1) ?? 'queued';
}

function startedField({ startedAtMs }: StoredCall, snapshot: Snapshot): object {
  return snapshot === 'now' && startedAtMs !== undefined ? { startedAt: iso(startedAtMs) } : {};
}

function endedFields(call: StoredCall): object {
  const { endedReason, startedAtMs, endedAtMs } = call;
  return {
    endedReason,
    ...(startedAtMs !== undefined && { startedAt: iso(startedAtMs) }),
    ...(endedAtMs !== undefined && { endedAt: iso(endedAtMs) }),
    ...costsOf(call),
    ...(call.isReportReady && reportedFields(call)),
  };
}

function reportedFields(call: StoredCall): object {
  const analysis = analysisOf(call);
  const artifact = { ...artifactOf(call), ...outputsOf(analysis) };
  return { analysis, artifact, messages: artifact.messages };
}

/**
 * The `message` of a webhook. Its top-level fields are current; the embedded call is a snapshot from when it was placed, as in
 * captured payloads. In the scenario `facts-inside-call` it is current, and only it reports the end of the call. Presigned URLs are
 * generated for each delivery, so two deliveries of one event differ.
 */
export function messageBody(call: StoredCall, event: PlayedEvent): object {
  const { type, status } = event;
  if (call.play === 'facts-inside-call' && (type === 'end-of-call-report' || status === 'ended'))
    return { timestamp: Date.now(), type, ...(status === undefined ? {} : { status }), call: callBody(call, 'now') };
  const common = {
    call: callBody(call, 'placed'),
    phoneNumber: phoneNumberBody(call),
    customer: call.request.customer,
    assistant: assistantBody(call),
  };
  return { timestamp: Date.now(), type: event.type, ...ownFields(call, event), ...common };
}

function ownFields(call: StoredCall, event: PlayedEvent): object {
  switch (event.type) {
    case 'status-update':
      return { status: event.status, ...(event.status === 'ended' && { endedReason: call.endedReason }) };
    case 'end-of-call-report':
      return reportFields(call);
    case 'transcript':
      return { role: roleOf(event.line, 'assistant'), transcriptType: 'final', transcript: event.line?.text ?? '' };
    case 'speech-update':
      return { status: 'started', role: roleOf(event.line, 'assistant'), turn: call.spoken.length };
    case 'conversation-update': {
      const { messages, messagesOpenAIFormatted } = artifactOf(call);
      return { messages, messagesOpenAIFormatted };
    }
  }
}

function reportFields(call: StoredCall): object {
  const analysis = analysisOf(call);
  const artifact = { ...artifactOf(call), ...outputsOf(analysis) };
  const durationMs = call.startedAtMs === undefined ? 0 : (call.endedAtMs ?? Date.now()) - call.startedAtMs;
  return {
    endedReason: call.endedReason,
    ...(call.startedAtMs !== undefined && { startedAt: iso(call.startedAtMs) }),
    ...(call.endedAtMs !== undefined && { endedAt: iso(call.endedAtMs) }),
    ...costsOf(call),
    durationMs,
    durationSeconds: durationMs / 1000,
    durationMinutes: round(durationMs / 60_000),
    analysis,
    artifact,
    ...(analysis.summary !== undefined && { summary: analysis.summary }),
    transcript: artifact.transcript,
    ...('recordingUrl' in artifact && { recordingUrl: artifact.recordingUrl, stereoRecordingUrl: artifact.stereoRecordingUrl }),
  };
}

interface Analysis {
  summary?: string;
  structuredData?: object;
  successEvaluation?: string;
}

/** Vapi does not analyse calls with fewer than two messages. Failed calls get no analysis either, and voicemail yields no data. */
function analysisOf(call: StoredCall): Analysis {
  if (call.spoken.length < MIN_MESSAGES_TO_ANALYSE || call.play === 'pipeline-error') return {};
  if (call.play === 'voicemail') {
    return { summary: 'A voicemail greeting was reached; the assistant asked to be called back.', successEvaluation: 'false' };
  }
  const who = call.request.customer.name ?? 'The customer';
  const confirmed = call.spoken.some(({ line }) => line.text.includes('ten is fine'));
  return {
    summary: confirmed
      ? `${who} confirmed the appointment on 1 December at 10:00.`
      : `${who} was asked about the appointment; the call ended before an answer.`,
    structuredData: { confirmed, appointmentDate: '2026-12-01', callbackRequested: false },
    successEvaluation: String(confirmed),
  };
}

/** The analysis once more, in the newer format, with the same data. */
function outputsOf({ structuredData }: Analysis): object {
  if (structuredData === undefined) return {};
  return { structuredOutputs: { [STRUCTURED_OUTPUT_ID]: { name: 'Appointment outcome', result: structuredData } } };
}

function artifactOf(call: StoredCall) {
  const startedAtMs = call.startedAtMs ?? call.createdAtMs;
  const spoken = call.spoken.map(({ line, atMs }) => ({
    role: line.role,
    message: line.text,
    time: atMs,
    endTime: atMs + 900,
    secondsFromStart: (atMs - startedAtMs) / 1000,
    duration: 900,
    ...(line.role === 'bot' && { source: '' }),
  }));
  const system = { role: 'system', message: SYSTEM_PROMPT, time: startedAtMs, secondsFromStart: 0 };
  const isConnected = call.startedAtMs !== undefined;
  return {
    messages: isConnected ? [system, ...spoken] : [],
    messagesOpenAIFormatted: isConnected
      ? [
          { role: 'system', content: SYSTEM_PROMPT },
          ...call.spoken.map(({ line }) => ({ role: roleOf(line, 'assistant'), content: line.text })),
        ]
      : [],
    transcript: call.spoken.map(({ line }) => `${line.role === 'bot' ? 'AI' : 'User'}: ${line.text}\n`).join(''),
    ...(isConnected && recordingFields(call)),
    variableValues: { ...call.request.assistantOverrides?.variableValues, 'phoneNumber.twilioAuthToken': 'FAKE_TWILIO_AUTH_TOKEN' },
    performanceMetrics: {
      turnLatencyAverage: 1180,
      modelLatencyAverage: 640,
      voiceLatencyAverage: 210,
      transcriberLatencyAverage: 95,
      endpointingLatencyAverage: 235,
      turnLatencies: [],
    },
  };
}

function recordingFields({ id }: StoredCall) {
  const file = (name: string) => `https://storage.example.test/${id}-${name}`;
  const signed = (name: string) => `${file(name)}?sig=FAKE${randomBytes(8).toString('hex')}`;
  return {
    recordingUrl: file('mono.wav'),
    stereoRecordingUrl: file('stereo.wav'),
    recording: {
      stereoUrl: file('stereo.wav'),
      mono: { combinedUrl: file('mono.wav'), assistantUrl: file('assistant.wav'), customerUrl: file('customer.wav') },
    },
    logUrl: file('calllog.jsonl.gz'),
    presignedMonoUrl: signed('mono.wav'),
    presignedStereoUrl: signed('stereo.wav'),
    presignedLogUrl: signed('calllog.jsonl.gz'),
    presignedUrlsExpiresAt: iso(Date.now() + PRESIGNED_FOR_MS),
  };
}

/** Costs in US dollars, by the minute. */
function costsOf({ startedAtMs, endedAtMs }: StoredCall): object {
  if (startedAtMs === undefined) return { cost: 0, costs: [], costBreakdown: { total: 0 } };
  const minutes = round(((endedAtMs ?? Date.now()) - startedAtMs) / 60_000);
  const parts = { transport: round(minutes * 0.014), stt: round(minutes * 0.01), llm: 0.0046, tts: 0.0082, vapi: round(minutes * 0.05) };
  const total = round(Object.values(parts).reduce((sum, part) => sum + part, 0));
  const gpt = { provider: 'openai', model: 'gpt-4o' };
  return {
    cost: total,
    costs: [
      { type: 'transport', provider: 'twilio', minutes, cost: parts.transport },
      { type: 'transcriber', transcriber: { provider: 'deepgram', model: 'nova-2' }, minutes, cost: parts.stt },
      { type: 'model', model: gpt, promptTokens: 1450, completionTokens: 92, cachedPromptTokens: 0, cost: parts.llm },
      { type: 'voice', voice: { provider: 'vapi', voiceId: 'Elliot' }, characters: 410, cost: parts.tts },
      { type: 'vapi', subType: 'normal', minutes, cost: parts.vapi },
    ],
    costBreakdown: {
      ...parts,
      chat: 0,
      total,
      llmPromptTokens: 1450,
      llmCompletionTokens: 92,
      llmCachedPromptTokens: 0,
      ttsCharacters: 410,
      analysisCostBreakdown: { summary: 0, structuredData: 0, successEvaluation: 0 },
    },
  };
}

function phoneNumberBody({ request }: StoredCall): object {
  return {
    id: request.phoneNumberId,
    orgId: ORG_ID,
    provider: 'twilio',
    number: BUSINESS_NUMBER,
    name: 'Example outbound line',
    twilioAccountSid: 'FAKE_TWILIO_ACCOUNT_SID',
    twilioAuthToken: 'FAKE_TWILIO_AUTH_TOKEN',
    twilioApiSecret: 'FAKE_TWILIO_API_SECRET',
    createdAt: '2026-01-05T10:00:00.000Z',
    updatedAt: '2026-06-01T10:00:00.000Z',
    status: 'active',
  };
}

/** The assistant with the call's overrides applied. */
function assistantBody({ request }: StoredCall): object {
  const { metadata, server, serverMessages } = request.assistantOverrides ?? {};
  return {
    name: 'Example outbound assistant',
    firstMessage: 'Hello, this is a test call from Example Clinic.',
    model: {
      provider: 'openai',
      model: 'gpt-4o',
      messages: [{ role: 'system', content: SYSTEM_PROMPT }],
      tools: [{ type: 'function', server: { url: 'https://tools.example.test', secret: 'FAKE-TOOL-SECRET' } }],
    },
    voice: { provider: 'vapi', voiceId: 'Elliot' },
    ...(metadata !== undefined && { metadata }),
    ...(server !== undefined && { server }),
    ...(serverMessages !== undefined && { serverMessages }),
  };
}

function roleOf(line: SpokenLine | undefined, bot: string): string {
  return line?.role === 'user' ? 'user' : bot;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

function round(value: number): number {
  return Math.round(value * 10_000) / 10_000;
}
