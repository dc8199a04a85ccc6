/**
 * Facts about calls from webhooks: which row a fact belongs to, and what it changes there. Facts arrive in any order, more than once,
 * and while the call workflow's activities write to the same row.
 *
 * Invariants, each held by a single statement:
 * - a call has one row: of two concurrent first events, one creates it;
 * - an id of Vapi's is in one row only; our row takes it over from a row that an event created for an unknown call;
 * - the status only rises, and nothing known becomes unknown;
 * - once the call is done, its events are still stored, and a report only fills gaps.
 */
import { type CallEvent, callWorkflowId } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { adoptProviderCall } from './call-adoption';
import { higherStatus } from './call-status';
import { workspaceOfVapiNumber } from './workspaces';

/** The part of a row that decides where a fact belongs. */
export interface CallRow {
  callId: string;
  workspaceId: string | null;
  workflowId: string;
  /** Whether Parley placed it; then its workflow ran before its first event. */
  isOwn: boolean;
  providerCallId: string | null;
  formerProviderCallIds: string[];
  status: string;
  outcome: string | null;
  needsAttention: boolean;
  maxDurationSeconds: number;
  answeredAt: Date | null;
  doneAt: Date | null;
}

/** The result of storing an event. */
export interface KeptCallEvent {
  row: CallRow;
  /** False for a duplicate. */
  isNew: boolean;
  /** The event is about an earlier placement that Vapi ended without dialling, so it changes nothing. */
  isFormer: boolean;
}

/** An id can move to another row between two statements, but each of these moves happens only once. */
const ATTEMPTS = 5;

const rowColumns = sql`r.id AS "callId", r.workspace_id AS "workspaceId", r.workflow_id AS "workflowId", r.request_hash IS NOT NULL AS "isOwn", r.provider_call_id AS "providerCallId",
  r.former_provider_call_ids AS "formerProviderCallIds", r.status, r.outcome, r.needs_attention AS "needsAttention",
  r.max_duration_seconds AS "maxDurationSeconds", r.answered_at AS "answeredAt", r.done_at AS "doneAt"`;

/**
 * The row of a call: the one with our id, if the event has our id and the row follows no other call; otherwise the one with Vapi's id. Our
 * id alone proves nothing, because people place calls again with the same metadata.
 */
export async function findCallRow(
  db: Database,
  { ownCallId, providerCallId }: { ownCallId?: string; providerCallId: string },
): Promise<CallRow | undefined> {
  const rows = await db.query<CallRow>(sql`
    SELECT ${rowColumns} FROM vapi_call_results r
    WHERE r.provider_call_id = ${providerCallId}
      OR (r.id = ${ownCallId ?? null}::uuid
        AND (r.provider_call_id IS NULL OR r.provider_call_id = ANY(r.former_provider_call_ids) OR ${providerCallId} = ANY(r.former_provider_call_ids)))
    ORDER BY r.id = ${ownCallId ?? null}::uuid DESC NULLS LAST LIMIT 1`);
  return rows[0];
}

/**
 * Stores a fact: finds or creates its row, writes the event once, and raises the row. `foreignCallId`: the id for a row that must be
 * created. `workspaceId`: the workspace whose secret proved the event; undefined: the number decides. @throws the database's error
 */
export async function keepCallEvent(db: Database, event: CallEvent, foreignCallId: string, workspaceId?: string): Promise<KeptCallEvent> {
  let parties: { ownCallId?: string; providerCallId: string } = event;
  let isNew = false;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    const found = await findCallRow(db, parties);
    if (!found) {
      await insertForeignRow(db, event, foreignCallId, workspaceId);
      continue;
    }
    const isFormer = found.formerProviderCallIds.includes(event.providerCallId);
    if (!isFormer && found.providerCallId !== event.providerCallId) {
      const adopted = await adoptProviderCall(db, { callId: found.callId, providerCallId: event.providerCallId });
      // The row now follows another call, so this one only repeats our id.
      if (!adopted) parties = { providerCallId: event.providerCallId };
      continue;
    }
    const applied = await applyEvent(db, event, found.callId, workspaceId);
    isNew ||= applied.isNew;
    if (applied.row) return { row: applied.row, isNew, isFormer };
    if (isFormer || found.doneAt !== null) return { row: found, isNew, isFormer };
    // In the meantime the id moved to another row, or the call was concluded: try again.
  }
  throw new Error(`no row could be found or created for the call ${event.providerCallId}`);
}

