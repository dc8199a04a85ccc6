/** The numbers over HTTP: their defaults and limits, and that a workspace's key shows only what is its own, here and in what can be waited for. */
import { randomUUID } from 'node:crypto';
import type { z } from 'zod';
import { startTestApi, type TestApi } from '../../test/support/api';
import { request } from '../../test/support/calls';
import { raiseAttention } from '../record/attention';
import type { balanceSchema, messageMetricsSchema } from './metrics';

type Metrics = z.output<typeof messageMetricsSchema> & { detail: string };
type Balance = z.output<typeof balanceSchema> & { detail: string };

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_metrics');
});
afterAll(() => api?.close());

/** A workspace with a key, and a conversation that has a message and needs a person. */
async function aWorkspace() {
  const name = randomUUID();
  const { id: workspaceId } = await api.db.orm.workspace.create({ data: { name, kapsoPhoneNumberId: name } });
  const { id: contactId } = await api.db.orm.contact.create({ data: { workspaceId, contactKey: name } });
  const data = { workspaceId, contactId, workflowId: name, lastMessageAt: new Date(), unreadCount: 1 };
  const { id: conversationId } = await api.db.orm.conversation.create({ data });
  const row = { workspaceId, conversationId, direction: 'inbound', kind: 'text', status: 'received', outcome: 'human' } as const;
  const { id: messageId } = await api.db.orm.message.create({ data: row });
  await raiseAttention(api.db, { conversationId, kind: 'loop', text: 'x' });
  const made = await request<{ key: string }>(api, 'POST', `/api/v1/workspaces/${workspaceId}/keys`, {
    body: { name: 'k', role: 'operator' },
  });
  return { workspaceId, conversationId, messageId, key: made.body.key };
}

const as = <T>(key: string | undefined, method: string, path: string, body?: unknown) =>
  request<T>(api, method, path, {
    headers: key === undefined ? {} : { Authorization: `Bearer ${key}` },
    ...(body === undefined ? {} : { body }),
  });
const metrics = (query: string, key?: string) => as<Metrics>(key, 'GET', `/api/v1/metrics/messages?${query}`);
const balance = (query: string, key?: string) => as<Balance>(key, 'GET', `/api/v1/metrics/balance?${query}`);

test('when nothing is said about the days, then they are the last seven, of every workspace', async () => {
  const { workspaceId } = await aWorkspace();
  const { status, body } = await metrics('');
  expect(status).toBe(200);
  const days = body.data.filter((row) => row.workspaceId === workspaceId);
  expect(days).toHaveLength(7);
  expect(days.at(-1)).toMatchObject({ received: 1, answered: 0, handedOver: 1, answerP50Ms: null });
  expect(days.slice(0, -1).every(({ received }) => received === 0)).toBe(true);
  expect((await metrics(`workspaceId=${workspaceId}&from=2026-01-01&to=2026-01-02`)).body.data.map(({ day }) => day)).toEqual([
    '2026-01-01',
    '2026-01-02',
  ]);
  expect((await metrics(`workspaceId=${workspaceId}&to=2026-01-07`)).body.data[0]?.day).toBe('2026-01-01');
});

test('when nothing is said about the hours, then they are the last 24, and add up', async () => {
  const { workspaceId } = await aWorkspace();
  const { body } = await balance(`workspaceId=${workspaceId}`);
  expect(body).toMatchObject({ accepted: 1, pending: 0, balanced: true, parked: null, outcomes: { human: 1, answered: 0 } });
  expect(body.hours).toMatchObject([{ accepted: 1, balanced: true, hour: expect.stringMatching(/:00:00\.000Z$/) }]);
  expect(Date.parse(body.to) - Date.parse(body.from)).toBe(86_400_000);
  await api.db.orm.parkedMessage.create({
    data: { phoneNumberId: '9', providerMessageId: randomUUID(), workflowId: 'w', reason: 'test', message: {} },
  });
  expect((await balance('')).body.parked).toBe(1);
});

test.each([
  ['messages', 'from=2026-02-30', /^from: /],
  ['messages', 'from=1999-12-31', /^from: must be between/],
  ['messages', 'from=2026-02-02&to=2026-02-01', 'to: must not be before from'],
  ['messages', 'from=2026-01-01&to=2026-04-03', 'to: must be at most 91 days after from'],
  ['balance', 'from=2026-02-02', /^from: /],
  ['balance', 'from=2026-02-02T00:00:00Z&to=2026-02-02T00:00:00Z', 'to: must be after from'],
  ['balance', 'from=2026-01-01T00:00:00Z&to=2026-02-02T00:00:00Z', 'to: must be at most 31 days after from'],
])('when %s is asked for with %s, then it is a 400 that says why', async (path, query, why) => {
  const { status, body } = await as<Metrics>(undefined, 'GET', `/api/v1/metrics/${path}?${query}`);
  expect([status, body.detail]).toEqual([400, typeof why === 'string' ? why : expect.stringMatching(why)]);
});

test('when a workspace is unknown, then its numbers are a 404', async () => {
  expect((await metrics(`workspaceId=${randomUUID()}`)).status).toBe(404);
});

test('when a key belongs to a workspace, then it shows and changes nothing of another one', async () => {
  const [mine, other] = [await aWorkspace(), await aWorkspace()];
  const mineOnly = async (path: string) => {
    const { status, body } = await as<{ data: { id?: string; workspaceId?: string }[] }>(mine.key, 'GET', path);
    expect(status).toBe(200);
    expect(body.data.length).toBeGreaterThan(0);
    expect(new Set(body.data.map(({ workspaceId }) => workspaceId))).toEqual(new Set([mine.workspaceId]));
  };
  await mineOnly('/api/v1/metrics/messages');
  await mineOnly('/api/v1/conversations?attention=any');
  expect((await balance('', mine.key)).body).toMatchObject({ accepted: 1, parked: null });
  const note = { text: 'mine' };
  const requests = ({ conversationId, messageId, workspaceId }: typeof mine) =>
    [
      ['GET', `/api/v1/messages/${messageId}`],
      ['GET', `/api/v1/messages/${messageId}?wait=1`],
      ['GET', `/api/v1/conversations/${conversationId}/result`],
      ['GET', `/api/v1/conversations/${conversationId}/result?wait=1`],
      ['POST', `/api/v1/conversations/${conversationId}/notes`, note],
      ['POST', `/api/v1/conversations/${conversationId}/read`],
      ['GET', `/api/v1/metrics/messages?workspaceId=${workspaceId}`],
      ['GET', `/api/v1/metrics/balance?workspaceId=${workspaceId}`],
      ['GET', `/api/v1/conversations?attention=any&workspaceId=${workspaceId}`],
    ] as const;
  const statuses = async (of: typeof mine) => {
    const found = [];
    for (const [method, path, body] of requests(of)) found.push((await as(mine.key, method, path, body)).status);
    return found;
  };
  expect(await statuses(other)).toEqual(Array.from({ length: 9 }, () => 404));
  expect(await api.db.orm.message.count({ where: { conversationId: other.conversationId } })).toBe(1);
  expect(await api.db.orm.conversation.findUnique({ where: { id: other.conversationId } })).toMatchObject({ unreadCount: 1 });
  expect(await statuses(mine)).toEqual([200, 200, 200, 200, 201, 200, 200, 200, 200]);
});
