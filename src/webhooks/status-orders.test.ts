/** Every order in which the facts about a reply can come ends in the same row, and no order takes its status back. */
import { randomUUID } from 'node:crypto';
import type { Client } from '@temporalio/client';
import { Client as PostgresClient } from 'pg';
import { type TestDatabase, testDatabase, testTemporal } from '../../test/support/engine';
import { eventually } from '../../test/support/expectations';
import type { ReportedStatus } from '../../workflows/contract';
import { type Database, openDatabase, sql } from '../platform/database';
import { createLogger } from '../platform/logger';
import { openTemporalClient } from '../platform/temporal';
import { claimReply, joinEarlyReports, keepReports, raiseReply, storeDraft } from '../record/replies';
import { createWorkflowSignaller, signalDeadlineMs } from './signaller';
import { createStatusKeeper, type StatusKeeper } from './statuses';

const PHONE_NUMBER_ID = '1';
const SENT_AT_MS = Math.floor(Date.now() / 1_000) * 1_000;

let database: TestDatabase;
let db: Database;
let temporal: Client;
let keeper: StatusKeeper;
let workspaceId: string;

beforeAll(async () => {
  database = await testDatabase('status_orders');
  db = openDatabase(database.url);
  const { address, namespace } = testTemporal();
  temporal = openTemporalClient({ connectionOptions: { address }, namespace });
  await db.query(REFUSE_TO_GO_BACK);
  await db.query(sql`CREATE TRIGGER never_back BEFORE UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION never_back()`);
  keeper = createStatusKeeper({ db, signaller: createWorkflowSignaller(temporal), logger: createLogger('test', 'silent') });
  ({ id: workspaceId } = await db.orm.workspace.create({ data: { name: 'orders', kapsoPhoneNumberId: PHONE_NUMBER_ID } }));
});
afterAll(async () => {
  await temporal?.connection.close();
  await db?.close();
  await database?.drop();
});

/** Fails every statement that takes a status back, also where the next one would restore it. */
const REFUSE_TO_GO_BACK = sql`
  CREATE FUNCTION never_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.status < OLD.status THEN RAISE EXCEPTION 'the status goes back from % to %', OLD.status, NEW.status; END IF;
    RETURN NEW;
  END $$`;

/** `accepted`: WhatsApp's response to the send. A report with our own id finds the row even before that response. */
type Fact = 'accepted' | ReportedStatus | `${ReportedStatus} with our id`;

/** A reply that is being sent. */
async function aReply() {
  const { id: contactId } = await db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID() } });
  const { id: conversationId } = await db.orm.conversation.create({ data: { workspaceId, contactId, workflowId: randomUUID() } });
  const asked = await db.orm.message.create({
    data: { workspaceId, conversationId, workflowId: 'w', direction: 'inbound', kind: 'text', status: 'received' },
  });
  const costs = { provider: 'p', model: 'm', attempts: 1, latencyMs: 1, promptTokens: 1, completionTokens: 1 };
  const draft = await storeDraft(db, { conversationId, workflowId: 'w', messageIds: [asked.id], texts: ['yes'], ...costs });
  if (!draft) throw new Error('the draft was refused');
  await claimReply(db, draft.messageId);
  return { messageId: draft.messageId, askedId: asked.id, conversationId, providerMessageId: `wamid.${randomUUID()}` };
}

type Reply = Awaited<ReturnType<typeof aReply>>;

async function happen(fact: Fact, { messageId, providerMessageId }: Reply): Promise<void> {
  if (fact === 'accepted') {
    await raiseReply(db, { messageId }, { status: 'sent', phoneNumberId: PHONE_NUMBER_ID, providerMessageId });
    await joinEarlyReports(db, { providerMessageId, phoneNumberId: PHONE_NUMBER_ID });
    return;
  }
  const status = fact.split(' ')[0] as ReportedStatus;
  const correlation = fact.includes('our id') ? { correlationId: messageId } : {};
  const error = status === 'failed' ? { error: { code: 131_026 } } : {};
  const atMs = SENT_AT_MS + ['sent', 'delivered', 'read', 'failed'].indexOf(status) * 1_000;
  const event = { type: 'status', phoneNumberId: PHONE_NUMBER_ID, providerMessageId, status, atMs, ...correlation, ...error } as const;
  await keeper.keep([event as never], signalDeadlineMs());
}

/** What the row and its turn became. Without ids and our own clock. */
async function resultOf({ messageId, askedId, conversationId, providerMessageId }: Reply) {
  const row = await db.orm.message.findUniqueOrThrow({ where: { id: messageId } });
  const asked = await db.orm.message.findUniqueOrThrow({ where: { id: askedId } });
  const conversation = await db.orm.conversation.findUniqueOrThrow({ where: { id: conversationId } });
  return {
    status: row.status,
    failure: row.failure,
    hasId: row.providerMessageId === providerMessageId,
    occurredAtMs: row.occurredAt.getTime(),
    sendAttempts: row.sendAttempts,
    outcome: asked.outcome,
    needsAttention: conversation.needsAttention,
    attention: (conversation.attention as { kind: string; text: string }[]).map(({ kind, text }) => `${kind}: ${text}`),
  };
}

