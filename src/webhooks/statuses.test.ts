import { randomUUID } from 'node:crypto';
import type { Client } from '@temporalio/client';
import { Client as PostgresClient } from 'pg';
import { type TestDatabase, testDatabase, testTemporal } from '../../test/support/engine';
import { startProxy } from '../../test/support/proxy';
import { type Database, openDatabase } from '../platform/database';
import { createLogger } from '../platform/logger';
import { openTemporalClient } from '../platform/temporal';
import { raiseReply } from '../record/replies';
import { createWorkflowSignaller, signalDeadlineMs } from './signaller';
import { createStatusKeeper, type NumberedStatus } from './statuses';

let database: TestDatabase;
let db: Database;
let temporal: Client;
let conversation: { workspaceId: string; conversationId: string };
/** How many statements the keepers sent. */
let statements = 0;

beforeAll(async () => {
  database = await testDatabase('statuses');
  db = openDatabase(database.url);
  const { address, namespace } = testTemporal();
  temporal = openTemporalClient({ connectionOptions: { address }, namespace });
  const workspace = await db.orm.workspace.create({ data: { name: 'statuses', kapsoPhoneNumberId: '1' } });
  const contact = await db.orm.contact.create({ data: { workspaceId: workspace.id, contactKey: 'somebody' } });
  const { id } = await db.orm.conversation.create({
    data: { workspaceId: workspace.id, contactId: contact.id, workflowId: 'nobody-waits' },
  });
  conversation = { workspaceId: workspace.id, conversationId: id };
});

beforeEach(() => {
  statements = 0;
});

afterAll(async () => {
  await temporal?.connection.close();
  await db?.close();
  await database?.drop();
});

interface TestKeeper {
  keep(statuses: NumberedStatus[]): Promise<void>;
}

/** A keeper as a process has one. No workflow waits for these replies: Temporal says so, and that is no failure. */
function keeper(its: Database = db): TestKeeper {
  const counted: Database = {
    ...its,
    query: (statement) => {
      statements += 1;
      return its.query(statement);
    },
  };
  const { keep } = createStatusKeeper({
    db: counted,
    signaller: createWorkflowSignaller(temporal),
    logger: createLogger('test', 'silent'),
  });
  return { keep: (statuses) => keep(statuses, signalDeadlineMs()) };
}

/** Replies that were sent; their provider ids. */
async function sentReplies(count: number): Promise<string[]> {
  const ids = Array.from({ length: count }, () => `wamid.${randomUUID()}`);
  await db.orm.message.createMany({
    data: ids.map((providerMessageId) => ({ ...conversation, direction: 'outbound', kind: 'text', status: 'sent', providerMessageId })),
  });
  return ids;
}

const report = (providerMessageId: string, status: NumberedStatus['status']): NumberedStatus => ({
  ...{ type: 'status', phoneNumberId: '1', providerMessageId, status },
  atMs: Date.UTC(2026, 10, 21),
});

async function statusesOf(ids: string[]): Promise<string[]> {
  const rows = await db.orm.message.findMany({ where: { providerMessageId: { in: ids } }, select: { status: true } });
  return rows.map(({ status }) => status);
}

test('when many webhooks bring statuses at once, then one statement stores them all, each event once', async () => {
  const ids = await sentReplies(20);
  const { keep } = keeper();
  await Promise.all(
    ids.flatMap((id) => [keep([report(id, 'read')]), keep([report(id, 'delivered')]), keep([report(id, 'read'), report(id, 'sent')])]),
  );
  expect(statements).toBe(1);
  expect(new Set(await statusesOf(ids))).toEqual(new Set(['read']));
  expect(await db.orm.messageStatusEvent.count({ where: { providerMessageId: { in: ids } } })).toBe(60);
});

test('when more arrive than fit into one statement, then they are written without waiting, and all are stored', async () => {
  const ids = await sentReplies(250);
  const { keep } = keeper();
  await Promise.all(ids.map((id) => keep([report(id, 'delivered')])));
  expect(statements).toBe(3);
  expect(new Set(await statusesOf(ids))).toEqual(new Set(['delivered']));
});

test('when PostgreSQL rejects one of them, then its webhook fails, and the others are stored', async () => {
  const ids = await sentReplies(3);
  const { keep } = keeper();
  // No text of PostgreSQL's may hold it; the projection lets none through.
  const refused = keep([report('wamid.\0', 'read')]);
  const others = ids.map((id) => keep([report(id, 'read')]));
  await expect(refused).rejects.toThrow();
  await Promise.all(others);
  expect(await statusesOf(ids)).toEqual(['read', 'read', 'read']);
});