/** Creates the row, unless a concurrent event has. */
async function insertForeignRow(db: Database, event: CallEvent, callId: string, workspaceId: string | undefined): Promise<void> {
  const { providerCallId, status, direction, fromNumber, toNumber, assistantId, phoneNumberId, maxDurationSeconds } = event;
  await db.query(sql`
    INSERT INTO vapi_call_results
      (id, workflow_id, provider_call_id, direction, status, from_number, to_number, assistant_id, phone_number_id, max_duration_seconds,
      workspace_id)
    VALUES (${callId}::uuid, ${callWorkflowId(callId)}, ${providerCallId}, ${direction}::call_direction,
      ${status === 'scheduled' ? status : 'queued'}, ${fromNumber ?? null},
      ${toNumber ?? null}, ${assistantId ?? null}, ${phoneNumberId ?? null}, COALESCE(${maxDurationSeconds ?? null}::int, 600),
      COALESCE(${workspaceId ?? null}::uuid, ${workspaceOfVapiNumber(phoneNumberId)}))
    ON CONFLICT DO NOTHING`);
}

/**
 * Writes the event and raises the row in one statement, so that no crash can separate them. Idempotent. `row` is undefined if it did not
 * change because it is done or follows another call.
 */
async function applyEvent(
  db: Database,
  event: CallEvent,
  callId: string,
  workspaceId: string | undefined,
): Promise<{ isNew: boolean; row: CallRow | undefined }> {
  const { providerCallId, type, status, endedReason, startedAt, endedAt, fromNumber, toNumber, assistantId, phoneNumberId } = event;
  const occurredAt = new Date(event.atMs).toISOString();
  const reached = type === 'end-of-call-report' ? 'ended' : (status ?? '');
  const inProgressAt = reached === 'in-progress' ? occurredAt : null;
  const endedBy = reached === 'ended' ? occurredAt : null;
  const rows = await db.query<{ isNew: boolean } & (CallRow | { callId: null })>(sql`
    WITH fact AS (
      INSERT INTO vapi_call_events (provider_call_id, type, status, occurred_at)
      VALUES (${providerCallId}, ${type}, ${status ?? ''}, ${occurredAt}::timestamptz)
      ON CONFLICT DO NOTHING RETURNING 1
    ), changed AS (
      UPDATE vapi_call_results r
      SET status = ${higherStatus(sql`r.status`, sql`${reached}::text`)},
          started_at = COALESCE(${startedAt ?? null}::timestamptz, r.started_at, ${inProgressAt}::timestamptz),
          answered_at = LEAST(r.answered_at, ${inProgressAt}::timestamptz),
          ended_at = COALESCE(${endedAt ?? null}::timestamptz, LEAST(r.ended_at, ${endedBy}::timestamptz)),
          ended_reason = COALESCE(r.ended_reason, ${endedReason ?? null}),
          from_number = COALESCE(r.from_number, ${fromNumber ?? null}), to_number = COALESCE(r.to_number, ${toNumber ?? null}),
          assistant_id = COALESCE(r.assistant_id, ${assistantId ?? null}),
          phone_number_id = COALESCE(r.phone_number_id, ${phoneNumberId ?? null}),
          -- An event may be the first to name the number of a call that others placed.
          workspace_id = CASE WHEN r.request_hash IS NULL AND r.phone_number_id IS NULL AND ${phoneNumberId !== undefined}
            THEN COALESCE(${workspaceId ?? null}::uuid, ${workspaceOfVapiNumber(phoneNumberId)}) ELSE r.workspace_id END,
          updated_at = now()
      WHERE r.id = ${callId}::uuid AND r.provider_call_id = ${providerCallId} AND r.done_at IS NULL
        AND NOT ${providerCallId} = ANY(r.former_provider_call_ids)
      RETURNING ${rowColumns}
    )
    SELECT EXISTS (SELECT 1 FROM fact) AS "isNew", changed.* FROM (SELECT 1) one LEFT JOIN changed ON true`);
  const { isNew = false, ...row } = rows[0] ?? { callId: null };
  return { isNew, row: row.callId === null ? undefined : row };
}
