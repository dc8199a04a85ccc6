import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { startTestSandbox } from '../../../test/support/sandbox';
import { type Receiver, startReceiver } from '../receiver';
import type { Sandbox } from '../sandbox';
import { FAKE_SECRETS, SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID } from './bodies';
import type { CallEvent, VapiDoubleOptions } from './double';
import { PLAYS_BY_DIGITS, type PlayName, stepsOf } from './plays';
import { authHeaders } from './webhooks';

const SECRET = 'a secret of tests';
const NUMBER = '+15550100';
const NAME = 'c1d0a1f2-0000-8000-a000-000000000001';
const WAIT_MS = 5_000;
let receiver: Receiver;
let sandbox: Sandbox;

async function start(vapi: Partial<VapiDoubleOptions> = {}): Promise<Sandbox> {
  return startTestSandbox({
    vapi: {
      auth: { scheme: 'secret', secret: SECRET },
      serverUrl: receiver.url,
      timings: { queueMs: 5, ringMs: 15, talkMs: 30, reportMs: 15, lateReportMs: 25 },
      backoffFactor: 0.01,
      ...vapi,
    },
  });
}

async function restart(vapi: Partial<VapiDoubleOptions>): Promise<void> {
  await sandbox.close();
  sandbox = await start(vapi);
}

beforeEach(async () => {
  receiver = await startReceiver();
  sandbox = await start();
});
afterEach(async () => {
  await sandbox.close();
  await receiver.close();
});

interface Message {
  type: string;
  status?: string;
  endedReason?: string;
  call: { id: string; status: string; name?: string };
  artifact?: { presignedMonoUrl?: string };
}

interface CallAnswer {
  id: string;
  status: string;
  endedReason?: string;
  startedAt?: string;
  analysis?: { summary?: string };
  artifact?: object;
  monitor: { controlUrl: string };
  subscriptionLimits?: { concurrencyBlocked: boolean; concurrencyLimit: number; remainingConcurrentCalls: number };
}

/** Field names and types of a JSON value; for a list, those of its first element. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.slice(0, 1).map(shape);
  if (typeof value !== 'object' || value === null) return typeof value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shape(inner)]));
}

/** The paths and types of all values; for a list, those of its first element. */
function paths(value: unknown, at = ''): string[] {
  if (Array.isArray(value)) return value.slice(0, 1).flatMap((inner) => paths(inner, `${at}[]`));
  if (typeof value !== 'object' || value === null) return [`${at}: ${typeof value}`];
  return Object.entries(value).flatMap(([key, inner]) => paths(inner, `${at}.${key}`));
}

function fixture(name: string): { message: Record<string, unknown> } & Record<string, unknown> {
  return JSON.parse(readFileSync(`${__dirname}/../../../test/fixtures/vapi/${name}.json`, 'utf8'));
}

function callBody(extra: { number?: string; name?: string; overrides?: object } = {}): Record<string, unknown> {
  return {
    name: extra.name ?? NAME,
    assistantId: SANDBOX_ASSISTANT_ID,
    phoneNumberId: SANDBOX_VAPI_NUMBER_ID,
    customer: { number: extra.number ?? NUMBER, name: 'Ann' },
    assistantOverrides: {
      metadata: { parleyCallId: extra.name ?? NAME },
      serverMessages: ['status-update', 'end-of-call-report'],
      server: {
        url: receiver.url,
        headers: { 'X-Vapi-Secret': 'own secret' },
        backoffPlan: { type: 'exponential', maxRetries: 3, baseDelaySeconds: 1 },
      },
      ...extra.overrides,
    },
  };
}

function ask(method: string, path: string, body?: unknown, { key = 'key' as string | null, timeoutMs = WAIT_MS } = {}): Promise<Response> {
  const headers = { 'Content-Type': 'application/json', ...(key === null ? {} : { Authorization: `Bearer ${key}` }) };
  const url = path.startsWith('http') ? path : `${sandbox.vapiUrl}${path}`;
  const content = body === undefined ? {} : { body: JSON.stringify(body) };
  return fetch(url, { method, headers, redirect: 'manual', signal: AbortSignal.timeout(timeoutMs), ...content });
}

async function place(extra: Parameters<typeof callBody>[0] = {}): Promise<CallAnswer> {
  const response = await ask('POST', '/call', callBody(extra));
  expect(response.status).toBe(201);
  return (await response.json()) as CallAnswer;
}

