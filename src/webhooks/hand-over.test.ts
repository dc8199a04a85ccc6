/** Hands verified events to a real Temporal and PostgreSQL. */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, type WorkflowClientInterceptor } from '@temporalio/client';
import { type TestDatabase, testDatabase, testTemporal } from '../../test/support/engine';
import { eventually } from '../../test/support/expectations';
import { startProxy } from '../../test/support/proxy';
import type { ContactIdentity, LateEvents, MessagesReceived } from '../../workflows/contract';
import { readSettings } from '../platform/config';
import { type Database, openDatabase, sql } from '../platform/database';
import { createLogger } from '../platform/logger';
import { openTemporalClient } from '../platform/temporal';
import { ensureSearchAttributes } from '../processes/search-attributes';
import { type MessageEvent, readKapsoJson, type StatusEvent } from '../providers/kapso/events';
import { createIdentity } from '../record/identity';
import { type HandOverDependencies, handOver, NotStoredError } from './hand-over';
import { createWorkflowSignaller, SIGNAL_TIMEOUT_MS } from './signaller';
import { createStatusKeeper } from './statuses';
import { createLateEventTaker } from './take-late-events';

let database: TestDatabase;
let db: Database;
let temporal: Client;
let dependencies: HandOverDependencies;
const started: string[] = [];

beforeAll(async () => {
  database = await testDatabase('hand_over');
  db = openDatabase(database.url);
  const { address, namespace } = testTemporal();
  temporal = openTemporalClient({ connectionOptions: { address }, namespace });
  await ensureSearchAttributes(temporal);
  dependencies = dependenciesWith(temporal);
});

afterAll(async () => {
  await Promise.allSettled(started.map((workflowId) => temporal.workflow.getHandle(workflowId).terminate('the test is over')));
  await temporal?.connection.close();
  await db?.close();
  await database?.drop();
});

/** Nobody works on the task queue: what matters here is what Temporal has stored. */
function dependenciesWith(client: Client, its: Database = db): HandOverDependencies {
  const logger = createLogger('test', 'silent');
  const signaller = createWorkflowSignaller(client);
  return {
    signaller,
    taskQueue: 'nobody-works-here',
    db: its,
    identity: createIdentity('key'),
    logger,
    statuses: createStatusKeeper({ db: its, signaller, logger }),
    defaultPhoneNumberId: undefined,
  };
}

const nothing = { messages: [], statuses: [], letters: [] };

/** A business number of a test's own, so that its conversations are its own. */
const newNumberId = () => `number-${randomUUID()}`;

function messageOf(phoneNumberId: string, contact: ContactIdentity, text: string, sentAtMs: number): MessageEvent {
  return { type: 'message', phoneNumberId, contact, message: { providerMessageId: `wamid.${text}`, kind: 'text', text, sentAtMs } };
}

/** Hands messages over; returns what their conversations were signalled, in order. */
async function signalled(messages: MessageEvent[]): Promise<MessagesReceived[]> {
  const workflowIds = new Set((await handOver({ ...nothing, messages }, dependencies)).map(({ workflowId }) => workflowId));
  started.push(...workflowIds);
  const histories = await Promise.all([...workflowIds].map((workflowId) => temporal.workflow.getHandle(workflowId).fetchHistory()));
  return histories.flatMap(({ events }) =>
    (events ?? []).flatMap(({ workflowExecutionSignaledEventAttributes: signal }) =>
      (signal?.input?.payloads ?? []).map(({ data }) => JSON.parse(Buffer.from(data ?? []).toString()) as MessagesReceived),
    ),
  );
}

const textsOf = (received: MessagesReceived) => received.messages.map(({ text }) => text);

