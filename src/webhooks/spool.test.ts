/** The spool and its relay, with a real Temporal and PostgreSQL that are cut off. Each `api` has what an API process has. */
import { randomUUID } from 'node:crypto';
import type { Client } from '@temporalio/client';
import { defineSignal } from '@temporalio/workflow';
import { type TestDatabase, testDatabase, testTemporal } from '../../test/support/engine';
import { eventually } from '../../test/support/expectations';
import { startProxy, type TcpProxy } from '../../test/support/proxy';
import { type Database, openDatabase, sql } from '../platform/database';
import { createLogger } from '../platform/logger';
import { openTemporalClient } from '../platform/temporal';
import { hasSpooledRequest, spoolDepth } from '../record/spool';
import {
  createTemporalSender,
  type SendToTemporal,
  SIGNAL_TIMEOUT_MS,
  signalDeadlineMs,
  signallerOver,
  type WorkflowSignaller,
} from './signaller';
import { createSpool } from './spool';
import { type RelayDependencies, relaySpool } from './spool-relay';

const said = defineSignal<[string]>('said');

let database: TestDatabase;
let db: Database;
let temporal: Client;
let temporalProxy: TcpProxy;
let postgresProxy: TcpProxy;
const started: string[] = [];
let apis: Api[] = [];

beforeAll(async () => {
  database = await testDatabase('spool');
  db = openDatabase(database.url);
  const { address, namespace } = testTemporal();
  temporal = openTemporalClient({ connectionOptions: { address }, namespace });
  temporalProxy = await startProxy(address);
  postgresProxy = await startProxy(new URL(database.url).host);
});

afterEach(async () => {
  await Promise.all([temporalProxy.up(), postgresProxy.up()]);
  await Promise.all(apis.map((api) => api.close()));
  apis = [];
  await db.query(sql`DELETE FROM spooled_requests`);
});

afterAll(async () => {
  await Promise.allSettled(started.map((workflowId) => temporal.workflow.getHandle(workflowId).terminate('the test is over')));
  await temporal?.connection.close();
  await db?.close();
  await Promise.all([temporalProxy?.close(), postgresProxy?.close()]);
  await database?.drop();
});

interface Api {
  signaller: WorkflowSignaller;
  /** Requests that it sent to Temporal, successfully or not. */
  sends: string[];
  /** Starts its relay, and resolves when it listens. */
  relay(options?: Partial<RelayDependencies>): Promise<void>;
  close(): Promise<void>;
}

/** `isCutOff`: its connections go through the proxies. `failures`: so many first requests to Temporal fail. */
function startApi(options: { isCutOff?: boolean; isTemporalCutOff?: boolean; failures?: number } = {}): Api {
  const { isCutOff = true, isTemporalCutOff = isCutOff, failures = 0 } = options;
  const { address, namespace } = testTemporal();
  const proxied = new URL(database.url);
  proxied.port = String(postgresProxy.port);
  const databaseUrl = isCutOff ? proxied.href : database.url;
  const itsDb = openDatabase(databaseUrl);
  const itsTemporal = openTemporalClient({
    connectionOptions: { address: isTemporalCutOff ? `127.0.0.1:${temporalProxy.port}` : address },
    namespace,
  });
  const logger = createLogger('test', 'silent');
  const sends: string[] = [];
  const direct = createTemporalSender(itsTemporal);
  const sendNow: SendToTemporal = (request, deadlineMs) => {
    sends.push('fact' in request ? String(request.fact) : request.kind);
    if (sends.length <= failures) return Promise.reject(new Error('not now'));
    return direct(request, deadlineMs);
  };
  const spool = createSpool({ db: itsDb, sendNow, logger });
  const stopping = new AbortController();
  let relaying: Promise<void> | undefined;
  const api: Api = {
    signaller: signallerOver(spool.send),
    sends,
    async relay(options = {}) {
      let looks = 0;
      const looked: typeof spool.looked = (...seen) => {
        looks += 1;
        spool.looked(...seen);
      };
      const watched = { ...spool, looked };
      const checkTemporal = async () => undefined;
      const takeEvents = async () => undefined;
      relaying = relaySpool(
        { db: itsDb, databaseUrl, spool: watched, sendNow, takeEvents, checkTemporal, logger, ...options },
        stopping.signal,
      );
      await eventually(async () => expect(looks).toBeGreaterThan(0));
    },
    async close() {
      stopping.abort();
      await relaying;
      await itsTemporal.connection.close();
      await itsDb.close();
    },
  };
  apis.push(api);
  return api;
}

/** Nobody works on its task queue: what matters here is what Temporal has stored. */
function newWorkflow(): { workflowId: string; taskQueue: string } {
  const workflowId = `spool-${randomUUID()}`;
  started.push(workflowId);
  return { workflowId, taskQueue: 'nobody-works-here' };
}

const tell = ({ signaller }: Api, start: ReturnType<typeof newWorkflow>, fact: string) =>
  signaller.tell({ workflowType: 'listener', start, signal: said, fact }, signalDeadlineMs());