async function fetchCall(id: string): Promise<CallAnswer> {
  return (await (await ask('GET', `/call/${id}`)).json()) as CallAnswer;
}

const messages = (): Message[] => receiver.webhooks.map(({ raw }) => (JSON.parse(raw) as { message: Message }).message);
const isReport = ({ type }: Message) => type === 'end-of-call-report';
const receivedTypes = () => messages().map(({ type, status }) => status ?? type);
/** Places a call and waits until its last webhook has been delivered. */
async function completedCall(extra: Parameters<typeof callBody>[0] = {}): Promise<CallAnswer> {
  const { id } = await place(extra);
  await sandbox.vapi.settled();
  return fetchCall(id);
}

describe('placing', () => {
  test('when the documented request is sent, then it is accepted, and the response has the documented shape', async () => {
    const response = await ask('POST', '/call', fixture('create-call.request'));
    const answer = (await response.json()) as CallAnswer;
    expect(response.status).toBe(201);
    expect(shape(answer)).toMatchObject(shape(fixture('create-call.response.201')) as object);
    expect(answer).toMatchObject({ status: 'queued', subscriptionLimits: { concurrencyBlocked: false, remainingConcurrentCalls: 9 } });
  });

  test.each([
    ['a number that is not E.164', { customer: { number: '0815' } }, 'customer.number must be a valid phone number in the E.164 format'],
    ['an unknown property', { unknownField: 1 }, 'property unknownField should not exist'],
    ['a name of 41 characters', { name: 'x'.repeat(41) }, /^name /],
    ['an id that is not a UUID', { assistantId: 'mine' }, 'assistantId must be a UUID'],
    [
      'the former secret of a server',
      { assistantOverrides: { server: { url: 'http://a.test', secret: 's' } } },
      /property secret should not/,
    ],
  ])('when the request has %s, then it is rejected with a list of messages, and nothing is dialled', async (_what, wrong, message) => {
    const response = await ask('POST', '/call', { ...callBody(), ...wrong });
    const answer = (await response.json()) as { message: string[] };
    expect(response.status).toBe(400);
    expect(shape(answer)).toEqual(shape(fixture('error.400.validation')));
    expect(answer.message).toEqual([typeof message === 'string' ? message : expect.stringMatching(message)]);
    expect(sandbox.vapi.counts()).toMatchObject({ placed: 0, dialled: 0, refused: 1 });
  });

  test('when the key is missing or wrong, then the response is a 401', async () => {
    expect((await ask('POST', '/call', callBody(), { key: null })).status).toBe(401);
    await restart({ apiKey: 'right' });
    expect((await ask('POST', '/call', callBody())).status).toBe(401);
    expect((await ask('POST', '/call', callBody(), { key: 'right' })).status).toBe(201);
  });

  test('when calls are listed, then they are filtered, newest first', async () => {
    const first = await place();
    const between = new Date(Date.now() + 2).toISOString();
    await new Promise((resolve) => setTimeout(resolve, 5));
    const second = await place();
    const list = async (query: string) => ((await (await ask('GET', `/call?${query}`)).json()) as CallAnswer[]).map(({ id }) => id);
    expect(await list('')).toEqual([second.id, first.id]);
    expect(await list('limit=1')).toEqual([second.id]);
    expect(await list(`assistantId=${SANDBOX_ASSISTANT_ID}&phoneNumberId=${SANDBOX_VAPI_NUMBER_ID}&createdAtGe=${between}`)).toEqual([
      second.id,
    ]);
    expect(await list(`createdAtLt=${between}`)).toEqual([first.id]);
    expect(await list('assistantId=another')).toEqual([]);
    expect((await ask('GET', '/call?name=x')).status).toBe(400);
    expect((await ask('GET', '/call/unknown')).status).toBe(404);
  });
});

