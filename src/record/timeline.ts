/**
 * The order of a conversation's timeline: by arrival, except for imported history and messages too old to be answered, which belong where
 * they were written. (WhatsApp's times are whole seconds: by them alone, a message could sort before the reply to an earlier one.)
 */
import { Prisma } from '../../prisma/generated/client';
import { type Database, sql } from '../platform/database';

/** Sorts the rows of `messages` with this alias, the newest first. An index serves it within a conversation. */
export function newestFirst(alias: 'm' | 'n'): Prisma.Sql {
  const row = Prisma.raw(alias);
  return sql`COALESCE(${row}.timeline_at, ${row}.created_at) DESC, ${row}.position DESC`;
}

/** Condition that a row `m` comes before the message with this position; if there is none any more, before that position. */
export async function isBefore(db: Database, position: bigint): Promise<Prisma.Sql> {
  const [row] = await db.query<{ at: Date }>(sql`
    SELECT COALESCE(timeline_at, created_at) AS at FROM messages WHERE position = ${position}`);
  // Constants, so that PostgreSQL begins at this place of the index.
  return row === undefined
    ? sql`m.position < ${position}`
    : sql`(COALESCE(m.timeline_at, m.created_at), m.position) < (${row.at}::timestamptz, ${position}::bigint)`;
}
