/**
 * How PostgreSQL plans the statements that every message runs, in a new database: it has no statistics then, takes each table for small, and
 * keeps the plan while the table grows. Without care it reads all messages for each message. Not here: statuses, which are written in
 * batches, and turns of several messages, which are rarer.
 */
import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { ANSWER_LIMITS } from '../../test/support/recorder';
import { EXPIRING_ROWS, type ExpiringRows } from '../../workflows/contract';
import type { Database } from '../platform/database';
import { deleteExpired } from './expiry';
import { createIdentity } from './identity';
import { recordDeliveries } from './inbound';
import { findHourBalances } from './message-balance';
import { computeMessageMetrics } from './message-metrics';
import { loadPromptMaterial } from './prompts';
import { claimReply, joinEarlyReports, noteSentTime, raiseReply, storeDraft } from './replies';
import { findSession } from './sessions';
import { clearDelivered, reportUndelivered } from './undelivered';

let database: TestDatabase;
let client: Client;

beforeAll(async () => {
  database = await testDatabase('plans');
  client = new Client({ connectionString: database.url });
  await client.connect();
  const { rows } = await client.query(`
    SELECT i.indexrelid::regclass::text AS name, a.attname AS "firstColumn"
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] WHERE i.indrelid::regclass::text !~ '^pg_'`);
  for (const { name, firstColumn } of rows) firstColumns.set(name, firstColumn);
});

afterAll(async () => {
  await client?.end();
  await database?.drop();
});

interface PlanNode {
  'Node Type': string;
  'Relation Name'?: string;
  'Index Name'?: string;
  'Index Cond'?: string;
  Plans?: PlanNode[];
}

/** The first column of each index, by the index's name. */
const firstColumns = new Map<string, string>();

/** The nodes of a plan that read a table or an index of the record from one end to the other. */
function wholeReads(node: PlanNode): string[] {
  const { 'Node Type': type, 'Relation Name': table, 'Index Name': index, 'Index Cond': condition = '' } = node;
  const isWhole = index === undefined ? type === 'Seq Scan' : !new RegExp(`\\b${firstColumns.get(index)}\\b`).test(condition);
  const own = isWhole ? [`${type} of ${index ?? table}`] : [];
  return [...own, ...(node.Plans ?? []).flatMap(wholeReads)];
}

/**
 * Runs `work` on a database that plans each statement instead of running it, and returns how many there were, and what the
 * plans read as a whole. `row`: the first result.
 */
async function planned(work: (db: Database) => Promise<unknown>, row?: object): Promise<{ statements: number; reads: string[] }> {
  const reads: string[] = [];
  let statements = 0;
  const rowsOf = [row ? [row] : []];
  const query = async ({ text }: { text: string }) => {
    const { rows } = await client.query(`EXPLAIN (GENERIC_PLAN, FORMAT JSON) ${text}`);
    statements += 1;
    reads.push(...wholeReads(rows[0]['QUERY PLAN'][0].Plan));
    return rowsOf.shift() ?? [];
  };
  await work({ query } as unknown as Database);
  return { statements, reads };
}

const messageId = randomUUID();
const conversationId = randomUUID();
const workflow = { phoneNumberId: '1', contactKey: 'a', workflowId: 'conversation-1-a' };

const message = { id: messageId, providerMessageId: 'wamid.1', kind: 'text', text: 'hello', sentAtMs: 0 };
const contact = { phone: '15550100' };
/** What is known of a person who has a conversation. */
const known = {
  workspaceId: randomUUID(),
  conversationId,
  workflowId: workflow.workflowId,
  contactId: 'c',
  phoneContactId: 'c',
  phone: contact.phone,
};

const STEPS: Record<string, (db: Database) => Promise<unknown>> = {
  'the prompt': (db) => loadPromptMaterial(db, { conversationId, workflowId: workflow.workflowId, messageIds: [messageId] }),
  'the draft': (db) => {
    const costs = { attempts: 1, latencyMs: 1, promptTokens: 1, completionTokens: 1 };
    const text = { texts: ['hello'], provider: 'openai', model: 'm' };
    return storeDraft(db, { conversationId, workflowId: workflow.workflowId, messageIds: [messageId], ...text, ...costs });
  },
  'the claim': (db) => claimReply(db, messageId),
  'the result of the send': (db) => raiseReply(db, { messageId }, { status: 'sent', phoneNumberId: '1', providerMessageId: 'wamid.2' }),
  'reports that came early': (db) => joinEarlyReports(db, { providerMessageId: 'wamid.2', phoneNumberId: '1' }),
  'a status': (db) => raiseReply(db, { providerMessageId: 'wamid.2' }, { status: 'delivered', phoneNumberId: '1' }),
  'the time of a status': (db) => noteSentTime(db, 'wamid.2'),
  'the numbers of a day': (db) => computeMessageMetrics(db, { workspaceId: randomUUID(), days: ['2026-11-27'], timeZone: 'Europe/Berlin' }),
  'the balance of a workspace': (db) => findHourBalances(db, { workspaceId: randomUUID(), from: new Date(0), to: new Date(1) }),
};

