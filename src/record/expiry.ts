/** Rows that are deleted some time after they were written, regardless of their state. */
import type { ExpiringRows } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';

const TABLES = {
  statusEvents: { table: sql`message_status_events`, writtenAt: sql`created_at` },
  callEvents: { table: sql`vapi_call_events`, writtenAt: sql`created_at` },
  parkedMessages: { table: sql`parked_messages`, writtenAt: sql`created_at` },
  auditEntries: { table: sql`audit_entries`, writtenAt: sql`created_at` },
  // What still waits has no time.
  spooledRequests: { table: sql`spooled_requests`, writtenAt: sql`relayed_at` },
} as const satisfies Record<ExpiringRows, unknown>;

/**
 * Deletes up to `batch` rows written before `beforeMs` (milliseconds since 1970), the oldest first. Returns the number. Deletes by
 * position in the table (ctid), because with ids PostgreSQL may read the whole table.
 */
export async function deleteExpired(db: Database, kind: ExpiringRows, beforeMs: number, batch: number): Promise<number> {
  const { table, writtenAt } = TABLES[kind];
  const deleted = await db.query<unknown>(sql`
    DELETE FROM ${table} WHERE ctid = ANY(ARRAY(
      SELECT ctid FROM ${table} WHERE ${writtenAt} < ${new Date(beforeMs)} ORDER BY ${writtenAt} LIMIT ${batch}
    )) RETURNING 1`);
  return deleted.length;
}

/** How many rows were written before `beforeMs` (milliseconds since 1970). */
export async function countExpired(db: Database, kind: ExpiringRows, beforeMs: number): Promise<number> {
  const { table, writtenAt } = TABLES[kind];
  const [row] = await db.query<{ rows: number }>(sql`
    SELECT count(*)::int AS rows FROM ${table} WHERE ${writtenAt} < ${new Date(beforeMs)}`);
  return row?.rows ?? 0;
}
