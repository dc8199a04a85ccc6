/** What operators and callers can read: conversations and their messages, newest first, paged by cursor. */
import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { Prisma, PrismaClient } from '../../prisma/generated/client';
import { ApiError } from './errors';

const limit = z.coerce.number().int().min(1).max(100).default(50);
const uuid = z.uuid();
const position = z
  .string()
  .regex(/^\d{1,18}$/)
  .transform(BigInt);
const conversationCursor = z
  .string()
  .regex(/^\d{1,13}_[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/)
  .transform((cursor) => {
    const [atMs = '0', id = ''] = cursor.split('_');
    return { at: new Date(Number(atMs)), id };
  });
const listQuery = z.object({
  limit,
  before: conversationCursor.optional(),
  needsAttention: z
    .enum(['true', 'false'])
    .transform((value) => value === 'true')
    .optional(),
  mode: z.enum(['ai', 'human', 'paused']).optional(),
});
const messagesQuery = z.object({ limit, before: position.optional() });

const conversationFields = {
  id: true,
  workspaceId: true,
  workflowId: true,
  mode: true,
  needsAttention: true,
  attentionReason: true,
  lastMessageAt: true,
  lastMessagePreview: true,
  unreadCount: true,
  createdAt: true,
  contact: { select: { phone: true, businessScopedUserId: true, name: true, username: true } },
} satisfies Prisma.ConversationSelect;

const messageFields = {
  id: true,
  position: true,
  direction: true,
  kind: true,
  text: true,
  payload: true,
  status: true,
  outcome: true,
  replyToId: true,
  turnId: true,
  provider: true,
  model: true,
  attempts: true,
  latencyMs: true,
  promptTokens: true,
  completionTokens: true,
  failure: true,
  providerMessageId: true,
  occurredAt: true,
  createdAt: true,
} satisfies Prisma.MessageSelect;

/** Routes under `/api/v1/conversations`. */
export function conversationRoutes(db: PrismaClient): Router {
  const router = Router();
  router.get('/', (request, response) => listConversations(db, request, response));
  router.get('/:id', (request, response) => showConversation(db, request, response));
  router.get('/:id/messages', (request, response) => listMessages(db, request, response));
  return router;
}

async function listConversations(db: PrismaClient, request: Request, response: Response): Promise<void> {
  const query = parsed(listQuery, request.query);
  const rows = await db.conversation.findMany({
    where: {
      // Every conversation has a message, so every one has this time.
      lastMessageAt: { not: null },
      ...(query.mode ? { mode: query.mode } : {}),
      ...(query.needsAttention === undefined ? {} : { needsAttention: query.needsAttention }),
      ...(query.before
        ? { OR: [{ lastMessageAt: { lt: query.before.at } }, { lastMessageAt: query.before.at, id: { lt: query.before.id } }] }
        : {}),
    },
    orderBy: [{ lastMessageAt: 'desc' }, { id: 'desc' }],
    take: query.limit + 1,
    select: conversationFields,
  });
  const page = rows.slice(0, query.limit);
  const last = page.at(-1);
  response.json({
    data: page,
    next: rows.length > query.limit && last?.lastMessageAt ? `${last.lastMessageAt.getTime()}_${last.id}` : null,
  });
}

async function showConversation(db: PrismaClient, request: Request, response: Response): Promise<void> {
  const row = await db.conversation.findUnique({ where: { id: conversationId(request) }, select: conversationFields });
  if (!row) throw new ApiError(404, 'no such conversation');
  response.json(row);
}

async function listMessages(db: PrismaClient, request: Request, response: Response): Promise<void> {
  const id = conversationId(request);
  const query = parsed(messagesQuery, request.query);
  const [conversation, rows] = await Promise.all([
    db.conversation.findUnique({ where: { id }, select: { id: true } }),
    db.message.findMany({
      where: { conversationId: id, ...(query.before === undefined ? {} : { position: { lt: query.before } }) },
      orderBy: { position: 'desc' },
      take: query.limit + 1,
      select: messageFields,
    }),
  ]);
  if (!conversation) throw new ApiError(404, 'no such conversation');
  const page = rows.slice(0, query.limit).map((row) => ({ ...row, position: String(row.position) }));
  response.json({ data: page, next: rows.length > query.limit ? (page.at(-1)?.position ?? null) : null });
}

function conversationId(request: Request): string {
  const id = uuid.safeParse(request.params.id);
  if (!id.success) throw new ApiError(404, 'no such conversation');
  return id.data;
}

function parsed<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw new ApiError(400, result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; '));
}
