/** The audit log over real HTTP and the real database. */
import { randomUUID } from 'node:crypto';
import { startTestApi, type TestApi } from '../../test/support/api';
import { newNumber, placeCall, request } from '../../test/support/calls';

interface Entry {
  id: string;
  workspaceId: string | null;
  actor: string;
  action: string;
  subject: string;
  before: unknown;
  after: unknown;
}
interface Page {
  data: Entry[];
  next: string | null;
}

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_audit');
});

afterAll(async () => {
  await api?.close();
});

const list = async (query: string) => (await request<Page>(api, 'GET', `/api/v1/audit?${query}`)).body;

test('when there are many entries, then they are listed newest first, in pages, by workspace, action and subject', async () => {
  const [workspaceId, subject] = [randomUUID(), `key ${randomUUID()}`];
  for (let minute = 0; minute < 5; minute += 1) {
    const row = { workspaceId, actor: 'desk', createdAt: new Date(Date.UTC(2026, 10, 21, 12, minute)), after: { minute } };
    await api.db.orm.auditEntry.create({ data: { ...row, action: minute === 2 ? 'key.revoked' : 'key.created', subject } });
  }
  const minutes: unknown[] = [];
  let next: string | null = '';
  while (next !== null) {
    const page: Page = await list(`workspaceId=${workspaceId}&limit=2${next === '' ? '' : `&before=${next}`}`);
    minutes.push(...page.data.map(({ after }) => (after as { minute: number }).minute));
    next = page.next;
  }
  expect(minutes).toEqual([4, 3, 2, 1, 0]);
  expect((await list(`workspaceId=${workspaceId}&action=key.revoked`)).data).toHaveLength(1);
  expect((await list(`subject=${encodeURIComponent(subject)}`)).data).toHaveLength(5);
  expect((await list(`workspaceId=${randomUUID()}`)).data).toEqual([]);
});

test('when a person ends a call and says that they have looked, then each is in the log once, with who did it', async () => {
  const { callId } = (await placeCall(api, { to: newNumber() })).body;
  expect((await request(api, 'DELETE', `/api/v1/vapi/calls/${callId}`)).status).toBe(202);
  await api.db.orm.vapiCallResult.update({ where: { id: callId }, data: { needsAttention: true } });
  for (let times = 0; times < 2; times += 1)
    expect((await request(api, 'POST', `/api/v1/vapi/calls/${callId}/attention`, { body: { clear: true } })).status).toBe(200);
  const { data } = await list(`subject=${encodeURIComponent(`call ${callId}`)}`);
  expect(data.map(({ actor, action }) => [actor, action])).toEqual([
    ['API_KEYS #1', 'call.attention_cleared'],
    ['API_KEYS #1', 'call.end_requested'],
  ]);
});

test('when a person deletes a dead letter, then the log says what it was, and not what it contained', async () => {
  const letter = { source: 'kapso', reason: 'no_sender', detail: 'A message without a sender.', digest: randomUUID() };
  const { id } = await api.db.orm.deadLetter.create({ data: { ...letter, body: { text: 'a-text-of-somebody' } } });
  expect((await request(api, 'DELETE', `/api/v1/dead-letters/${id}`)).status).toBe(204);
  const { data } = await list('action=dead_letter.deleted');
  expect(data).toMatchObject([{ subject: `dead_letter ${id}`, before: { reason: 'no_sender', detail: letter.detail }, after: null }]);
  expect(JSON.stringify(data)).not.toContain('a-text-of-somebody');
});
