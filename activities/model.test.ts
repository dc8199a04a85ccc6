/** The model activity on a real database, with the models of the sandbox. */
import { randomUUID } from 'node:crypto';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { readSettings } from '../src/platform/config';
import { type Database, openDatabase } from '../src/platform/database';
import { createLogger } from '../src/platform/logger';
import { noMetrics } from '../src/platform/metrics';
import { createLanguageModels } from '../src/providers/models/client';
import type { ModelProgram } from '../src/sandbox/models/double';
import type { Sandbox } from '../src/sandbox/sandbox';
import { type TestDatabase, testDatabase } from '../test/support/engine';
import { randomNumbers } from '../test/support/random';
import { startTestSandbox } from '../test/support/sandbox';
import { createModelActivities, type Draft, type DraftOrder, type ModelActivities } from './model';
import { sameForAll, type WorkspaceServices } from './services';

let database: TestDatabase;
let db: Database;
let sandbox: Sandbox;
let dependencies: Parameters<typeof createModelActivities>[0];
let services: Pick<WorkspaceServices, 'models' | 'timeZone'>;
let generateReply: ModelActivities['generateReply'];

beforeAll(async () => {
  database = await testDatabase('model');
  db = openDatabase(database.url);
  const logger = createLogger('test', 'silent');
  sandbox = await startTestSandbox();
  const models = createLanguageModels(readSettings({ SANDBOX_URL: sandbox.url }));
  services = { models, timeZone: 'Europe/Berlin' };
  dependencies = { db, services: sameForAll(services), logger, metrics: noMetrics };
  ({ generateReply } = createModelActivities(dependencies));
});

afterAll(async () => {
  await sandbox?.close();
  await db?.close();
  await database?.drop();
});

beforeEach(() => {
  sandbox.models.clear();
});

async function newWorkspace(historyLimit = 20): Promise<string> {
  const settings = { create: { historyLimit } };
  const { id } = await db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: randomUUID(), settings } });
  return id;
}

/** One attempt for a new conversation with one message. */
async function newOrder(inWorkspace?: string): Promise<DraftOrder> {
  const workspaceId = inWorkspace ?? (await newWorkspace());
  const contact = await db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID(), phone: '15550100' } });
  const { id: conversationId } = await db.orm.conversation.create({
    data: { workspaceId, contactId: contact.id, workflowId: randomUUID() },
  });
  const { id } = await db.orm.message.create({
    data: { workspaceId, conversationId, workflowId: 'test', direction: 'inbound', status: 'received', kind: 'text', text: 'hi' },
  });
  return { conversationId, messageIds: [id], provider: 'sandbox', model: 'sandbox-model', attemptMs: 5_000, attempt: 2 };
}

/** Without its warnings: most attempts here fail on purpose. */
const newEnvironment = () => new MockActivityEnvironment(undefined, { logger: new DefaultLogger('ERROR') });

async function run(order: DraftOrder): Promise<Draft> {
  const drafted: Awaited<ReturnType<typeof generateReply>> = await newEnvironment().run(generateReply, order);
  if (!('messageId' in drafted)) throw new Error('there is no draft');
  return drafted;
}

test('when a model answers, then the draft is stored with the number of the attempt, and the next attempt finds it', async () => {
  const order = await newOrder();
  const draft = await run(order);
  expect(await db.orm.message.findUnique({ where: { id: draft.messageId } })).toMatchObject({ status: 'pending', attempts: 2 });
  const asked = sandbox.models.count('sandbox-model');
  expect(await run(order)).toMatchObject({ messageId: draft.messageId, coveredIds: order.messageIds });
  expect(sandbox.models.count('sandbox-model')).toBe(asked);
});

test('when the worker shuts down during an attempt, then this is no failure of the provider', async () => {
  const environment = newEnvironment();
  const asked = sandbox.models.count('sandbox-model');
  sandbox.models.program({ connection: 'hang' });
  const attempt = environment.run(generateReply, await newOrder());
  await Promise.all([
    expect(attempt).rejects.toMatchObject({ type: 'WorkerError.Stopping', nonRetryable: false }),
    sandbox.models.waitForRequests('sandbox-model', asked + 1, 5_000).then(() => environment.cancel('WORKER_SHUTDOWN')),
  ]);
});

const answer = (message: object, finishReason = 'stop') => ({
  raw: {
    contentType: 'application/json',
    body: JSON.stringify({ choices: [{ index: 0, finish_reason: finishReason, message: { role: 'assistant', ...message } }] }),
  },
});

test.each<[string, Partial<ModelProgram>, { type: string; nonRetryable: boolean; message?: string }]>([
  ['refuses in words', answer({ content: null, refusal: 'I cannot' }), { type: 'ModelError.ContentRefused', nonRetryable: false }],
  ['is filtered', answer({ content: 'x' }, 'content_filter'), { type: 'ModelError.ContentRefused', nonRetryable: true }],
  ['only thinks', answer({ content: null, reasoning_content: 'Hm.' }), { type: 'ModelError.EmptyReply', nonRetryable: false }],
  ['is cut off before its first word', answer({ content: '' }, 'length'), { type: 'ModelError.EmptyReply', nonRetryable: false }],
  [
    'never ends',
    { reply: 'x'.repeat(2 ** 20) },
    { type: 'ModelError.BadAnswer', nonRetryable: false, message: expect.stringContaining('more than 1 MiB') },
  ],
  ['sends a page', { raw: { contentType: 'text/html', body: '<html>' } }, { type: 'ModelError.BadAnswer', nonRetryable: false }],
])('when a model %s, then the failure says so', async (_what, program, failure) => {
  sandbox.models.program(program);
  await expect(run(await newOrder())).rejects.toMatchObject(failure);
});

