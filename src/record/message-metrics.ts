/**
 * The numbers of a day. Always computed from the messages of that day, so they are right even after a crash; the table is only a cache.
 * A status counts on the day of its message: a reply that is read tomorrow counts as read today.
 */
import { type Database, sql } from '../platform/database';

/** What became of the messages of one day. */
export interface MessageMetricsRow {
  workspaceId: string;
  /** `2026-11-27`, in `timeZone`. */
  day: string;
  timeZone: string;
  received: number;
  answered: number;
  totalSent: number;
  delivered: number;
  read: number;
  failed: number;
  handedOver: number;
  /** In milliseconds; null if nothing was answered. */
  answerP50Ms: number | null;
  answerP95Ms: number | null;
  computedAt: Date;
}

/** The days of a workspace. */
export interface DayRange {
  workspaceId: string;
  /** The first and the last day, such as `2026-11-27`. */
  from: string;
  to: string;
  /** IANA name. */
  timeZone: string;
}

/** Replies can be read or fail for weeks. After this time, the numbers of a day no longer change. */
const SETTLED_AFTER = sql`interval '45 days'`;
/** How old the numbers of a day that has just ended, and of an older day, may be. */
const FRESH_FOR = { recent: sql`interval '5 seconds'`, older: sql`interval '1 hour'` };
const RECENT = sql`interval '8 days'`;

/** Days per statement, which bounds what it reads. */
const DAYS_AT_ONCE = 7;

/** The numbers of each day, computed anew where they are missing or could have changed. */
export async function findMessageMetrics(db: Database, range: DayRange): Promise<MessageMetricsRow[]> {
  const stale = await findStaleDays(db, range);
  for (let index = 0; index < stale.length; index += DAYS_AT_ONCE) {
    await computeMessageMetrics(db, { ...range, days: stale.slice(index, index + DAYS_AT_ONCE) });
  }
  return await db.query<MessageMetricsRow>(sql`
    SELECT m.workspace_id AS "workspaceId", m.day::text AS day, m.time_zone AS "timeZone", m.received, m.answered, m.total_sent AS "totalSent",
      m.delivered, m.read, m.failed, m.handed_over AS "handedOver", m.answer_p50_ms AS "answerP50Ms", m.answer_p95_ms AS "answerP95Ms",
      m.computed_at AS "computedAt"
    FROM message_metrics m
    WHERE m.workspace_id = ${range.workspaceId}::uuid AND m.day BETWEEN ${range.from}::date AND ${range.to}::date ORDER BY m.day`);
}

async function findStaleDays(db: Database, { workspaceId, from, to, timeZone }: DayRange): Promise<string[]> {
  const rows = await db.query<{ day: string }>(sql`
    SELECT d.day::date::text AS day
    FROM generate_series(${from}::date, ${to}::date, interval '1 day') d(day)
    CROSS JOIN LATERAL (SELECT (d.day::date + 1)::timestamp AT TIME ZONE ${timeZone}::text AS ended_at) e
    LEFT JOIN message_metrics m ON m.workspace_id = ${workspaceId}::uuid AND m.day = d.day::date AND m.time_zone = ${timeZone}
    WHERE m.day IS NULL OR (m.computed_at < e.ended_at + ${SETTLED_AFTER}
      AND m.computed_at < now() - CASE WHEN e.ended_at > now() - ${RECENT} THEN ${FRESH_FOR.recent} ELSE ${FRESH_FOR.older} END)
    ORDER BY d.day`);
  return rows.map(({ day }) => day);
}

/** Computes the numbers of these days from the messages, and stores them. Safe to run for any day, at any time. */
export async function computeMessageMetrics(
  db: Database,
  { workspaceId, days, timeZone }: { workspaceId: string; days: string[]; timeZone: string },
): Promise<void> {
  // Imported messages and those of groups count nowhere: nobody is answered there.
  const isReceived = sql`m.direction = 'inbound' AND m.outcome IS DISTINCT FROM 'history' AND m.outcome IS DISTINCT FROM 'group'`;
  // A draft that was never handed to WhatsApp does not count.
  const isSent = sql`m.direction = 'outbound' AND m.send_attempts > 0`;
  await db.query(sql`
    INSERT INTO message_metrics AS k (workspace_id, day, time_zone, received, answered, total_sent, delivered, read, failed, handed_over,
      answer_p50_ms, answer_p95_ms, computed_at)
    SELECT ${workspaceId}::uuid, d.day, ${timeZone}, n.received, n.answered, n.total_sent, n.delivered, n.read, n.failed, n.handed_over,
      round(n.answer_ms[1]), round(n.answer_ms[2]), now()
    FROM unnest(${days}::date[]) d(day)
    CROSS JOIN LATERAL (
      SELECT count(*) FILTER (WHERE ${isReceived}) AS received,
        count(*) FILTER (WHERE m.direction = 'inbound' AND m.outcome IN ('answered', 'merged', 'superseded')) AS answered,
        count(*) FILTER (WHERE ${isSent} AND m.status IN ('sent', 'delivered', 'read')) AS total_sent,
        count(*) FILTER (WHERE ${isSent} AND m.status IN ('delivered', 'read')) AS delivered,
        count(*) FILTER (WHERE ${isSent} AND m.status = 'read') AS read,
        count(*) FILTER (WHERE ${isSent} AND m.status = 'failed') AS failed,
        count(DISTINCT m.conversation_id) FILTER (WHERE m.direction = 'inbound' AND m.outcome = 'human') AS handed_over,
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY a.ms) AS answer_ms
      FROM messages m
      LEFT JOIN LATERAL (
        SELECT GREATEST(0, extract(epoch FROM r.occurred_at - LEAST(m.occurred_at, (SELECT min(t.occurred_at) FROM messages t WHERE t.turn_id = m.id)))
          * 1000)::float8 AS ms
        FROM messages r WHERE r.reply_to_id = m.id AND m.outcome = 'answered'
      ) a ON true
      WHERE m.workspace_id = ${workspaceId}::uuid AND m.occurred_at >= d.day::timestamp AT TIME ZONE ${timeZone}::text
        AND m.occurred_at < (d.day + 1)::timestamp AT TIME ZONE ${timeZone}::text
    ) n
    ON CONFLICT (workspace_id, day) DO UPDATE SET time_zone = EXCLUDED.time_zone, received = EXCLUDED.received, answered = EXCLUDED.answered,
      total_sent = EXCLUDED.total_sent, delivered = EXCLUDED.delivered, read = EXCLUDED.read, failed = EXCLUDED.failed,
      handed_over = EXCLUDED.handed_over, answer_p50_ms = EXCLUDED.answer_p50_ms, answer_p95_ms = EXCLUDED.answer_p95_ms,
      computed_at = EXCLUDED.computed_at
    -- Of two at once, the one that has seen more.
    WHERE k.computed_at <= EXCLUDED.computed_at`);
}
