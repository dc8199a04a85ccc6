/** Conversations and their messages, newest first, with cursor pagination. */
import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { ATTENTION_KINDS, HAND_OVER_REASONS } from '../../workflows/contract';
import { workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import {
  booleanParameter,
  clientLeft,
  cursorFrom,
  integerParameter,
  invalidCursor,
  noQuery,
  parsedQuery,
  waitSeconds,
} from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { phoneSchema } from '../platform/phone';
import {
  ConversationMode,
  type ConversationRow,
  findConversation,
  findConversations,
  findMessages,
  MessageAuthor,
  MessageDirection,
  MessageOutcome,
  type MessageRow,
  MessageStatus,
} from '../record/conversations';
import type { AttentionQueue } from './attention-queue';

const limit = integerParameter(1, 100).default(50).meta({ description: 'Maximum number of results (default 50).', example: 20 });
const position = z
  .string()
  .regex(/^[0-9]{1,18}$/, invalidCursor('next'))
  .transform(BigInt)
  .meta({ description: '`next` of the previous page.', example: '4711' });
const conversationCursor = cursorFrom('next').meta({
  description: '`next` of the previous page.',
  example: '1790000000000_2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10',
});

/** A place in the queue of those who wait for a person. */
const queueCursor = cursorFrom('after')
  .transform(({ at, id }) => ({ since: at.toISOString(), id }))
  .meta({
    description: '`after` of an earlier response: only those who began to wait later. Needs `attention`.',
    example: '1790000000000_2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10',
  });
const attentionKinds = z
  .string()
  .max(500)
  .transform((value) => value.split(','))
  .pipe(z.array(z.enum(['any', ...ATTENTION_KINDS])))
  .meta({
    description:
      'Only those who need a person for one of these reasons, comma-separated, or for `any`; who has waited longest comes first. Not together with `before`, `needsAttention`, `mode` or `phone`.',
    example: 'turn_failed,reply_failed',
    override: { type: 'string', pattern: `^(${['any', ...ATTENTION_KINDS].join('|')})(,(${['any', ...ATTENTION_KINDS].join('|')}))*$` },
  });

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
  attention: attentionKinds.optional(),
  after: queueCursor.optional(),
  wait: waitSeconds.optional().meta({ description: 'Seconds to wait until there is one. Needs `attention`.' }),
});
export const messagesQuery = z.strictObject({ limit, before: position.optional() });

const time = z.iso.datetime().meta({ description: 'UTC.', example: '2026-11-21T12:00:00.000Z' });

const attentionReasonSchema = z
  .object({
    kind: z.string().meta({
      description:
        '`turn_failed`, `reply_failed`, `send_unconfirmed`, `waiting_for_model`, `dead_letter`, `too_old`, `loop`, `undelivered`, `waiting_for_person`, `handed_over`; open to new values.',
      example: 'turn_failed',
    }),
    since: time,
    text: z
      .string()
      .meta({ description: 'What is wrong, in words.', example: 'waiting for a model: deepseek (deepseek-flash) responded with 503' }),
    subject: z.string().optional().meta({ description: 'What the reason is about, such as the id of a reply.' }),
  })
  .meta({ id: 'AttentionReason' });
/** The reasons in a response. */
export const attentionSchema = z.array(attentionReasonSchema);

const handOverSchema = z
  .object({
    reason: z.enum(HAND_OVER_REASONS),
    summary: z.string().nullable(),
    questions: z.array(z.string()).meta({ description: 'What is still open.' }),
    at: time,
  })
  .meta({ id: 'HandOver' });

/** A conversation in a response. */
export const conversationSchema = z
  .object({
    id: z.uuid(),
    workspaceId: z.uuid(),
    workflowId: z.string().meta({ description: 'Id of its workflow in Temporal.' }),
    mode: z.enum(ConversationMode).meta({
      description:
        'Who replies: the AI, a person, or nobody (paused). The mode of the workspace or the installation may silence the AI as well.',
    }),
    modeUntil: time.nullable().meta({ description: 'When the AI comes back by itself.' }),
    heldBy: z.string().nullable().meta({ description: 'The person who has it.' }),
    heldSince: time.nullable(),
    waitingSince: time.nullable().meta({ description: 'Since when the customer waits, because the AI is silent.' }),
    handOver: handOverSchema.nullable(),
    needsAttention: z.boolean(),
    attention: z.array(attentionReasonSchema).meta({ description: 'Why it needs a person. A reason stays until what it names is cured.' }),
    attentionSince: time.nullable().meta({ description: 'Since when it needs a person: the time of its oldest reason.' }),
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
        'What became of an inbound message; null while it is being processed, or waits for a person. `merged`: answered by the reply to a later message of the same turn; `superseded`: so, too, after a draft of its own was thrown away. Deliberately not answered: `too_old`, `loop` (probably from a bot), `group` (sent in a group).',
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
    author: z.enum(MessageAuthor).nullable().meta({
      description:
        'Who wrote an outbound message: the model, a person by hand, the owner on the phone, or a fixed text. Null: a message after a call.',
    }),
    authorName: z.string().nullable().meta({ description: "The person's name, if it is known." }),
    quotedId: z.uuid().nullable().meta({ description: 'The message that a person quoted.' }),
    occurredAt: time,
    editedAt: time.nullable(),
    deletedAt: time.nullable().meta({ description: 'When its author deleted it. It has no text any more.' }),
    createdAt: time,
  })
  .meta({ id: 'Message' });

