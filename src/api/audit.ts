/** The audit log: changes, newest first, with cursor pagination. */
import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { workspaceOf } from '../http/access';
import { guardedProblems } from '../http/errors';
import { needs } from '../http/permissions';
import { cursorFrom, integerParameter, parsedQuery } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { type AuditRow, findAuditEntries } from '../record/audit';

const EXAMPLE_ID = '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10';
const time = z.iso.datetime().meta({ description: 'UTC.', example: '2026-11-21T12:00:00.000Z' });
const cursor = cursorFrom('next').meta({ description: '`next` of the previous page.', example: `1790000000000_${EXAMPLE_ID}` });

const listQuery = z.strictObject({
  limit: integerParameter(1, 100).default(50).meta({ description: 'Maximum number of results (default 50).', example: 20 }),
  before: cursor.optional(),
  workspaceId: z.guid().optional().meta({ description: 'Only changes of this workspace.' }),
  action: z
    .string()
    .regex(/^[a-z_]{1,40}\.[a-z_]{1,40}$/, 'must be an action such as key.created')
    .optional()
    .meta({ description: 'Only changes of this kind.', example: 'key.created' }),
  subject: z
    .string()
    .regex(/^[\w-]{1,40} [\w-]{1,80}$/, 'must be a kind and an id, such as `conversation <id>`')
    .optional()
    .meta({ description: 'Only changes of this one.', example: `key ${EXAMPLE_ID}` }),
});

const auditEntrySchema = z
  .object({
    id: z.guid(),
    workspaceId: z.guid().nullable().meta({ description: 'Null if it concerns the whole installation.' }),
    actor: z.string().meta({ description: 'The name of the key; `API_KEYS #n` for the nth of the installation.', example: 'Front desk' }),
    actorKeyId: z.guid().nullable().meta({ description: 'Null for a key of `API_KEYS`.' }),
    action: z.string().meta({ description: 'What was done; open to new values.', example: 'key.created' }),
    subject: z.string().meta({ description: 'What it was done to.', example: `key ${EXAMPLE_ID}` }),
    before: z.unknown().meta({ description: 'What changed, as it was; null if there is nothing to show. Never a secret.' }),
    after: z.unknown().meta({ description: 'What changed, as it is now.' }),
    createdAt: time,
  })
  .meta({ id: 'AuditEntry' });
const auditPage = z
  .object({
    data: z.array(auditEntrySchema),
    next: z.string().nullable().meta({ description: '`before` for the next page; null on the last page.' }),
  })
  .meta({ id: 'AuditPage' });

export const auditPaths: ZodOpenApiPathsObject = {
  '/api/v1/audit': {
    get: {
      tags: ['Workspaces'],
      summary: 'List what people changed',
      description: 'Kept for AUDIT_RETENTION_DAYS, also when what was changed is gone.',
      operationId: 'listAuditEntries',
      ...needs('audit:read'),
      requestParams: { query: listQuery },
      responses: { 200: { description: 'Newest first.', content: { 'application/json': { schema: auditPage } } }, ...guardedProblems },
    },
  },
};

/** The route `/api/v1/audit`. */
export function auditRoutes(db: Database): Router {
  const router = Router();
  router.get('/', (request, response) => listAudit(db, request, response));
  return router;
}

async function listAudit(db: Database, request: Request, response: Response): Promise<void> {
  const { limit, before, workspaceId, ...filter } = parsedQuery(listQuery, request.query);
  const scope = workspaceOf(response, workspaceId);
  const { rows, hasMore } = await fromRecord(findAuditEntries(db, { ...filter, workspaceId: scope }, { limit, before }));
  const last = rows.at(-1);
  response.json({
    data: rows.map(auditView),
    next: hasMore && last ? `${last.createdAt.getTime()}_${last.id}` : null,
  } satisfies z.input<typeof auditPage>);
}

function auditView({ createdAt, ...row }: AuditRow): z.input<typeof auditEntrySchema> {
  return { ...row, createdAt: createdAt.toISOString() };
}
