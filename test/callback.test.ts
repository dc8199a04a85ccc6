/** A call's callback on the real engine: the record, the workflow and real receivers. */
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { WorkflowFailedError } from '@temporalio/client';
import { Webhook } from 'standardwebhooks';
import { z } from 'zod';
import { createCallbackActivities } from '../activities/callback';
import { callViewSchema } from '../src/api/views/call';
import { type Database, openDatabase } from '../src/platform/database';
import { createLogger } from '../src/platform/logger';
import { createWorkerMetrics } from '../src/platform/metrics';
import { createCallbackClient } from '../src/providers/callback/client';
import { CALLBACK_WORKFLOW, type CallbackInput, callbackUpdateStart, callbackWorkflowId } from '../workflows/contract';
import { type TestDatabase, testDatabase } from './support/engine';
import { type InProcessWorker, startInProcessWorker } from './support/in-process-worker';

const SECRET = `whsec_${randomBytes(32).toString('base64')}`;
const REFUSALS_FOR_MS = 1_500;

/** What is posted: the call as the API shows it, and whether it is an update. */
const callbackSchema = callViewSchema.extend({ isUpdate: z.boolean() }).strict();

let database: TestDatabase;
let db: Database;
let worker: InProcessWorker;
let server: Server;
let origin: string;
const lines: string[] = [];
const metrics = createWorkerMetrics(async () => '');
/** By path: the statuses that are still to be answered (the last stays), and what came. */
const plans = new Map<string, number[]>();
const received: { path: string; headers: IncomingHttpHeaders; body: string }[] = [];

