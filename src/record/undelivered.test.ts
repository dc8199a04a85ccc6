/** Messages that are sent and not delivered are reported once, whoever looks, and no longer once they are delivered. */
import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { eventually } from '../../test/support/expectations';
import { type Database, openDatabase, sql } from '../platform/database';
import { keepReports } from './replies';
import { clearDelivered, reportUndelivered } from './undelivered';

let database: TestDatabase;
let db: Database;
let conversationId: string;
let place: { workspaceId: string; conversationId: string };

beforeAll(async () => {
  database = await testDatabase('undelivered');
  db = openDatabase(database.url);
});
beforeEach(async () => {
  await db.orm.conversation.deleteMany();
  const { id: workspaceId } = await db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: randomUUID() } });
  const { id: contactId } = await db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID() } });
  ({ id: conversationId } = await db.orm.conversation.create({ data: { workspaceId, contactId, workflowId: randomUUID() } }));
  place = { workspaceId, conversationId };
  await db.orm.alert.deleteMany();
  await db.orm.installation.updateMany({ data: { deliveriesCheckedUntil: new Date(Date.now() - 10 * 3_600_000) } });
});
afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const HOUR_MINUTES = 60;
const sentAgo = async (minutes: number, fields: object = {}) => {
  const occurredAt = new Date(Date.now() - minutes * 60_000);
  const providerMessageId = `wamid.${randomUUID()}`;
  await db.orm.message.create({
    data: { ...place, direction: 'outbound', kind: 'text', status: 'sent', occurredAt, providerMessageId, ...fields },
  });
  return providerMessageId;
};
const attention = async () => {
  const row = await db.orm.conversation.findUniqueOrThrow({ where: { id: conversationId } });
  return { needsAttention: row.needsAttention, kinds: (row.attention as { kind: string }[]).map(({ kind }) => kind) };
};

test('when a message is not delivered in time, then its conversation asks for attention, once for all that is late, with an alert', async () => {
  await sentAgo(61);
  await sentAgo(90);
  await sentAgo(59);
  expect(await reportUndelivered(db, HOUR_MINUTES)).toEqual([conversationId]);
  expect(await attention()).toEqual({ needsAttention: true, kinds: ['undelivered'] });
  expect(await db.orm.alert.findMany()).toMatchObject([
    {
      text: 'undelivered: a message was sent 1 hour ago, and is still not delivered',
      subject: `conversation ${conversationId}`,
      occurrences: 1,
    },
  ]);
});

test('when many processes look at once, and again, then every message is reported once', async () => {
  await sentAgo(61);
  const holder = new Client({ connectionString: database.url });
  await holder.connect();
  await holder.query('BEGIN');
  await holder.query('SELECT 1 FROM installation FOR UPDATE');
  const found = Promise.all(Array.from({ length: 5 }, () => reportUndelivered(db, HOUR_MINUTES)));
  // All of them have begun, and wait for the row.
  await eventually(async () => {
    const waiting = sql`SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    expect(await db.query(waiting)).toHaveLength(5);
  });
  await holder.query('COMMIT');
  await holder.end();
  expect((await found).flat()).toEqual([conversationId]);
  expect(await reportUndelivered(db, HOUR_MINUTES)).toEqual([]);
});

test.each([
  ['delivered', { status: 'delivered' }],
  ['failed', { status: 'failed' }],
  ['in doubt', { status: 'unconfirmed' }],
  ['older than the last look', { occurredAt: new Date(Date.now() - 11 * 3_600_000) }],
] as const)('when the message is %s, then nothing is reported', async (_what, fields) => {
  await sentAgo(61, fields);
  expect(await reportUndelivered(db, HOUR_MINUTES)).toEqual([]);
  expect(await attention()).toEqual({ needsAttention: false, kinds: [] });
});

test('when nobody has looked before, then old messages are not reported, and later ones are', async () => {
  await db.orm.installation.updateMany({ data: { deliveriesCheckedUntil: null } });
  await sentAgo(61);
  expect(await reportUndelivered(db, HOUR_MINUTES)).toEqual([]);
  await db.query(sql`UPDATE installation SET deliveries_checked_until = deliveries_checked_until - interval '5 minutes'`);
  expect(await reportUndelivered(db, HOUR_MINUTES)).toEqual([conversationId]);
});

test('when everything is delivered after all, then the reason goes, and no other one', async () => {
  const late = [await sentAgo(61), await sentAgo(70)];
  await reportUndelivered(db, HOUR_MINUTES);
  await db.query(sql`
    UPDATE conversations SET attention = attention || '[{"kind": "loop", "since": "2026-11-27T00:00:00.000Z", "text": "x"}]' WHERE id = ${conversationId}::uuid`);
  for (const [index, providerMessageId] of late.entries()) {
    expect(await clearDelivered(db, HOUR_MINUTES)).toBe(0);
    await keepReports(db, [{ providerMessageId, status: index === 0 ? 'delivered' : 'read', atMs: Date.now() }]);
  }
  await sentAgo(5);
  expect(await clearDelivered(db, HOUR_MINUTES)).toBe(1);
  expect(await attention()).toEqual({ needsAttention: true, kinds: ['loop'] });
});
