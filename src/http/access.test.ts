import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { DatabaseAwayError } from '../platform/database-errors';
import { createLogger } from '../platform/logger';
import { type Access, accessOf, type FindKey, hashOfKey, requireApiKey, workspaceKey, workspaceOf } from './access';
import { errorHandler } from './errors';
import { pathFinder } from './paths';
import { isAllowed, needs, PERMISSIONS, type Permission } from './permissions';
import { createRateLimits } from './rate-limits';

const WORKSPACE = '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10';
const OTHER_WORKSPACE = '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a11';
const OPERATOR_KEY = workspaceKey(Buffer.alloc(32, 1));
const OPERATOR: Access = { name: 'desk', keyId: 'key-1', role: 'operator', workspaceId: WORKSPACE };

const operation = (permission: Permission) => ({ ...needs(permission), responses: {} });
const findPath = pathFinder({
  '/api/things': { get: operation('conversations:read'), post: operation('keys:write'), delete: { responses: {} } },
  '/api/things/{id}': { get: operation('conversations:read') },
});
const findKey: FindKey = async (hash) => (hash === hashOfKey(OPERATOR_KEY) ? OPERATOR : undefined);

interface Asked {
  keys?: string[];
  authorization?: string | undefined;
  method?: string;
  path?: string;
  find?: FindKey;
}

/** The status and body of one request to an application that shows the caller's access. */
async function ask({ keys = [], authorization, method = 'GET', path = '/api/things', find = findKey }: Asked) {
  const app = express();
  const limits = createRateLimits({ API_RATE_LIMIT_PER_MINUTE: 100, UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: 100, TRUST_PROXY_HOPS: 0 });
  app.use('/api/things', requireApiKey({ keys, findKey: find, findPath, limits }), (request, response) => {
    response.json({ ...accessOf(response), scope: workspaceOf(response, request.query.workspace as string | undefined) ?? null });
  });
  app.use(errorHandler(createLogger('test', 'silent')));
  const server = app.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    const headers = authorization ? { Authorization: authorization } : {};
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers });
    return { status: response.status, body: (method === 'HEAD' ? {} : await response.json()) as Record<string, unknown> };
  } finally {
    server.close();
  }
}

describe('keys of the installation', () => {
  test.each([
    [['a', 'b'], 'Bearer a', 200],
    [['a', 'b'], 'bearer b', 200],
    [['a', 'b'], 'Bearer c', 401],
    [['a', 'b'], 'Basic a', 401],
    [['a', 'b'], undefined, 401],
    [[], 'Bearer ', 401],
    [[], 'Bearer undefined', 401],
  ])('when the keys are %j and the header is %s, then the answer is %i', async (keys, authorization, status) => {
    expect((await ask({ keys, authorization })).status).toBe(status);
  });

  test('when one is used, then it has no workspace, and its place in the list is its name', async () => {
    const { body } = await ask({ keys: ['a', 'b'], authorization: 'Bearer b' });
    expect(body).toEqual({ name: 'API_KEYS #2', role: 'admin', scope: null });
    expect((await ask({ keys: ['a'], authorization: 'Bearer a', path: `/api/things?workspace=${WORKSPACE}` })).body.scope).toBe(WORKSPACE);
  });
});

describe('keys of a workspace', () => {
  const authorization = `Bearer ${OPERATOR_KEY}`;

  test('when one is used, then the request is for its workspace and for no other', async () => {
    expect(await ask({ authorization })).toEqual({ status: 200, body: { ...OPERATOR, scope: WORKSPACE } });
    expect((await ask({ authorization, path: `/api/things?workspace=${WORKSPACE}` })).status).toBe(200);
    expect((await ask({ authorization, path: `/api/things?workspace=${OTHER_WORKSPACE}` })).status).toBe(404);
  });

  test.each([
    ['GET', '/api/things', 200],
    ['GET', '/API/Things/', 200],
    ['HEAD', '/api/things/7', 200],
    ['POST', '/api/things', 403],
    // Without a permission in the document, or not in it at all.
    ['DELETE', '/api/things', 404],
    ['GET', '/api/things/7/more', 404],
  ])('when an operator sends %s %s, then the answer is %i', async (method, path, status) => {
    expect((await ask({ authorization, method, path })).status).toBe(status);
  });

  test('when the database is away, then it is a 503, and a key that cannot be one is still a 401', async () => {
    const find: FindKey = () => Promise.reject(new DatabaseAwayError('away'));
    expect((await ask({ authorization, find })).status).toBe(503);
    expect((await ask({ authorization: 'Bearer guess', find })).status).toBe(401);
    expect((await ask({ keys: ['a'], authorization: 'Bearer a', find })).status).toBe(200);
  });
});

test('when a permission has no role, then only the keys of the installation have it', () => {
  const nobody = (Object.keys(PERMISSIONS) as Permission[]).filter((permission) => PERMISSIONS[permission].length === 0);
  expect(nobody).toEqual(['installation:write']);
  expect(isAllowed({ role: 'admin', workspaceId: WORKSPACE }, 'installation:write')).toBe(false);
  expect(isAllowed({ role: 'admin', workspaceId: undefined }, 'installation:write')).toBe(true);
});