describe('plays', () => {
  const BY_DIGITS = Object.entries(PLAYS_BY_DIGITS);
  const expected: Record<PlayName, [string[], string]> = {
    answered: [['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report'], 'customer-ended-call'],
    busy: [['queued', 'ringing', 'ended', 'end-of-call-report'], 'customer-busy'],
    'no-answer': [['queued', 'ringing', 'ended', 'end-of-call-report'], 'customer-did-not-answer'],
    voicemail: [['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report'], 'voicemail'],
    'pipeline-error': [
      ['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report'],
      'call.in-progress.error-providerfault-openai-llm-failed',
    ],
    missed: [['queued', 'ended', 'end-of-call-report'], 'twilio-reported-customer-misdialed'],
    'concurrency-blocked': [['queued', 'ended'], 'call.start.error-subscription-concurrency-limit-reached'],
    'no-report': [['queued', 'ringing', 'in-progress', 'ended'], 'customer-ended-call'],
    'no-events': [[], 'customer-ended-call'],
    'report-before-ended': [['queued', 'ringing', 'in-progress', 'end-of-call-report', 'ended'], 'customer-ended-call'],
    duplicated: [
      ['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report'].flatMap((step) => [step, step]),
      'customer-ended-call',
    ],
    reordered: [['end-of-call-report', 'ended', 'in-progress', 'ringing', 'queued'], 'customer-ended-call'],
    'stale-snapshots': [['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report'], 'customer-ended-call'],
    silent: [['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report'], 'silence-timed-out'],
    'late-report': [['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report'], 'customer-ended-call'],
    'facts-inside-call': [['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report'], 'customer-ended-call'],
  };

  test.each([...BY_DIGITS, ['0100', 'answered'] as [string, PlayName]])(
    'when a number ends in %s, then the call follows the play %s',
    async (digits, play) => {
      const answer = await completedCall({ number: `+1555${digits}` });
      const [events, endedReason] = expected[play];
      expect(play === 'duplicated' ? receivedTypes().toSorted() : receivedTypes()).toEqual(
        play === 'duplicated' ? events.toSorted() : events,
      );
      const [call] = sandbox.vapi.find(answer.id);
      expect(call).toMatchObject({ play, status: 'ended', endedReason, number: `+1555${digits}`, name: NAME });
      expect(answer.status).toBe(play === 'stale-snapshots' ? 'in-progress' : 'ended');
      expect(sandbox.vapi.dialled({ number: `+1555${digits}` })).toBe(play === 'concurrency-blocked' ? 0 : 1);
      expect(sandbox.vapi.dialled({ name: NAME })).toBe(play === 'concurrency-blocked' ? 0 : 1);
    },
  );

  test('when a call was answered, then its events and GET /call/{id} have the documented shapes', async () => {
    const answer = await completedCall({ overrides: { variableValues: { customerName: 'Ann', appointmentDate: '2026-12-01' } } });
    const [, , inProgress, ended, report] = messages();
    // The request is echoed, and this one differs from the fixtures'.
    const echoed = /assistantOverrides|metadata|externalId|assistant\.server|analysisCostBreakdown\.\w+(Prompt|Completion)/;
    const missing = (actual: unknown, documented: unknown) =>
      paths(documented).filter((path) => !echoed.test(path) && !paths(actual).includes(path));
    expect(missing(inProgress, fixture('status-update.in-progress').message)).toEqual([]);
    expect(missing(ended, fixture('status-update.ended').message)).toEqual([]);
    expect(missing(report, fixture('end-of-call-report.completed').message)).toEqual([]);
    expect(missing(answer, fixture('get-call.ended.200'))).toEqual([]);
  });

  test('when a report arrives, then the embedded call is a stale snapshot, and the fake secrets are in it', async () => {
    await completedCall();
    const raw = receiver.webhooks[messages().findIndex(isReport)]?.raw ?? '';
    expect(messages().find(isReport)?.call.status).toBe('queued');
    for (const secret of FAKE_SECRETS) expect(raw).toContain(secret);
    expect(raw).toContain('own secret');
    expect(raw).toContain('/control/');
  });

  test('when somebody picks up and says nothing, then only the assistant speaks, and nothing is analysed', async () => {
    await completedCall({ number: '+15550113' });
    expect(messages().find(isReport)).toMatchObject({
      endedReason: 'silence-timed-out',
      startedAt: expect.any(String),
      analysis: {},
      artifact: { messages: [{ role: 'system' }, { role: 'bot' }], transcript: expect.stringMatching(/^AI: [^\n]+\n$/) },
    });
  });

  test('when the facts are inside the call, then the end and the report have them nowhere else', async () => {
    await completedCall({ number: '+15550115' });
    const [, , , ended, report] = messages();
    expect([ended, report].map((message) => Object.keys(message ?? {}).sort())).toEqual([
      ['call', 'status', 'timestamp', 'type'],
      ['call', 'timestamp', 'type'],
    ]);
    expect(report?.call).toMatchObject({ endedReason: 'customer-ended-call', analysis: { summary: expect.any(String) } });
  });

  test('when nobody answered, then the report has no start time, no summary and no cost', async () => {
    await completedCall({ number: '+15550102' });
    const report = messages().find(isReport) as object;
    expect(report).toMatchObject({ endedReason: 'customer-did-not-answer', cost: 0, analysis: {}, artifact: { messages: [] } });
    expect(Object.keys(report)).not.toContain('startedAt');
    expect(Object.keys(shape(report) as object)).toEqual(
      expect.arrayContaining(Object.keys(fixture('end-of-call-report.no-answer').message)),
    );
  });

  test.each([
    ['busy', '0101'],
    ['no answer', '0102'],
    ['failed', '0104'],
    ['misdialled', '0107'],
  ])('when a call was %s, then neither the report nor the call has an analysis in either format', async (_what, digits) => {
    const { analysis, artifact } = await completedCall({ number: `+1555${digits}` });
    const report = messages().find(isReport) as unknown as { analysis: object; artifact: object };
    expect([analysis, report.analysis]).toEqual([{}, {}]);
    for (const part of [artifact, report.artifact, report]) {
      expect(part).not.toHaveProperty('structuredOutputs');
      expect(part).not.toHaveProperty('summary');
    }
  });

  test('when a call is ended while it rings, then there is no analysis', async () => {
    await restart({ timings: { queueMs: 5, ringMs: 60_000, talkMs: 5, reportMs: 5 } });
    const { id, monitor } = await place();
    await sandbox.vapi.waitForStatus(id, 'ringing', WAIT_MS);
    await ask('POST', monitor.controlUrl, { type: 'end-call' }, { key: null });
    await sandbox.vapi.settled();
    const { analysis, artifact } = await fetchCall(id);
    expect(analysis).toEqual({});
    expect(artifact).not.toHaveProperty('structuredOutputs');
  });

  test('when voicemail answered, then the summary says so, and there is no structured data', async () => {
    const { analysis, artifact } = await completedCall({ number: '+15550103' });
    expect(analysis).toEqual({ summary: expect.stringMatching(/^A voicemail greeting was reached; /), successEvaluation: 'false' });
    expect(artifact).not.toHaveProperty('structuredOutputs');
  });

  test('when people talked, then both formats of the analysis have the same data', async () => {
    const { analysis, artifact } = (await completedCall()) as { analysis: object; artifact: { structuredOutputs: object } };
    const data = { confirmed: true, appointmentDate: '2026-12-01', callbackRequested: false };
    expect(analysis).toMatchObject({ structuredData: data });
    expect(Object.values(artifact.structuredOutputs)).toEqual([{ name: 'Appointment outcome', result: data }]);
  });

  test('when a play is set for the next call with a name, then only that call follows it, whatever its number', async () => {
    sandbox.vapi.play({ play: 'voicemail', times: 1, match: { name: NAME } });
    sandbox.vapi.play({ play: 'no-answer', match: { metadata: { parleyCallId: 'third' } } });
    await place({ name: 'another' });
    await place({ number: '+15550101' });
    await place({ number: '+15550101' });
    await place({ name: 'third' });
    await sandbox.vapi.settled();
    expect(sandbox.vapi.calls().map(({ play }) => play)).toEqual(['answered', 'voicemail', 'busy', 'no-answer']);
  });

  test('when a conversation would exceed its maximum length, then Vapi ends it, and the remaining lines are not spoken', () => {
    const steps = stepsOf('answered', { queueMs: 1, ringMs: 1, talkMs: 60_000, reportMs: 1, lateReportMs: 1 }, 10_000);
    expect(steps.at(-2)).toEqual({ type: 'status', status: 'ended', endedReason: 'exceeded-max-duration', atMs: 10_002 });
    expect(steps.filter(({ type }) => type === 'words')).toHaveLength(1);
  });

  test('when a schedule drops, repeats and delays events, then they arrive accordingly', async () => {
    sandbox.vapi.scheduleEvents((events, call) => {
      expect(call.name).toBe(NAME);
      return events.flatMap((event) => {
        if (event.status === 'queued' || event.status === 'ringing') return [];
        if (event.status === 'ended') return [event, event];
        return event.status === 'in-progress' ? [{ ...event, atMs: event.atMs + 300 }] : [event];
      });
    });
    await completedCall();
    expect(receivedTypes()).toEqual(['ended', 'ended', 'end-of-call-report', 'in-progress']);
    sandbox.vapi.clearPlays();
    await completedCall();
    expect(receivedTypes()).toHaveLength(9);
  });

  test('when there is no free slot, then the call is blocked and ends without being dialled; the next call gets the slot', async () => {
    await restart({ concurrencyLimit: 1, timings: { queueMs: 5, ringMs: 5, talkMs: 200, reportMs: 5 } });
    const [first, second] = [await place(), await place()];
    expect([first.subscriptionLimits, second.subscriptionLimits]).toEqual([
      { concurrencyBlocked: false, concurrencyLimit: 1, remainingConcurrentCalls: 0 },
      { concurrencyBlocked: true, concurrencyLimit: 1, remainingConcurrentCalls: 0 },
    ]);
    await sandbox.vapi.settled();
    expect(await fetchCall(second.id)).toMatchObject({ endedReason: 'call.start.error-subscription-concurrency-limit-reached' });
    expect((await place()).subscriptionLimits?.concurrencyBlocked).toBe(false);
    expect(sandbox.vapi.counts()).toMatchObject({ placed: 3, dialled: 2, blocked: 1 });
  });

  test('when the digits mean "no free slot", then the same call gets a slot when it is placed again', async () => {
    await completedCall({ number: '+15550112' });
    await completedCall({ number: '+15550112' });
    expect(sandbox.vapi.calls().map(({ play }) => play)).toEqual(['concurrency-blocked', 'answered']);
    expect(sandbox.vapi.dialled({ name: NAME })).toBe(1);
  });

  test('when the call is ended through its control URL, then it ends with that reason, and the planned steps are cancelled', async () => {
    await restart({ timings: { queueMs: 5, ringMs: 10, talkMs: 60_000, reportMs: 5 } });
    const { id, monitor } = await place();
    await sandbox.vapi.waitForStatus(id, 'in-progress', WAIT_MS);
    expect((await ask('POST', `${monitor.controlUrl}x`, { type: 'end-call' }, { key: null })).status).toBe(404);
    expect((await ask('POST', monitor.controlUrl, { type: 'say' }, { key: null })).status).toBe(400);
    expect((await ask('POST', monitor.controlUrl, { type: 'end-call' }, { key: null })).status).toBe(200);
    await sandbox.vapi.settled();
    expect(receivedTypes()).toEqual(['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report']);
    expect(await fetchCall(id)).toMatchObject({ status: 'ended', endedReason: 'manually-canceled' });
    expect((await ask('POST', monitor.controlUrl, { type: 'end-call' }, { key: null })).status).toBe(404);
    expect(sandbox.vapi.counts()).toMatchObject({ ends: 1, active: 0 });
  });

  test('when somebody calls the business, then the organisation gets the default messages, with each line as it is spoken', async () => {
    const { id } = sandbox.vapi.receiveCall({ from: NUMBER, baseUrl: sandbox.vapiUrl });
    await sandbox.vapi.settled();
    expect(await fetchCall(id)).toMatchObject({ type: 'inboundPhoneCall', status: 'ended' });
    expect(new Set(messages().map(({ type }) => type))).toEqual(
      new Set(['status-update', 'speech-update', 'conversation-update', 'end-of-call-report']),
    );
    expect(receiver.webhooks[0]?.headers['x-vapi-secret']).toBe(SECRET);
    const words = sandbox.vapi.events(id).filter((event): event is CallEvent & { type: 'words' } => event.type === 'words');
    expect(words.map(({ role }) => role)).toEqual(['bot', 'user', 'bot', 'user', 'bot', 'user']);
  });
});

