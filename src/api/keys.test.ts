/** Workspace keys over real HTTP and the real database. */
import { randomUUID } from 'node:crypto';
import { startTestApi, type TestApi } from '../../test/support/api';
import { type Answered, request } from '../../test/support/calls';
import { hashOfKey } from '../http/access';
import { findKeyHolder, MAX_KEYS } from '../record/api-keys';

interface Key {
  id: string;
  key: string;
  name: string;
  role: string;
  lastFour: string;
  lastUsedAt: string | null;
}

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_keys');
});

afterAll(async () => {
  await api?.close();
});

async function aWorkspace(): Promise<string> {
  const name = randomUUID();
  return (await api.db.orm.workspace.create({ data: { name, kapsoPhoneNumberId: name } })).id;
}

const pathOf = (workspaceId: string) => `/api/v1/workspaces/${workspaceId}/keys`;

async function aKey(workspaceId: string, role = 'admin', name = 'Front desk'): Promise<Key> {
  const { status, body } = await request<Key>(api, 'POST', pathOf(workspaceId), { body: { name, role } });
  expect(status).toBe(201);
  return body;
}

async function as<T>(key: string, method: string, path: string, body?: unknown): Promise<Answered<T>> {
  return await request<T>(api, method, path, { headers: { Authorization: `Bearer ${key}` }, ...(body === undefined ? {} : { body }) });
}

const auditOf = (workspaceId: string) =>
  api.db.orm.auditEntry.findMany({ where: { workspaceId }, orderBy: { createdAt: 'asc' }, omit: { id: true, createdAt: true } });

test('when a key is created, then it is shown once, stored as a hash, and opens its workspace only', async () => {
  const [mine, other] = [await aWorkspace(), await aWorkspace()];
  const { key, ...shown } = await aKey(mine, 'admin', '  Front desk ');
  expect(shown).toMatchObject({ name: 'Front desk', role: 'admin', lastFour: key.slice(-4), lastUsedAt: null });
  const stored = await api.db.orm.apiKey.findUniqueOrThrow({ where: { id: shown.id } });
  expect(stored.keyHash).toBe(hashOfKey(key));
  expect(JSON.stringify(stored)).not.toContain(key);
  const list = await as<{ data: object[] }>(key, 'GET', pathOf(mine));
  expect(list.body.data).toEqual([{ ...shown, lastUsedAt: expect.any(String) }]);
  expect(JSON.stringify(list.body)).not.toContain(key);
  for (const [method, path] of [
    ['GET', pathOf(other)],
    ['POST', pathOf(other)],
    ['DELETE', `${pathOf(other)}/${(await aKey(other)).id}`],
    ['GET', pathOf(randomUUID())],
    ['GET', pathOf('no-id')],
  ] as const) {
    expect((await as(key, method, path, method === 'POST' ? { name: 'x', role: 'caller' } : undefined)).status).toBe(404);
  }
  expect(await auditOf(mine)).toEqual([
    {
      ...{ workspaceId: mine, actor: 'API_KEYS #1', actorKeyId: null, action: 'key.created', subject: `key ${shown.id}` },
      ...{ before: null, after: { name: 'Front desk', role: 'admin' } },
    },
  ]);
});

test('when a key is revoked, then its next request is a 401, and the log says who did it', async () => {
  const workspace = await aWorkspace();
  const [admin, revoked] = [await aKey(workspace), await aKey(workspace, 'operator', 'Tablet')];
  expect((await as(revoked.key, 'GET', '/api/v1/conversations')).status).toBe(200);
  expect((await as(admin.key, 'DELETE', `${pathOf(workspace)}/${revoked.id}`)).status).toBe(204);
  expect((await as(revoked.key, 'GET', '/api/v1/conversations')).status).toBe(401);
  expect((await as(admin.key, 'DELETE', `${pathOf(workspace)}/${revoked.id}`)).status).toBe(404);
  expect((await auditOf(workspace)).at(-1)).toMatchObject({
    ...{ actor: 'Front desk', actorKeyId: admin.id, action: 'key.revoked', before: { name: 'Tablet', role: 'operator' }, after: null },
  });
});

test.each([
  ['admin', 201],
  ['operator', 403],
  ['caller', 403],
])('when a key with the role %s creates a key, then it is a %i', async (role, status) => {
  const workspace = await aWorkspace();
  const { key } = await aKey(workspace, role);
  expect((await as(key, 'POST', pathOf(workspace), { name: 'x', role: 'caller' })).status).toBe(status);
});

test.each([
  [{ name: '', role: 'admin' }, 'name'],
  [{ name: 'x'.repeat(101), role: 'admin' }, 'name'],
  [{ name: 'a\0b', role: 'admin' }, 'name'],
  [{ name: 'x', role: 'owner' }, 'role'],
  [{ name: 'x' }, 'role'],
  [{ name: 'x', role: 'admin', key: 'mine' }, 'key'],
])('when a key is created from %j, then it is a 400 that names %s', async (body, field) => {
  const { status, body: problem } = await request<{ detail: string }>(api, 'POST', pathOf(await aWorkspace()), { body });
  expect([status, problem.detail]).toEqual([400, expect.stringContaining(field)]);
});

test('when a workspace has all the keys that it may have, then there is no further one', async () => {
  const workspaceId = await aWorkspace();
  await api.db.orm.apiKey.createMany({
    data: Array.from({ length: MAX_KEYS - 1 }, () => ({ workspaceId, name: 'x', role: 'caller', keyHash: randomUUID(), lastFour: 'xxxx' })),
  });
  const body = { name: 'x', role: 'caller' };
  const answers = await Promise.all([1, 2, 3].map(() => request(api, 'POST', pathOf(workspaceId), { body })));
  expect(answers.map(({ status }) => status).sort()).toEqual([201, 409, 409]);
});

test('when a key is used again and again, then its last use is written once a minute', async () => {
  const { id, key } = await aKey(await aWorkspace());
  const lastUse = async () => (await api.db.orm.apiKey.findUniqueOrThrow({ where: { id } })).lastUsedAt;
  const use = () => findKeyHolder(api.db, hashOfKey(key));
  const written: (Date | null)[] = [];
  for (let index = 0; index < 3; index += 1) {
    await use();
    written.push(await lastUse());
  }
  expect(written[0]).toBeInstanceOf(Date);
  expect(written).toEqual(written.map(() => written[0]));
  const old = new Date(Date.now() - 61_000);
  await api.db.orm.apiKey.update({ where: { id }, data: { lastUsedAt: old } });
  await use();
  expect((await lastUse())?.getTime()).toBeGreaterThan(old.getTime());
});

test('when the database is away, then a workspace key gets a 503 with Retry-After, and a wrong one a 401', async () => {
  const { key } = await aKey(await aWorkspace());
  await api.postgresProxy.down();
  try {
    const { status, headers } = await as(key, 'GET', '/api/v1/conversations');
    expect([status, headers.get('retry-after')]).toEqual([503, '5']);
    expect((await as('guess', 'GET', '/api/v1/conversations')).status).toBe(401);
  } finally {
    await api.postgresProxy.up();
  }
  expect((await as(key, 'GET', '/api/v1/conversations')).status).toBe(200);
});
