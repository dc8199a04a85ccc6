/** One draft for each message, whatever asks were given up: the statements that store and find drafts, on the real record. */
import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { eventually } from '../../test/support/expectations';
import { type Database, openDatabase } from '../platform/database';
import { loadPromptMaterial } from './prompts';
import { failTurn, findMovedMessages, storeDraft } from './replies';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('drafts');
  db = openDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const WORKFLOW = 'conversation-1-a';
const OWNER = 'conversation-1-b';

/** A conversation with `count` messages that want a reply. */
async function conversation(count: number) {
  const { id: workspaceId } = await db.orm.workspace.create({
    data: { name: 'w', kapsoPhoneNumberId: randomUUID(), settings: { create: {} } },
  });
  const contact = await db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID(), phone: '15550100' } });
  const { id: conversationId } = await db.orm.conversation.create({
    data: { workspaceId, contactId: contact.id, workflowId: randomUUID() },
  });
  const ids: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const message = {
      workspaceId,
      conversationId,
      kind: 'text',
      text: `m${index}`,
      direction: 'inbound',
      status: 'received',
      workflowId: WORKFLOW,
    } as const;
    ids.push((await db.orm.message.create({ data: message })).id);
  }
  const storeParts = (messageIds: string[], texts: string[]) => {
    const source = { provider: 'deepseek', model: 'm', attempts: 1, latencyMs: 1, promptTokens: 1, completionTokens: 1 };
    return storeDraft(db, { conversationId, workflowId: WORKFLOW, messageIds, texts, ...source });
  };
  return {
    conversationId,
    ids,
    store: async (messageIds: string[]) => (await storeParts(messageIds, ['a reply']))?.messageId,
    storeParts,
    draft: async (messageIds: string[], lostReplyToIds?: string[]) =>
      (await loadPromptMaterial(db, { conversationId, workflowId: WORKFLOW, messageIds, ...(lostReplyToIds ? { lostReplyToIds } : {}) }))
        ?.draft,
    replies: () =>
      db.orm.message.findMany({
        where: { conversationId, direction: 'outbound' },
        orderBy: { position: 'asc' },
        select: { id: true, replyToId: true, status: true },
      }),
    turns: async () =>
      (await db.orm.message.findMany({ where: { id: { in: ids } }, orderBy: { position: 'asc' } })).map((row) => row.turnId),
  };
}

