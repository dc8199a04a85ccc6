/** Whether every accepted message is accounted for, by hour: what was accepted is the sum of all outcomes and of what is pending. */
import { MessageOutcome, type Prisma } from '../../prisma/generated/client';
import { type Database, sql } from '../platform/database';

/** What became of inbound messages. */
export interface MessageBalance {
  /** Recorded. */
  accepted: number;
  /** Without an outcome. */
  pending: number;
  outcomes: Record<MessageOutcome, number>;
  /** The counts add up, and every answered message has a reply that was sent, with all its parts. */
  balanced: boolean;
}

/** The messages of an hour (UTC, by WhatsApp's clock). */
export interface HourBalance extends MessageBalance {
  hour: Date;
}

interface Counted {
  hour: Date;
  accepted: number;
  counts: Record<string, number>;
  hasReplies: boolean;
}

/** The hours that have messages, of one workspace or, if none is given, of all. `to` is excluded. */
export async function findHourBalances(
  db: Database,
  { workspaceId, from, to }: { workspaceId: string | undefined; from: Date; to: Date },
): Promise<HourBalance[]> {
  const rows = await db.query<Counted>(sql`
    WITH message AS (
      SELECT date_trunc('hour', m.occurred_at, 'UTC') AS hour, COALESCE(m.outcome::text, 'pending') AS place,
        CASE m.outcome WHEN 'answered' THEN ${isWholeReply(sql`m.id`)} WHEN 'merged' THEN m.turn_id <> m.id AND ${isWholeReply(sql`m.turn_id`)}
          ELSE true END AS has_reply
      FROM ${workspaceId === undefined ? sql`workspaces` : sql`(SELECT ${workspaceId}::uuid AS id)`} w
      -- OFFSET keeps PostgreSQL from reading the messages of all times, and the direction as text, from reading all of another index.
      CROSS JOIN LATERAL (
        SELECT m.* FROM messages m
        WHERE m.workspace_id = w.id AND m.occurred_at >= ${from} AND m.occurred_at < ${to} AND m.direction::text = 'inbound' OFFSET 0
      ) m
    ), place AS (
      SELECT hour, place, count(*)::int AS count FROM message GROUP BY 1, 2
    )
    SELECT h.hour, h.accepted, h."hasReplies", (SELECT json_object_agg(p.place, p.count) FROM place p WHERE p.hour = h.hour) AS counts
    FROM (SELECT hour, count(*)::int AS accepted, bool_and(has_reply) AS "hasReplies" FROM message GROUP BY 1) h ORDER BY h.hour`);
  return rows.map(hourBalance);
}

/** Whether the reply to a message was sent, with all its parts. Aggregates, because PostgreSQL might read the whole table for EXISTS. */
function isWholeReply(messageId: Prisma.Sql): Prisma.Sql {
  const isSent = (row: Prisma.Sql) => sql`${row}.status IN ('sent', 'delivered', 'read')`;
  return sql`COALESCE((
    SELECT bool_and(${isSent(sql`r`)} AND COALESCE((SELECT bool_and(${isSent(sql`p`)}) FROM messages p WHERE p.part_of_id = r.id), true))
    FROM messages r WHERE r.reply_to_id = ${messageId}), false)`;
}

function hourBalance({ hour, accepted, counts, hasReplies }: Counted): HourBalance {
  const outcomes = outcomesOf((outcome) => counts[outcome] ?? 0);
  const pending = counts.pending ?? 0;
  return { hour, accepted, pending, outcomes, balanced: hasReplies && accepted === sumOf(outcomes) + pending };
}

/** Several hours together. */
export function totalBalance(hours: readonly MessageBalance[]): MessageBalance {
  const sum = (count: (hour: MessageBalance) => number) => hours.reduce((total, hour) => total + count(hour), 0);
  return {
    accepted: sum(({ accepted }) => accepted),
    pending: sum(({ pending }) => pending),
    outcomes: outcomesOf((outcome) => sum(({ outcomes }) => outcomes[outcome])),
    balanced: hours.every(({ balanced }) => balanced),
  };
}

function outcomesOf(count: (outcome: MessageOutcome) => number): Record<MessageOutcome, number> {
  return Object.fromEntries(Object.values(MessageOutcome).map((outcome) => [outcome, count(outcome)])) as Record<MessageOutcome, number>;
}

function sumOf(outcomes: Record<MessageOutcome, number>): number {
  return Object.values(outcomes).reduce((sum, count) => sum + count, 0);
}

/** Messages that wait for a workspace with their number. They are in no hour, because no workspace has them yet. */
export async function countParked(db: Database): Promise<number> {
  return await db.orm.parkedMessage.count({ where: { releasedAt: null } });
}