/** What the workflow was told, once it was told something. */
async function factsOf({ workflowId }: { workflowId: string }): Promise<string[]> {
  const { events } = await temporal.workflow.getHandle(workflowId).fetchHistory();
  return (events ?? []).flatMap(({ workflowExecutionSignaledEventAttributes: signaled }) =>
    (signaled?.input?.payloads ?? []).map(({ data }) => JSON.parse(Buffer.from(data ?? []).toString()) as string),
  );
}

const waiting = async () => (await spoolDepth(db)).waiting;
const isEmpty = () => eventually(async () => expect(await waiting()).toBe(0), 20_000);

async function secondsOf(work: Promise<unknown>): Promise<number> {
  const startedAtMs = Date.now();
  await work;
  return (Date.now() - startedAtMs) / 1_000;
}

test('when Temporal hangs, then requests are stored within about 1.5 s, and soon without a wait', async () => {
  const api = startApi();
  temporalProxy.hang();
  const workflow = newWorkflow();
  for (let count = 0; count < 3; count += 1) expect(await secondsOf(tell(api, newWorkflow(), `before ${count}`))).toBeLessThan(1.8);
  expect(await secondsOf(tell(api, workflow, 'one'))).toBeLessThan(SIGNAL_TIMEOUT_MS / 2_000);
  expect(await secondsOf(tell(api, workflow, 'two'))).toBeLessThan(SIGNAL_TIMEOUT_MS / 2_000);
  expect(await waiting()).toBe(5);
  expect(api.sends).not.toContain('one');
  await temporalProxy.up();
  const other = startApi({ isCutOff: false });
  await other.relay();
  await isEmpty();
  expect(await factsOf(workflow)).toEqual(['one', 'two']);
});

test('when an event of a workflow waits, then a later one does not overtake it, whichever process it comes to', async () => {
  const [cutOff, other] = [startApi(), startApi({ isCutOff: false })];
  await other.relay({ sendNow: () => Promise.reject(new Error('not now')) });
  const workflow = newWorkflow();
  await temporalProxy.down();
  await tell(cutOff, workflow, 'one');
  await tell(other, workflow, 'two');
  expect(other.sends).toEqual([]);
  // Others are not held up.
  const somebodyElse = newWorkflow();
  await tell(other, somebodyElse, 'hello');
  expect(await factsOf(somebodyElse)).toEqual(['hello']);
  const third = startApi({ isCutOff: false });
  await third.relay();
  await isEmpty();
  expect(await factsOf(workflow)).toEqual(['one', 'two']);
  await tell(other, workflow, 'three');
  expect(await factsOf(workflow)).toEqual(['one', 'two', 'three']);
});

test('when the database is slow to say whether something waits, then a request waits as well', async () => {
  const api = startApi({ isCutOff: false });
  const blocked = () => db.query(sql`SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'spooled_requests'::regclass`);
  let told: Promise<void> | undefined;
  await db.transaction(async (transaction) => {
    await transaction.query(sql`LOCK TABLE spooled_requests IN ACCESS EXCLUSIVE MODE`);
    told = tell(api, newWorkflow(), 'one');
    // The look, which was given up, and the request to be stored.
    await eventually(async () => expect(await blocked()).toHaveLength(2));
  });
  await told;
  expect([api.sends, await waiting()]).toEqual([[], 1]);
});

test('when Temporal comes back, then the relay of the same process delivers, in order, and later ones go directly again', async () => {
  const api = startApi();
  await api.relay();
  const workflows = Array.from({ length: 30 }, newWorkflow);
  await temporalProxy.down();
  for (const fact of ['one', 'two', 'three']) await Promise.all(workflows.map((workflow) => tell(api, workflow, fact)));
  await temporalProxy.up();
  await isEmpty();
  for (const workflow of workflows) expect(await factsOf(workflow)).toEqual(['one', 'two', 'three']);
  const [workflow] = workflows as [ReturnType<typeof newWorkflow>];
  await eventually(async () => {
    const rows = await db.query(sql`SELECT 1 FROM spooled_requests`);
    await tell(api, workflow, 'later');
    expect(await db.query(sql`SELECT 1 FROM spooled_requests`)).toHaveLength(rows.length);
  });
  await isEmpty();
});

test('when Temporal stored a signal whose answer was lost, then it is delivered once more, before any later one', async () => {
  const api = startApi();
  const workflow = newWorkflow();
  await tell(api, workflow, 'zero');
  temporalProxy.holdAnswers();
  await tell(api, workflow, 'one');
  await tell(api, workflow, 'two');
  expect(await factsOf(workflow)).toEqual(['zero', 'one']);
  const other = startApi({ isCutOff: false });
  await other.relay();
  await isEmpty();
  temporalProxy.releaseAnswers();
  // The workflow drops the second one by its id.
  expect(await factsOf(workflow)).toEqual(['zero', 'one', 'one', 'two']);
});

test('when several processes relay, then one at a time does, and each request is sent once', async () => {
  const source = startApi();
  await temporalProxy.down();
  const workflows = Array.from({ length: 40 }, newWorkflow);
  await Promise.all(workflows.map((workflow) => tell(source, workflow, workflow.workflowId)));
  const relays = Array.from({ length: 4 }, () => startApi({ isCutOff: false }));
  await Promise.all(relays.map((api) => api.relay()));
  await isEmpty();
  expect(relays.flatMap(({ sends }) => sends).toSorted()).toEqual(workflows.map(({ workflowId }) => workflowId).toSorted());
});

