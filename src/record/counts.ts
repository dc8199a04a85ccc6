/** Row counts for the metrics. */
import { type Database, sql } from '../platform/database';
import type { RecordCounts } from '../platform/metrics';

/** Looks at the newest 10000 messages only, because no index covers all without an outcome. Conversations are counted up to 10000. */
export async function countRecord(db: Database): Promise<RecordCounts> {
  const rows = await db.query<Row>(sql`
    SELECT (SELECT count(*)::int FROM parked_messages WHERE released_at IS NULL) AS parked,
      (SELECT count(*)::int FROM (SELECT direction, outcome FROM messages ORDER BY position DESC LIMIT 10000) newest
        WHERE direction = 'inbound' AND outcome IS NULL) AS "withoutOutcome",
      (SELECT count(*)::int FROM (SELECT FROM conversations WHERE needs_attention LIMIT 10000) c) AS "conversationsInNeed",
      (SELECT json_build_object('waiting', count(*), 'oldestSeconds', COALESCE(extract(epoch FROM now() - min(created_at)), 0))
        FROM (SELECT created_at FROM spooled_requests WHERE relayed_at IS NULL ORDER BY position LIMIT 10000) s) AS spooled,
      (SELECT json_agg(c) FROM (SELECT status, outcome, count(*)::int AS count, count(*) FILTER (WHERE needs_attention)::int AS "inNeed"
        FROM vapi_call_results GROUP BY 1, 2) c) AS calls,
      (SELECT json_agg(d) FROM (SELECT reason, count(*)::int AS count FROM dead_letters WHERE replayed_at IS NULL GROUP BY 1) d) AS "deadLetters"`);
  const row = rows[0];
  if (!row) throw new Error('counting the rows failed');
  return { ...row, calls: row.calls ?? [], deadLetters: row.deadLetters ?? [] };
}

/** PostgreSQL returns null for an empty aggregate. */
type Row = { [K in keyof RecordCounts]: RecordCounts[K] extends unknown[] ? RecordCounts[K] | null : RecordCounts[K] };
