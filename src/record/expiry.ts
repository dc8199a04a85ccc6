/** Rows that are deleted some time after they were written, regardless of their state. */
import type { ExpiringRows } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';

const TABLES = {
  statusEvents: sql`message_status_events`,
  callEvents: sql`vapi_call_events`,
  parkedMessages: sql`parked_messages`,
  auditEntries: sql`audit_entries`,
} as const satisfies Record<ExpiringRows, unknown>;

/**
 * Deletes up to `batch` rows written before `beforeMs` (milliseconds since 1970), the oldest first. Returns the number. Deletes by
 * position in the table (ctid), because with ids PostgreSQL may read the whole table.
 */
export async function deleteExpired(db: Database, kind: ExpiringRows, beforeMs: number, batch: number): Promise<number> {
  const table = TABLES[kind];
  const deleted = await db.query<{ id: string }>(sql`
    DELETE FROM ${table} WHERE ctid = ANY(ARRAY(
      SELECT ctid FROM ${table} WHERE created_at < ${new Date(beforeMs)} ORDER BY created_at LIMIT ${batch}
    )) RETURNING id`);
  return deleted.length;
}

/** How many rows were written before `beforeMs` (milliseconds since 1970). */
export async function countExpired(db: Database, kind: ExpiringRows, beforeMs: number): Promise<number> {
  const [row] = await db.query<{ rows: number }>(sql`
    SELECT count(*)::int AS rows FROM ${TABLES[kind]} WHERE created_at < ${new Date(beforeMs)}`);
  return row?.rows ?? 0;
}