describe('delivery', () => {
  test('when the receiver fails, then the backoff plan applies, each attempt is rewritten, and the event is finally lost', async () => {
    sandbox.vapi.scheduleEvents((events) => events.filter(({ type }) => type === 'end-of-call-report'));
    receiver.answers.push(500, 503, 0);
    await restart({ webhookTimeoutMs: 300 });
    sandbox.vapi.scheduleEvents((events) => events.filter(({ type }) => type === 'end-of-call-report'));
    await completedCall();
    expect(sandbox.vapi.counts().webhooks).toEqual({ delivered: 1, lost: 0, open: 0, attempts: 4 });
    const links = messages().map(({ artifact }) => artifact?.presignedMonoUrl);
    expect(new Set(links).size).toBe(4);
    receiver.answers.push(500, 500, 500, 500);
    await completedCall();
    expect(sandbox.vapi.counts().webhooks).toMatchObject({ delivered: 1, lost: 1, attempts: 8 });
  });

  test('when a server has no backoff plan, then a rejected event is not retried; 201 counts as success', async () => {
    receiver.answers.push(500, 201);
    await completedCall({ overrides: { server: { url: receiver.url } } });
    expect(receivedTypes()).toEqual(['queued', 'ringing', 'in-progress', 'ended', 'end-of-call-report']);
    expect(sandbox.vapi.counts().webhooks).toMatchObject({ delivered: 4, lost: 1 });
  });

  test('when a call has its own server, then its headers are sent; without any, the secret is empty', async () => {
    await completedCall();
    expect(receiver.webhooks[0]?.headers['x-vapi-secret']).toBe('own secret');
    await completedCall({ overrides: { server: { url: receiver.url } } });
    expect(receiver.webhooks.at(-1)?.headers['x-vapi-secret']).toBe('');
  });

  test('when the organisation uses HMAC, then every event has a signature over its timestamp and body', async () => {
    await restart({ auth: { scheme: 'hmac', secret: SECRET, prefix: 'sha256=' } });
    await completedCall();
    for (const { raw, headers } of receiver.webhooks) {
      const timestamp = String(headers['x-timestamp']);
      expect(Math.abs(Number(timestamp) - Date.now() / 1000)).toBeLessThan(60);
      expect(headers['x-signature']).toBe(`sha256=${createHmac('sha256', SECRET).update(`${timestamp}.${raw}`).digest('hex')}`);
    }
    expect(receiver.webhooks).toHaveLength(5);
  });

  test.each((fixture('hmac-vectors').vectors as { name: string }[]).map((vector) => [vector.name, vector]))(
    'when signed as "%s", then the signature matches the vector',
    (_name, vector) => {
      const { algorithm, encoding, secret, signature, timestamp } = vector as unknown as Record<string, string>;
      const made = authHeaders(
        {
          scheme: 'hmac',
          secret: secret ?? '',
          algorithm: algorithm as 'sha256',
          encoding: encoding as 'hex',
          ...(timestamp === undefined && { timestampHeader: 'none' }),
          ...(/base64 secret|secretIsBase64/i.test(JSON.stringify(vector)) && { secretEncoding: 'base64' as const }),
        },
        String(fixture('hmac-vectors').body),
        timestamp === undefined ? 0 : Number(timestamp) * (Number(timestamp) > 1e12 ? 1 : 1000),
      );
      if (timestamp === undefined || Number(timestamp) < 1e12) expect(made['x-signature']).toBe(signature);
      else expect(made['x-timestamp']).toBe(timestamp.slice(0, -3));
    },
  );

  test('when a raw body is delivered, then it arrives unchanged, with headers overridden or removed', async () => {
    await sandbox.vapi.deliver('{"message": {}}');
    await sandbox.vapi.deliver('{"n": 1.0}', { 'X-Vapi-Secret': '' });
    expect(receiver.webhooks.map(({ raw, headers }) => [raw, headers['x-vapi-secret']])).toEqual([
      ['{"message": {}}', SECRET],
      ['{"n": 1.0}', undefined],
    ]);
  });
});