describe('messages of a webhook', () => {
  test('when they come in another order than they were sent, an old one once more, then they are signalled in the order of the sender', async () => {
    const numberId = newNumberId();
    const ana = (text: string, sentAtMs: number) => messageOf(numberId, { phone: '15550100' }, text, sentAtMs);
    const [received, ...others] = await signalled([ana('two', 2_000), ana('three a', 3_000), ana('three b', 3_000), ana('one', 1_000)]);
    expect(others).toEqual([]);
    expect(received && textsOf(received)).toEqual(['one', 'two', 'three a', 'three b']);
  });

  test('when each tells something else of the person, then all of it is signalled, the newest of what changed', async () => {
    const numberId = newNumberId();
    const phone = '15550101';
    const received = await signalled([
      messageOf(numberId, { phone, name: 'Ana', username: 'ana' }, 'two', 2_000),
      messageOf(numberId, { phone }, 'three', 3_000),
      messageOf(numberId, { phone, businessScopedUserId: 'BR.1', name: 'A.' }, 'one', 1_000),
    ]);
    expect(received.map(({ contact }) => contact)).toEqual([{ phone, businessScopedUserId: 'BR.1', name: 'Ana', username: 'ana' }]);
  });

  test('when one number comes with two ids, then those are two people, and each message is signalled with its own', async () => {
    const numberId = newNumberId();
    const phone = '15550102';
    const received = await signalled([
      messageOf(numberId, { phone, businessScopedUserId: 'BR.2', name: 'Bob' }, 'three', 3_000),
      messageOf(numberId, { phone }, 'one', 1_000),
      messageOf(numberId, { phone, businessScopedUserId: 'BR.1', name: 'Ana' }, 'two', 2_000),
      messageOf(numberId, { phone }, 'four', 4_000),
    ]);
    expect(received.map((each) => [each.contact, textsOf(each)])).toEqual([
      [{ phone, businessScopedUserId: 'BR.1', name: 'Ana' }, ['one', 'two']],
      [{ phone, businessScopedUserId: 'BR.2', name: 'Bob' }, ['three', 'four']],
    ]);
  });

  test('when they are too long for a signal, then there are several, in order', async () => {
    const numberId = newNumberId();
    const long = (text: string, sentAtMs: number): MessageEvent => {
      const event = messageOf(numberId, { phone: '15550103' }, text, sentAtMs);
      return { ...event, message: { ...event.message, payload: { filler: 'x'.repeat(200_000) } } };
    };
    const received = await signalled([long('three', 3), long('one', 1), long('two', 2)]);
    expect(received.map(textsOf)).toEqual([['one', 'two'], ['three']]);
  });
});

describe('time', () => {
  /** Temporal, each of whose answers comes so much later. */
  function slowTemporal(delayMs: number): Client {
    const slow = async <Input, Output>(input: Input, next: (input: Input) => Promise<Output>): Promise<Output> => {
      await delay(delayMs);
      return await next(input);
    };
    const interceptor: WorkflowClientInterceptor = { signal: slow, signalWithStart: slow };
    return new Client({
      connection: temporal.connection,
      namespace: temporal.options.namespace,
      interceptors: { workflow: [interceptor] },
    });
  }

  test('when each signal is fast enough but all together are not, then the webhook fails after the common timeout', async () => {
    const numberId = newNumberId();
    // 20 at once: five rounds.
    const messages = Array.from({ length: 100 }, (_, index) => messageOf(numberId, { phone: `1555${index}` }, String(index), index));
    const startedAtMs = Date.now();
    await expect(handOver({ ...nothing, messages }, dependenciesWith(slowTemporal(500)))).rejects.toBeInstanceOf(NotStoredError);
    expect(Date.now() - startedAtMs).toBeLessThan(SIGNAL_TIMEOUT_MS + 700);
  });

  test('when several statuses must be signalled and Temporal hangs, then the webhook waits for a single timeout', async () => {
    const phoneNumberId = newNumberId();
    const { id: workspaceId } = await db.orm.workspace.create({ data: { name: 'slow', kapsoPhoneNumberId: phoneNumberId } });
    const { id: contactId } = await db.orm.contact.create({ data: { workspaceId, contactKey: 'somebody' } });
    const workflowId = `conversation-slow-${randomUUID()}`;
    const { id: conversationId } = await db.orm.conversation.create({ data: { workspaceId, contactId, workflowId } });
    const statuses: StatusEvent[] = [];
    for (let index = 0; index < 6; index += 1) {
      const { id } = await db.orm.message.create({
        data: { workspaceId, conversationId, direction: 'outbound', kind: 'text', status: 'unconfirmed' },
      });
      statuses.push({ type: 'status', phoneNumberId, providerMessageId: `wamid.${id}`, status: 'sent', atMs: 1, correlationId: id });
    }
    const { address, namespace } = testTemporal();
    const proxy = await startProxy(address);
    const hanging = openTemporalClient({ connectionOptions: { address: `127.0.0.1:${proxy.port}` }, namespace });
    try {
      proxy.hang();
      const startedAtMs = Date.now();
      await handOver({ ...nothing, statuses }, dependenciesWith(hanging));
      expect(Date.now() - startedAtMs).toBeLessThan(2 * SIGNAL_TIMEOUT_MS);
    } finally {
      await hanging.connection.close();
      await proxy.close();
    }
    // Facts about rows: they stand, told or not.
    expect(await db.orm.message.count({ where: { conversationId, status: 'sent' } })).toBe(6);
  });
});

