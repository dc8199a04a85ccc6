import { randomUUID } from 'node:crypto';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { startProxy } from '../../test/support/proxy';
import { type Database, openDatabase } from '../database';
import { createLogger } from '../logger';
import { openTemporalClient } from '../temporal';
import type { StatusEvent } from './kapso-events';
import { createStatusKeeper, type StatusKeeper } from './statuses';

let database: TestDatabase;
let db: Database;
let conversation: { workspaceId: string; conversationId: string };
/** How many statements the keepers sent. */
let statements = 0;

beforeAll(async () => {
  database = await testDatabase('statuses');
  db = openDatabase(database.url);
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
  await db?.close();
  await database?.drop();
});

/** A keeper as a process has one. No workflow waits for these replies, so Temporal is never called. */
function keeper(its: Database = db): StatusKeeper {
  const counted: Database = {
    ...its,
    query: (statement) => {
      statements += 1;
      return its.query(statement);
    },
  };
  const temporal = openTemporalClient({ namespace: 'default', connectionOptions: {} });
  return createStatusKeeper({ db: counted, temporal, logger: createLogger('test', 'silent') });
}

/** Replies that were sent; their provider ids. */
async function sentReplies(count: number): Promise<string[]> {
  const ids = Array.from({ length: count }, () => `wamid.${randomUUID()}`);
  await db.orm.message.createMany({
    data: ids.map((providerMessageId) => ({ ...conversation, direction: 'outbound', kind: 'text', status: 'sent', providerMessageId })),
  });
  return ids;
}

const report = (providerMessageId: string, status: StatusEvent['status']): StatusEvent => ({
  ...{ type: 'status', phoneNumberId: '1', providerMessageId, status },
  atMs: Date.UTC(2026, 10, 21),
});

async function statusesOf(ids: string[]): Promise<string[]> {
  const rows = await db.orm.message.findMany({ where: { providerMessageId: { in: ids } }, select: { status: true } });
  return rows.map(({ status }) => status);
}

test('when many webhooks bring statuses in a moment, then one statement keeps them all, each event once', async () => {
  const ids = await sentReplies(20);
  const { keep } = keeper();
  await Promise.all(
    ids.flatMap((id) => [keep([report(id, 'read')]), keep([report(id, 'delivered')]), keep([report(id, 'read'), report(id, 'sent')])]),
  );
  expect(statements).toBe(1);
  expect(new Set(await statusesOf(ids))).toEqual(new Set(['read']));
  expect(await db.orm.messageStatusEvent.count({ where: { providerMessageId: { in: ids } } })).toBe(60);
});

test('when more come than one statement takes, then none waits for the next moment, and all are kept', async () => {
  const ids = await sentReplies(250);
  const { keep } = keeper();
  await Promise.all(ids.map((id) => keep([report(id, 'delivered')])));
  expect(statements).toBe(3);
  expect(new Set(await statusesOf(ids))).toEqual(new Set(['delivered']));
});

test('when PostgreSQL refuses one of them, then its webhook fails, and the others are kept', async () => {
  const ids = await sentReplies(3);
  const { keep } = keeper();
  // No text of PostgreSQL's may hold it; the projection lets none through.
  const refused = keep([report('wamid.\0', 'read')]);
  const others = ids.map((id) => keep([report(id, 'read')]));
  await expect(refused).rejects.toThrow();
  await Promise.all(others);
  expect(await statusesOf(ids)).toEqual(['read', 'read', 'read']);
});

test('when PostgreSQL is away, then all of them fail after one attempt, and may come again', async () => {
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

test('when processes keep the same statuses at the same time, in any order, then none waits for another in a circle', async () => {
  const ids = await sentReplies(400);
  const keepers = [keeper(), keeper(), keeper(), keeper()];
  const heights = ['delivered', 'read'] as const;
  for (const status of heights) {
    const orders = [ids, [...ids].reverse(), [...ids].sort(), [...ids].sort().reverse()];
    // Of statements that wait for each other PostgreSQL ends one, and its webhook would fail.
    await Promise.all(keepers.map(({ keep }, index) => keep((orders[index] ?? ids).map((id) => report(id, status)))));
  }
  expect(new Set(await statusesOf(ids))).toEqual(new Set(['read']));
});