describe('faults', () => {
  test.each([
    ['400-concurrency', 400],
    ['400-phone-number', 400],
    ['401', 401],
    ['429', 429],
    ['500', 500],
  ] as const)('when placing fails with %s, then nothing is dialled, and the next call is placed', async (answer, status) => {
    sandbox.vapi.fault({ answer, times: 1, retryAfterSeconds: 7 });
    const response = await ask('POST', '/call', callBody());
    expect([response.status, response.headers.get('retry-after')]).toEqual([status, '7']);
    const file = answer.startsWith('400-') ? `error.400.${answer.slice(4)}` : `error.${answer}`;
    expect(shape(await response.json())).toEqual(shape(fixture(file)));
    expect(sandbox.vapi.counts()).toMatchObject({ placed: 0, refused: 1 });
    await place();
    expect(sandbox.vapi.dialled()).toBe(1);
  });

  test.each(['500', 'cut', 'hang'] as const)('when placing ends in %s after it took effect, then the phone still rings', async (answer) => {
    sandbox.vapi.fault({ answer, takesEffect: true, times: 1 });
    const request = ask('POST', '/call', callBody(), { timeoutMs: 300 });
    if (answer === '500') expect((await request).status).toBe(500);
    else await expect(request).rejects.toThrow();
    const [call] = await sandbox.vapi.waitForCalls(1, WAIT_MS);
    expect(sandbox.vapi.dialled({ name: NAME })).toBe(1);
    const list = (await (await ask('GET', `/call?assistantId=${SANDBOX_ASSISTANT_ID}`)).json()) as { id: string; name: string }[];
    expect(list).toEqual([expect.objectContaining({ id: call?.id, name: NAME })]);
  });

  test('when placing hangs without effect, then no phone rings', async () => {
    sandbox.vapi.fault({ answer: 'hang', times: 1 });
    await expect(ask('POST', '/call', callBody(), { timeoutMs: 100 })).rejects.toThrow();
    expect(sandbox.vapi.counts()).toMatchObject({ creates: 1, placed: 0, unanswered: 1 });
  });

  test('when the response is late, then a webhook with the call’s id arrives first', async () => {
    sandbox.vapi.fault({ delayAfterMs: 200 });
    const placed = place();
    await sandbox.vapi.waitForCalls(1, WAIT_MS);
    await receiver.waitFor('undefined', 1);
    expect((await placed).id).toBe(messages()[0]?.call.id);
  });

  test('when GET /call/{id} or the list has faults, then only those requests are affected', async () => {
    const { id } = await completedCall();
    sandbox.vapi.fault({ on: 'get', answer: '404', times: 1 });
    sandbox.vapi.fault({ on: 'get', answer: '500', times: 1 });
    sandbox.vapi.fault({ on: 'get', answer: 'stale', times: 1 });
    sandbox.vapi.fault({ on: 'list', answer: 'stale', times: 1 });
    expect([(await ask('GET', `/call/${id}`)).status, (await ask('GET', `/call/${id}`)).status]).toEqual([404, 500]);
    expect(await fetchCall(id)).toMatchObject({ id, status: 'queued' });
    expect(await fetchCall(id)).toMatchObject({ id, status: 'ended', analysis: { summary: expect.any(String) } });
    expect(await (await ask('GET', '/call')).json()).toEqual([]);
    expect(await (await ask('GET', '/call')).json()).toHaveLength(1);
    sandbox.vapi.fault({ on: 'get', answer: 'hang', match: { name: NAME }, times: 1 });
    await expect(ask('GET', `/call/${id}`, undefined, { timeoutMs: 100 })).rejects.toThrow();
  });
});

