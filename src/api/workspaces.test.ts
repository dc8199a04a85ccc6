/** Workspaces over real HTTP and the real database. */
import { randomBytes, randomUUID } from 'node:crypto';
import { startTestApi, type TestApi } from '../../test/support/api';
import { type Answered, request } from '../../test/support/calls';

interface Workspace {
  id: string;
  name: string;
  kapsoPhoneNumberId: string | null;
  timeZone: string | null;
  credentials: Record<string, { configured: boolean; lastFour: unknown }>;
  whatsApp: string;
  calls: string;
  problem: string | null;
}
interface Problem {
  detail: string;
}

const PATH = '/api/v1/workspaces';
const ENCRYPTION_KEY = randomBytes(32).toString('base64');
const SECRETS = {
  kapsoApiKey: 'planted-kapso-key-aaaa',
  kapsoWebhookSecrets: ['planted-webhook-secret-bbbb', 'planted-webhook-secret-cccc'],
};

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_workspaces', { ENCRYPTION_KEY, KAPSO_PHONE_NUMBER_ID: '100000000000099' });
});

afterAll(async () => {
  await api?.close();
});

const newNumber = () => String(10 ** 14 + Math.floor(Math.random() * 10 ** 13));

async function create(body: object): Promise<Workspace> {
  const { status, body: created } = await request<Workspace>(api, 'POST', PATH, { body });
  expect([status, created]).toEqual([201, expect.objectContaining({ id: expect.any(String) })]);
  return created;
}

async function change<T = Workspace>(id: string, body: object, headers: Record<string, string> = {}): Promise<Answered<T>> {
  return await request<T>(api, 'PATCH', `${PATH}/${id}`, { body, headers });
}

async function keyOf(workspaceId: string, role: string): Promise<Record<string, string>> {
  const { body } = await request<{ key: string }>(api, 'POST', `${PATH}/${workspaceId}/keys`, { body: { name: role, role } });
  return { Authorization: `Bearer ${body.key}` };
}

const auditOf = (workspaceId: string) => api.db.orm.auditEntry.findMany({ where: { workspaceId }, orderBy: { createdAt: 'asc' } });

test('when a workspace is created with credentials, then only their last four characters are shown, and they are stored encrypted', async () => {
  const kapsoPhoneNumberId = newNumber();
  const { id, ...created } = await create({ name: 'Bakery', kapsoPhoneNumberId, timeZone: 'Europe/Lisbon', credentials: SECRETS });
  expect(created).toMatchObject({
    ...{ name: 'Bakery', kapsoPhoneNumberId, timeZone: 'Europe/Lisbon', whatsApp: 'real', problem: null },
    credentials: {
      kapsoApiKey: { configured: true, lastFour: 'aaaa' },
      kapsoWebhookSecrets: { configured: true, lastFour: ['bbbb', 'cccc'] },
      vapiApiKey: { configured: false, lastFour: null },
      vapiWebhookSecrets: { configured: false, lastFour: [] },
    },
  });
  const shown = await request<Workspace>(api, 'GET', `${PATH}/${id}`);
  expect(shown.body).toEqual({ id, ...created });
  const stored = await api.db.orm.workspaceCredential.findMany({ where: { workspaceId: id } });
  expect(stored.map(({ encrypted }) => encrypted.slice(0, 3))).toEqual(['v1.', 'v1.']);
  expect(JSON.stringify([stored, shown, await auditOf(id), api.logLines])).not.toContain('planted-');
  expect(await api.db.orm.chatbotSettings.count({ where: { workspaceId: id } })).toBe(1);
});

test('when credentials are changed, then what is left out stays, null removes, and the log says which without a value', async () => {
  const { id } = await create({ name: 'Florist', credentials: SECRETS });
  const { body } = await change(id, { name: 'Flowers', credentials: { kapsoApiKey: null, openaiApiKey: 'planted-openai-key-dddd' } });
  expect(body.credentials).toMatchObject({
    kapsoApiKey: { configured: false },
    kapsoWebhookSecrets: { configured: true },
    openaiApiKey: { configured: true, lastFour: 'dddd' },
  });
  expect((await auditOf(id)).at(-1)).toMatchObject({
    ...{ action: 'workspace.changed', actor: 'API_KEYS #1', before: { name: 'Florist' } },
    after: { name: 'Flowers', credentials: { kapsoApiKey: 'removed', openaiApiKey: 'set' } },
  });
  const entries = (await auditOf(id)).length;
  await change(id, { name: 'Flowers' });
  expect(await auditOf(id)).toHaveLength(entries);
});

