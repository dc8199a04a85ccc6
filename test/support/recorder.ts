/** Stands in for workflows that record: records what it is given, and passes the rest on. With the real database, and without Temporal. */
import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { type Database, openDatabase, sql } from '../../src/platform/database';
import { createIdentity } from '../../src/record/identity';
import { type RecordedDeliveries, recordDeliveries } from '../../src/record/inbound';
import { type ContactIdentity, conversationWorkflowId, type InboundMessage, type MessagesReceived } from '../../workflows/contract';
import { testDatabase } from './engine';
import { eventually } from './expectations';

export interface Workflow {
  phoneNumberId: string;
  contactKey: string;
  workflowId: string;
}

/** What became of a message. */
export interface Received {
  workflow: Workflow;
  conversationId: string;
  answerableIds: string[];
  /** How many workflows handed it on. */
  handedOver: number;
}

const identity = createIdentity('test');

/** The defaults of the settings. */
export const ANSWER_LIMITS = { withinMs: 12 * 3_600_000, repliesPerHour: 60 };

/** The workflow that a webhook would signal. */
export function workflowOf(phoneNumberId: string, contact: ContactIdentity): Workflow {
  const contactKey = identity.contactKey(phoneNumberId, contact);
  return { phoneNumberId, contactKey, workflowId: conversationWorkflowId(phoneNumberId, contactKey) };
}

let clockMs = Date.now() - 6 * 3_600_000;

/** Each is written a second after the one before. */
export function message(text: string, fields: Partial<InboundMessage> = {}): InboundMessage {
  clockMs += 1_000;
  return { id: randomUUID(), providerMessageId: `wamid.${randomUUID()}`, kind: 'text', text, sentAtMs: clockMs, ...fields };
}

/** A person, and what messages may say of them. */
export function newPerson() {
  const phone = `1555${randomUUID().replace(/\D/g, '').padEnd(7, '0').slice(0, 7)}`;
  const businessScopedUserId = `US.${randomUUID()}`;
  return { number: { phone }, id: { businessScopedUserId }, both: { phone, businessScopedUserId } };
}

type Recorder = Awaited<ReturnType<typeof openRecorder>>;

/** A database of its own; `name` begins its name (a-z, 0-9, _). */
async function openRecorder(name: string) {
  const database = await testDatabase(name);
  let statements = 0;
  const db: Database = openDatabase(database.url, {
    onQuery: () => {
      statements += 1;
    },
  });

  async function record(workflow: Workflow, ...deliveries: MessagesReceived[]): Promise<RecordedDeliveries & { kind: 'recorded' }> {
    const recorded = await recordDeliveries(
      db,
      { ...workflow, deliveries },
      { identity, answerLimits: ANSWER_LIMITS, hasModel: () => true },
    );
    if (recorded.kind !== 'recorded') throw new Error('the workspace is not there');
    return recorded;
  }

  return {
    db,
    url: database.url,
    record,
    /** Statements so far, of every kind. */
    statements: () => statements,

    /** A workspace that answers. */
    async newWorkspace(): Promise<{ id: string; phoneNumberId: string }> {
      const phoneNumberId = `1${randomUUID().slice(0, 8)}`;
      const settings = { create: { chatbotEnabled: true, aiEnabled: true } };
      const { id } = await db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: phoneNumberId, settings } });
      return { id, phoneNumberId };
    },

    /** What becomes of a webhook's message, through as many workflows as it takes. */
    async receive(phoneNumberId: string, contact: ContactIdentity, ...messages: InboundMessage[]): Promise<Received> {
      let workflow = workflowOf(phoneNumberId, contact);
      for (let handedOver = 0; handedOver < 5; handedOver += 1) {
        const { own, elsewhere } = await record(workflow, { contact, messages });
        if (own) return { workflow, conversationId: own.context.conversationId, answerableIds: own.answerableIds, handedOver };
        const [owner] = elsewhere;
        if (!owner) throw new Error('the message is nowhere');
        workflow = owner;
      }
      throw new Error('the message is handed around in a circle');
    },

    async textsOf(conversationId: string): Promise<(string | null)[]> {
      const rows = await db.orm.message.findMany({ where: { conversationId }, orderBy: { position: 'asc' } });
      return rows.map(({ text }) => text);
    },

    contactsIn: (workspaceId: string) =>
      db.orm.contact.findMany({ where: { workspaceId }, include: { aliases: true, conversation: { include: { messages: true } } } }),

    /** Takes a lock that others have to wait for. */
    async hold(statement: string, values: unknown[] = []) {
      const client = new Client({ connectionString: database.url });
      await client.connect();
      await client.query('BEGIN');
      await client.query(statement, values);
      return {
        /** Resolves when so many connections wait for this one, or for one that does. */
        waiting: (count: number) =>
          eventually(async () => {
            // Not asked by the holder: a transaction sees who is active as it was at its first look.
            const blocked = await db.query(sql`
              SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0`);
            expect(blocked).toHaveLength(count);
          }),
        async release() {
          await client.query('COMMIT');
          await client.end();
        },
      };
    },

    async close() {
      await db.close();
      await database.drop();
    },
  };
}

/** A recorder for the suite that calls this, opened before its tests and closed after them. */
export function useRecorder(name: string): Omit<Recorder, 'close'> {
  let recorder: Recorder | undefined;
  beforeAll(async () => {
    recorder = await openRecorder(name);
  });
  afterAll(() => recorder?.close());
  const opened = (): Recorder => {
    if (!recorder) throw new Error('the recorder is opened before the first test, not earlier');
    return recorder;
  };
  return {
    get db() {
      return opened().db;
    },
    get url() {
      return opened().url;
    },
    record: (...order) => opened().record(...order),
    receive: (...received) => opened().receive(...received),
    newWorkspace: () => opened().newWorkspace(),
    textsOf: (conversationId) => opened().textsOf(conversationId),
    contactsIn: (workspaceId) => opened().contactsIn(workspaceId),
    statements: () => opened().statements(),
    hold: (statement, values) => opened().hold(statement, values),
  };
}