describe('a draft', () => {
  test('when it is stored twice, then there is one reply, and it covers the turn', async () => {
    const { ids, store, draft, replies } = await conversation(2);
    const messageId = await store(ids);
    expect(await store(ids)).toBe(messageId);
    expect(await replies()).toMatchObject([{ id: messageId, status: 'pending' }]);
    expect(await draft(ids)).toMatchObject({ messageId, coveredIds: ids });
  });

  test('when an ask was lost after it had stored, and the turn has grown, then its draft is found, with the messages that it covers', async () => {
    const { ids, store, draft } = await conversation(3);
    const [a = '', b = ''] = ids;
    const messageId = await store([a, b]);
    expect(await draft(ids, [b])).toMatchObject({ messageId, coveredIds: [a, b] });
  });

  test('when a terminated workflow left one, and the next turn has more messages, then it is not the turn’s, and is replaced', async () => {
    const { ids, store, draft, replies, turns } = await conversation(2);
    const [a = '', b = ''] = ids;
    const left = await store([a]);
    expect(await draft(ids)).toBeNull();
    const messageId = await store(ids);
    expect(await replies()).toEqual([
      { id: left, replyToId: a, status: 'failed' },
      { id: messageId, replyToId: b, status: 'pending' },
    ]);
    expect(await turns()).toEqual([b, b]);
  });

  test('when an ask that was given up stores after the turn has grown, then nothing is written', async () => {
    const { ids, store, replies, turns } = await conversation(2);
    const [a = '', b = ''] = ids;
    const messageId = await store(ids);
    expect(await store([a])).toBeUndefined();
    expect(await replies()).toMatchObject([{ id: messageId, status: 'pending' }]);
    expect(await turns()).toEqual([b, b]);
  });

  test('when an ask that was given up stores after the turn has failed, then nothing is written', async () => {
    const { conversationId, ids, store, replies } = await conversation(1);
    await failTurn(db, { conversationId, workflowId: WORKFLOW, messageIds: ids, reason: 'no model answered' });
    expect(await store(ids)).toBeUndefined();
    expect(await replies()).toEqual([]);
  });

  test('when both store at the same moment, then one does, and no message is in two turns', async () => {
    const { ids, store, replies, turns } = await conversation(2);
    const [a = '', b = ''] = ids;
    const holder = new Client({ connectionString: database.url });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('SELECT 1 FROM messages WHERE id = $1 FOR UPDATE', [a]);
    const waiting = async (count: number) =>
      await eventually(async () => {
        const rows = await db.orm.$queryRaw<{ count: number }[]>`
          SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
        expect(rows[0]?.count).toBe(count);
      });
    const grown = store(ids);
    await waiting(1);
    const late = store([a]);
    await waiting(2);
    await holder.query('COMMIT');
    await holder.end();
    expect(await late).toBeUndefined();
    expect(await replies()).toMatchObject([{ id: await grown, status: 'pending' }]);
    expect(await turns()).toEqual([b, b]);
  });
});

describe('a turn that fails', () => {
  test('when the conversation showed that it waits for a model, then it does so no more, and says what failed', async () => {
    const { conversationId, ids } = await conversation(1);
    const attention = [{ kind: 'waiting_for_model', since: '2026-11-20T10:00:00.000Z', text: 'waiting' }];
    await db.orm.conversation.update({ where: { id: conversationId }, data: { attention, needsAttention: true } });
    await failTurn(db, { conversationId, workflowId: WORKFLOW, messageIds: ids, reason: 'no model answered' });
    expect(await db.orm.conversation.findUnique({ where: { id: conversationId } })).toMatchObject({
      needsAttention: true,
      attention: [{ kind: 'turn_failed', text: 'no model answered' }],
    });
  });
});

describe('a message that went to another workflow, because its conversation was merged', () => {
  /** Two messages, of which the second one has moved. */
  async function moved() {
    const made = await conversation(2);
    const [a = '', b = ''] = made.ids;
    await db.orm.message.update({ where: { id: b }, data: { workflowId: OWNER } });
    return { ...made, a, b };
  }

  test('when the workflow that had it stores a draft, then nothing is written, and it is told what moved where', async () => {
    const { conversationId, ids, b, store, replies, turns } = await moved();
    expect(await store(ids)).toBeUndefined();
    expect(await replies()).toEqual([]);
    expect(await turns()).toEqual([null, null]);
    expect(await loadPromptMaterial(db, { conversationId, workflowId: WORKFLOW, messageIds: ids })).toMatchObject({ hasMoved: true });
    expect(await findMovedMessages(db, { messageIds: ids, workflowId: WORKFLOW })).toEqual({ messageIds: [b], workflowId: OWNER });
  });

  test('when it did not move, then it is drafted as before', async () => {
    const { conversationId, a, store } = await moved();
    expect(await store([a])).toBeDefined();
    expect(await loadPromptMaterial(db, { conversationId, workflowId: WORKFLOW, messageIds: [a] })).toMatchObject({ hasMoved: false });
    expect(await findMovedMessages(db, { messageIds: [a], workflowId: WORKFLOW })).toBeUndefined();
  });

  test('when it moves at the moment of the draft, then it is in one turn only', async () => {
    const { ids, store, turns, replies } = await conversation(1);
    const holder = new Client({ connectionString: database.url });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('UPDATE messages SET workflow_id = $1 WHERE id = ANY($2)', [OWNER, ids]);
    const storing = store(ids);
    await eventually(async () => {
      const waiting = await db.orm.$queryRaw<unknown[]>`
        SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
      expect(waiting).toHaveLength(1);
    });
    await holder.query('COMMIT');
    await holder.end();
    expect(await storing).toBeUndefined();
    expect([await turns(), await replies()]).toEqual([[null], []]);
  });

  test('when the turn of the workflow that had it fails, then it does not fail, nor does the reply of its owner', async () => {
    const { conversationId, ids, a, b } = await moved();
    const reply = {
      conversationId,
      workspaceId: (await db.orm.conversation.findUniqueOrThrow({ where: { id: conversationId } })).workspaceId,
    };
    await db.orm.message.create({ data: { ...reply, direction: 'outbound', kind: 'text', text: 'r', status: 'pending', replyToId: b } });
    await failTurn(db, { conversationId, workflowId: WORKFLOW, messageIds: ids, reason: 'no model answered' });
    const rows = await db.orm.message.findMany({ where: { conversationId }, orderBy: { position: 'asc' } });
    expect(rows.map(({ outcome, status }) => outcome ?? status)).toEqual(['failed', 'received', 'pending']);
    expect(rows[0]?.id).toBe(a);
  });

  test('when a turn names a conversation that was merged since, then prompt, draft and failure find the one that is left', async () => {
    const { conversationId, ids, store, replies } = await conversation(2);
    const [a = '', b = ''] = ids;
    const former = randomUUID();
    await db.orm.mergedConversation.create({ data: { id: former, conversationId } });
    const turn = { conversationId: former, workflowId: WORKFLOW };
    expect((await loadPromptMaterial(db, { ...turn, messageIds: [a] }))?.said).toHaveLength(1);
    await store([a]);
    const draft = { texts: ['r'], provider: 'deepseek', model: 'm', attempts: 1, latencyMs: 1, promptTokens: 1, completionTokens: 1 };
    await storeDraft(db, { ...turn, ...draft, messageIds: [b] });
    expect(await replies()).toHaveLength(2);
    await failTurn(db, { ...turn, messageIds: [b], reason: 'x' });
    expect(await db.orm.conversation.findUniqueOrThrow({ where: { id: conversationId } })).toMatchObject({ needsAttention: true });
  });
});