describe('recordings', () => {
  test('when a recording is requested, then a short-lived URL serves it, whole or in ranges', async () => {
    const { id } = await completedCall();
    const asked = await ask('GET', `/call/${id}/mono-recording`);
    const address = asked.headers.get('location') ?? '';
    expect([asked.status, (await ask('GET', `/call/${id}/mono-recording`, undefined, { key: null })).status]).toEqual([302, 401]);
    const whole = await fetch(address);
    const bytes = Buffer.from(await whole.arrayBuffer());
    expect([whole.status, whole.headers.get('content-type'), bytes.subarray(0, 4).toString()]).toEqual([200, 'audio/wav', 'RIFF']);
    expect(bytes.readUInt32LE(4)).toBe(bytes.length - 8);
    const part = await fetch(address, { headers: { Range: 'bytes=4-11' } });
    expect([part.status, part.headers.get('content-range')]).toEqual([206, `bytes 4-11/${bytes.length}`]);
    expect(Buffer.from(await part.arrayBuffer())).toEqual(bytes.subarray(4, 12));
    expect((await fetch(address, { headers: { Range: `bytes=${bytes.length}-` } })).status).toBe(416);
  });

  test('when the URL has expired, or the call had no conversation, then there is no recording', async () => {
    await restart({ recordingForMs: -1 });
    const { id } = await completedCall();
    const address = (await ask('GET', `/call/${id}/mono-recording`)).headers.get('location') ?? '';
    expect((await fetch(address)).status).toBe(403);
    const busy = await completedCall({ number: '+15550101' });
    expect((await ask('GET', `/call/${busy.id}/mono-recording`)).status).toBe(404);
  });
});
