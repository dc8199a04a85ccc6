/** Vapi's webhook over real HTTP, with the real record and the real engine: what is kept, what is told, and what is found nowhere. */

import { createHmac, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Client } from '@temporalio/client';
import { createCallWaiters } from '../src/api/call-waiters';
import { readSettings } from '../src/platform/config';
import { type Database, openDatabase, sql } from '../src/platform/database';
import { createLogger } from '../src/platform/logger';
import { createApiMetrics } from '../src/platform/metrics';
import { openTemporalClient } from '../src/platform/temporal';
import { createApp } from '../src/processes/app';
import { ensureSearchAttributes } from '../src/processes/search-attributes';
import { VAPI_WEBHOOK_PATH } from '../src/providers/vapi/client';
import { loadIdentity } from '../src/record/identity';
import type { HandOverDependencies } from '../src/webhooks/hand-over';
import { createWorkflowSignaller } from '../src/webhooks/signaller';
import { createStatusKeeper } from '../src/webhooks/statuses';
import { createLateEventTaker } from '../src/webhooks/take-late-events';
import { callWorkflowId, LATE_EVENTS_WORKFLOW, type LateEvents } from '../workflows/contract';
import { type TestDatabase, testDatabase, testTemporal } from './support/engine';
import { eventually } from './support/expectations';
import { secretsIn } from './support/vapi-secrets';

const FIXTURES = 'test/fixtures/vapi';
const SECRET = 'vapi-secret-0123456789';
const taskQueue = `vapi-webhook-${randomUUID()}`;
const settings = readSettings({
  VAPI_WEBHOOK_SECRET: `${SECRET},older-vapi-secret`,
  VAPI_ASSISTANT_ID: 'assistant-1',
  VAPI_TRANSFER_NUMBER: '+15555550177',
  DEBUG_WEBHOOK: 'true',
  CALL_RING_TIMEOUT_SECONDS: '7',
  CALL_REPORT_GRACE_SECONDS: '8',
});
const logLines: string[] = [];
const logger = createLogger('api', 'debug', { write: (line) => logLines.push(line) });

let database: TestDatabase;
let db: Database;
let temporal: Client;
let ready: HandOverDependencies;
const servers: Server[] = [];
let url: string;

beforeAll(async () => {
  database = await testDatabase('vapi_webhook');
  db = openDatabase(database.url);
  temporal = openTemporalClient({ connectionOptions: { address: testTemporal().address }, namespace: testTemporal().namespace });
  await ensureSearchAttributes(temporal);
  const signaller = createWorkflowSignaller(temporal);
  const statuses = createStatusKeeper({ db, signaller, logger });
  ready = { signaller, taskQueue, db, identity: await loadIdentity(db.orm), logger, statuses, defaultPhoneNumberId: undefined };
  url = await serve({ handOverDependencies: () => ready });
});

afterAll(async () => {
  for (const server of servers) server.close();
  await temporal?.connection.close();
  await db?.close();
  await database?.drop();
});

