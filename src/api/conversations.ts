/** Conversations and their messages, newest first, with cursor pagination. */
import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import { booleanParameter, integerParameter, noQuery, parsedQuery } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { phoneSchema } from '../platform/phone';
import {
  ConversationMode,
  type ConversationRow,
  findConversation,
  findConversations,
  findMessages,
  MessageDirection,
  MessageOutcome,
  type MessageRow,
  MessageStatus,
} from '../record/conversations';

const limit = integerParameter(1, 100).default(50).meta({ description: 'Maximum number of results (default 50).', example: 20 });
const position = z
  .string()
  .regex(/^[0-9]{1,18}$/)
  .transform(BigInt)
  .meta({ description: '`next` of the previous page.', example: '4711' });
const conversationCursor = z
  .string()
  .regex(/^[0-9]{1,13}_[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/)
  .transform((cursor) => {
    const [atMs = '0', id = ''] = cursor.split('_');
    return { at: new Date(Number(atMs)), id };
  })
  .meta({ description: '`next` of the previous page.', example: '1790000000000_2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10' });

export const conversationParameters = z.object({
  id: z.uuid().meta({ description: 'An `id` from the list.', example: '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10' }),
});
export const conversationsQuery = z.strictObject({
  limit,
  before: conversationCursor.optional(),
  workspaceId: z.guid().optional().meta({ description: 'Only those of this workspace.' }),
  needsAttention: booleanParameter.optional().meta({ description: 'Only those that need a person, or only the others.' }),
  mode: z.enum(ConversationMode).optional().meta({ description: 'Only those with this mode.' }),
  phone: phoneSchema.optional().meta({
    description:
      'Only those with the person who has this phone number. Any spelling with its country code; write the plus as %2B, or omit it.',
    example: '+15550100',
  }),
});
export const messagesQuery = z.strictObject({ limit, before: position.optional() });

const time = z.iso.datetime().meta({ description: 'UTC.', example: '2026-11-21T12:00:00.000Z' });

const attentionReasonSchema = z
  .object({
    kind: z.string().meta({
      description:
        '`turn_failed`, `reply_failed`, `send_unconfirmed`, `waiting_for_model`, `dead_letter`, `too_old`, `loop`; open to new values.',
      example: 'turn_failed',
    }),
    since: time,
    text: z
      .string()
      .meta({ description: 'What is wrong, in words.', example: 'waiting for a model: deepseek (deepseek-flash) responded with 503' }),
    subject: z.string().optional().meta({ description: 'What the reason is about, such as the id of a reply.' }),
  })
  .meta({ id: 'AttentionReason' });
const attentionSchema = z.array(attentionReasonSchema);

/** A conversation in a response. */
export const conversationSchema = z
  .object({
    id: z.uuid(),
    workspaceId: z.uuid(),
    workflowId: z.string().meta({ description: 'Id of its workflow in Temporal.' }),
    mode: z.enum(ConversationMode).meta({ description: 'Who replies: the AI, a person, or nobody (paused).' }),
    needsAttention: z.boolean(),
    attention: z.array(attentionReasonSchema).meta({ description: 'Why it needs a person. A reason stays until what it names is cured.' }),
    lastMessageAt: time.nullable(),
    lastMessagePreview: z.string().nullable(),
    unreadCount: z.int(),
    createdAt: time,
    contact: z.object({
      phone: z.string().nullable().meta({ description: 'Digits, no plus.' }),
      businessScopedUserId: z.string().nullable(),
      name: z.string().nullable(),
      username: z.string().nullable(),
    }),
  })
  .meta({ id: 'Conversation' });

/** A message in a response. */
export const messageSchema = z
  .object({
    id: z.uuid(),
    position: z
      .string()
      .regex(/^[0-9]+$/)
      .meta({ description: 'Order of arrival; a string, because it can exceed the precision of a double.' }),
    direction: z.enum(MessageDirection),
    kind: z.string().meta({ description: "WhatsApp's type of the message.", example: 'text' }),
    text: z.string().nullable(),
    payload: z.unknown().meta({ description: 'Content other than text; null for most messages.' }),
    status: z.enum(MessageStatus),
    outcome: z.enum(MessageOutcome).nullable().meta({
      description:
        'What became of an inbound message; null while it is being processed. Deliberately not answered: `too_old`, `loop` (probably from a bot), `group` (sent in a group).',
    }),
    replyToId: z.uuid().nullable(),
    partOfId: z.uuid().nullable().meta({
      description:
        'A reply that is too long for one message consists of several. Only the first has `replyToId`; the others have its id here.',
    }),
    part: z.int().meta({ description: 'Position of this message in the reply, from 1.' }),
    turnId: z.uuid().nullable(),
    provider: z.string().nullable(),
    model: z.string().nullable(),
    attempts: z.int().nullable(),
    latencyMs: z.int().nullable(),
    promptTokens: z.int().nullable(),
    completionTokens: z.int().nullable(),
    failure: z.string().nullable(),
    providerMessageId: z.string().nullable(),
    occurredAt: time,
    createdAt: time,
  })
  .meta({ id: 'Message' });

const next = z.string().nullable().meta({ description: '`before` for the next page; null on the last page.' });
export const conversationPage = z.object({ data: z.array(conversationSchema), next }).meta({ id: 'ConversationPage' });
export const messagePage = z.object({ data: z.array(messageSchema), next }).meta({ id: 'MessagePage' });

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });
const noSuchConversation = problems({ 404: 'No such conversation.' });

