/** Single messages, notes and reading over HTTP, and waits for a status. */
import { randomUUID } from 'node:crypto';
import type { z } from 'zod';
import { startTestApi, type TestApi } from '../../test/support/api';
import { request } from '../../test/support/calls';
import { eventually } from '../../test/support/expectations';
import type { MessageStatus } from '../record/conversations';
import { findMessage } from '../record/messages';
import { markRead, writeNote } from '../record/notes';
import { loadPromptMaterial } from '../record/prompts';
import type { singleMessageSchema } from './messages';

type SingleMessage = z.output<typeof singleMessageSchema>;
type Problem = { detail: string };

const ACTOR = { name: 'k', keyId: undefined };

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_messages');
});
afterAll(() => api?.close());

async function aConversation() {
  const name = randomUUID();
  const settings = { create: {} };
  const { id: workspaceId } = await api.db.orm.workspace.create({ data: { name, kapsoPhoneNumberId: name, settings } });
  const { id: contactId } = await api.db.orm.contact.create({ data: { workspaceId, contactKey: name } });
  const data = { workspaceId, contactId, workflowId: name, unreadCount: 3, lastMessagePreview: 'hello' };
  const { id: conversationId } = await api.db.orm.conversation.create({ data });
  return { workspaceId, conversationId };
}

async function aMessage(status: MessageStatus, direction: 'inbound' | 'outbound' = 'outbound'): Promise<string> {
  const { id } = await api.db.orm.message.create({ data: { ...(await aConversation()), direction, kind: 'text', text: 'hi', status } });
  return id;
}

const show = (id: string, query = '') => request<SingleMessage & Problem>(api, 'GET', `/api/v1/messages/${id}${query}`);
const raise = (id: string, status: MessageStatus) => api.db.orm.message.update({ where: { id }, data: { status } });
const waiting = (count: number) => eventually(async () => expect(api.waiters.counts().waiters).toBe(count));

describe('a wait for a status', () => {
  test.each([
    ['pending', undefined, false],
    ['unconfirmed', 'sent', false],
    ['sent', undefined, true],
    ['sent', 'delivered', false],
    ['delivered', 'delivered', true],
    ['delivered', 'read', false],
    ['read', 'sent', true],
    ['failed', 'read', true],
  ] as const)('when a message is %s and the wait is for %s, then done is %s', async (status, awaited, done) => {
    const { body } = await show(await aMessage(status), awaited === undefined ? '' : `?for=${awaited}`);
    expect(body).toMatchObject({ status, done, text: 'hi' });
  });

  test('when the message is a customer’s, then there is nothing to wait for', async () => {
    const { body } = await show(await aMessage('received', 'inbound'), '?wait=50&for=read');
    expect(body).toMatchObject({ status: 'received', done: true });
  });

  test('when many wait for messages, then one query at a time serves them, and each gets its own answer', async () => {
    const ids = [await aMessage('sending'), await aMessage('sent'), await aMessage('sent')] as const;
    const answers = Promise.all([
      ...Array.from({ length: 5 }, () => show(ids[0], '?wait=20')),
      show(ids[1], '?wait=20&for=delivered'),
      show(ids[2], '?wait=1&for=delivered'),
    ]);
    await waiting(7);
    const statements: string[] = [];
    api.itsDb.orm.$on('query' as never, ({ query }: { query: string }) => statements.push(query));
    await raise(ids[0], 'failed');
    await raise(ids[1], 'read');
    expect((await answers).map(({ body: { status, done } }) => `${status} ${done}`)).toEqual([
      ...Array.from({ length: 5 }, () => 'failed true'),
      'read true',
      'sent false',
    ]);
    const polls = statements.filter((query) => query.includes('IN (') || query.includes('= ANY'));
    // Four a second, for as long as anybody waits; the last wait takes one second.
    expect(polls.length).toBeGreaterThan(0);
    expect(polls.length).toBeLessThanOrEqual(8);
    await waiting(0);
  });

  test('when the last one has left, then the database is not asked any more', async () => {
    const id = await aMessage('sent');
    const left = new AbortController();
    const asked = fetch(`${api.apiUrl}/api/v1/messages/${id}?wait=50&for=read`, {
      headers: { Authorization: 'Bearer test-api-key' },
      signal: left.signal,
    });
    await waiting(1);
    left.abort();
    await expect(asked).rejects.toThrow();
    await waiting(0);
    const polls: string[] = [];
    api.itsDb.orm.$on('query' as never, ({ query }: { query: string }) => polls.push(query));
    // A later wait polls again: so the loop had not merely died.
    const again = show(id, '?wait=20&for=read');
    await waiting(1);
    await raise(id, 'read');
    expect((await again).body.done).toBe(true);
  });

  test('when the database is cut off during a wait, then the wait goes on afterwards', async () => {
    const id = await aMessage('sent');
    const asked = show(id, '?wait=30&for=delivered');
    await waiting(1);
    await api.postgresProxy.down();
    await eventually(async () => expect(api.logLines.join()).toContain('waiting for rows was interrupted'));
    await api.postgresProxy.up();
    await raise(id, 'delivered');
    expect((await asked).body).toMatchObject({ status: 'delivered', done: true });
  });

  test.each([
    ['no id', 'nothing'],
    ['an unknown id', randomUUID()],
  ])('when the message is %s, then it is a 404', async (_what, id) => {
    const { status, body } = await show(id);
    expect([status, body.detail]).toEqual([404, 'no such message']);
  });

  test('when the message belongs to another workspace, then it is not found', async () => {
    const id = await aMessage('sent');
    const found = await findMessage(api.db, id, undefined);
    expect(await findMessage(api.db, id, found?.workspaceId)).toMatchObject({ id });
    expect(await findMessage(api.db, id, randomUUID())).toBeNull();
  });
});

