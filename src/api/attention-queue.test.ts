/** Who waits for a person, over HTTP: since when, why, and a wait for the next one. */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { z } from 'zod';
import { startTestApi, type TestApi } from '../../test/support/api';
import { request } from '../../test/support/calls';
import { eventually } from '../../test/support/expectations';
import type { AttentionKind } from '../../workflows/contract';
import { clearAttention, raiseAttention } from '../record/attention';
import { findQueue } from '../record/attention-queue';
import type { conversationPage } from './conversations';

type Page = z.output<typeof conversationPage> & { detail: string };

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_queue');
});
beforeEach(() => api.db.orm.conversation.deleteMany());
afterAll(() => api?.close());

async function aConversation() {
  const name = randomUUID();
  const { id: workspaceId } = await api.db.orm.workspace.create({ data: { name, kapsoPhoneNumberId: name } });
  const { id: contactId } = await api.db.orm.contact.create({ data: { workspaceId, contactKey: name } });
  const data = { workspaceId, contactId, workflowId: name, lastMessageAt: new Date() };
  return { workspaceId, id: (await api.db.orm.conversation.create({ data })).id };
}

/** Raises a reason, in a millisecond of its own. */
async function raise(conversationId: string, kind: AttentionKind, text = 'why'): Promise<void> {
  await raiseAttention(api.db, { conversationId, kind, text });
  await delay(2);
}

const queue = (query: string) => request<Page>(api, 'GET', `/api/v1/conversations?${query}`);
const idsOf = async (query: string) => (await queue(query)).body.data.map(({ id }) => id);

test('when people wait, then they are listed with since when and why, who has waited longest first, and by reason', async () => {
  const [first, second, third] = [await aConversation(), await aConversation(), await aConversation()];
  await raise(second.id, 'loop');
  await raise(first.id, 'turn_failed', 'no model can answer');
  await raise(second.id, 'dead_letter');
  const { body } = await queue('attention=any');
  expect(body.data).toMatchObject([
    { id: second.id, attention: [{ kind: 'loop' }, { kind: 'dead_letter' }] },
    { id: first.id, attention: [{ kind: 'turn_failed', text: 'no model can answer' }] },
  ]);
  for (const { attention, attentionSince } of body.data) expect(attentionSince).toBe(attention[0]?.since);
  expect(await idsOf('attention=turn_failed,dead_letter')).toEqual([first.id, second.id]);
  expect(await idsOf('attention=too_old')).toEqual([]);
  expect((await queue('limit=10')).body).toMatchObject({
    after: null,
    data: expect.arrayContaining([expect.objectContaining({ id: third.id, attentionSince: null })]),
  });
  expect((await findQueue(api.db, { workspaceId: first.workspaceId }, 10)).map(({ conversation }) => conversation.id)).toEqual([first.id]);
});

test('when a page is read, then its position leads to those who began to wait later, and to new reasons of the same ones', async () => {
  const [first, second] = [await aConversation(), await aConversation()];
  await raise(first.id, 'loop');
  await raise(second.id, 'loop');
  const page = (await queue('attention=any&limit=1')).body;
  expect(page.data.map(({ id }) => id)).toEqual([first.id]);
  const next = (await queue(`attention=any&after=${page.after}`)).body;
  expect(next.data.map(({ id }) => id)).toEqual([second.id]);
  const last = (await queue(`attention=any&after=${next.after}`)).body;
  expect(last).toMatchObject({ data: [], after: next.after });
  await raise(first.id, 'turn_failed');
  expect(await idsOf(`attention=any&after=${last.after}`)).toEqual([first.id]);
  // The reason goes on, it is not a new one.
  await raise(second.id, 'loop', 'again');
  expect(await idsOf(`attention=loop&after=${last.after}`)).toEqual([]);
});

test('when nobody waits, then a request waits for the first whom it asks for, and several are served by one query at a time', async () => {
  const { id } = await aConversation();
  const any = [queue('attention=any&wait=30'), queue('attention=any,loop&wait=30'), queue('attention=loop&wait=30')];
  const other = queue('attention=too_old&wait=3');
  await eventually(async () => expect(api.waiters.counts().waiters).toBe(4));
  await raise(id, 'loop');
  for (const { body } of await Promise.all(any)) expect(body.data.map((each) => each.id)).toEqual([id]);
  expect((await other).body.data).toEqual([]);
  await clearAttention(api.db, { conversationId: id, kinds: ['loop'] });
  expect(await idsOf('attention=any')).toEqual([]);
});

test.each([
  ['attention=nothing', /^attention: /],
  ['attention=', /^attention: /],
  ['wait=5', 'wait: needs attention, which says who to wait for'],
  [`after=1_${randomUUID()}`, 'after: needs attention, which says who to wait for'],
  ['attention=any&mode=ai', 'mode: cannot be combined with attention'],
  ['attention=any&needsAttention=true', 'needsAttention: cannot be combined with attention'],
  ['attention=any&after=yesterday', /^after: /],
])('when the query is %s, then it is a 400 that says what is wrong', async (query, why) => {
  const { status, body } = await queue(query);
  expect([status, body.detail]).toEqual([400, typeof why === 'string' ? why : expect.stringMatching(why)]);
});
