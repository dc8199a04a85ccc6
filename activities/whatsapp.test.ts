/** What a row of the outbox holds when several want to send it, and when facts about it come in any order, with the real record. */
import { randomUUID } from 'node:crypto';
import { MockActivityEnvironment } from '@temporalio/testing';
import { Client } from 'pg';
import { createBackgroundWork } from '../src/platform/background';
import { SANDBOX_PHONE_NUMBER_ID } from '../src/platform/config';
import { type Database, openDatabase } from '../src/platform/database';
import { createLogger } from '../src/platform/logger';
import { doubtReply, raiseReply } from '../src/record/replies';
import { type TestDatabase, testDatabase } from '../test/support/engine';
import { eventually } from '../test/support/expectations';
import type { SendProgress } from '../workflows/contract';
import { sameForAll } from './services';
import { createWhatsAppActivities } from './whatsapp';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('outbox');
  db = openDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

/** A reply that waits to be sent. */
async function draft(phoneNumberId: string = randomUUID()): Promise<string> {
  const { id: workspaceId } = await db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: phoneNumberId } });
  const contact = await db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID(), phone: '15550100' } });
  const conversation = await db.orm.conversation.create({ data: { workspaceId, contactId: contact.id, workflowId: randomUUID() } });
  const message = { workspaceId, conversationId: conversation.id, kind: 'text', text: 'hi' };
  const inbound = await db.orm.message.create({ data: { ...message, direction: 'inbound', status: 'received' } });
  await db.orm.message.update({ where: { id: inbound.id }, data: { turnId: inbound.id } });
  const reply = await db.orm.message.create({ data: { ...message, direction: 'outbound', status: 'pending', replyToId: inbound.id } });
  return reply.id;
}

const rowOf = (id: string) => db.orm.message.findUniqueOrThrow({ where: { id } });

