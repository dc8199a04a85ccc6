/** A conversation's session as a result that flows can wait for: flat, complete, and always a 200. */
import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems, RETRY_AFTER } from '../http/errors';
import { needs } from '../http/permissions';
import { clientLeft, parsedQuery, waitSeconds } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { ConversationMode, MessageOutcome } from '../record/conversations';
import { findSession, type Session } from '../record/sessions';
import type { CallWaiters } from './call-waiters';
import { attentionSchema, conversationId, conversationParameters } from './conversations';

/** Timeout of a request to Temporal. */
const TEMPORAL_TIMEOUT_MS = 5_000;

export const resultQuery = z.strictObject({
  wait: waitSeconds.optional().meta({
    description: 'Seconds to wait for the end of the session; if it goes on, the response has `done: false`.',
  }),
});

const count = z.int().min(0);
const time = z.iso.datetime();
export const sessionResultSchema = z
  .object({
    conversationId: z.uuid(),
    workspaceId: z.uuid(),
    workflowId: z.string(),
    done: z
      .boolean()
      .meta({ description: 'The session is over: nobody has said anything for the session timeout (`SESSION_TIMEOUT_MS`).' }),
    mode: z.enum(ConversationMode),
    startedAt: time.nullable().meta({ description: 'When its first message arrived; null if there is no message.' }),
    lastMessageAt: time.nullable(),
    messages: count.meta({ description: 'Messages of the customer in this session.' }),
    replies: count.meta({ description: 'Messages to the customer that were sent; a long reply counts once.' }),
    pending: count.meta({ description: 'Messages of the customer that have no outcome yet.' }),
    outcomes: z
      .object(Object.fromEntries(Object.values(MessageOutcome).map((outcome) => [outcome, count])) as Record<MessageOutcome, typeof count>)
      .meta({ description: 'Messages of the customer by outcome.' }),
    needsAttention: z.boolean(),
    attention: attentionSchema.meta({ description: 'Why the conversation needs a person.' }),
    unreadCount: z.int(),
    summary: z
      .string()
      .meta({ description: 'The same in words, without personal data.', example: '3 messages, 2 replies. Needs a person: turn failed.' }),
  })
  .meta({ id: 'SessionResult', description: 'The latest session of a conversation: its messages since the last longer pause.' });

interface ResultDependencies {
  db: Database;
  temporal: Client;
  waiters: CallWaiters;
  logger: Logger;
}

/** Routes under `/api/v1/conversations`. */
export function sessionResultRoutes(dependencies: ResultDependencies): Router {
  const router = Router();
  router.get('/:id/result', (request, response) => showResult(dependencies, request, response));
  return router;
}

async function showResult(dependencies: ResultDependencies, request: Request, response: Response): Promise<void> {
  const left = clientLeft(response);
  const { wait = 0 } = parsedQuery(resultQuery, request.query);
  const id = conversationId(request);
  const workspaceId = workspaceOf(response);
  const read = async () => {
    const session = await fromRecord(findSession(dependencies.db, id, workspaceId));
    if (!session) throw new ApiError(404, 'no such conversation');
    return session;
  };
  const { workflowId } = await read();
  const done = wait === 0 ? await isOver(dependencies, workflowId) : await dependencies.waiters.wait(workflowId, wait * 1_000, left);
  if (left.aborted) return;
  // Read after the end, so that it is complete.
  response.set('Cache-Control', 'no-store').json(resultView(await read(), done));
}

/** Whether no workflow of the conversation is running. @throws ApiError 503 if Temporal does not say */
async function isOver({ temporal, logger }: ResultDependencies, workflowId: string): Promise<boolean> {
  try {
    const described = await temporal.connection.withDeadline(Date.now() + TEMPORAL_TIMEOUT_MS, () =>
      temporal.workflow.getHandle(workflowId).describe(),
    );
    return described.status.name !== 'RUNNING';
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return true;
    logger.warn({ error, workflowId }, 'Temporal did not say whether a session is over');
    throw new ApiError(503, 'Temporal is unavailable; please retry', RETRY_AFTER);
  }
}

function resultView(session: Session, done: boolean): z.input<typeof sessionResultSchema> {
  const { startedAt, lastMessageAt, outcomes } = session;
  const attention = attentionSchema.catch([]).parse(session.attention);
  return {
    ...session,
    done,
    startedAt: startedAt?.toISOString() ?? null,
    lastMessageAt: lastMessageAt?.toISOString() ?? null,
    outcomes: Object.fromEntries(Object.values(MessageOutcome).map((outcome) => [outcome, outcomes[outcome] ?? 0])) as Record<
      MessageOutcome,
      number
    >,
    attention,
    summary: summaryOf(session, attention),
  };
}

function summaryOf({ messages, replies, pending, mode }: Session, attention: { kind: string }[]): string {
  const kinds = [...new Set(attention.map(({ kind }) => kind.replaceAll('_', ' ')))];
  return [
    `${counted(messages, 'message', 'messages')}, ${counted(replies, 'reply', 'replies')}${pending > 0 ? `, ${pending} not handled yet` : ''}.`,
    ...(mode === 'human' ? ['A person has the conversation.'] : mode === 'paused' ? ['The conversation is paused.'] : []),
    ...(kinds.length > 0 ? [`Needs a person: ${kinds.join(', ')}.`] : []),
  ].join(' ');
}

function counted(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`;
}

export const sessionResultPaths: ZodOpenApiPathsObject = {
  '/api/v1/conversations/{id}/result': {
    get: {
      tags: ['Conversations'],
      summary: 'Show the result of the latest session, or wait for its end',
      description: 'Responds as soon as the session is over, or after `wait` seconds. It is known for as long as its messages are stored.',
      operationId: 'getSessionResult',
      ...needs('conversations:read'),
      requestParams: { path: conversationParameters, query: resultQuery },
      responses: {
        200: { description: 'The session.', content: { 'application/json': { schema: sessionResultSchema } } },
        ...problems({ 404: 'No such conversation.' }),
        ...guardedProblems,
      },
    },
  },
};