describe('internal notes', () => {
  const add = (conversationId: string, body: unknown, key?: string) =>
    request<SingleMessage & Problem>(api, 'POST', `/api/v1/conversations/${conversationId}/notes`, {
      body,
      headers: key === undefined ? {} : { 'Idempotency-Key': key },
    });

  test('when a note is written, then it is in the timeline with its author, and the conversation is as before', async () => {
    const { conversationId } = await aConversation();
    const before = await api.db.orm.conversation.findUniqueOrThrow({ where: { id: conversationId } });
    const { status, body, headers } = await add(conversationId, { text: 'Prefers mornings.' });
    expect(status).toBe(201);
    const note = {
      direction: 'note',
      kind: 'internal_note',
      text: 'Prefers mornings.',
      payload: { author: 'API_KEYS #1', forModel: false },
    };
    expect(body).toMatchObject({ ...note, done: true, outcome: null });
    expect((await show(headers.get('location')?.split('/').at(-1) ?? '')).body).toEqual(body);
    const timeline = await request<{ data: object[] }>(api, 'GET', `/api/v1/conversations/${conversationId}/messages`);
    expect(timeline.body.data).toMatchObject([note]);
    expect(await api.db.orm.conversation.findUniqueOrThrow({ where: { id: conversationId } })).toEqual(before);
  });

  test('when a model answers, then it reads the notes for the model, and no others', async () => {
    const { conversationId, workspaceId } = await aConversation();
    await add(conversationId, { text: 'a difficult customer' });
    await add(conversationId, { text: 'gets 10% off', forModel: true });
    const call = { workspaceId, conversationId, direction: 'note', kind: 'voice_call', text: 'they talked', status: 'received' } as const;
    await api.db.orm.message.create({ data: call });
    const turn = { workspaceId, conversationId, direction: 'inbound', kind: 'text', text: 'price?', status: 'received' } as const;
    const { id } = await api.db.orm.message.create({ data: turn });
    const material = await loadPromptMaterial(api.db, { conversationId, workflowId: 'w', messageIds: [id] });
    expect(material?.said?.map(({ text }) => text).reverse()).toEqual(['gets 10% off', 'they talked', 'price?']);
  });

  test('when a request is repeated with its key, then there is one note; with another body, it is refused', async () => {
    const { conversationId } = await aConversation();
    const key = randomUUID();
    const [first, second] = await Promise.all([add(conversationId, { text: 'a' }, key), add(conversationId, { text: 'a' }, key)]);
    expect([first.status, second.status, second.body.id]).toEqual([201, 201, first.body.id]);
    for (const body of [{ text: 'b' }, { text: 'a', forModel: true }]) {
      const refused = await add(conversationId, body, key);
      expect([refused.status, refused.body.detail]).toEqual([409, 'this Idempotency-Key was used with a different body']);
    }
    await add(conversationId, { text: 'a' });
    await add((await aConversation()).conversationId, { text: 'a' }, key);
    expect(await api.db.orm.message.count({ where: { conversationId } })).toBe(2);
    const entries = await api.db.orm.auditEntry.findMany({ where: { subject: `conversation ${conversationId}` } });
    expect(entries.map(({ action, after }) => ({ action, after }))).toEqual([
      { action: 'note.added', after: { noteId: first.body.id, forModel: false } },
      { action: 'note.added', after: { noteId: expect.any(String), forModel: false } },
    ]);
  });

  test.each([
    [{}, /^text: /],
    [{ text: '' }, /^text: .*1/],
    [{ text: 'x'.repeat(4_097) }, /^text: .*4096/],
    [{ text: 'a\0b' }, /^text: must be valid text/],
    [{ text: 'a', forModel: 'yes' }, /^forModel: /],
    [{ text: 'a', to: '1' }, /to/],
  ])('when the body is %j, then it is a 400 that names the field', async (body, why) => {
    const refused = await add((await aConversation()).conversationId, body);
    expect([refused.status, refused.body.detail]).toEqual([400, expect.stringMatching(why)]);
  });

  test('when the conversation is unknown, merged or of another workspace, then it is a 404, its successor, or a 404', async () => {
    expect((await add(randomUUID(), { text: 'a' })).status).toBe(404);
    const { conversationId, workspaceId } = await aConversation();
    const merged = randomUUID();
    await api.db.orm.mergedConversation.create({ data: { id: merged, conversationId } });
    expect((await add(merged, { text: 'a' })).body.conversationId).toBe(conversationId);
    const note = { id: randomUUID(), conversationId, text: 'a', actor: ACTOR, forModel: false };
    expect(await writeNote(api.db, { ...note, workspaceId: randomUUID() })).toBeUndefined();
    expect(await writeNote(api.db, { ...note, workspaceId })).toMatchObject({ isOther: false });
  });
});

describe('reading', () => {
  test('when a conversation is read, then nothing in it is unread, and a repetition changes nothing', async () => {
    const { conversationId, workspaceId } = await aConversation();
    for (let time = 1; time <= 2; time += 1) {
      const { status, body } = await request<object>(api, 'POST', `/api/v1/conversations/${conversationId}/read`);
      expect([status, body]).toEqual([200, expect.objectContaining({ id: conversationId, unreadCount: 0 })]);
    }
    expect((await request<Problem>(api, 'POST', `/api/v1/conversations/${randomUUID()}/read`)).status).toBe(404);
    expect(await markRead(api.db, { conversationId, workspaceId: randomUUID(), actor: ACTOR })).toBe(false);
    expect(await markRead(api.db, { conversationId, workspaceId, actor: ACTOR })).toBe(true);
    const entry = { action: 'conversation.read', actor: 'API_KEYS #1', before: { unreadCount: 3 }, after: { unreadCount: 0 } };
    expect(await api.db.orm.auditEntry.findMany({ where: { workspaceId } })).toMatchObject([entry]);
  });
});
