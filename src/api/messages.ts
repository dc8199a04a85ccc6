/** A single message, and waiting until it is sent, delivered or read. */
import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import { clientLeft, parsedQuery, waitSeconds } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { MessageStatus } from '../record/conversations';
import { findMessage, findStatuses, type SingleMessage } from '../record/messages';
import type { CallWaiters } from './call-waiters';
import { messageSchema, messageView } from './conversations';
import { createSharedPoll, type SharedPoll } from './shared-poll';

/** Maximum delay of a status, in milliseconds. */
const LOOK_EVERY_MS = 250;

const AWAITED = ['sent', 'delivered', 'read'] as const;
type Awaited = (typeof AWAITED)[number];

const messageParameters = z.object({
  id: z.uuid().meta({ description: 'The `id` of a message.', example: '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10' }),
});
export const messageQuery = z.strictObject({
  for: z.enum(AWAITED).optional().meta({
    description:
      'What `done` means: the message has at least this status (default `sent`). `read` may never come, because customers can switch it off.',
  }),
  wait: waitSeconds
    .optional()
    .meta({ description: 'Seconds to wait for that status; without it by then, the response has `done: false`.' }),
});

/** A message in a response, with the result of the wait. */
export const singleMessageSchema = messageSchema
  .extend({
    conversationId: z.uuid(),
    workspaceId: z.uuid(),
    done: z.boolean().meta({
      description: 'It has the awaited status, or will never have it: it failed (`failure` says why), or was not written by the business.',
    }),
  })
  .meta({ id: 'SingleMessage' });

/** A message as the API shows it on its own. */
export function singleMessageView(message: SingleMessage, awaited: Awaited = 'sent'): z.input<typeof singleMessageSchema> {
  const { conversationId, workspaceId } = message;
  return { ...messageView(message), conversationId, workspaceId, done: isOutbound(message) ? hasReached(message.status, awaited) : true };
}

function isOutbound({ direction }: SingleMessage): boolean {
  return direction === 'outbound';
}

/** The statuses in the order in which a message gets them; `failed` is last, because nothing follows it. */
function hasReached(status: MessageStatus, awaited: Awaited): boolean {
  const order = Object.values(MessageStatus);
  return order.indexOf(status) >= order.indexOf(awaited);
}

interface MessageDependencies {
  db: Database;
  waiters: CallWaiters;
  logger: Logger;
}

/** Routes under `/api/v1/messages`. */
export function messageRoutes({ db, waiters, logger }: MessageDependencies): Router {
  const router = Router();
  const read = (ids: string[]) => findStatuses(db, ids);
  const statuses = createSharedPoll<MessageStatus>({ waiters, read, everyMs: LOOK_EVERY_MS, logger });
  router.get('/:id', (request, response) => showMessage(db, statuses, request, response));
  return router;
}

async function showMessage(db: Database, statuses: SharedPoll<MessageStatus>, request: Request, response: Response): Promise<void> {
  const left = clientLeft(response);
  const { for: awaited = 'sent', wait = 0 } = parsedQuery(messageQuery, request.query);
  const workspaceId = workspaceOf(response);
  const parameters = messageParameters.safeParse(request.params);
  const id = parameters.success ? parameters.data.id : undefined;
  const read = async () => (id === undefined ? null : await fromRecord(findMessage(db, id, workspaceId)));
  const message = await read();
  if (!message) throw new ApiError(404, 'no such message');
  let current = message;
  if (wait > 0 && !singleMessageView(message, awaited).done) {
    await statuses.wait(message.id, (status) => hasReached(status, awaited), wait * 1_000, left);
    if (left.aborted) return;
    current = (await read()) ?? message;
  }
  response.set('Cache-Control', 'no-store').json(singleMessageView(current, awaited));
}

export const messagePaths: ZodOpenApiPathsObject = {
  '/api/v1/messages/{id}': {
    get: {
      tags: ['Conversations'],
      summary: 'Show a message, or wait for its status',
      description: 'Responds as soon as `done` is true, or after `wait` seconds. A message that failed is a result like any other.',
      operationId: 'getMessage',
      ...needs('conversations:read'),
      requestParams: { path: messageParameters, query: messageQuery },
      responses: {
        200: { description: 'The message.', content: { 'application/json': { schema: singleMessageSchema } } },
        ...problems({ 404: 'No such message.' }),
        ...guardedProblems,
      },
    },
  },
};