test('when settings of answers are changed, then what is left out stays, and the log has both', async () => {
  const { id } = await create({ name: 'Answers', settings: { chatbotEnabled: true, providerChain: ['openai:a-model'] } });
  const { body } = await change<{ settings: object }>(id, { settings: { aiEnabled: true, systemPrompt: 'Be brief.' } });
  expect(body.settings).toEqual({ chatbotEnabled: true, aiEnabled: true, providerChain: ['openai:a-model'], systemPrompt: 'Be brief.' });
  expect((await auditOf(id)).at(-1)).toMatchObject({
    before: { aiEnabled: false, systemPrompt: expect.stringContaining('small business') },
    after: { aiEnabled: true, systemPrompt: 'Be brief.' },
  });
});

test('when a secret is short, then none of its characters are shown', async () => {
  const { credentials } = await create({ name: 'Short', credentials: { kapsoApiKey: 'short-one', kapsoWebhookSecrets: ['short-two'] } });
  expect(credentials).toMatchObject({
    kapsoApiKey: { configured: true, lastFour: null },
    kapsoWebhookSecrets: { configured: true, lastFour: [null] },
  });
});

test('when another workspace has the number, then creating and changing is a 409', async () => {
  const kapsoPhoneNumberId = newNumber();
  await create({ name: 'First', kapsoPhoneNumberId });
  expect((await request(api, 'POST', PATH, { body: { name: 'Second', kapsoPhoneNumberId } })).status).toBe(409);
  const { id } = await create({ name: 'Third' });
  expect((await change(id, { kapsoPhoneNumberId })).status).toBe(409);
});

test.each([
  [{}, 'name'],
  [{ name: ' ' }, 'name'],
  [{ name: 'x', timeZone: 'Mars/Base' }, 'timeZone'],
  [{ name: 'x', kapsoPhoneNumberId: '1 2' }, 'kapsoPhoneNumberId'],
  [{ name: 'x', credentials: { kapsoApiKey: 'with space' } }, 'credentials: kapsoApiKey'],
  [{ name: 'x', credentials: { kapsoWebhookSecrets: [] } }, 'credentials: kapsoWebhookSecrets'],
  [{ name: 'x', credentials: { githubToken: 'xxxxxxxx' } }, 'githubToken'],
  [{ name: 'x', settings: { providerChain: ['skynet:1'] } }, 'settings: providerChain: 0'],
  [{ name: 'x', settings: { systemPrompt: '' } }, 'settings: systemPrompt'],
])('when a workspace is created from %j, then it is a 400 that names %s and no value', async (body, field) => {
  const { status, body: problem } = await request<Problem>(api, 'POST', PATH, { body });
  expect([status, problem.detail]).toEqual([400, expect.stringContaining(field)]);
  expect(problem.detail).not.toContain('with space');
});

test("when the key of a workspace asks, then it sees its own, its admin may change it, and the installation's are out of reach", async () => {
  const { id } = await create({ name: 'Mine', kapsoPhoneNumberId: newNumber() });
  const [admin, operator] = [await keyOf(id, 'admin'), await keyOf(id, 'operator')];
  const list = await request<{ data: Workspace[] }>(api, 'GET', PATH, { headers: operator });
  expect(list.body.data.map((each) => each.id)).toEqual([id]);
  expect((await change(id, { timeZone: 'Asia/Tokyo' }, admin)).body.timeZone).toBe('Asia/Tokyo');
  expect((await change(id, { timeZone: 'Asia/Tokyo' }, operator)).status).toBe(403);
  // It would get the events of whoever has that number.
  expect((await change(id, { kapsoPhoneNumberId: newNumber() }, admin)).status).toBe(403);
  expect((await request(api, 'POST', PATH, { body: { name: 'x' }, headers: admin })).status).toBe(403);
  expect((await request(api, 'DELETE', `${PATH}/${id}`, { headers: admin })).status).toBe(403);
});

test('when there are many, then they are listed in pages', async () => {
  for (const name of ['a', 'b', 'c']) await create({ name });
  const ids: string[] = [];
  let next: string | null = '';
  while (next !== null) {
    const { body }: Answered<{ data: Workspace[]; next: string | null }> = await request(
      api,
      'GET',
      `${PATH}?limit=2${next === '' ? '' : `&after=${next}`}`,
    );
    ids.push(...body.data.map(({ id }) => id));
    next = body.next;
  }
  expect(ids).toHaveLength(await api.db.orm.workspace.count());
  expect(new Set(ids).size).toBe(ids.length);
});

