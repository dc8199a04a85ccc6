/** Calls due for archiving or deletion. */

import type { CallPosition, DueMonth } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';

/** A position before every call. */
export const FIRST_POSITION: CallPosition = { createdAt: '-infinity', id: '00000000-0000-0000-0000-000000000000' };

/** The due calls, by month, oldest first. `cutoffAtMs`: milliseconds since 1970. */
export async function findDueMonths(db: Database, cutoffAtMs: number): Promise<DueMonth[]> {
  const cutoff = new Date(cutoffAtMs);
  const rows = await db.query<{ month: string; calls: number; oldest: Date; newest: Date }>(sql`
    SELECT to_char(done_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, count(*)::int AS calls, min(done_at) AS oldest, max(done_at) AS newest
    FROM vapi_call_results WHERE done_at < ${cutoff} AND created_at < ${cutoff}
    GROUP BY 1 ORDER BY 1`);
  return rows.map(({ month, calls, oldest, newest }) => ({
    month,
    calls,
    oldestAtMs: oldest.getTime(),
    newestAtMs: newest.getTime(),
  }));
}

/** The calls of `month` (such as `2026-08`) that were done before the cutoff. */
export interface MonthOrder {
  month: string;
  cutoffAtMs: number;
  batchSize: number;
}

/** A due call, as it was when it was read. */
export interface DueCall extends CallPosition {
  /** In PostgreSQL's format; identifies the version of the row. */
  updatedAt: string;
  /** The row and its events, as a JSON object. */
  json: string;
}

/**
 * Reads the month's due calls in batches, in order of creation. Compares row values, which Prisma cannot, so that each batch continues in
 * the index where the previous one ended.
 */
export async function* readDueCalls(db: Database, { month, cutoffAtMs, batchSize }: MonthOrder): AsyncGenerator<DueCall[]> {
  const from = new Date(`${month}-01T00:00:00Z`);
  const until = new Date(Math.min(cutoffAtMs, Date.UTC(from.getUTCFullYear(), from.getUTCMonth() + 1)));
  let after = FIRST_POSITION;
  for (;;) {
    const calls = await db.query<DueCall>(sql`
      SELECT c.id, c.updated_at::text AS "updatedAt", c.created_at::text AS "createdAt",
        jsonb_build_object('call', to_jsonb(c), 'events', COALESCE((
          SELECT jsonb_agg(to_jsonb(e) ORDER BY e.created_at, e.id) FROM vapi_call_events e
          WHERE e.provider_call_id = ANY(array_append(c.former_provider_call_ids, c.provider_call_id))
        ), '[]'::jsonb))::text AS json
      FROM vapi_call_results c
      WHERE c.done_at >= ${from} AND c.done_at < ${until} AND c.created_at < ${until}
        AND (c.created_at, c.id) > (${after.createdAt}::timestamptz, ${after.id}::uuid)
      ORDER BY c.created_at, c.id LIMIT ${batchSize}`);
    const last = calls.at(-1);
    if (last === undefined) return;
    yield calls;
    after = last;
  }
}

/** Deletes calls with their events, except those that have changed since they were read. Returns how many were deleted. */
export async function deleteCalls(db: Database, calls: readonly Pick<DueCall, 'id' | 'updatedAt'>[]): Promise<number> {
  const input = JSON.stringify(calls.map(({ id, updatedAt }) => ({ id, updated_at: updatedAt })));
  const [deleted] = await db.query<{ calls: number }>(sql`
    WITH gone AS (
      DELETE FROM vapi_call_results c USING jsonb_to_recordset(${input}::jsonb) AS x(id uuid, updated_at timestamptz)
      WHERE c.id = x.id AND c.updated_at = x.updated_at
      RETURNING c.provider_call_id, c.former_provider_call_ids
    ), events AS (
      DELETE FROM vapi_call_events e USING gone g
      WHERE e.provider_call_id = ANY(array_append(g.former_provider_call_ids, g.provider_call_id))
    )
    SELECT count(*)::int AS calls FROM gone`);
  return deleted?.calls ?? 0;
}