test('when PostgreSQL is down, then all of them fail after one attempt, and can be retried', async () => {
  const ids = await sentReplies(5);
  const proxy = await startProxy(new URL(database.url).host);
  const url = new URL(database.url);
  url.host = `127.0.0.1:${proxy.port}`;
  const its = openDatabase(url.href);
  try {
    await proxy.down();
    const { keep } = keeper(its);
    const settled = await Promise.allSettled(ids.map((id) => keep([report(id, 'read')])));
    expect([statements, ...settled.map(({ status }) => status)]).toEqual([1, ...ids.map(() => 'rejected')]);
    await proxy.up();
    await Promise.all(ids.map((id) => keep([report(id, 'read')])));
    expect(new Set(await statusesOf(ids))).toEqual(new Set(['read']));
  } finally {
    await its.close();
    await proxy.close();
  }
});

/** A reply whose send has no response yet, so the database does not have WhatsApp's id. Returns our id. */
async function unconfirmedReply(): Promise<string> {
  const { id } = await db.orm.message.create({ data: { ...conversation, direction: 'outbound', kind: 'text', status: 'unconfirmed' } });
  return id;
}

test.each([
  ['from two webhooks of a moment', (events: NumberedStatus[], { keep }: TestKeeper) => Promise.all(events.map((event) => keep([event])))],
  ['from one webhook', (events: NumberedStatus[], { keep }: TestKeeper) => keep(events)],
])('when only one of the reports names our id, and they come %s, then it settles the reply all the same', async (_from, bring) => {
  const ours = keeper();
  for (const [withId, without] of [
    ['sent', 'read'],
    ['delivered', 'delivered'],
    ['read', 'sent'],
  ] as const) {
    for (const isFirst of [true, false]) {
      const [correlationId, providerMessageId] = [await unconfirmedReply(), `wamid.${randomUUID()}`];
      const events = [{ ...report(providerMessageId, withId), correlationId }, report(providerMessageId, without)];
      await bring(isFirst ? events : events.reverse(), ours);
      const { status } = await db.orm.message.findUniqueOrThrow({ where: { id: correlationId } });
      expect(status).toBe([withId, without].includes('read') ? 'read' : 'delivered');
    }
  }
});

test('when a row is locked, then only its own status waits, and is stored', async () => {
  const [held, ...others] = (await sentReplies(5)) as [string, ...string[]];
  const { keep } = keeper();
  const client = new PostgresClient({ connectionString: database.url });
  await client.connect();
  await client.query('BEGIN');
  await client.query('SELECT 1 FROM messages WHERE provider_message_id = $1 FOR UPDATE', [held]);
  let isHeldKept = false;
  const waiting = keep([report(held, 'read')]).then(() => {
    isHeldKept = true;
  });
  await Promise.all(others.map((id) => keep([report(id, 'read')])));
  expect([isHeldKept, new Set(await statusesOf(others))]).toEqual([false, new Set(['read'])]);
  await client.query('COMMIT');
  await client.end();
  await waiting;
  expect(await statusesOf([held])).toEqual(['read']);
});

test.each([
  ['ours', () => sentReplies(400)],
  // Their reports are kept all the same: the row may come later.
  ['not known', async () => Array.from({ length: 400 }, () => `wamid.${randomUUID()}`)],
])('when processes keep statuses of messages that are %s at once, in any order, then none waits in a circle', async (_whose, make) => {
  const ids = await make();
  const keepers = [keeper(), keeper(), keeper(), keeper()];
  const heights = ['delivered', 'read'] as const;
  for (const status of heights) {
    const orders = [ids, [...ids].reverse(), [...ids].sort(), [...ids].sort().reverse()];
    // Of statements that wait for each other PostgreSQL ends one, and its webhook would fail.
    await Promise.all(keepers.map(({ keep }, index) => keep((orders[index] ?? ids).map((id) => report(id, status)))));
  }
  expect(await db.orm.messageStatusEvent.count({ where: { providerMessageId: { in: ids } } })).toBe(2 * ids.length);
});

test('when a reply is told a lower status than it has, then it stays as high at any time', async () => {
  const [providerMessageId = ''] = await sentReplies(1);
  await raiseReply(db, { providerMessageId }, { status: 'read', phoneNumberId: '1' });
  expect(await raiseReply(db, { providerMessageId }, { status: 'delivered', phoneNumberId: '1' })).toBeNull();
  expect(await statusesOf([providerMessageId])).toEqual(['read']);
});

test('when WhatsApp’s id arrives after a status, then it is stored, and the status stays', async () => {
  const { id: messageId } = await db.orm.message.create({
    data: { ...conversation, direction: 'outbound', kind: 'text', status: 'delivered' },
  });
  const providerMessageId = `wamid.${randomUUID()}`;
  await raiseReply(db, { messageId }, { status: 'sent', phoneNumberId: '1', providerMessageId });
  expect(await statusesOf([providerMessageId])).toEqual(['delivered']);
  await raiseReply(db, { messageId }, { status: 'read', phoneNumberId: '1', providerMessageId: 'wamid.another' });
  expect(await statusesOf([providerMessageId])).toEqual(['read']);
});