/** Keeps everybody from writing to the row, so that all who want to come to stand before it. */
async function holdRow(id: string) {
  const client = new Client({ connectionString: database.url });
  await client.connect();
  await client.query('BEGIN');
  await client.query('SELECT 1 FROM messages WHERE id = $1 FOR UPDATE', [id]);
  return {
    waiting: (count: number) =>
      eventually(async () => {
        const waiting = await db.orm.$queryRaw<{ count: number }[]>`
          SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
        expect(waiting[0]?.count).toBe(count);
      }),
    async release() {
      await client.query('COMMIT');
      await client.end();
    },
  };
}

/** The activity that sends, and the replies that Kapso has taken from it. */
function sender({ isReal = false } = {}) {
  const sent: string[] = [];
  const { sendReply } = createWhatsAppActivities({
    db,
    services: sameForAll({
      kapso: {
        async sendText({ correlationId }: { correlationId: string }) {
          sent.push(correlationId);
          return { kind: 'accepted' as const, providerMessageId: `wamid.${correlationId}` };
        },
        listSent: async () => ({ messages: [], unreadable: [] }),
      },
      isReal,
    }),
    logger: createLogger('test', 'silent'),
    metrics: { sendTried: () => undefined },
    background: createBackgroundWork(),
  });
  return { sendReply, sent };
}

test('when two workers take the same reply at the same moment, then one of them sends it', async () => {
  const messageId = await draft();
  const { sendReply, sent } = sender();
  const send = (): Promise<SendProgress> => new MockActivityEnvironment().run(sendReply, { messageId, isLast: false });
  const row = await holdRow(messageId);
  const verdicts = Promise.all([send(), send()]);
  await row.waiting(2);
  await row.release();
  expect(await verdicts).toContainEqual({ status: 'sent', needsAttention: false });
  expect(sent).toEqual([messageId]);
  expect(await rowOf(messageId)).toMatchObject({ status: 'sent', sendAttempts: 1 });
});

test('when a lower status arrives after a higher one, then the row keeps its status, and takes the missing id', async () => {
  const phoneNumberId = randomUUID();
  const read = await draft(phoneNumberId);
  await raiseReply(db, { messageId: read }, { status: 'read', phoneNumberId, providerMessageId: 'wamid.1' });
  expect(await raiseReply(db, { messageId: read }, { status: 'sent', phoneNumberId, providerMessageId: 'wamid.1' })).toBeNull();
  expect(await rowOf(read)).toMatchObject({ status: 'read', providerMessageId: 'wamid.1' });
  const refusedBy = randomUUID();
  const refused = await draft(refusedBy);
  await raiseReply(db, { messageId: refused }, { status: 'failed', phoneNumberId: refusedBy });
  await raiseReply(db, { messageId: refused }, { status: 'sent', phoneNumberId: refusedBy, providerMessageId: 'wamid.2' });
  expect(await rowOf(refused)).toMatchObject({ status: 'failed', providerMessageId: 'wamid.2' });
});

describe('a look into the list that ends too late', () => {
  /** Activities whose sends have no known outcome, and whose list is empty; `list` may hold it back. */
  function activities(list: () => Promise<void> = async () => undefined) {
    const { sendReply, lookUpSend } = createWhatsAppActivities({
      db,
      services: sameForAll({
        kapso: {
          sendText: async () => ({ kind: 'unknown' as const, reason: 'timeout' }),
          async listSent() {
            await list();
            return { messages: [], unreadable: [] };
          },
        },
        isReal: false,
      }),
      logger: createLogger('test', 'silent'),
      metrics: { sendTried: () => undefined },
      background: createBackgroundWork(),
    });
    return {
      send: (messageId: string) => new MockActivityEnvironment().run(sendReply, { messageId, isLast: false }),
      look: (messageId: string, isLate = false) =>
        new MockActivityEnvironment().run(lookUpSend, { messageId, isLast: true, ...(isLate ? { isLate } : {}) }),
    };
  }

  /** A last look that has asked for the list and waits for it. */
  async function slowLook(messageId: string) {
    let answer: () => void = () => undefined;
    const answered = new Promise<void>((resolve) => {
      answer = resolve;
    });
    let asked: () => void = () => undefined;
    const asking = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const verdict = activities(async () => {
      asked();
      await answered;
    }).look(messageId);
    await asking;
    return {
      end: async () => {
        answer();
        return await verdict;
      },
    };
  }

  const outcomeFor = async ({ replyToId }: { replyToId: string | null }) => (await rowOf(replyToId ?? '')).outcome;

  test('when the messages are unconfirmed by then, then the reply stays unconfirmed, and a late look fails both', async () => {
    const { send, look } = activities();
    const messageId = await draft();
    expect(await send(messageId)).toEqual({ status: 'unconfirmed' });
    const slow = await slowLook(messageId);
    const { conversationId } = await rowOf(messageId);
    expect(await doubtReply(db, { messageId, conversationId })).toBe(true);
    expect(await slow.end()).toEqual({ status: 'unconfirmed' });
    const row = await rowOf(messageId);
    expect([row.status, await outcomeFor(row)]).toEqual(['unconfirmed', 'unconfirmed']);
    expect(await look(messageId, true)).toMatchObject({ status: 'failed' });
    expect(await outcomeFor(row)).toBe('failed');
  });

  test('when the reply was sent again by then, then that send stays unconfirmed, because it may have been delivered', async () => {
    const { send, look } = activities();
    const messageId = await draft();
    await send(messageId);
    const slow = await slowLook(messageId);
    expect(await look(messageId)).toMatchObject({ status: 'pending' });
    expect(await send(messageId)).toEqual({ status: 'unconfirmed' });
    expect(await slow.end()).toEqual({ status: 'unconfirmed' });
    expect(await rowOf(messageId)).toMatchObject({ status: 'unconfirmed', sendAttempts: 2 });
  });

  test('when it has left a reply waiting that nobody sends, then a late look fails it', async () => {
    const { send, look } = activities();
    const messageId = await draft();
    await send(messageId);
    expect(await look(messageId)).toMatchObject({ status: 'pending' });
    expect(await look(messageId, true)).toMatchObject({ status: 'failed' });
    const row = await rowOf(messageId);
    expect([row.status, await outcomeFor(row)]).toEqual(['failed', 'failed']);
  });
});

test.each([
  ['the simulated model wrote it', 'sandbox', undefined],
  ["the sandbox's number is to send it", 'openai', SANDBOX_PHONE_NUMBER_ID],
])(
  'when a reply is left over from a simulation because %s, then it is never sent to the real Kapso',
  async (_why, provider, phoneNumberId) => {
    const messageId = await draft(phoneNumberId);
    await db.orm.message.update({ where: { id: messageId }, data: { provider } });
    const { sendReply, sent } = sender({ isReal: true });
    const verdict = await new MockActivityEnvironment().run(() => sendReply({ messageId, isLast: false }));
    expect(verdict).toEqual({ status: 'failed', reason: 'WhatsAppSendError.Simulated' });
    expect(sent).toEqual([]);
    expect(await rowOf(messageId)).toMatchObject({ status: 'failed', failure: 'WhatsAppSendError.Simulated' });
  },
);
