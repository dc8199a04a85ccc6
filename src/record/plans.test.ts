/**
 * How PostgreSQL plans the statements that every message runs, in a new database: it has no statistics then, takes each table for small, and
 * keeps the plan while the table grows. Without care it reads all messages for each message.
 */
import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import type { Database } from '../platform/database';
import { createIdentity } from './identity';
import { recordDeliveries } from './inbound';
import { loadPromptMaterial } from './prompts';
import { claimReply, joinEarlyReports, raiseReply, storeDraft } from './replies';

let database: TestDatabase;
let client: Client;

beforeAll(async () => {
  database = await testDatabase('plans');
  client = new Client({ connectionString: database.url });
  await client.connect();
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

/** The nodes of a plan that read a table of the record as a whole, or an index from its beginning to its end. */
function wholeReads(node: PlanNode): string[] {
  const table = node['Relation Name'];
  const isWhole = node['Node Type'] === 'Seq Scan' && table !== undefined && !table.startsWith('parked');
  // The first column of every index on messages, but for the ones of a single column, is one of these.
  const skipsFirst =
    node['Index Name'] === 'messages_conversation_id_direction_outcome_idx' && !node['Index Cond']?.includes('conversation_id');
  const own = isWhole || skipsFirst ? [`${node['Node Type']} of ${table ?? node['Index Name']}`] : [];
  return [...own, ...(node.Plans ?? []).flatMap(wholeReads)];
}

/** Runs `work` on a database that plans each statement instead of running it, and returns what the plans read as a whole. `row`: the first result. */
async function planned(work: (db: Database) => Promise<unknown>, row?: object): Promise<string[]> {
  const found: string[] = [];
  const rowsOf = [row ? [row] : []];
  const query = async ({ text }: { text: string }) => {
    const { rows } = await client.query(`EXPLAIN (GENERIC_PLAN, FORMAT JSON) ${text}`);
    found.push(...wholeReads(rows[0]['QUERY PLAN'][0].Plan));
    return rowsOf.shift() ?? [];
  };
  await work({ query } as unknown as Database);
  return found;
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
    const text = { text: 'hello', provider: 'openai', model: 'm' };
    return storeDraft(db, { conversationId, workflowId: workflow.workflowId, messageIds: [messageId], ...text, ...costs });
  },
  'the claim': (db) => claimReply(db, messageId),
  'the result of the send': (db) => raiseReply(db, { messageId }, { status: 'sent', phoneNumberId: '1', providerMessageId: 'wamid.2' }),
  'reports that came early': (db) => joinEarlyReports(db, { providerMessageId: 'wamid.2', phoneNumberId: '1' }),
  'a status': (db) => raiseReply(db, { providerMessageId: 'wamid.2' }, { status: 'delivered', phoneNumberId: '1' }),
};

test.each(Object.entries(STEPS))('when a database is new, then %s reads no table as a whole', async (_step, work) => {
  expect(await planned(work)).toEqual([]);
});

test('when a database is new, then recording a message reads no table as a whole', async () => {
  const order = { ...workflow, deliveries: [{ contact, messages: [message] }] };
  expect(await planned((db) => recordDeliveries(db, order, createIdentity('plans')), known)).toEqual([]);
});

test('a plan that reads all messages is noticed', async () => {
  const reads = await planned((db) => db.query({ text: 'SELECT 1 FROM messages WHERE outcome IS NULL' } as never));
  expect(reads).toHaveLength(1);
});