test.each(Object.entries(STEPS))('when a database is new, then %s reads no table as a whole', async (_step, work) => {
  expect(await planned(work)).toEqual({ statements: 1, reads: [] });
});

test('when a database is new, then recording a message reads no table as a whole', async () => {
  const order = { ...workflow, deliveries: [{ contact, messages: [message] }] };
  const rules = { identity: createIdentity('plans'), answerLimits: ANSWER_LIMITS, hasModel: () => true };
  expect(await planned((db) => recordDeliveries(db, order, rules), known)).toEqual({ statements: 3, reads: [] });
});

test.each([
  'SELECT 1 FROM messages WHERE text = $1',
  'SELECT 1 FROM messages WHERE outcome IS NULL',
  'SELECT 1 FROM messages ORDER BY position DESC LIMIT 1',
])('%s: a plan that reads a table or an index as a whole is noticed', async (text) => {
  expect(await planned((db) => db.query({ text } as never))).toMatchObject({ reads: [expect.any(String)] });
});

// Last, because it fills tables. PostgreSQL reads a small table as a whole, and plans each run again.
test.each(EXPIRING_ROWS)('when there are many %s, then the oldest are deleted without reading the table as a whole', async (kind) => {
  const from = 'FROM generate_series(1, 50000) AS n';
  const at = "now() - n * interval '1 minute'";
  const fill: Record<ExpiringRows, string> = {
    statusEvents: `INSERT INTO message_status_events (provider_message_id, status, occurred_at, created_at) SELECT n, 'sent', now(), ${at} ${from}`,
    callEvents: `INSERT INTO vapi_call_events (provider_call_id, type, occurred_at, created_at) SELECT n, 'hang', now(), ${at} ${from}`,
    parkedMessages: `INSERT INTO parked_messages (phone_number_id, provider_message_id, workflow_id, reason, message, created_at)
      SELECT '1', n, 'w', 'test', '{}', ${at} ${from}`,
    auditEntries: `INSERT INTO audit_entries (actor, action, subject, created_at) SELECT 'a', 'key.created', n, ${at} ${from}`,
    spooledRequests: `INSERT INTO spooled_requests (workflow_id, request, relayed_at) SELECT n, '{}', ${at} ${from}`,
  };
  await client.query(fill[kind]);
  await client.query('ANALYZE');
  expect(await planned((db) => deleteExpired(db, kind, 0, 500))).toEqual({ statements: 1, reads: [] });
});

test('when there are many messages, then the numbers of a day and of an hour read those of that time only', async () => {
  const { rows } = await client.query(`
    WITH workspace AS (INSERT INTO workspaces (name, kapso_phone_number_id) VALUES ('many', 'many') RETURNING id),
      contact AS (INSERT INTO contacts (workspace_id, contact_key) SELECT id, n FROM workspace, generate_series(1, 500) n RETURNING *)
    INSERT INTO conversations (workspace_id, contact_id, workflow_id) SELECT workspace_id, id, contact_key FROM contact
    RETURNING id, workspace_id AS "workspaceId"`);
  const [{ id, workspaceId }] = rows;
  await client.query(
    `INSERT INTO messages (workspace_id, conversation_id, direction, kind, status, outcome, occurred_at)
     SELECT $1, ($2::uuid[])[1 + n % 500], 'inbound', 'text', 'received', 'answered', now() - n * interval '1 minute' FROM generate_series(1, 50000) n`,
    [workspaceId, rows.map((row) => row.id)],
  );
  await client.query('ANALYZE');
  const day = new Date().toISOString().slice(0, 10);
  expect(await planned((db) => computeMessageMetrics(db, { workspaceId, days: [day], timeZone: 'UTC' }))).toEqual({
    statements: 1,
    reads: [],
  });
  const range = { from: new Date(Date.now() - 86_400_000), to: new Date() };
  expect(await planned((db) => findHourBalances(db, { workspaceId, ...range }))).toEqual({ statements: 1, reads: [] });
  // Of all workspaces: only their own table is read as a whole.
  const { reads } = await planned((db) => findHourBalances(db, { workspaceId: undefined, ...range }));
  const ofMessages = (all: string[]) => all.filter((read) => read.includes('messages'));
  expect(ofMessages(reads)).toEqual([]);
  expect(ofMessages((await planned((db) => reportUndelivered(db, 60))).reads)).toEqual([]);
  expect(ofMessages((await planned((db) => clearDelivered(db, 60))).reads)).toEqual([]);
  expect(ofMessages((await planned((db) => findSession(db, id, workspaceId))).reads)).toEqual([]);
});