beforeAll(async () => {
  server = createServer((request, response) => {
    void buffer(request).then((body) => {
      const path = request.url ?? '';
      received.push({ path, headers: request.headers, body: body.toString() });
      const plan = plans.get(path) ?? [200];
      response.writeHead((plan.length > 1 ? plan.shift() : plan[0]) ?? 200).end();
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  origin = `http://${host}`;
  database = await testDatabase('callback');
  db = openDatabase(database.url);
  const callbacks = createCallbackClient({
    allowedHosts: [host],
    signingSecret: SECRET,
    kestraAuthorization: 'Bearer flows',
    timeoutMs: 5_000,
  });
  const logger = createLogger('test', 'debug', { write: (line) => lines.push(line) });
  worker = await startInProcessWorker(createCallbackActivities({ db, callbacks, logger, metrics, refusalsForMs: REFUSALS_FOR_MS }));
});

afterAll(async () => {
  await worker?.close();
  server?.closeAllConnections();
  server?.close();
  await db?.close();
  await database?.drop();
});

async function call(path: string, statuses: number[], fields: { doneAt?: Date | null } = {}): Promise<string> {
  const id = randomUUID();
  plans.set(path, statuses);
  await db.orm.vapiCallResult.create({
    data: {
      id,
      workflowId: `call-${id}`,
      direction: 'outbound',
      status: 'ended',
      outcome: 'completed',
      toNumber: '+15550100123',
      summary: 'The customer confirmed.',
      transcript: 'AI: long',
      metadata: { ticket: 'T-7' },
      durationSeconds: 12.5,
      doneAt: new Date(),
      callbackUrl: `${origin}${path}`,
      ...fields,
    },
  });
  return id;
}

async function run(callId: string, options: Omit<CallbackInput, 'callId'> = {}, workflowId = callbackWorkflowId(callId)) {
  return await worker.client.workflow.start(CALLBACK_WORKFLOW, {
    workflowId,
    taskQueue: worker.taskQueue,
    args: [{ ...options, callId }],
  });
}

const at = (path: string) => received.filter((request) => request.path === path);
const needsAttention = async (id: string) => {
  const row = await db.orm.vapiCallResult.findUniqueOrThrow({ where: { id } });
  expect(row.callbackFailedAt !== null).toBe(row.needsAttention);
  return row.needsAttention;
};

test('when the receiver fails twice and then takes it, then it has the flat, signed result under one id', async () => {
  const callId = await call('/fails-twice', [500, 503, 200]);
  expect(await (await run(callId)).result()).toEqual({ delivered: true });
  const requests = at('/fails-twice');
  expect(requests).toHaveLength(3);
  expect(new Set(requests.map(({ headers }) => headers['webhook-id']))).toEqual(new Set([`call-${callId}`]));
  for (const { headers, body } of requests) {
    const posted = callbackSchema.parse(new Webhook(SECRET).verify(body, headers as Record<string, string>));
    expect(posted).toMatchObject({
      callId,
      isUpdate: false,
      done: true,
      outcome: 'completed',
      to: '+15550100123',
      from: null,
      durationSeconds: 13,
      summary: 'The customer confirmed.',
      metadata: { ticket: 'T-7' },
      transcript: null,
      messages: null,
      raw: null,
      links: { self: `/api/v1/vapi/calls/${callId}`, recording: null },
    });
    expect(Object.keys(JSON.parse(body)).sort()).toEqual(Object.keys(callbackSchema.shape).sort());
  }
  expect(await needsAttention(callId)).toBe(false);
});

test('when a late report has improved the result, then the update is marked, and has an id of its own', async () => {
  const callId = await call('/improved', [200]);
  expect(await (await run(callId)).result()).toEqual({ delivered: true });
  const { workflowId, args } = callbackUpdateStart(callId, worker.taskQueue);
  expect(await (await run(callId, args[0], workflowId)).result()).toEqual({ delivered: true });
  const posted = at('/improved').map(({ headers, body }) => {
    const { isUpdate } = callbackSchema.parse(new Webhook(SECRET).verify(body, headers as Record<string, string>));
    return [headers['webhook-id'], isUpdate];
  });
  expect(posted).toEqual([
    [`call-${callId}`, false],
    [`call-${callId}-update`, true],
  ]);
});

test('when a Kestra execution was resumed, then it gets no update', async () => {
  const path = '/api/v1/main/executions/e2/resume';
  const callId = await call(path, [204]);
  expect(await (await run(callId, { isUpdate: true })).result()).toEqual({ delivered: false, reason: 'resumed' });
  expect(at(path)).toEqual([]);
});

test('when a Kestra flow is not paused yet, then it is asked again soon', async () => {
  const path = '/api/v1/main/executions/e1/resume';
  const callId = await call(path, [409, 204]);
  expect(await (await run(callId)).result()).toEqual({ delivered: true });
  expect(at(path).map(({ headers }) => [headers.authorization, headers['content-type']?.split(';')[0]])).toEqual([
    ['Bearer flows', 'multipart/form-data'],
    ['Bearer flows', 'multipart/form-data'],
  ]);
});

test('when the receiver says that it is gone, then nobody insists', async () => {
  const callId = await call('/gone', [410]);
  expect(await (await run(callId)).result()).toEqual({ delivered: false, reason: 'gone' });
  expect([at('/gone').length, await needsAttention(callId)]).toEqual([1, false]);
});

test.each([
  ['/refuses', 403, 'CallbackError.Refused'],
  ['/redirects', 302, 'CallbackError.Refused'],
  ['/api/v1/main/executions/unknown/resume', 404, 'CallbackError.Refused'],
])('when %s keeps answering %i, then it is tried for a while, and a person must look', async (path, status, type) => {
  const callId = await call(path, [status]);
  const handle = await run(callId);
  const failure = await handle.result().catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(WorkflowFailedError);
  expect((failure as WorkflowFailedError).cause).toMatchObject({ type: 'CallbackError.GaveUp', message: expect.stringContaining(type) });
  expect(at(path).length).toBeGreaterThan(1);
  expect(await needsAttention(callId)).toBe(true);
});

test('when a receiver that refused for a moment takes it, then nobody must look', async () => {
  const callId = await call('/deploying', [404, 200]);
  expect(await (await run(callId)).result()).toEqual({ delivered: true });
  expect(await needsAttention(callId)).toBe(false);
});

test('when the receiver stays away until the bound, then the failure names its last answer', async () => {
  const callId = await call('/away', [503]);
  const failure = await (await run(callId, { giveUpAfterMs: 2_500 })).result().catch((error: unknown) => error);
  expect((failure as WorkflowFailedError).cause).toMatchObject({
    type: 'CallbackError.GaveUp',
    message: expect.stringContaining('CallbackError.Unavailable: the receiver responded with 503'),
  });
  expect(await needsAttention(callId)).toBe(true);
});

test('when the address or the row is not there any more, then nothing is sent', async () => {
  expect(await (await run(randomUUID())).result()).toEqual({ delivered: false, reason: 'no_address' });
});

test('when the history and the log are read, then neither address, number nor text stands there', async () => {
  const callId = await call('/secret-path-marker', [500, 200]);
  const handle = await run(callId);
  await handle.result();
  const history = JSON.stringify(await handle.fetchHistory());
  const decoded = history.replace(/"data":"([^"]*)"/g, (_all, data: string) => Buffer.from(data, 'base64').toString());
  for (const text of [decoded, lines.join('')]) {
    expect(text).toContain(`"callId":"${callId}"`);
    for (const marker of ['secret-path-marker', '15550100123', 'customer confirmed', SECRET]) expect(text).not.toContain(marker);
  }
});

test('when a callback fails, is taken, or is given up, then the metrics have counted each attempt by its result', async () => {
  const before = await tried();
  await (await run(await call('/counted', [500, 503, 200]))).result();
  await (await run(await call('/counted-away', [503]), { giveUpAfterMs: 500 })).result().catch(() => undefined);
  const attempts = at('/counted').length + at('/counted-away').length;
  const after = await tried();
  const added = (result: string) => (after[result] ?? 0) - (before[result] ?? 0);
  expect([added('delivered'), added('given_up'), added('CallbackError.Unavailable')]).toEqual([1, 1, attempts - 1]);
});

async function tried(): Promise<Record<string, number>> {
  const samples = (await metrics.text()).matchAll(/^parley_callbacks_total\{result="([^"]+)"\} (\d+)$/gm);
  return Object.fromEntries([...samples].map(([, result, count]) => [result, Number(count)]));
}
