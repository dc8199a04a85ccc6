/** Messages to a number that belongs to no workspace. They become messages of a conversation once a workspace has the number. */
import type { Prisma } from '../../prisma/generated/client';
import { type ContactIdentity, type InboundMessage, type MessagesReceived, UNASSIGNED_NUMBER } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { type Page, pageOf } from './page';
import { numbersInScope, type Scope } from './scope';

/** Parks messages; those that are already parked stay unchanged. */
export async function parkMessages(db: Database, order: MessagesReceived & { phoneNumberId: string; workflowId: string }): Promise<void> {
  const kept: { message: InboundMessage; contact: ContactIdentity }[] = order.messages.map((message) => ({
    message,
    contact: order.contact,
  }));
  await db.orm.parkedMessage.createMany({
    data: kept.map(({ message, contact }) => ({
      phoneNumberId: order.phoneNumberId,
      providerMessageId: message.providerMessageId,
      workflowId: order.workflowId,
      reason: 'no workspace has this number',
      message: { contact, ...message } as unknown as Prisma.InputJsonObject,
    })),
    skipDuplicates: true,
  });
  // Released for a workspace that has gone meanwhile: it waits again.
  const ids = order.messages.map(({ providerMessageId }) => providerMessageId);
  await db.orm.parkedMessage.updateMany({
    where: { phoneNumberId: order.phoneNumberId, providerMessageId: { in: ids }, releasedAt: { not: null } },
    data: { releasedAt: null },
  });
}

/** Notes that messages were handed over: from then on, Temporal has them. */
export async function markReleased(db: Database, ids: string[]): Promise<void> {
  await db.orm.parkedMessage.updateMany({ where: { id: { in: ids }, releasedAt: null }, data: { releasedAt: new Date() } });
}

/** A parked message in a list. */
export interface ParkedMessageRow {
  id: string;
  phoneNumberId: string;
  reason: string;
  message: unknown;
  createdAt: Date;
  releasedAt: Date | null;
}

/** Parked messages, newest first. `isReleased`: only those that became messages of a conversation, or only the others. */
export async function findParkedMessages(
  db: Database,
  { isReleased, workspaceId }: { isReleased?: boolean | undefined; workspaceId?: Scope },
  { limit, before }: { limit: number; before?: { at: Date; id: string } | undefined },
): Promise<Page<ParkedMessageRow>> {
  const numbers = await numbersInScope(db, workspaceId);
  const rows = await db.orm.parkedMessage.findMany({
    where: {
      ...(numbers === undefined ? {} : { phoneNumberId: { in: numbers } }),
      ...(isReleased === undefined ? {} : { releasedAt: isReleased ? { not: null } : null }),
      ...(before ? { OR: [{ createdAt: { lt: before.at } }, { createdAt: before.at, id: { lt: before.id } }] } : {}),
    },
    orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
    take: limit + 1,
    select: { id: true, phoneNumberId: true, reason: true, message: true, createdAt: true, releasedAt: true },
  });
  return pageOf(rows, limit);
}

/** A parked message, as it arrived, whose number now belongs to a workspace. */
export interface ReleasableMessage {
  /** Of the parked row. */
  parkedId: string;
  phoneNumberId: string;
  contact: ContactIdentity;
  message: InboundMessage;
}

/** The oldest messages that can be released and were parked at least `ageMs` ago; younger ones are left to their workflow. */
export async function findReleasableMessages(
  db: Database,
  { ageMs, limit }: { ageMs: number; limit: number },
): Promise<ReleasableMessage[]> {
  const rows = await db.query<{ parkedId: string; phoneNumberId: string; kept: InboundMessage & { contact: ContactIdentity } }>(sql`
    SELECT p.id AS "parkedId", p.phone_number_id AS "phoneNumberId", p.message AS kept FROM parked_messages p
    WHERE p.released_at IS NULL AND p.created_at <= now() - ${ageMs} * interval '1 ms'
      AND (EXISTS (SELECT 1 FROM workspaces w WHERE w.kapso_phone_number_id = p.phone_number_id)
        OR (p.phone_number_id = ${UNASSIGNED_NUMBER} AND EXISTS (SELECT 1 FROM workspaces)))
    ORDER BY p.created_at, p.id LIMIT ${limit}`);
  return rows.map(({ parkedId, phoneNumberId, kept: { contact, ...message } }) => ({ parkedId, phoneNumberId, contact, message }));
}