test('when the process that relays loses its session, then another one goes on', async () => {
  const source = startApi();
  await temporalProxy.down();
  const workflow = newWorkflow();
  for (const fact of ['one', 'two']) await tell(source, workflow, fact);
  // It holds the lock, and waits for a Temporal that never answers.
  const frozen = startApi({ isCutOff: false });
  let isSending: () => void = () => undefined;
  const sending = new Promise<void>((resolve) => {
    isSending = resolve;
  });
  let fail: (error: Error) => void = () => undefined;
  await frozen.relay({
    sendNow: () => {
      isSending();
      return new Promise((_resolve, reject) => {
        fail = reject;
      });
    },
  });
  await sending;
  const other = startApi({ isCutOff: false });
  await other.relay();
  expect(await waiting()).toBe(2);
  await db.query(sql`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`);
  await isEmpty();
  expect(await factsOf(workflow)).toEqual(['one', 'two']);
  fail(new Error('too late'));
});

test('when the database is away, then Temporal gets the requests, whether or not something waits', async () => {
  const api = startApi();
  await api.relay();
  const workflow = newWorkflow();
  await postgresProxy.down();
  expect(await secondsOf(tell(api, workflow, 'one'))).toBeLessThan(1);
  expect(await factsOf(workflow)).toEqual(['one']);
});

test('when the database hangs, and nobody can tell whether something waits, then Temporal gets the request', async () => {
  const api = startApi();
  postgresProxy.hang();
  const workflow = newWorkflow();
  await tell(api, workflow, 'one');
  expect(await factsOf(workflow)).toEqual(['one']);
});

test('when both are away, then nothing counts as stored', async () => {
  const api = startApi();
  await Promise.all([temporalProxy.down(), postgresProxy.down()]);
  await expect(tell(api, newWorkflow(), 'one')).rejects.toThrow();
});

test('when the circuit is open, Temporal is back and the database is away, then Temporal gets the request', async () => {
  const api = startApi({ isTemporalCutOff: false, failures: 3 });
  for (let count = 0; count < 3; count += 1) await tell(api, newWorkflow(), 'before');
  await postgresProxy.down();
  const workflow = newWorkflow();
  // At once: the circuit itself would try Temporal again only 2 s later.
  await tell(api, workflow, 'one');
  expect(await factsOf(workflow)).toEqual(['one']);
});

describe('when Temporal rejects a request for good', () => {
  const tooLarge = 'x'.repeat(2_500_000);

  test('then it becomes a dead letter, what follows it is delivered, and others do not wait for it', async () => {
    const api = startApi({ isCutOff: false });
    const [workflow, somebodyElse] = [newWorkflow(), newWorkflow()];
    await tell(api, workflow, tooLarge);
    await tell(api, workflow, 'after');
    expect(await hasSpooledRequest(db, workflow.workflowId)).toBe(true);
    await api.relay({ refusalPauseMs: 50 });
    await tell(api, somebodyElse, 'hello');
    expect(await factsOf(somebodyElse)).toEqual(['hello']);
    await isEmpty();
    expect(await factsOf(workflow)).toEqual(['after']);
    expect(await db.orm.deadLetter.findMany({ where: { source: 'signal' } })).toMatchObject([
      { reason: 'temporal_refused', body: { kind: 'signal_with_start', signal: 'said', start: workflow } },
    ]);
  });

  test('then it waits while the namespace lacks something that every request needs', async () => {
    await db.orm.deadLetter.deleteMany();
    const api = startApi({ isCutOff: false });
    const workflow = newWorkflow();
    await tell(api, workflow, tooLarge);
    let isComplete = false;
    let checks = 0;
    const checkTemporal = async () => {
      checks += 1;
      if (!isComplete) throw new Error('search attributes are missing');
    };
    await api.relay({ refusalPauseMs: 10, checkTemporal });
    await eventually(async () => expect(checks).toBeGreaterThan(3), 20_000);
    expect(await waiting()).toBe(1);
    expect(await db.orm.deadLetter.count()).toBe(0);
    isComplete = true;
    await isEmpty();
    expect(await db.orm.deadLetter.count()).toBe(1);
  });
});

test('when a request has waited for long, then an alert says so, once', async () => {
  const api = startApi();
  await temporalProxy.down();
  await tell(api, newWorkflow(), 'one');
  await db.query(sql`UPDATE spooled_requests SET created_at = now() - interval '10 minutes'`);
  await api.relay({ alertAfterSeconds: 300 });
  await eventually(async () => expect(api.sends.length).toBeGreaterThan(3), 20_000);
  expect(await db.orm.alert.findMany({ where: { cause: 'spool' } })).toMatchObject([
    { text: 'spool: 1 webhook events wait for Temporal, the oldest for 10 min; see why Temporal does not accept them', occurrences: 1 },
  ]);
});