function ordersOf<T>(items: readonly T[]): T[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item, index) => ordersOf(items.toSpliced(index, 1)).map((rest) => [item, ...rest]));
}

async function play(order: Fact[]) {
  const reply = await aReply();
  for (const fact of order) await happen(fact, reply);
  return await resultOf(reply);
}

const READ = {
  status: 'read',
  failure: null,
  hasId: true,
  occurredAtMs: SENT_AT_MS,
  outcome: 'answered',
  needsAttention: false,
  attention: [],
};
const FAILED = {
  ...{ status: 'failed', failure: 'whatsapp 131026', hasId: true, occurredAtMs: SENT_AT_MS, outcome: 'failed', needsAttention: true },
  attention: ['reply_failed: WhatsApp did not deliver a reply: whatsapp 131026'],
};

test.each<[string, Fact[], object]>([
  ['a reply that is read', ['accepted', 'sent', 'delivered', 'read'], READ],
  ['a reply that is read, with a report that is repeated', ['accepted', 'sent', 'sent', 'delivered', 'read'], READ],
  ['a reply that is read, with reports that have our id', ['accepted', 'sent with our id', 'delivered', 'read with our id'], READ],
  ['a reply whose response is lost', ['sent with our id', 'delivered', 'read'], READ],
  ['a reply that fails', ['accepted', 'sent', 'failed'], FAILED],
  ['a reply that fails after all', ['accepted', 'sent', 'delivered', 'failed'], FAILED],
  ['a reply that fails, with reports that have our id', ['accepted', 'sent with our id', 'failed with our id'], FAILED],
])(
  'when the facts of %s come in any order, then the row ends the same, and never goes back',
  async (_what, facts, expected) => {
    const results = await Promise.all(ordersOf(facts).map(async (order) => [order.join(', '), await play(order)]));
    expect(results.length).toBeGreaterThanOrEqual(6);
    const others = results.filter(([, result]) => JSON.stringify(result) !== JSON.stringify({ ...(result as object), ...expected }));
    expect(others).toEqual([]);
  },
  120_000,
);

describe('the time of a report that comes while somebody else writes the row', () => {
  /** Locks the row; `blocked` resolves when another connection waits for it. */
  async function lock({ messageId }: Reply) {
    const client = new PostgresClient({ connectionString: database.url });
    await client.connect();
    await client.query('BEGIN');
    await client.query('SELECT 1 FROM messages WHERE id = $1 FOR UPDATE', [messageId]);
    return {
      blocked: () =>
        eventually(async () => {
          const waiting = sql`SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
          expect(await db.query(waiting)).toHaveLength(1);
        }),
      async release() {
        await client.query('COMMIT');
        await client.end();
      },
    };
  }

  test.each([
    ['sent', ['sent']],
    ['delivered', ['sent', 'delivered']],
  ] as const)('when the row is locked, then reports up to %s wait for it, and the row gets their time', async (status, facts) => {
    const reply = await aReply();
    await happen('accepted', reply);
    const { release } = await lock(reply);
    const reported = Promise.all(facts.map((fact) => happen(fact, reply)));
    const where = { providerMessageId: reply.providerMessageId };
    await eventually(async () => expect(await db.orm.messageStatusEvent.count({ where })).toBe(facts.length));
    await release();
    await reported;
    expect(await resultOf(reply)).toMatchObject({ status, occurredAtMs: SENT_AT_MS });
  });

  test('when the response to the send is being written, then the row gets its time as well', async () => {
    const reply = await aReply();
    const { blocked, release } = await lock(reply);
    const accepted = happen('accepted', reply);
    await blocked();
    // Neither sees the other: the row has no id yet, and the blocked statement began before the report.
    const { providerMessageId } = reply;
    expect([...(await keepReports(db, [{ providerMessageId, status: 'sent', atMs: SENT_AT_MS }]))]).toEqual([]);
    await release();
    await accepted;
    expect(await resultOf(reply)).toMatchObject({ status: 'sent', occurredAtMs: SENT_AT_MS });
  });

  test('when there is no report, then the row has the time at which the send began, not that of the draft', async () => {
    const reply = await aReply();
    await db.orm.message.update({ where: { id: reply.messageId }, data: { occurredAt: new Date(0) } });
    await happen('accepted', reply);
    const row = await db.orm.message.findUniqueOrThrow({ where: { id: reply.messageId } });
    expect(row.occurredAt).toEqual(row.claimedAt);
  });

  test.each([
    ['long before the send', -2 * 3_600_000],
    ['long after it', 25 * 3_600_000],
  ])('when the report is %s, then its time is not believed', async (_when, offMs) => {
    const reply = await aReply();
    await happen('accepted', reply);
    const before = (await resultOf(reply)).occurredAtMs;
    const { providerMessageId } = reply;
    expect((await keepReports(db, [{ providerMessageId, status: 'sent', atMs: SENT_AT_MS + offMs }])).size).toBe(1);
    expect((await resultOf(reply)).occurredAtMs).toBe(before);
  });
});