describe('what the database rejects', () => {
  const status = (providerMessageId: string): StatusEvent => ({
    type: 'status',
    phoneNumberId: '1',
    providerMessageId,
    status: 'sent',
    atMs: 1_000,
  });

  test('when it rejects statuses for good, then they become dead letters that read as the same statuses', async () => {
    await db.query(sql`ALTER TABLE message_status_events ADD CONSTRAINT refusing CHECK (provider_message_id <> 'refused')`);
    const failed: StatusEvent = {
      ...status('refused'),
      status: 'failed',
      correlationId: 'x',
      error: { code: 131026, title: 'undeliverable' },
    };
    const others = { ...status('other'), phoneNumberId: '2' };
    await handOver({ ...nothing, statuses: [failed, others] }, dependencies);
    const letters = await db.orm.deadLetter.findMany({ orderBy: { phoneNumberId: 'asc' } });
    expect(letters).toMatchObject([
      { source: 'kapso', reason: 'record_refused', phoneNumberId: '1' },
      { source: 'kapso', reason: 'record_refused', phoneNumberId: '2' },
    ]);
    expect(letters.map(({ body }) => readKapsoJson(body))).toEqual([[failed], [others]]);
  });

  test('when it is away, then Temporal keeps statuses and dead letters, once each, and they read as the same', async () => {
    const away = openDatabase('postgresql://nobody@127.0.0.1:1/none');
    const taskQueue = `nobody-${randomUUID()}`;
    const itsDependencies = { ...dependenciesWith(temporal, away), taskQueue };
    const letter = { source: 'kapso', reason: 'unreadable', detail: 'odd', body: { message: { odd: 1 } }, event: 'odd.event' } as const;
    const bytes = { source: 'kapso', reason: 'not_json', detail: 'odd', body: Buffer.from([0, 255]) } as const;
    const statuses = [status('w'), { ...status('w'), phoneNumberId: '2' }];
    for (let time = 0; time < 2; time += 1) await handOver({ ...nothing, statuses, letters: [letter, bytes] }, itsDependencies);
    const kept = await eventually(async () => {
      const inputs: LateEvents[] = [];
      for await (const { workflowId } of temporal.workflow.list({ query: `TaskQueue = '${taskQueue}'` })) {
        started.push(workflowId);
        const { events } = await temporal.workflow.getHandle(workflowId).fetchHistory();
        const [input] = events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads ?? [];
        inputs.push(JSON.parse(Buffer.from(input?.data ?? []).toString()));
      }
      expect(inputs).toHaveLength(4);
      return inputs;
    });
    await away.close();
    expect(kept).toContainEqual({ source: 'kapso', event: 'odd.event', body: { json: letter.body } });
    expect(kept).toContainEqual({ source: 'kapso', body: { base64: bytes.body.toString('base64') } });
    const take = createLateEventTaker(readSettings({}), dependencies);
    for (const events of kept) await take(events);
    expect(await db.orm.messageStatusEvent.count({ where: { providerMessageId: 'w' } })).toBe(1);
    const letters = await db.orm.deadLetter.findMany({
      where: { reason: { in: ['not_json', 'direction_unknown', 'no_id', 'unreadable'] } },
    });
    expect(letters).toHaveLength(2);
  });

  test('when it is away and Temporal as well, then nothing counts as stored', async () => {
    const away = openDatabase('postgresql://nobody@127.0.0.1:1/none');
    const unreachable = openTemporalClient({ connectionOptions: { address: '127.0.0.1:1' }, namespace: 'default' });
    const itsDependencies = dependenciesWith(unreachable, away);
    const letter = { source: 'kapso', reason: 'unreadable', detail: 'odd', body: 1 } as const;
    await expect(handOver({ ...nothing, statuses: [status('w')] }, itsDependencies)).rejects.toBeInstanceOf(NotStoredError);
    await expect(handOver({ ...nothing, letters: [letter] }, itsDependencies)).rejects.toBeInstanceOf(NotStoredError);
    await unreachable.connection.close();
    await away.close();
  });
});