async function serve(parts: Partial<Parameters<typeof createApp>[0]>): Promise<string> {
  const waiters = createCallWaiters({ temporal, logger });
  const metrics = createApiMetrics();
  const app = createApp({ settings, db, temporal, logger, metrics, waiters, handOverDependencies: () => ready, ...parts });
  const server = createServer(app).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}${VAPI_WEBHOOK_PATH}`;
}

const AUTHENTIC = { 'Content-Type': 'application/json', 'X-Vapi-Secret': SECRET };
const post = (body: string | Buffer, headers: Record<string, string> = AUTHENTIC, to = url) => fetch(to, { method: 'POST', body, headers });
const answerTo = async (body: unknown) => await (await post(JSON.stringify(body))).json();
const rowOf = (providerCallId: string) => db.orm.vapiCallResult.findUnique({ where: { providerCallId } });

interface FixtureBody {
  message: Record<string, unknown> & { type: string; call?: Record<string, unknown> };
}
const fixture = (file: string): FixtureBody => JSON.parse(readFileSync(`${FIXTURES}/${file}`, 'utf8'));

/** The fixture as of a call of its own. */
function asCall(file: string, providerCallId: string): FixtureBody {
  const { message } = fixture(file);
  return { message: { ...message, call: { ...message.call, id: providerCallId } } };
}

/** Every text of a history, also those in the bytes of its payloads, which its JSON has in base64. */
function textsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  if (ArrayBuffer.isView(value)) return [Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString()];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(textsIn) : [];
}

async function signalsOf(callId: string): Promise<{ args: unknown; signals: unknown[]; texts: string }> {
  const { events } = await temporal.workflow.getHandle(callWorkflowId(callId)).fetchHistory();
  const read = (payloads: { data?: Uint8Array | null }[] | null | undefined) =>
    (payloads ?? []).map(({ data }) => JSON.parse(Buffer.from(data ?? []).toString()))[0];
  const signals = (events ?? []).flatMap(({ workflowExecutionSignaledEventAttributes: signal }) =>
    signal ? [read(signal.input?.payloads)] : [],
  );
  const args = read(events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads);
  return { args, signals, texts: textsIn(events).join('\n') };
}

describe('authentication', () => {
  const body = JSON.stringify(asCall('status-update.ringing.json', `refused-${randomUUID()}`));

  test.each<[string, Record<string, string>]>([
    ['no secret', {}],
    ['an empty secret', { 'X-Vapi-Secret': '' }],
    ['another secret', { 'X-Vapi-Secret': 'vapi-secret-012345678' }],
    ['the secret as bearer', { Authorization: `Bearer ${SECRET}` }],
  ])('when a webhook comes with %s, then it is 401 and nothing is kept', async (_what, headers) => {
    const answer = await post(body, headers);
    expect([answer.status, await answer.json()]).toMatchObject([401, { detail: 'bad or missing authentication' }]);
    expect(await rowOf(JSON.parse(body).message.call.id)).toBeNull();
  });

  test('when the older secret comes, then it is taken', async () => {
    expect((await post(body, { 'X-Vapi-Secret': 'older-vapi-secret' })).status).toBe(200);
  });

  test('when nothing is configured, then all is refused, also an empty secret', async () => {
    const open = await serve({ settings: readSettings({}) });
    expect([(await post(body, AUTHENTIC, open)).status, (await post(body, { 'X-Vapi-Secret': '' }, open)).status]).toEqual([401, 401]);
  });

  test('when HMAC is configured, then the raw bytes count', async () => {
    const signed = await serve({ settings: readSettings({ VAPI_WEBHOOK_AUTH: 'hmac', VAPI_WEBHOOK_SECRET: SECRET }) });
    const spaced = body.replace('{"message":', '{ "message" : ');
    const timestamp = String(Math.floor(Date.now() / 1_000));
    const signature = createHmac('sha256', SECRET).update(`${timestamp}.${spaced}`).digest('hex');
    const headers = { 'x-signature': signature, 'x-timestamp': timestamp };
    expect([(await post(spaced, headers, signed)).status, (await post(body, headers, signed)).status]).toEqual([200, 401]);
  });
});

describe('what is not usable', () => {
  test.each([
    ['empty', ''],
    ['half of JSON', '{"message":'],
    ['a list', '[]'],
    ['a text', '"x"'],
    ['without a type', '{"message":{"type":5}}'],
    ['a NUL', '\u0000'],
    ['nested deep', `${'['.repeat(50_000)}${']'.repeat(50_000)}`],
  ])('when the body is %s, then it is taken, kept as a dead letter, and an error is logged', async (_what, body) => {
    const before = logLines.length;
    const startedAt = new Date();
    expect((await post(body)).status).toBe(200);
    expect(logLines.slice(before).filter((line) => line.includes('"level":"error"'))).toHaveLength(1);
    expect(await db.orm.deadLetter.count({ where: { source: 'vapi', lastSeenAt: { gte: startedAt } } })).toBe(1);
  });

  test('when an event names no call, then it is taken without an error', async () => {
    const before = logLines.length;
    expect((await post(JSON.stringify({ message: { type: 'status-update', status: 'ringing' } }))).status).toBe(200);
    expect(logLines.slice(before).join()).not.toContain('"level":"error"');
  });

  test('when an event names a call and its id cannot be read, then it is a dead letter', async () => {
    const body = { message: { type: 'end-of-call-report', endedReason: 'customer-ended-call', call: { id: 5, note: randomUUID() } } };
    expect((await post(JSON.stringify(body))).status).toBe(200);
    expect(await db.orm.deadLetter.findFirst({ where: { body: { equals: body } } })).toMatchObject({
      source: 'vapi',
      reason: 'unreadable',
    });
  });

  test('when the record refuses a report for good, then it is a dead letter, and Vapi is not asked to send it again', async () => {
    const providerCallId = `unwanted-${randomUUID()}`;
    await db.query(sql`ALTER TABLE vapi_call_events ADD CONSTRAINT refusing CHECK (provider_call_id NOT LIKE 'unwanted-%')`);
    const body = asCall('status-update.ringing.json', providerCallId);
    expect((await post(JSON.stringify(body))).status).toBe(200);
    const letter = await db.orm.deadLetter.findFirstOrThrow({ where: { reason: 'record_refused' } });
    expect(letter).toMatchObject({ source: 'vapi', body: { message: { type: 'status-update', call: { id: providerCallId } } } });
    await db.query(sql`ALTER TABLE vapi_call_events DROP CONSTRAINT refusing`);
    // What was kept is all that it takes.
    expect((await post(JSON.stringify(letter.body))).status).toBe(200);
    expect(await rowOf(providerCallId)).toMatchObject({ status: 'ringing' });
  });

  test('when types come that nobody knows, then they are counted as one', async () => {
    const metrics = createApiMetrics();
    const counted = await serve({ metrics });
    for (const type of ['speech-update', 'voice-request', 'new.type.a', 'new.type.b']) {
      expect((await post(JSON.stringify({ message: { type } }), AUTHENTIC, counted)).status).toBe(200);
    }
    const types = [...(await metrics.text()).matchAll(/^parley_webhooks_total\{source="vapi",type="([^"]+)".*\} (\d+)$/gm)];
    expect(types.map(([, type, count]) => `${type} ${count}`).sort()).toEqual(['other 2', 'speech-update 1', 'voice-request 1']);
  });

  test('when a report has 11 MB, then it is taken and cut; when it has 13 MB, then it is 413', async () => {
    const providerCallId = `large-${randomUUID()}`;
    const report = asCall('end-of-call-report.completed.json', providerCallId);
    const body = (megabytes: number) => {
      const artifact = { transcript: 'AI: hi '.repeat((megabytes * 1024 * 1024) / 7), recording: { mono: null } };
      return JSON.stringify({ message: { ...report.message, artifact } });
    };
    expect((await post(body(11))).status).toBe(200);
    const row = await rowOf(providerCallId);
    expect([row?.transcript?.length, row?.summary]).toEqual([1_000_000, expect.stringContaining('confirmed')]);
    expect((await post(body(13))).status).toBe(413);
  });

  test('when texts hold what PostgreSQL cannot store, then the report is kept without that', async () => {
    const providerCallId = `nul-${randomUUID()}`;
    const bad = 'a\0b\ud800';
    const message = {
      type: 'end-of-call-report',
      endedReason: 'customer-ended-call',
      call: { id: providerCallId, metadata: { [bad]: bad } },
      analysis: { summary: bad, structuredData: { [bad]: bad } },
      artifact: { transcript: bad, messages: [{ role: bad, message: bad }] },
    };
    expect((await post(JSON.stringify({ message }))).status).toBe(200);
    expect(await rowOf(providerCallId)).toMatchObject({ summary: 'ab\ufffd', transcript: 'ab\ufffd' });
  });
});

describe('fixtures', () => {
  const files = readdirSync(FIXTURES).filter((file) => !/response|^error/.test(file) && typeof fixture(file).message === 'object');
  const facts = files.filter((file) => /^(status-update|end-of-call-report)/.test(file));
  const expected: Record<string, object> = {
    'status-update.scheduled.json': { status: 'scheduled' },
    'status-update.queued.json': { status: 'queued' },
    'status-update.ringing.json': { status: 'ringing', answeredAt: null },
    'status-update.in-progress.json': { status: 'in-progress', answeredAt: new Date(1795186809800) },
    'status-update.forwarding.json': { status: 'forwarding' },
    'status-update.ended.json': { status: 'ended', endedReason: 'customer-ended-call' },
    'status-update.ended.no-answer.json': { status: 'ended', endedReason: 'customer-did-not-answer', answeredAt: null },
    'status-update.ended.start-error.json': { endedReason: 'call.start.error-subscription-concurrency-limit-reached' },
    'status-update.ended.future-reason.json': { status: 'ended' },
    'end-of-call-report.completed.json': { status: 'ended', durationSeconds: 62, cost: 0.0932, successEvaluation: 'true' },
    'end-of-call-report.voicemail.json': { endedReason: 'voicemail', durationSeconds: 15, cost: 0.0377 },
    'end-of-call-report.no-answer.json': { endedReason: 'customer-did-not-answer', startedAt: null, answeredAt: null, durationSeconds: 0 },
    'end-of-call-report.busy.json': { endedReason: 'customer-busy', transcript: null, messages: null },
    'end-of-call-report.pipeline-error.json': { status: 'ended' },
    'end-of-call-report.pipeline-error-legacy.json': { endedReason: 'pipeline-error-openai-llm-failed', durationSeconds: 1 },
    'end-of-call-report.minimal.json': { status: 'ended', endedReason: 'customer-ended-call', toNumber: null, cost: null },
  };
  const planted = new Set<string>();

  test('when the fixtures are listed, then none is forgotten here', () => {
    expect(facts.toSorted()).toEqual(Object.keys(expected).toSorted());
    expect(files.length).toBeGreaterThan(facts.length + 8);
  });

  test.each(facts)(
    'when %s comes three times at once and once more, then there is one row, one event, and a workflow that knows',
    async (file) => {
      const providerCallId = `fixture-${randomUUID()}`;
      const body = asCall(file, providerCallId);
      for (const secret of secretsIn(body)) planted.add(secret);
      const text = JSON.stringify(body);
      const answers = await Promise.all([post(text), post(text), post(text)]);
      answers.push(await post(text));
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
      const row = await rowOf(providerCallId);
      expect(row).toMatchObject({
        id: ready.identity.callId({ providerCallId }),
        direction: 'outbound',
        doneAt: null,
        outcome: null,
        ...expected[file],
      });
      expect(row?.rawPayload === null).toBe(file.startsWith('status-update'));
      expect(await db.orm.vapiCallEvent.count({ where: { providerCallId } })).toBe(1);
      const { args, signals } = await signalsOf(row?.id ?? '');
      expect(args).toEqual({
        callId: row?.id,
        dials: false,
        ringTimeoutMs: 7_000,
        reportGraceMs: 8_000,
        maxDurationMs: 600_000,
        queueForMs: 0,
      });
      const { type, status, endedReason } = body.message;
      expect(signals).toHaveLength(4);
      expect(signals).toContainEqual({
        providerCallId,
        type,
        atMs: expect.any(Number),
        ...(status ? { status } : {}),
        ...(endedReason ? { endedReason } : {}),
      });
      const described = await temporal.workflow.getHandle(row?.workflowId ?? '').describe();
      expect(described.searchAttributes).toMatchObject({ ParleyCallStatus: ['queued'], ParleyAttention: [false] });
    },
  );

  test.each(files.filter((file) => !facts.includes(file)))('when %s comes, then it is answered and no call is made of it', async (file) => {
    const providerCallId = `other-${randomUUID()}`;
    const body = asCall(file, providerCallId);
    for (const secret of secretsIn(body)) planted.add(secret);
    const answers = await Promise.all([1, 2, 3].map(() => answerTo(body)));
    const wanted = {
      'assistant-request': { assistantId: 'assistant-1' },
      'tool-calls': { results: [{ name: 'bookSlot', toolCallId: 'call_FAKE01', error: expect.any(String) }] },
      'transfer-destination-request': { destination: { type: 'number', number: '+15555550177' } },
      'knowledge-base-request': { documents: [] },
    }[body.message.type] ?? { received: true };
    expect(answers).toEqual([wanted, wanted, wanted]);
    expect(await rowOf(providerCallId)).toBeNull();
    expect(await db.orm.vapiCallEvent.count({ where: { providerCallId } })).toBe(0);
  });

  test('when all were taken, then none of their secrets is in the record, in the logs or in a history, and no number in the last two', async () => {
    const rows = await db.orm.vapiCallResult.findMany();
    const events = await db.orm.vapiCallEvent.findMany();
    const record = JSON.stringify([rows, events]);
    const histories = (await Promise.all(rows.map(async ({ id }) => (await signalsOf(id)).texts))).join('\n');
    const log = logLines.join('\n');
    expect(rows.length).toBeGreaterThanOrEqual(facts.length);
    // Each place is searched with something that is in it, so that an empty place does not pass.
    expect([record, histories, log].map((place) => place.includes('customer-ended-call') || place.includes('call event stored'))).toEqual([
      true,
      true,
      true,
    ]);
    expect(planted.size).toBeGreaterThan(15);
    for (const secret of [...planted, SECRET, 'FAKE']) {
      expect(record).not.toContain(secret);
      expect(log).not.toContain(secret);
      expect(histories).not.toContain(secret);
    }
    for (const personal of ['5555550', 'Test Person', 'Example Clinic', 'appointment']) {
      expect(log).not.toContain(personal);
      expect(histories).not.toContain(personal);
    }
  });
});

describe('whose call it is', () => {
  test('when a webhook names our call before the dialling was answered, then our row and our workflow get it', async () => {
    const [callId, providerCallId] = [randomUUID(), `own-${randomUUID()}`];
    await db.orm.vapiCallResult.create({
      data: {
        id: callId,
        workflowId: callWorkflowId(callId),
        direction: 'outbound',
        toNumber: '+15555550199',
        requestHash: 'x',
        maxDurationSeconds: 60,
      },
    });
    const body = asCall('status-update.in-progress.json', providerCallId);
    const { call } = body.message;
    const overrides = { ...(call?.assistantOverrides as object), metadata: { parleyCallId: callId } };
    await answerTo({ message: { ...body.message, call: { ...call, assistantOverrides: overrides } } });
    await answerTo(asCall('end-of-call-report.completed.json', providerCallId));
    expect(await rowOf(providerCallId)).toMatchObject({ id: callId, status: 'ended', toNumber: '+15555550199', cost: 0.0932 });
    const { args, signals } = await signalsOf(callId);
    expect(args).toMatchObject({ callId, dials: false, maxDurationMs: 60_000 });
    expect(signals).toHaveLength(2);
  });

  test('when a report comes for a call that is done, then it is kept, and no workflow is made', async () => {
    const [callId, providerCallId] = [randomUUID(), `done-${randomUUID()}`];
    const doneAt = new Date(Date.UTC(2026, 10, 20));
    await db.orm.vapiCallResult.create({
      data: { id: callId, workflowId: callWorkflowId(callId), providerCallId, direction: 'outbound', outcome: 'unknown', doneAt },
    });
    expect((await post(JSON.stringify(asCall('end-of-call-report.voicemail.json', providerCallId)))).status).toBe(200);
    expect(await rowOf(providerCallId)).toMatchObject({ outcome: 'voicemail', endedReason: 'voicemail', status: 'ended', doneAt });
    await expect(temporal.workflow.getHandle(callWorkflowId(callId)).describe()).rejects.toThrow(/not found/i);
  });

  test('when the workflow of a call has closed, then its events are still taken, and no second one is made', async () => {
    const providerCallId = `closed-${randomUUID()}`;
    await answerTo(asCall('status-update.ringing.json', providerCallId));
    const handle = temporal.workflow.getHandle(callWorkflowId(ready.identity.callId({ providerCallId })));
    const { runId } = await handle.describe();
    await handle.terminate('the test closes it');
    expect((await post(JSON.stringify(asCall('status-update.ended.json', providerCallId)))).status).toBe(200);
    expect(await rowOf(providerCallId)).toMatchObject({ status: 'ended' });
    expect((await handle.describe()).runId).toBe(runId);
  });
});

describe('when something is away', () => {
  const body = () => JSON.stringify(asCall('status-update.ringing.json', `away-${randomUUID()}`));
  const expectRetry = async (to: string) => {
    const startedAtMs = Date.now();
    const answer = await post(body(), AUTHENTIC, to);
    expect([answer.status, await answer.json()]).toMatchObject([503, { detail: 'not stored; please send it again' }]);
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(Date.now() - startedAtMs).toBeLessThan(8_000);
    const request = JSON.stringify(fixture('assistant-request.json'));
    expect(await (await post(request, AUTHENTIC, to)).json()).toEqual({ assistantId: 'assistant-1' });
  };

  test('when nothing has been reached yet, then Vapi is asked to come again, and a caller still gets an assistant', async () => {
    await expectRetry(await serve({ handOverDependencies: () => undefined }));
  });

  test('when Temporal cannot be reached, then the same', async () => {
    const unreachable = openTemporalClient({ connectionOptions: { address: '127.0.0.1:1' }, namespace: 'default' });
    await expectRetry(await serve({ handOverDependencies: () => ({ ...ready, signaller: createWorkflowSignaller(unreachable) }) }));
    await unreachable.connection.close();
  });

  const keptByTemporal = async (providerCallId: string) => {
    const query = `WorkflowType = '${LATE_EVENTS_WORKFLOW}' AND TaskQueue = '${taskQueue}'`;
    return await eventually(async () => {
      for await (const { workflowId } of temporal.workflow.list({ query })) {
        const { events } = await temporal.workflow.getHandle(workflowId).fetchHistory();
        const [input] = events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads ?? [];
        const text = Buffer.from(input?.data ?? []).toString();
        if (text.includes(providerCallId)) return JSON.parse(text) as LateEvents;
      }
      throw new Error('Temporal keeps no such events');
    });
  };

  test('when Temporal and PostgreSQL cannot be reached, then the same', async () => {
    const unreachable = openTemporalClient({ connectionOptions: { address: '127.0.0.1:1' }, namespace: 'default' });
    const refusing = openDatabase('postgresql://nobody@127.0.0.1:1/none');
    const dependencies = { ...ready, db: refusing, signaller: createWorkflowSignaller(unreachable) };
    await expectRetry(await serve({ handOverDependencies: () => dependencies }));
    await unreachable.connection.close();
    await refusing.close();
  });

  test('when PostgreSQL refuses, then Temporal keeps the event, without its secrets', async () => {
    const refusing = openDatabase('postgresql://nobody@127.0.0.1:1/none');
    const providerCallId = `refused-${randomUUID()}`;
    const event = asCall('status-update.ringing.json', providerCallId) as { message: object };
    const sent = JSON.stringify({ message: { ...event.message, credentials: [{ apiKey: 'planted-secret' }] } });
    expect((await post(sent, AUTHENTIC, await serve({ handOverDependencies: () => ({ ...ready, db: refusing }) }))).status).toBe(200);
    await refusing.close();
    const kept = await keptByTemporal(providerCallId);
    expect(JSON.stringify(kept)).not.toContain('planted-secret');
    expect(await rowOf(providerCallId)).toBeNull();
    await createLateEventTaker(settings, ready)(kept);
    expect(await rowOf(providerCallId)).toMatchObject({ status: 'ringing' });
  });

  test('when PostgreSQL does not answer because the row is locked, then Temporal keeps the event as well', async () => {
    const providerCallId = `locked-${randomUUID()}`;
    await answerTo(asCall('status-update.queued.json', providerCallId));
    const ringing = JSON.stringify(asCall('status-update.ringing.json', providerCallId));
    await db.orm.$transaction(
      async (transaction) => {
        await transaction.$queryRaw`SELECT 1 FROM vapi_call_results WHERE provider_call_id = ${providerCallId} FOR UPDATE`;
        expect((await post(ringing)).status).toBe(200);
      },
      { timeout: 10_000 },
    );
    await createLateEventTaker(settings, ready)(await keptByTemporal(providerCallId));
    expect(await rowOf(providerCallId)).toMatchObject({ status: 'ringing' });
  });
});