describe('code that fails', () => {
  const lost = new TypeError('marker');

  /** A database whose `count`-th statement and those after it make our code fail. */
  function failingFrom(count: number): Database {
    let statements = 0;
    const query: Database['query'] = async (statement) => {
      statements += 1;
      if (statements >= count) throw lost;
      return await db.query(statement);
    };
    return { ...db, query };
  }

  test.each([
    ['loads the prompt', 1, 'the prompt could not be loaded', 0],
    ['stores the reply', 2, 'the reply could not be stored', 1],
  ])('when it %s, then the turn ends, and the model is called at most once', async (_what, count, step, asks) => {
    const before = sandbox.models.count('sandbox-model');
    const broken = createModelActivities({ ...dependencies, db: failingFrom(count) });
    await expect(newEnvironment().run(broken.generateReply, await newOrder())).rejects.toMatchObject({
      type: 'WorkerError.Fault',
      nonRetryable: true,
      message: `${step} (TypeError): this is a bug in Parley; see the worker's log, and answer by hand`,
    });
    expect(sandbox.models.count('sandbox-model') - before).toBe(asks);
  });

  test('when it fails while it builds the prompt, then the turn ends before a model is called', async () => {
    const before = sandbox.models.count('sandbox-model');
    const broken = createModelActivities({ ...dependencies, services: sameForAll({ ...services, timeZone: 'Nowhere/None' }) });
    await expect(newEnvironment().run(broken.generateReply, await newOrder())).rejects.toMatchObject({
      type: 'WorkerError.Fault',
      message: expect.stringMatching(/^the prompt could not be built \(RangeError\)/),
    });
    expect(sandbox.models.count('sandbox-model')).toBe(before);
  });
});

test('when 200 random conversations are recorded, then a strict model answers each at the first request', async () => {
  sandbox.models.program({ strict: true, reply: 'ok' });
  const workspaceId = await newWorkspace(8);
  for (let seed = 1; seed <= 200; seed += 1) {
    const random = randomNumbers(seed);
    const pick = <T>(...options: T[]): T => options[Math.floor(random() * options.length)] as T;
    const order = await newOrder(workspaceId);
    const row = { workspaceId, conversationId: order.conversationId };
    const said = Array.from({ length: Math.floor(random() * 12) }, (_, index) => {
      const direction = pick<'inbound' | 'outbound' | 'note'>('inbound', 'inbound', 'outbound', 'note');
      const status = direction === 'outbound' ? pick('sent' as const, 'failed' as const, 'unconfirmed' as const) : ('received' as const);
      const outcome = direction === 'inbound' ? pick<'answered' | 'failed' | 'merged'>('answered', 'failed', 'merged') : null;
      const text = pick(`message ${index}`, `message ${index}`, null, '', ' ', '\u200B');
      return { ...row, direction, status, outcome, kind: pick('text', 'image', 'voice_call'), text, workflowId: 'test' };
    });
    if (said.length > 0) await db.orm.message.createMany({ data: said });
    const asked = sandbox.models.count('sandbox-model');
    expect([seed, await run(order)]).toEqual([seed, expect.objectContaining({ model: 'sandbox-model' })]);
    expect(sandbox.models.count('sandbox-model') - asked).toBe(1);
  }
});

test('when this worker has no key of the provider, then the failure is permanent and says what to do', async () => {
  await expect(run({ ...(await newOrder()), provider: 'openai', model: 'm' })).rejects.toMatchObject({
    type: 'ModelError.NotConfigured',
    nonRetryable: true,
    message: 'openai (m) has no API key: set it, and restart the workers',
  });
});

describe('alerts about models that no failed turn reports', () => {
  const attempt = async (model: string) => newEnvironment().run(generateReply, { ...(await newOrder()), model });
  const alerts = () => db.orm.alert.findMany({ select: { cause: true, text: true } });

  beforeEach(async () => {
    await db.orm.alert.deleteMany();
    // Counts from zero.
    ({ generateReply } = createModelActivities(dependencies));
  });

  test('when a model has no credit and another one answers, then an alert says what to do', async () => {
    sandbox.models.program({ model: 'm-one', error: { status: 402 } });
    await expect(attempt('m-one')).rejects.toThrow('no credit');
    // If none answers, the failed turn has an alert of its own.
    expect(await alerts()).toEqual([]);
    await attempt('m-two');
    expect(await alerts()).toEqual([
      { cause: 'model: sandbox (m-one) ModelError.NoCredit', text: expect.stringMatching(/top the account up.*another model answers/) },
    ]);
  });

  test('when a model has failed ten times in a row and another one answers, then an alert says so; a success starts a new count', async () => {
    const fail = async (times: number) => {
      sandbox.models.clear();
      sandbox.models.program({ model: 'm-one', error: { status: 503 } });
      for (let count = 0; count < times; count += 1) await expect(attempt('m-one')).rejects.toThrow('responded with 503');
    };
    await fail(9);
    sandbox.models.clear();
    await attempt('m-one');
    await fail(9);
    await attempt('m-two');
    expect(await alerts()).toEqual([]);
    await fail(1);
    await attempt('m-two');
    expect(await alerts()).toEqual([{ cause: 'model: sandbox (m-one) unavailable', text: expect.stringContaining('503') }]);
  });

  test('when a model refuses the content, then that is no fault of the model', async () => {
    sandbox.models.program({ model: 'm-one', error: { status: 400, code: 'content_filter' } });
    for (let count = 0; count < 11; count += 1) await expect(attempt('m-one')).rejects.toThrow('refused the content');
    await attempt('m-two');
    expect(await alerts()).toEqual([]);
  });
});