const next = z.string().nullable().meta({ description: '`before` for the next page; null on the last page.' });
const after = z.string().nullable().meta({ description: 'With `attention`: `after` for those who begin to wait later; otherwise null.' });
export const conversationPage = z.object({ data: z.array(conversationSchema), next, after }).meta({ id: 'ConversationPage' });
export const messagePage = z.object({ data: z.array(messageSchema), next }).meta({ id: 'MessagePage' });

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });
const noSuchConversation = problems({ 404: 'No such conversation.' });

export const conversationPaths: ZodOpenApiPathsObject = {
  '/api/v1/conversations': {
    get: {
      tags: ['Conversations'],
      summary: 'List conversations, or wait until one needs a person',
      operationId: 'listConversations',
      ...needs('conversations:read'),
      requestParams: { query: conversationsQuery },
      responses: {
        200: { description: 'Newest first; with `attention`, who has waited longest.', content: json(conversationPage) },
        ...guardedProblems,
      },
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
export function conversationRoutes(db: Database, queue: AttentionQueue): Router {
  const router = Router();
  router.get('/', (request, response) =>
    request.query.attention === undefined ? listConversations(db, request, response) : listQueue(queue, request, response),
  );
  router.get('/:id', (request, response) => showConversation(db, request, response));
  router.get('/:id/messages', (request, response) => listMessages(db, request, response));
  return router;
}

async function listConversations(db: Database, request: Request, response: Response): Promise<void> {
  const {
    limit: most,
    before,
    workspaceId: requested,
    attention: _none,
    after: position,
    wait,
    ...filter
  } = parsedQuery(conversationsQuery, request.query);
  for (const [name, value] of Object.entries({ after: position, wait })) {
    if (value !== undefined) throw new ApiError(400, `${name}: needs attention, which says who to wait for`);
  }
  const workspaceId = workspaceOf(response, requested);
  const { rows, hasMore } = await fromRecord(findConversations(db, { ...filter, workspaceId }, { limit: most, before }));
  const last = rows.at(-1);
  response.json({
    data: rows.map(conversationView),
    next: hasMore && last?.lastMessageAt ? `${last.lastMessageAt.getTime()}_${last.id}` : null,
    after: null,
  } satisfies z.input<typeof conversationPage>);
}

/** The queue of those who wait for a person. A conversation is listed again after a position if it got another reason since. */
async function listQueue(queue: AttentionQueue, request: Request, response: Response): Promise<void> {
  const left = clientLeft(response);
  const {
    limit: most,
    workspaceId: requested,
    attention = [],
    after: position,
    wait = 0,
    ...others
  } = parsedQuery(conversationsQuery, request.query);
  for (const [name, value] of Object.entries(others)) {
    if (value !== undefined) throw new ApiError(400, `${name}: cannot be combined with attention`);
  }
  const kinds = attention.includes('any') ? undefined : attention;
  const workspaceId = workspaceOf(response, requested);
  const found = await queue.read({ workspaceId, kinds, after: position }, most, wait * 1_000, left);
  if (left.aborted) return;
  const last = found.at(-1)?.position ?? position;
  response.set('Cache-Control', 'no-store').json({
    data: found.map(({ conversation }) => conversationView(conversation)),
    next: null,
    after: last === undefined ? null : `${Date.parse(last.since)}_${last.id}`,
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

/** A conversation as the API shows it. */
export function conversationView(row: ConversationRow): z.input<typeof conversationSchema> {
  const attention = attentionSchema.catch([]).parse(row.attention);
  const attentionSince = attention.map(({ since }) => since).sort()[0] ?? null;
  return {
    ...row,
    ...currentMode(row),
    attention,
    attentionSince,
    waitingSince: row.waitingSince?.toISOString() ?? null,
    handOver: handOverSchema.nullable().catch(null).parse(row.handOver),
    lastMessageAt: row.lastMessageAt?.toISOString() ?? null,
    createdAt: row.createdAt.toISOString(),
  };
}

/** An expired mode has ended, even if no statement has updated the row yet. */
function currentMode({ mode, modeUntil, heldBy, heldSince }: ConversationRow) {
  if (modeUntil && modeUntil.getTime() <= Date.now()) return { mode: 'ai', modeUntil: null, heldBy: null, heldSince: null } as const;
  return { mode, modeUntil: modeUntil?.toISOString() ?? null, heldBy, heldSince: heldSince?.toISOString() ?? null };
}

/** A message as the API shows it. */
export function messageView(row: MessageRow): z.input<typeof messageSchema> {
  return {
    ...row,
    position: String(row.position),
    occurredAt: row.occurredAt.toISOString(),
    editedAt: row.editedAt?.toISOString() ?? null,
    deletedAt: row.deletedAt?.toISOString() ?? null,
    createdAt: row.createdAt.toISOString(),
  };
}

/** The id in the path. @throws ApiError 404, also for a string that cannot be an id */
export function conversationId(request: Request): string {
  const parameters = conversationParameters.safeParse(request.params);
  if (!parameters.success) throw new ApiError(404, 'no such conversation');
  return parameters.data.id;
}
