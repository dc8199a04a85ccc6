/** Single messages and their statuses. */
import type { Prisma } from '../../prisma/generated/client';
import type { Database } from '../platform/database';
import { type MessageStatus, messageColumns } from './conversations';

const columns = { ...messageColumns, conversationId: true, workspaceId: true } satisfies Prisma.MessageSelect;

/** A message with the conversation that it belongs to. */
export type SingleMessage = Prisma.MessageGetPayload<{ select: typeof columns }>;

/** Null if the workspace has no such message. `workspaceId` undefined: any. */
export async function findMessage(db: Database, id: string, workspaceId: string | undefined): Promise<SingleMessage | null> {
  return await db.orm.message.findUnique({ where: { id, ...(workspaceId === undefined ? {} : { workspaceId }) }, select: columns });
}

/** The statuses of these messages, by id. */
export async function findStatuses(db: Database, ids: string[]): Promise<Map<string, MessageStatus>> {
  const rows = await db.orm.message.findMany({ where: { id: { in: ids } }, select: { id: true, status: true } });
  return new Map(rows.map(({ id, status }) => [id, status]));
}