describe('without ENCRYPTION_KEY', () => {
  test('when credentials are stored, then it is a 422 that says what is missing, and everything else works', async () => {
    const apiUrl = await api.another({ ENCRYPTION_KEY: '' });
    const refused = await request<Problem>({ apiUrl }, 'POST', PATH, { body: { name: 'x', credentials: SECRETS } });
    expect([refused.status, refused.body.detail]).toEqual([422, expect.stringContaining('ENCRYPTION_KEY is not set')]);
    expect((await request({ apiUrl }, 'POST', PATH, { body: { name: 'x' } })).status).toBe(201);
  });

  test('when credentials are stored that this process cannot read, then the workspace says so', async () => {
    const { id } = await create({ name: 'Sealed', credentials: SECRETS });
    const apiUrl = await api.another({ ENCRYPTION_KEY: '', KAPSO_API_KEY: 'the-key-of-another' });
    const { body } = await request<Workspace>({ apiUrl }, 'GET', `${PATH}/${id}`);
    // Not with the environment's key instead.
    expect(body).toMatchObject({ problem: expect.stringContaining('ENCRYPTION_KEY is not set'), whatsApp: 'off' });
  });

  test('when the key is rotated, then old rows are read, and new ones are written with the new key', async () => {
    const { id } = await create({ name: 'Old', credentials: SECRETS });
    const apiUrl = await api.another({ ENCRYPTION_KEY: `${randomBytes(32).toString('base64')},${ENCRYPTION_KEY}` });
    const shown = await request<Workspace>({ apiUrl }, 'GET', `${PATH}/${id}`);
    expect(shown.body).toMatchObject({ problem: null, whatsApp: 'real' });
    await request({ apiUrl }, 'PATCH', `${PATH}/${id}`, { body: { credentials: { kapsoApiKey: 'planted-new-key-eeee' } } });
    const ids = (await api.db.orm.workspaceCredential.findMany({ where: { workspaceId: id } })).map(({ encrypted }) =>
      encrypted.slice(0, 11),
    );
    expect(new Set(ids).size).toBe(2);
  });
});

describe('deleting', () => {
  async function withConversation() {
    const workspace = await create({ name: `Shop ${randomUUID()}`, kapsoPhoneNumberId: newNumber(), credentials: SECRETS });
    const { id: workspaceId } = workspace;
    const contact = await api.db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID() } });
    const { id } = await api.db.orm.conversation.create({
      data: {
        ...{ workspaceId, contactId: contact.id, workflowId: randomUUID() },
        messages: { create: { workspaceId, direction: 'inbound', kind: 'text', status: 'received' } },
      },
    });
    return { ...workspace, conversationId: id };
  }
  const remove = (id: string, query = '') => request<Problem>(api, 'DELETE', `${PATH}/${id}${query}`);

  test('when it is empty, then it is gone with its keys, and the log keeps that it was there', async () => {
    const { id } = await create({ name: 'Gone', credentials: SECRETS });
    const key = await keyOf(id, 'admin');
    expect((await remove(id)).status).toBe(204);
    expect((await request(api, 'GET', `${PATH}/${id}`)).status).toBe(404);
    expect((await request(api, 'GET', '/api/v1/conversations', { headers: key })).status).toBe(401);
    expect((await auditOf(id)).map(({ action }) => action)).toEqual(['workspace.created', 'key.created', 'workspace.deleted']);
    expect(await api.db.orm.workspaceCredential.count({ where: { workspaceId: id } })).toBe(0);
    expect((await remove(id)).status).toBe(404);
  });

  test('when it has conversations, then they are deleted only if the request says so', async () => {
    const { id, conversationId } = await withConversation();
    const other = await withConversation();
    const refused = await remove(id);
    expect([refused.status, refused.body.detail]).toEqual([409, expect.stringContaining('1 conversations')]);
    expect((await request(api, 'GET', `/api/v1/conversations/${conversationId}`)).status).toBe(200);
    expect((await remove(id, '?withConversations=true')).status).toBe(204);
    expect((await request(api, 'GET', `/api/v1/conversations/${conversationId}`)).status).toBe(404);
    expect((await request(api, 'GET', `/api/v1/conversations/${other.conversationId}`)).status).toBe(200);
  });

  test('when a call is not done, or the environment names its number, then it stays', async () => {
    const { id } = await create({ name: 'Calling' });
    const callId = randomUUID();
    await api.db.orm.vapiCallResult.create({ data: { id: callId, workflowId: callId, direction: 'outbound', workspaceId: id } });
    expect((await remove(id)).status).toBe(409);
    await api.db.orm.vapiCallResult.update({ where: { id: callId }, data: { doneAt: new Date() } });
    expect((await remove(id)).status).toBe(204);
    expect(await api.db.orm.vapiCallResult.count({ where: { id: callId } })).toBe(0);
    const first = await create({ name: 'First', kapsoPhoneNumberId: '100000000000099' });
    const refused = await remove(first.id);
    expect([refused.status, refused.body.detail]).toEqual([409, expect.stringContaining('KAPSO_PHONE_NUMBER_ID')]);
  });
});

test('when a change names nothing, then it is refused', async () => {
  const { id } = await create({ name: 'Bakery' });
  expect(await change<{ detail: string }>(id, {})).toMatchObject({ status: 400, body: { detail: 'must name what to change' } });
});
