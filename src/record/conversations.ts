/** Lists of conversations and messages, newest first, in pages. */
import { Prisma } from '../../prisma/generated/client';
import { type Database, sql } from '../platform/database';
import { phoneMatchingKey } from '../platform/phone';
import { type Page, pageOf } from './page';
import { inScope, type Scope } from './scope';
import { isBefore, newestFirst } from './timeline';

export { ConversationMode, MessageAuthor, MessageDirection, MessageOutcome, MessageStatus } from '../../prisma/generated/client';

const conversationColumns = {
  id: true,
  workspaceId: true,
  workflowId: true,
  mode: true,
  modeUntil: true,
  heldBy: true,
  heldSince: true,
  waitingSince: true,
  handOver: true,
  needsAttention: true,
  attention: true,
  lastMessageAt: true,
  lastMessagePreview: true,
  unreadCount: true,
  createdAt: true,
  contact: { select: { phone: true, businessScopedUserId: true, name: true, username: true } },
} satisfies Prisma.ConversationSelect;

/** What the API shows of a message. */
export const messageColumns = {
  id: true,
  position: true,
  direction: true,
  kind: true,
  text: true,
  payload: true,
  status: true,
  outcome: true,
  replyToId: true,
  partOfId: true,
  part: true,
  turnId: true,
  provider: true,
  model: true,
  attempts: true,
  latencyMs: true,
  promptTokens: true,
  completionTokens: true,
  failure: true,
  providerMessageId: true,
  author: true,
  authorName: true,
  quotedId: true,
  editedAt: true,
  deletedAt: true,
  occurredAt: true,
  createdAt: true,
} satisfies Prisma.MessageSelect;

/** A conversation with its contact. */
export type ConversationRow = Prisma.ConversationGetPayload<{ select: typeof conversationColumns }>;
export type MessageRow = Prisma.MessageGetPayload<{ select: typeof messageColumns }>;

/** Undefined fields do not filter. */
export interface ConversationFilter {
  workspaceId?: Scope;
  mode?: ConversationRow['mode'] | undefined;
  needsAttention?: boolean | undefined;
  /** The person's number, in any spelling. */
  phone?: string | undefined;
}

/** Ordered by the time of the last message; `before`: time and id of the last row of the previous page. */
export async function findConversations(
  db: Database,
  { workspaceId, mode, needsAttention, phone }: ConversationFilter,
  { limit, before }: { limit: number; before?: { at: Date; id: string } | undefined },
): Promise<Page<ConversationRow>> {
  // A separate query, because PostgreSQL might otherwise read all conversations in list order to find the few of one number.
  const contacts = phone === undefined ? undefined : await findContacts(db, phone, workspaceId);
  const rows = await db.orm.conversation.findMany({
    where: {
      ...inScope(workspaceId),
      ...(contacts ? { contactId: { in: contacts } } : {}),
      // Every conversation has a message and so this time. PostgreSQL cannot derive an index bound from the OR below.
      lastMessageAt: before ? { lte: before.at } : { not: null },
      ...(mode ? { mode } : {}),
      ...(needsAttention === undefined ? {} : { needsAttention }),
      ...(before ? { OR: [{ lastMessageAt: { lt: before.at } }, { lastMessageAt: before.at, id: { lt: before.id } }] } : {}),
    },
    orderBy: [{ lastMessageAt: 'desc' }, { id: 'desc' }],
    take: limit + 1,
    select: conversationColumns,
  });
  return pageOf(rows, limit);
}

/** Ids of the contacts with this number, one per workspace at most. */
async function findContacts(db: Database, phone: string, scope: Scope): Promise<string[]> {
  const aliases = await db.orm.contactAlias.findMany({
    where: { kind: 'phone', value: phoneMatchingKey(phone), ...inScope(scope) },
    select: { contactId: true },
  });
  return aliases.map(({ contactId }) => contactId);
}

/** Null if the scope has no such conversation. If it was merged into another one, that other one. */
export async function findConversation(db: Database, id: string, scope: Scope): Promise<ConversationRow | null> {
  const found = await db.orm.conversation.findUnique({ where: { id, ...inScope(scope) }, select: conversationColumns });
  if (found) return found;
  const merged = await db.orm.mergedConversation.findUnique({
    where: { id, conversation: inScope(scope) },
    select: { conversation: { select: conversationColumns } },
  });
  return merged?.conversation ?? null;
}

/** The conversations with these ids, by id. */
export async function findConversationsById(db: Database, ids: string[]): Promise<Map<string, ConversationRow>> {
  if (ids.length === 0) return new Map();
  const rows = await db.orm.conversation.findMany({ where: { id: { in: ids } }, select: conversationColumns });
  return new Map(rows.map((row) => [row.id, row]));
}

/** In the order of the timeline; null if the scope has no such conversation. `before`: position of the last row of the previous page. */
export async function findMessages(
  db: Database,
  conversationId: string,
  scope: Scope,
  page: { limit: number; before?: bigint | undefined },
): Promise<Page<MessageRow> | null> {
  const [conversation, rows] = await Promise.all([
    db.orm.conversation.findUnique({ where: { id: conversationId, ...inScope(scope) }, select: { id: true } }),
    readMessages(db, conversationId, page),
  ]);
  if (conversation) return pageOf(rows, page.limit);
  const merged = await db.orm.mergedConversation.findUnique({
    where: { id: conversationId, conversation: inScope(scope) },
    select: { conversationId: true },
  });
  return merged && pageOf(await readMessages(db, merged.conversationId, page), page.limit);
}

/** Null if there is no such message. */
export async function findMessage(db: Database, id: string): Promise<MessageRow | null> {
  return await db.orm.message.findUnique({ where: { id }, select: messageColumns });
}

async function readMessages(
  db: Database,
  conversationId: string,
  { limit, before }: { limit: number; before?: bigint | undefined },
): Promise<MessageRow[]> {
  const isOlder = before === undefined ? Prisma.empty : sql` AND ${await isBefore(db, before)}`;
  const positions = await db.query<{ position: string }>(sql`
    SELECT m.position FROM messages m
    WHERE m.conversation_id = ${conversationId}::uuid${isOlder}
    ORDER BY ${newestFirst('m')} LIMIT ${limit + 1}`);
  const order = positions.map(({ position }) => BigInt(position));
  const rows = await db.orm.message.findMany({ where: { position: { in: order } }, select: messageColumns });
  const found = new Map(rows.map((row) => [row.position, row]));
  return order.flatMap((position) => found.get(position) ?? []);
}
