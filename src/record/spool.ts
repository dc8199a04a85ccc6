/**
 * The spool: requests to Temporal that it did not accept in time. They are stored here before their webhook gets a 200, and a relay
 * delivers them later (src/webhooks/spool-relay.ts).
 */
import type { Prisma } from '../../prisma/generated/client';
import { type Statements, sql } from '../platform/database';

/** The channel on which PostgreSQL notifies all API processes of a new row. */
export const SPOOL_CHANNEL = 'parley_spool';

/** Key of the advisory lock of the relay; arbitrary. */
const RELAY_LOCK_KEY = 4_021_507_234;

/** Rows are counted up to this number. */
const MAX_COUNTED = 10_000;

/** A request that waits. */
export interface SpooledRow {
  position: bigint;
  workflowId: string;
  /** JSON. */
  request: string;
}

/** What waits in the spool. */
export interface SpoolDepth {
  /** Requests; counted up to 10000. */
  waiting: number;
  /** Age of the oldest one; 0 if there is none. */
  oldestSeconds: number;
}

/** Stores a request and notifies the processes that listen. Safe to repeat: workflows drop duplicates. */
export async function spoolRequest(db: Statements, { workflowId, request }: Omit<SpooledRow, 'position'>): Promise<void> {
  await db.query(sql`
    WITH spooled AS (INSERT INTO spooled_requests (workflow_id, request) VALUES (${workflowId}, ${request}) RETURNING 1)
    SELECT pg_notify(${SPOOL_CHANNEL}, '')::text FROM spooled`);
}

/** Whether a request for this workflow waits. */
export async function hasSpooledRequest(db: Statements, workflowId: string): Promise<boolean> {
  const rows = await db.query<unknown>(sql`
    SELECT 1 FROM spooled_requests WHERE workflow_id = ${workflowId} AND relayed_at IS NULL LIMIT 1`);
  return rows.length > 0;
}

/** The oldest waiting requests, in order, except those for the given workflows. */
export async function findSpooledRequests(
  db: Statements,
  { limit, except }: { limit: number; except: readonly string[] },
): Promise<SpooledRow[]> {
  const rows = await db.query<Omit<SpooledRow, 'position'> & { position: string }>(sql`
    SELECT position, workflow_id AS "workflowId", request FROM spooled_requests
    WHERE relayed_at IS NULL AND workflow_id <> ALL(${[...except]}::text[]) ORDER BY position LIMIT ${limit}`);
  return rows.map((row) => ({ ...row, position: BigInt(row.position) }));
}

/** Marks requests as done. */
export async function markRelayed(db: Statements, positions: readonly bigint[]): Promise<void> {
  await db.query(sql`UPDATE spooled_requests SET relayed_at = now() WHERE position = ANY(${positions.map(String)}::bigint[])`);
}

/** What waits now. */
export async function spoolDepth(db: Statements): Promise<SpoolDepth> {
  const [row] = await db.query<SpoolDepth>(depthQuery);
  return row ?? { waiting: 0, oldestSeconds: 0 };
}

const depthQuery: Prisma.Sql = sql`
  SELECT count(*)::int AS waiting, COALESCE(GREATEST(extract(epoch FROM now() - min(created_at)), 0), 0)::float8 AS "oldestSeconds"
  FROM (SELECT created_at FROM spooled_requests WHERE relayed_at IS NULL ORDER BY position LIMIT ${MAX_COUNTED}) w`;

/** Makes this session the relay. Returns false if another session is. */
export async function lockRelay(session: Statements): Promise<boolean> {
  const [row] = await session.query<{ isLocked: boolean }>(sql`SELECT pg_try_advisory_lock(${RELAY_LOCK_KEY}) AS "isLocked"`);
  return row?.isLocked ?? false;
}

/** Lets another session become the relay. */
export async function unlockRelay(session: Statements): Promise<void> {
  await session.query(sql`SELECT pg_advisory_unlock(${RELAY_LOCK_KEY})`);
}
