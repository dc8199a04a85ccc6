/** What people do in a conversation without writing to the customer: write internal notes, and mark it as read. */
import { randomUUID } from 'node:crypto';
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { accessOf, workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems, RETRY_AFTER } from '../http/errors';
import { needs } from '../http/permissions';
import { keyHash } from '../http/rate-limits';
import { noQuery, parsed, parsedQuery, validText } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { findConversation } from '../record/conversations';
import type { Identity } from '../record/identity';
import { markRead, writeNote } from '../record/notes';
import { conversationId, conversationParameters, conversationSchema, conversationView } from './conversations';
import { singleMessageSchema, singleMessageView } from './messages';

const BODY_LIMIT_BYTES = 64 * 1024;

export const noteBody = z
  .strictObject({
    text: validText(4_096).meta({ description: 'What to remember.', example: 'Prefers to be called in the morning.' }),
    forModel: z.boolean().default(false).meta({ description: 'Whether the model reads it, as information about the conversation.' }),
  })
  .meta({ id: 'NewNote' });

export const noteHeaders = z.object({
  'Idempotency-Key': z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible characters, the same for every attempt at the same note')
    .optional()
    .meta({ description: 'Repeating a request with the same key, body and API key returns the same note.', example: 'flow-4711-note' }),
});

export interface NoteDependencies {
  db: Database;
  /** Undefined until PostgreSQL has been reached once. */
  identity(): Identity | undefined;
}

/** Routes under `/api/v1/conversations`. */
export function noteRoutes(dependencies: NoteDependencies): Router {
  const router = Router();
  router.post('/:id/notes', express.json({ limit: BODY_LIMIT_BYTES, type: () => true }), (request, response) =>
    addNote(dependencies, request, response),
  );
  router.post('/:id/read', (request, response) => readConversation(dependencies.db, request, response));
  return router;
}

async function addNote({ db, identity }: NoteDependencies, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  const { 'Idempotency-Key': idempotencyKey } = parsed(noteHeaders, { 'Idempotency-Key': request.get('Idempotency-Key') });
  const body = parsed(noteBody, request.body);
  const id = conversationId(request);
  const actor = accessOf(response);
  const workspaceId = workspaceOf(response);
  const ids = identity();
  if (!ids) throw new ApiError(503, 'still starting; please retry', RETRY_AFTER);
  const noteId = idempotencyKey === undefined ? randomUUID() : ids.noteId({ caller: keyHash(request), conversationId: id, idempotencyKey });
  const written = await fromRecord(writeNote(db, { ...body, id: noteId, conversationId: id, workspaceId, actor }));
  if (!written) throw new ApiError(404, 'no such conversation');
  if (written.isOther) throw new ApiError(409, 'this Idempotency-Key was used with a different body');
  response.status(201).location(`/api/v1/messages/${noteId}`).json(singleMessageView(written.note));
}

async function readConversation(db: Database, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  const id = conversationId(request);
  const workspaceId = workspaceOf(response);
  const isThere = await fromRecord(markRead(db, { conversationId: id, workspaceId, actor: accessOf(response) }));
  const row = isThere ? await fromRecord(findConversation(db, id, workspaceId)) : null;
  if (!row) throw new ApiError(404, 'no such conversation');
  response.json(conversationView(row));
}

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });

export const notePaths: ZodOpenApiPathsObject = {
  '/api/v1/conversations/{id}/notes': {
    post: {
      tags: ['Conversations'],
      summary: 'Add an internal note',
      description:
        'The customer never gets it. It is in the timeline, as a message with the direction `note` and the kind `internal_note`; `payload` has its author.',
      operationId: 'addNote',
      ...needs('conversations:write'),
      requestParams: { path: conversationParameters, header: noteHeaders },
      requestBody: {
        required: true,
        content: { 'application/json': { schema: noteBody, example: { text: 'Prefers to be called in the morning.' } } },
      },
      responses: {
        201: {
          description: 'Stored.',
          headers: { Location: { required: true, schema: { type: 'string' }, description: 'The note.' } },
          content: json(singleMessageSchema),
        },
        ...problems({
          404: 'No such conversation.',
          409: 'This `Idempotency-Key` was used with a different body.',
          413: `The body is larger than ${BODY_LIMIT_BYTES / 1024} KiB.`,
          415: 'The charset or encoding of the body is not supported.',
        }),
        ...guardedProblems,
      },
    },
  },
  '/api/v1/conversations/{id}/read': {
    post: {
      tags: ['Conversations'],
      summary: 'Mark a conversation as read',
      description: 'Sets `unreadCount` to 0. The customer does not see it.',
      operationId: 'markConversationRead',
      ...needs('conversations:write'),
      requestParams: { path: conversationParameters },
      responses: {
        200: { description: 'The conversation.', content: json(conversationSchema) },
        ...problems({ 404: 'No such conversation.' }),
        ...guardedProblems,
      },
    },
  },
};
