/** Answers a customer by hand: the message goes through the same outbox as the bot's replies. */
import { createHash } from 'node:crypto';
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiOperationObject } from 'zod-openapi';
import type { SendRequested } from '../../workflows/contract';
import { accessOf } from '../http/access';
import { ApiError, guardedProblems, problems, RETRY_AFTER } from '../http/errors';
import { needs } from '../http/permissions';
import { keyHash } from '../http/rate-limits';
import { noQuery, orNull, parsed, parsedQuery } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { findMessage } from '../record/conversations';
import { type HandMessageInOutbox, type HandMessageVerdict, storeHandMessage } from '../record/hand-messages';
import { requestedConversation } from './conversation-access';
import { personName } from './conversation-modes';
import { conversationParameters, messageSchema, messageView } from './conversations';

/** WhatsApp's limit (Meta, send messages). */
const MAX_TEXT_LENGTH = 4_096;
const BODY_LIMIT_BYTES = 64 * 1024;
export interface HandMessageDependencies {
  db: Database;
  logger: Logger;
  /** Tells the workflow of the conversation about the message. Rejects if Temporal does not take it in time. */
  requestSend(workflowId: string, request: SendRequested): Promise<void>;
}

const handMessageHeaders = z.object({
  'Idempotency-Key': z
    .string({ error: 'is required' })
    .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible characters, the same for every attempt at the same message')
    .meta({ description: 'Repeating a request with the same key, body and API key returns the same message.', example: 'answer-4711' }),
});
const handMessageBody = z
  .strictObject({
    text: z
      .string()
      .max(MAX_TEXT_LENGTH, `must be at most ${MAX_TEXT_LENGTH} characters`)
      .refine((text) => text.trim() !== '', 'must not be empty')
      .refine((text) => text.isWellFormed() && !text.includes('\0'), 'must be text without NUL and without lone surrogates'),
    replyTo: orNull(z.uuid()).meta({ description: 'Id of a message of this conversation, which is quoted.' }),
    by: orNull(personName).meta({ description: 'Who writes it (default: the name of the API key).', example: 'Ann' }),
  })
  .meta({ id: 'HandMessage' });

/** Routes under `/api/v1/conversations/:id`. */
export function handMessageRoutes(dependencies: HandMessageDependencies): Router {
  const router = Router();
  router.post('/:id/messages', express.json({ limit: BODY_LIMIT_BYTES, type: () => true }), (request, response) =>
    sendByHand(dependencies, request, response),
  );
  return router;
}

async function sendByHand(dependencies: HandMessageDependencies, request: Request, response: Response): Promise<void> {
  const { db } = dependencies;
  parsedQuery(noQuery, request.query);
  const { 'Idempotency-Key': key } = parsed(handMessageHeaders, { 'Idempotency-Key': request.get('Idempotency-Key') });
  const { text, replyTo, by = accessOf(response).name } = parsed(handMessageBody, request.body);
  const { id: conversationId, workspaceId } = await requestedConversation(db, request, response);
  const id = messageIdOf(workspaceId, keyHash(request), key);
  const requestHash = sha256(JSON.stringify([request.params.id, text, replyTo ?? null, by]));
  const stored = required(
    await fromRecord(storeHandMessage(db, { id, conversationId, text, quotedId: replyTo, by, requestHash })),
    requestHash,
  );
  if (stored.status === 'pending') await requestSend(dependencies, stored);
  const row = await fromRecord(findMessage(db, id));
  if (!row) throw new ApiError(404, 'no such message');
  response.status(202).json(messageView(row) satisfies z.input<typeof messageSchema>);
}

/** @throws ApiError for what cannot be sent */
function required(verdict: HandMessageVerdict, requestHash: string): HandMessageInOutbox {
  switch (verdict.kind) {
    case 'stored':
      if (verdict.requestHash !== requestHash) throw new ApiError(409, 'this Idempotency-Key was used with a different request');
      return verdict;
    case 'nothing_to_quote':
      throw new ApiError(422, 'replyTo: is no message of this conversation that WhatsApp knows');
    case 'window_closed': {
      const last = verdict.lastInboundAt ? `last wrote at ${verdict.lastInboundAt.toISOString()}` : 'has never written';
      throw new ApiError(422, `the customer ${last}; WhatsApp takes free text only within 24 hours of that`);
    }
  }
}

async function requestSend(
  dependencies: HandMessageDependencies,
  { id: messageId, conversationId, workflowId, sendConfirmMs, answeredIds }: HandMessageInOutbox,
): Promise<void> {
  try {
    await dependencies.requestSend(workflowId, { messageId, conversationId, sendConfirmMs, answeredIds });
  } catch (error) {
    // A worker sends it later (src/processes/silent-watch.ts); a repeated request only speeds it up.
    dependencies.logger.error({ error, messageId }, 'Temporal did not accept a message by hand');
    throw new ApiError(503, 'Temporal did not accept the message yet; please send it again with the same Idempotency-Key', RETRY_AFTER);
  }
}

/** The same for every attempt; the idempotency keys of different callers do not collide. */
function messageIdOf(workspaceId: string, caller: string, key: string): string {
  const digest = sha256(`${workspaceId} ${caller} ${key}`);
  // Version 8 of RFC 9562: an id of our own making.
  return `${digest.slice(0, 8)}-${digest.slice(8, 12)}-8${digest.slice(13, 16)}-a${digest.slice(17, 20)}-${digest.slice(20, 32)}`;
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** The operation in the OpenAPI document; the path also has a GET. */
export const sendByHandOperation: ZodOpenApiOperationObject = {
  tags: ['Conversations'],
  summary: 'Send a message by hand',
  description:
    'Goes through the same outbox as the replies of the bot, whatever the mode is. While a person has the conversation, or it is paused, it answers everything that is open. It changes no mode: take over first, so that the bot does not answer as well.',
  operationId: 'sendMessage',
  ...needs('messages:send'),
  requestParams: { path: conversationParameters, header: handMessageHeaders },
  requestBody: {
    required: true,
    content: { 'application/json': { schema: handMessageBody, example: { text: 'Your order is ready.', by: 'Ann' } } },
  },
  responses: {
    202: { description: 'Accepted; its `status` says how far it is.', content: { 'application/json': { schema: messageSchema } } },
    ...guardedProblems,
    ...problems({
      404: 'No such conversation.',
      409: 'The key was used with a different request.',
      413: 'The body is larger than 64 KB.',
      415: 'Unsupported content encoding or charset.',
      422: 'WhatsApp would refuse it; `detail` says why.',
    }),
  },
};
