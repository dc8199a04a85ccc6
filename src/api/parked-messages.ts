/** Messages to numbers that belong to no workspace, newest first, with cursor pagination. */
import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { workspaceOf } from '../http/access';
import { guardedProblems } from '../http/errors';
import { needs } from '../http/permissions';
import { booleanParameter, cursorFrom, integerParameter, parsedQuery } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { findParkedMessages, type ParkedMessageRow } from '../record/parked-messages';

const EXAMPLE_ID = '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10';
const time = z.iso.datetime().meta({ description: 'UTC.', example: '2026-11-21T12:00:00.000Z' });
const cursor = cursorFrom('next').meta({ description: '`next` of the previous page.', example: `1790000000000_${EXAMPLE_ID}` });

const listQuery = z.strictObject({
  limit: integerParameter(1, 100).default(50).meta({ description: 'Maximum number of results (default 50).', example: 20 }),
  before: cursor.optional(),
  released: booleanParameter
    .optional()
    .meta({ description: 'Only those that have reached their conversation, or only those that are still waiting.' }),
});

const keptMessage = z.looseObject({
  kind: z.string().catch('unknown'),
  text: z.string().optional().catch(undefined),
  contact: z.looseObject({ phone: z.string().optional(), name: z.string().optional() }).catch({}),
});

const parkedMessageSchema = z
  .object({
    id: z.uuid(),
    phoneNumberId: z
      .string()
      .meta({ description: "Kapso's id of the business number, which belonged to no workspace.", example: '100000000000009' }),
    reason: z.string().meta({ example: 'no workspace has this number' }),
    kind: z.string().meta({ description: "WhatsApp's type of the message.", example: 'text' }),
    text: z.string().nullable(),
    contact: z.object({ phone: z.string().nullable().meta({ description: 'Digits, no plus.' }), name: z.string().nullable() }),
    createdAt: time,
    releasedAt: time.nullable().meta({ description: 'When it became a message of a conversation; null while it is waiting.' }),
  })
  .meta({ id: 'ParkedMessage' });
const page = z
  .object({
    data: z.array(parkedMessageSchema),
    next: z.string().nullable().meta({ description: '`before` for the next page; null on the last page.' }),
  })
  .meta({ id: 'ParkedMessagePage' });

export const parkedMessagePaths: ZodOpenApiPathsObject = {
  '/api/v1/parked-messages': {
    get: {
      tags: ['Conversations'],
      summary: 'List messages to numbers that belong to no workspace',
      description:
        'They reach their conversations once a workspace with the number exists. The key of a workspace lists those to its own number.',
      operationId: 'listParkedMessages',
      ...needs('parked-messages:read'),
      requestParams: { query: listQuery },
      responses: { 200: { description: 'Newest first.', content: { 'application/json': { schema: page } } }, ...guardedProblems },
    },
  },
};

/** Routes under `/api/v1/parked-messages`. */
export function parkedMessageRoutes(db: Database): Router {
  const router = Router();
  router.get('/', (request, response) => listParkedMessages(db, request, response));
  return router;
}

async function listParkedMessages(db: Database, request: Request, response: Response): Promise<void> {
  const { limit, before, released } = parsedQuery(listQuery, request.query);
  const { rows, hasMore } = await fromRecord(
    findParkedMessages(db, { isReleased: released, workspaceId: workspaceOf(response) }, { limit, before }),
  );
  const last = rows.at(-1);
  response.json({
    data: rows.map(parkedMessageView),
    next: hasMore && last ? `${last.createdAt.getTime()}_${last.id}` : null,
  } satisfies z.input<typeof page>);
}

function parkedMessageView({
  id,
  phoneNumberId,
  reason,
  message,
  createdAt,
  releasedAt,
}: ParkedMessageRow): z.input<typeof parkedMessageSchema> {
  const { kind, text, contact } = keptMessage.catch({ kind: 'unknown', contact: {} }).parse(message);
  return {
    id,
    phoneNumberId,
    reason,
    kind,
    text: text ?? null,
    contact: { phone: contact.phone ?? null, name: contact.name ?? null },
    createdAt: createdAt.toISOString(),
    releasedAt: releasedAt?.toISOString() ?? null,
  };
}
