/** Vapi's reports about ended calls, and its snapshots of calls. */
import type { Prisma } from '../../prisma/generated/client';
import type { CallReport } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { findCallRow } from './call-events';
import { callOutcome } from './call-outcome';
import { higherStatus } from './call-status';

/**
 * Stores a report or a snapshot of a call. A report of an ended call replaces the fields that it contains; a snapshot of a live call, or a
 * report of a call that is done, only fills gaps. A late report replaces the outcome `unknown`. If another row now follows the reported
 * call, the report goes there. Returns whether this was the first report.
 */
export async function keepCallReport(db: Database, callId: string, report: CallReport): Promise<boolean> {
  const kept = await writeReport(db, callId, report);
  if (kept !== undefined) return kept;
  const { providerCallId } = report;
  const owner = await findCallRow(db, { providerCallId });
  return owner ? ((await writeReport(db, owner.callId, report)) ?? false) : false;
}

/** Undefined if the row does not follow this call. */
async function writeReport(db: Database, callId: string, report: CallReport): Promise<boolean | undefined> {
  const inConversation = callOutcome(report.endedReason, true);
  const { outcome, error } = callOutcome(report.endedReason, report.startedAt !== undefined);
  const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value));
  // The running totals of a live call are not results.
  const result = report.isEnded ? report : { ...report, cost: undefined, durationSeconds: undefined, raw: undefined };
  const merged = (known: Prisma.Sql, reported: Prisma.Sql) =>
    sql`CASE WHEN b.wins THEN COALESCE(${reported}, ${known}) ELSE COALESCE(${known}, ${reported}) END`;
  const rows = await db.query<{ isFirst: boolean }>(sql`
    WITH before AS (
      SELECT id, raw_payload IS NULL AS had_none, done_at IS NULL AS is_open, done_at IS NULL AND ${report.isEnded} AS wins,
        done_at IS NOT NULL AND outcome = 'unknown' AND ${report.isEnded && outcome !== 'unknown'} AS was_unknown
      FROM vapi_call_results WHERE id = ${callId}::uuid AND provider_call_id = ${report.providerCallId} FOR UPDATE
    ), news AS (
      SELECT ${report.isEnded ? 'ended' : (report.status ?? '')}::text AS status, ${report.endedReason ?? null}::text AS ended_reason,
        ${report.startedAt ?? null}::timestamptz AS started_at, ${report.endedAt ?? null}::timestamptz AS ended_at,
        ${result.durationSeconds ?? null}::float8 AS duration_seconds, ${result.cost ?? null}::float8 AS cost,
        ${report.transcript ?? null}::text AS transcript, ${json(report.messages)}::jsonb AS messages,
        ${report.recordingUrl ?? null}::text AS recording_url, ${report.summary ?? null}::text AS summary,
        ${json(report.structuredData)}::jsonb AS structured_data, ${report.successEvaluation ?? null}::text AS success_evaluation,
        ${json(report.providerContext)}::jsonb AS provider_context, ${json(result.raw)}::jsonb AS raw_payload
    )
    UPDATE vapi_call_results r
    SET status = CASE WHEN b.is_open OR b.was_unknown THEN ${higherStatus(sql`r.status`, sql`n.status`)} ELSE r.status END,
        outcome = CASE WHEN b.was_unknown THEN ${outcome} ELSE r.outcome END,
        error = CASE WHEN NOT b.was_unknown THEN r.error
          WHEN r.answered_at IS NOT NULL THEN ${inConversation.error}::text ELSE ${error}::text END,
        ended_reason = CASE WHEN b.was_unknown THEN n.ended_reason ELSE ${merged(sql`r.ended_reason`, sql`n.ended_reason`)} END,
        started_at = ${merged(sql`r.started_at`, sql`n.started_at`)},
        -- A call that nobody answered has no start.
        answered_at = COALESCE(r.answered_at, n.started_at),
        ended_at = ${merged(sql`r.ended_at`, sql`n.ended_at`)},
        duration_seconds = ${merged(sql`r.duration_seconds`, sql`n.duration_seconds`)},
        cost = ${merged(sql`r.cost`, sql`n.cost`)},
        transcript = ${merged(sql`r.transcript`, sql`n.transcript`)},
        messages = ${merged(sql`r.messages`, sql`n.messages`)},
        recording_url = ${merged(sql`r.recording_url`, sql`n.recording_url`)},
        summary = ${merged(sql`r.summary`, sql`n.summary`)},
        structured_data = ${merged(sql`r.structured_data`, sql`n.structured_data`)},
        success_evaluation = ${merged(sql`r.success_evaluation`, sql`n.success_evaluation`)},
        provider_context = ${merged(sql`r.provider_context`, sql`n.provider_context`)},
        raw_payload = ${merged(sql`r.raw_payload`, sql`n.raw_payload`)},
        from_number = COALESCE(r.from_number, ${report.fromNumber ?? null}), to_number = COALESCE(r.to_number, ${report.toNumber ?? null}),
        assistant_id = COALESCE(r.assistant_id, ${report.assistantId ?? null}),
        phone_number_id = COALESCE(r.phone_number_id, ${report.phoneNumberId ?? null}),
        updated_at = now()
    FROM before b, news n
    WHERE r.id = b.id
    RETURNING b.had_none AND r.raw_payload IS NOT NULL AS "isFirst"`);
  return rows[0]?.isFirst;
}
