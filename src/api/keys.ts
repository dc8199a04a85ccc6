/** The keys of a workspace: create, list, revoke. A key is shown once, in the response that creates it. */
import { randomBytes } from 'node:crypto';
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { accessOf, hashOfKey, workspaceKey, workspaceOf } from '../http/access';
import { ApiError, bodyProblems, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import { noQuery, parsed, parsedQuery } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { ApiKeyRole, type ApiKeyRow, createKey, deleteKey, findKeys, MAX_KEYS } from '../record/api-keys';
import { workspaceExists } from '../record/workspaces';

const EXAMPLE_ID = '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10';
const BODY_LIMIT_BYTES = 16 * 1024;

const time = z.iso.datetime().meta({ description: 'UTC.', example: '2026-11-21T12:00:00.000Z' });
const workspaceParameters = z.object({ id: z.guid().meta({ description: 'The id of a workspace.', example: EXAMPLE_ID }) });
const keyParameters = workspaceParameters.extend({ keyId: z.guid().meta({ description: 'An `id` from the list.', example: EXAMPLE_ID }) });

const name = z
  .string()
  .trim()
  .min(1)
  .max(100)
  .refine((value) => !value.includes('\0') && value.isWellFormed(), 'must be valid text')
  .meta({ description: 'Who or what uses the key. It is shown where people look up who did what.', example: 'Front desk' });
const role = z
  .enum(ApiKeyRole)
  .meta({ description: 'What the key may do; the table is at the top of this document.', example: 'operator' });
const keyBody = z.strictObject({ name, role }).meta({ id: 'NewKey' });

const keySchema = z
  .object({
    id: z.guid(),
    name: z.string(),
    role,
    lastFour: z.string().meta({ description: 'The last four characters of the key.', example: 'x9Qa' }),
    createdAt: time,
    lastUsedAt: time.nullable().meta({ description: 'When it was last used, to the minute; null if never.' }),
  })
  .meta({ id: 'Key' });
const createdKeySchema = keySchema
  .extend({ key: z.string().meta({ description: 'The key itself. It is not stored and never shown again.', example: 'parley_…' }) })
  .meta({ id: 'CreatedKey' });
const keyList = z.object({ data: z.array(keySchema) }).meta({ id: 'KeyList', description: 'Oldest first.' });

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });
const tags = ['Workspaces'];

export const keyPaths: ZodOpenApiPathsObject = {
  '/api/v1/workspaces/{id}/keys': {
    get: {
      tags,
      summary: "List a workspace's keys",
      operationId: 'listKeys',
      ...needs('keys:read'),
      requestParams: { path: workspaceParameters },
      responses: {
        200: { description: 'The keys, without their values.', content: json(keyList) },
        ...problems({ 404: 'No such workspace.' }),
        ...guardedProblems,
      },
    },
    post: {
      tags,
      summary: 'Create a key for a workspace',
      operationId: 'createKey',
      ...needs('keys:write'),
      requestParams: { path: workspaceParameters },
      requestBody: {
        required: true,
        content: { 'application/json': { schema: keyBody, example: { name: 'Front desk', role: 'operator' } } },
      },
      responses: {
        201: { description: 'The key, shown this once.', content: json(createdKeySchema) },
        ...problems({ 404: 'No such workspace.', 409: `The workspace has ${MAX_KEYS} keys, which is the limit.` }),
        ...bodyProblems,
        ...guardedProblems,
      },
    },
  },
  '/api/v1/workspaces/{id}/keys/{keyId}': {
    delete: {
      tags,
      summary: 'Revoke a key',
      description: 'The next request with it is rejected.',
      operationId: 'revokeKey',
      ...needs('keys:write'),
      requestParams: { path: keyParameters },
      responses: { 204: { description: 'It is revoked.' }, ...problems({ 404: 'No such key.' }), ...guardedProblems },
    },
  },
};

/** Routes under `/api/v1/workspaces/:id/keys`. */
export function keyRoutes(db: Database): Router {
  const router = Router();
  router.get('/:id/keys', (request, response) => listKeys(db, request, response));
  router.post('/:id/keys', express.json({ limit: BODY_LIMIT_BYTES, type: () => true }), (request, response) =>
    addKey(db, request, response),
  );
  router.delete('/:id/keys/:keyId', (request, response) => revokeKey(db, request, response));
  return router;
}

async function listKeys(db: Database, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  const workspaceId = await requestedWorkspace(db, request, response);
  const rows = await fromRecord(findKeys(db, workspaceId));
  response.json({ data: rows.map(keyView) } satisfies z.input<typeof keyList>);
}

async function addKey(db: Database, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  const workspaceId = await requestedWorkspace(db, request, response);
  const body = parsed(keyBody, request.body);
  const key = workspaceKey(randomBytes(32));
  const row = await fromRecord(
    createKey(db, { ...body, workspaceId, keyHash: hashOfKey(key), lastFour: key.slice(-4) }, accessOf(response)),
  );
  if (!row) throw new ApiError(409, `the workspace has ${MAX_KEYS} keys, which is the limit; revoke one first`);
  response
    .status(201)
    .set('Cache-Control', 'no-store')
    .json({ ...keyView(row), key } satisfies z.input<typeof createdKeySchema>);
}

async function revokeKey(db: Database, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  const { data } = keyParameters.safeParse(request.params);
  if (!data) throw new ApiError(404, 'no such key');
  const workspaceId = workspaceOf(response, data.id) ?? data.id;
  const isDeleted = await fromRecord(deleteKey(db, { workspaceId, id: data.keyId }, accessOf(response)));
  if (!isDeleted) throw new ApiError(404, 'no such key');
  response.status(204).end();
}

/** @throws ApiError 404, also for a string that cannot be an id */
async function requestedWorkspace(db: Database, request: Request, response: Response): Promise<string> {
  const { data } = workspaceParameters.safeParse(request.params);
  const workspaceId = data && workspaceOf(response, data.id);
  if (workspaceId === undefined || !(await fromRecord(workspaceExists(db, workspaceId)))) throw new ApiError(404, 'no such workspace');
  return workspaceId;
}

function keyView({ id, name, role, lastFour, createdAt, lastUsedAt }: ApiKeyRow): z.input<typeof keySchema> {
  return { id, name, role, lastFour, createdAt: createdAt.toISOString(), lastUsedAt: lastUsedAt?.toISOString() ?? null };
}
