/** How far Kapso's message lists have been compared with the database. */
import { type Database, sql } from '../platform/database';
import { maskPhoneNumbers } from '../platform/logger';
import { cutText } from '../platform/text';
import { raisedAlert } from './alerts';

/** Kapso's ids of the numbers of all workspaces. */
export async function listNumberIds(db: Database): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    sql`SELECT kapso_phone_number_id AS id FROM workspaces WHERE kapso_phone_number_id IS NOT NULL`,
  );
  return rows.map(({ id }) => id);
}

/**
 * Until when the list of a number has been compared, in milliseconds since 1970; undefined if no workspace has the number. The first time,
 * that is the newest message in the record, or now: what is older is history, which is imported on request.
 */
export async function findRepairedUntil(db: Database, phoneNumberId: string): Promise<number | undefined> {
  const rows = await db.query<{ untilMs: number }>(sql`
    INSERT INTO repairs AS r (workspace_id, repaired_until)
    SELECT w.id, COALESCE((SELECT m.occurred_at FROM messages m WHERE m.workspace_id = w.id AND m.direction = 'inbound'
      ORDER BY m.position DESC LIMIT 1), now())
    FROM workspaces w WHERE w.kapso_phone_number_id = ${phoneNumberId}
    ON CONFLICT (workspace_id) DO UPDATE SET repaired_until = r.repaired_until
    RETURNING (extract(epoch FROM r.repaired_until) * 1000)::float8 AS "untilMs"`);
  return rows[0]?.untilMs;
}

/** Everything listed before this time has been processed. Only advances. */
export async function advanceRepair(db: Database, phoneNumberId: string, untilMs: number): Promise<void> {
  await db.query(sql`
    UPDATE repairs r SET repaired_until = GREATEST(r.repaired_until, ${new Date(untilMs)}), failing_since = NULL, problem = NULL
    FROM workspaces w WHERE w.id = r.workspace_id AND w.kapso_phone_number_id = ${phoneNumberId}`);
}

/** Records that a pass ended early. Raises an alert if no pass has been complete for `alertAfterMs`. */
export async function noteRepairProblem(
  db: Database,
  { phoneNumberId, problem, alertAfterMs }: { phoneNumberId: string; problem: string; alertAfterMs: number },
): Promise<void> {
  const alert = {
    cause: `repair fails: ${phoneNumberId}`,
    text: `Kapso's messages cannot be compared with the record (${problem}), so those that no webhook brings are not found; it is tried again`,
  };
  await db.query(sql`
    WITH noted AS (
      UPDATE repairs r SET failing_since = COALESCE(r.failing_since, now()), problem = ${cutText(maskPhoneNumbers(problem), 500)}
      FROM workspaces w WHERE w.id = r.workspace_id AND w.kapso_phone_number_id = ${phoneNumberId}
      RETURNING r.failing_since
    )
    ${raisedAlert(
      alert,
      sql`SELECT 'number id ' || ${phoneNumberId}::text AS subject FROM noted
      WHERE failing_since <= now() - ${alertAfterMs}::float8 * interval '1 millisecond'`,
    )}`);
}