export const conversationPaths: ZodOpenApiPathsObject = {
  '/api/v1/conversations': {
    get: {
      tags: ['Conversations'],
      summary: 'List conversations',
      operationId: 'listConversations',
      ...needs('conversations:read'),
      requestParams: { query: conversationsQuery },
      responses: { 200: { description: 'Newest first.', content: json(conversationPage) }, ...guardedProblems },
    },
  },
  '/api/v1/conversations/{id}': {
    get: {
      tags: ['Conversations'],
      summary: 'Show a conversation',
      description: 'The id of a conversation that was merged into another one finds that one, with its own id.',
      operationId: 'getConversation',
      ...needs('conversations:read'),
      requestParams: { path: conversationParameters },
      responses: {
        200: { description: 'The conversation.', content: json(conversationSchema) },
        ...noSuchConversation,
        ...guardedProblems,
      },
    },
  },
  '/api/v1/conversations/{id}/messages': {
    get: {
      tags: ['Conversations'],
      summary: "List a conversation's messages",
      operationId: 'listMessages',
      ...needs('conversations:read'),
      requestParams: { path: conversationParameters, query: messagesQuery },
      responses: { 200: { description: 'Newest first.', content: json(messagePage) }, ...noSuchConversation, ...guardedProblems },
    },
  },
};

/** Routes under `/api/v1/conversations`. */
export function conversationRoutes(db: Database): Router {
  const router = Router();
  router.get('/', (request, response) => listConversations(db, request, response));
  router.get('/:id', (request, response) => showConversation(db, request, response));
  router.get('/:id/messages', (request, response) => listMessages(db, request, response));
  return router;
}

async function listConversations(db: Database, request: Request, response: Response): Promise<void> {
  const { limit: most, before, workspaceId: requested, ...filter } = parsedQuery(conversationsQuery, request.query);
  const workspaceId = workspaceOf(response, requested);
  const { rows, hasMore } = await fromRecord(findConversations(db, { ...filter, workspaceId }, { limit: most, before }));
  const last = rows.at(-1);
  response.json({
    data: rows.map(conversationView),
    next: hasMore && last?.lastMessageAt ? `${last.lastMessageAt.getTime()}_${last.id}` : null,
  } satisfies z.input<typeof conversationPage>);
}

async function showConversation(db: Database, request: Request, response: Response): Promise<void> {
  const id = conversationId(request);
  parsedQuery(noQuery, request.query);
  const row = await fromRecord(findConversation(db, id, workspaceOf(response)));
  if (!row) throw new ApiError(404, 'no such conversation');
  response.json(conversationView(row));
}

async function listMessages(db: Database, request: Request, response: Response): Promise<void> {
  const id = conversationId(request);
  const { limit: most, before } = parsedQuery(messagesQuery, request.query);
  const page = await fromRecord(findMessages(db, id, workspaceOf(response), { limit: most, before }));
  if (!page) throw new ApiError(404, 'no such conversation');
  const data = page.rows.map(messageView);
  response.json({ data, next: page.hasMore ? (data.at(-1)?.position ?? null) : null } satisfies z.input<typeof messagePage>);
}

function conversationView(row: ConversationRow): z.input<typeof conversationSchema> {
  const attention = attentionSchema.catch([]).parse(row.attention);
  return { ...row, attention, lastMessageAt: row.lastMessageAt?.toISOString() ?? null, createdAt: row.createdAt.toISOString() };
}

function messageView(row: MessageRow): z.input<typeof messageSchema> {
  return { ...row, position: String(row.position), occurredAt: row.occurredAt.toISOString(), createdAt: row.createdAt.toISOString() };
}

/** @throws ApiError 404, also for a string that cannot be an id */
function conversationId(request: Request): string {
  const parameters = conversationParameters.safeParse(request.params);
  if (!parameters.success) throw new ApiError(404, 'no such conversation');
  return parameters.data.id;
}
