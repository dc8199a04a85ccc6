/** Vapi's reports about ended calls, and its snapshots of calls. */
import type { Prisma } from '../../prisma/generated/client';
import type { CallReport } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { findCallRow } from './call-events';
import { type CallOutcome, callEnding, callOutcome, UNANSWERED } from './call-outcome';
import { higherStatus } from './call-status';

/** What storing a report has changed. */
export interface KeptReport {
  /** The call that the report was stored for. */
  callId: string;
  /** Whether this was the first report. */
  isFirst: boolean;
  /** Whether the receiver of the call's callback must get an update, due to this report or an earlier one. */
  owesUpdate: boolean;
}

/**
 * Stores a report or a snapshot of a call. A report of an ended call replaces the fields that it contains. A snapshot of a live call, or a
 * report of a call that is done, only fills gaps. A report of a call that is done also replaces the outcome `unknown`, clears the attention
 * that this outcome requested, and decides between `completed` and `no_answer` if it shows whether somebody spoke. The note in the
 * conversation is updated as well. If another row now follows the reported call, the report goes there.
 */
export async function keepCallReport(db: Database, callId: string, report: CallReport): Promise<KeptReport> {
  const kept = await writeReport(db, callId, report);
  if (kept !== undefined) return kept;
  const { providerCallId } = report;
  const owner = await findCallRow(db, { providerCallId });
  const keptThere = owner && (await writeReport(db, owner.callId, report));
  return keptThere ?? { callId, isFirst: false, owesUpdate: false };
}

/** Outcomes that differ only in whether the person spoke. */
const DECIDED_BY_SPEECH: readonly string[] = ['completed', 'no_answer'] satisfies CallOutcome[];

/** Undefined if the row does not follow this call. */
async function writeReport(db: Database, callId: string, report: CallReport): Promise<KeptReport | undefined> {
  const { isEnded, customerSpoke } = report;
  const ended = { endedReason: report.endedReason, customerSpoke, wasInProgress: report.startedAt !== undefined };
  const inConversation = callOutcome({ ...ended, wasInProgress: true });
  const { outcome, error } = callOutcome(ended);
  const decidesBySpeech = isEnded && customerSpoke !== undefined && DECIDED_BY_SPEECH.includes(outcome);
  const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value));
  // The running totals of a live call are not results.
  const result = isEnded ? report : { ...report, cost: undefined, durationSeconds: undefined, raw: undefined };
  const merged = (known: Prisma.Sql, reported: Prisma.Sql) =>
    sql`CASE WHEN b.wins THEN COALESCE(${reported}, ${known}) ELSE COALESCE(${known}, ${reported}) END`;
  const rows = await db.query<KeptReport>(sql`
    WITH before AS (
      SELECT id, raw_payload IS NULL AS had_none, done_at IS NULL AS is_open, done_at IS NULL AND ${isEnded} AS wins,
        done_at IS NOT NULL AND outcome = 'unknown' AND ${isEnded && outcome !== 'unknown'} AS was_unknown,
        done_at IS NOT NULL AND outcome <> ${outcome} AND outcome = ANY(${[...DECIDED_BY_SPEECH]}) AND ${decidesBySpeech}
          AND ended_reason IS NOT DISTINCT FROM ${report.endedReason ?? null} AS was_misjudged,
        done_at IS NOT NULL AND ${isEnded} AND (
          summary IS NULL AND ${report.summary !== undefined} OR transcript IS NULL AND ${report.transcript !== undefined}
          OR messages IS NULL AND ${report.messages !== undefined} OR recording_url IS NULL AND ${report.recordingUrl !== undefined}
          OR structured_data IS NULL AND ${report.structuredData !== undefined}) AS had_gaps
      FROM vapi_call_results WHERE id = ${callId}::uuid AND provider_call_id = ${report.providerCallId} FOR UPDATE
    ), news AS (
      SELECT ${isEnded ? 'ended' : (report.status ?? '')}::text AS status, ${report.endedReason ?? null}::text AS ended_reason,
        ${report.startedAt ?? null}::timestamptz AS started_at, ${answeredAtOf(report, outcome)}::timestamptz AS answered_at,
        ${report.endedAt ?? null}::timestamptz AS ended_at,
        ${result.durationSeconds ?? null}::float8 AS duration_seconds, ${result.cost ?? null}::float8 AS cost,
        ${report.transcript ?? null}::text AS transcript, ${json(report.messages)}::jsonb AS messages,
        ${customerSpoke ?? null}::boolean AS customer_spoke,
        ${report.recordingUrl ?? null}::text AS recording_url, ${report.summary ?? null}::text AS summary,
        ${json(report.structuredData)}::jsonb AS structured_data, ${report.successEvaluation ?? null}::text AS success_evaluation,
        ${json(report.providerContext)}::jsonb AS provider_context, ${json(result.raw)}::jsonb AS raw_payload
    ), written AS (
      UPDATE vapi_call_results r
      SET status = CASE WHEN b.is_open OR b.was_unknown THEN ${higherStatus(sql`r.status`, sql`n.status`)} ELSE r.status END,
          outcome = CASE WHEN b.was_unknown OR b.was_misjudged THEN ${outcome} ELSE r.outcome END,
          error = CASE WHEN NOT b.was_unknown THEN r.error
            WHEN r.answered_at IS NOT NULL THEN ${inConversation.error}::text ELSE ${error}::text END,
          -- Explained, unless there is another reason.
          needs_attention = CASE WHEN b.was_unknown THEN ${callEnding(ended).needsAttention} OR r.callback_failed_at IS NOT NULL
            ELSE r.needs_attention END,
          ended_reason = CASE WHEN b.was_unknown THEN n.ended_reason ELSE ${merged(sql`r.ended_reason`, sql`n.ended_reason`)} END,
          started_at = ${merged(sql`r.started_at`, sql`n.started_at`)},
          answered_at = CASE
            WHEN ${isEnded && UNANSWERED.includes(outcome)} AND (b.is_open OR b.was_unknown OR b.was_misjudged) THEN NULL
            WHEN r.outcome = ANY(${[...UNANSWERED]}) AND NOT b.was_misjudged THEN r.answered_at
            ELSE COALESCE(r.answered_at, n.answered_at) END,
          ended_at = ${merged(sql`r.ended_at`, sql`n.ended_at`)},
          duration_seconds = ${merged(sql`r.duration_seconds`, sql`n.duration_seconds`)},
          cost = ${merged(sql`r.cost`, sql`n.cost`)},
          transcript = ${merged(sql`r.transcript`, sql`n.transcript`)},
          messages = ${merged(sql`r.messages`, sql`n.messages`)},
          customer_spoke = ${merged(sql`r.customer_spoke`, sql`n.customer_spoke`)},
          recording_url = ${merged(sql`r.recording_url`, sql`n.recording_url`)},
          summary = ${merged(sql`r.summary`, sql`n.summary`)},
          structured_data = ${merged(sql`r.structured_data`, sql`n.structured_data`)},
          success_evaluation = ${merged(sql`r.success_evaluation`, sql`n.success_evaluation`)},
          provider_context = ${merged(sql`r.provider_context`, sql`n.provider_context`)},
          raw_payload = ${merged(sql`r.raw_payload`, sql`n.raw_payload`)},
          from_number = COALESCE(r.from_number, ${report.fromNumber ?? null}), to_number = COALESCE(r.to_number, ${report.toNumber ?? null}),
          assistant_id = COALESCE(r.assistant_id, ${report.assistantId ?? null}),
          phone_number_id = COALESCE(r.phone_number_id, ${report.phoneNumberId ?? null}),
          improved_at = CASE WHEN b.was_unknown OR b.was_misjudged OR b.had_gaps THEN now() ELSE r.improved_at END,
          updated_at = now()
      FROM before b, news n
      WHERE r.id = b.id
      RETURNING r.id, b.had_none AND r.raw_payload IS NOT NULL AS is_first, r.improved_at IS NOT NULL AND r.callback_url IS NOT NULL AS owes_update,
        b.was_unknown OR b.was_misjudged OR b.had_gaps AS is_better, r.summary, r.outcome, r.duration_seconds
    ), noted AS (
      UPDATE messages m
      SET text = w.summary, payload = m.payload || jsonb_build_object('outcome', w.outcome, 'durationSeconds', w.duration_seconds)
      FROM written w WHERE m.id = w.id AND m.direction = 'note' AND w.is_better
    )
    SELECT id AS "callId", is_first AS "isFirst", owes_update AS "owesUpdate" FROM written`);
  return rows[0];
}

/** When somebody answered, if a report or snapshot shows it. A ringing call has a start, but nobody has answered it. */
function answeredAtOf({ isEnded, status, startedAt, customerSpoke }: CallReport, outcome: CallOutcome): string | null {
  const isTalk = isEnded
    ? (customerSpoke ?? (outcome === 'completed' || outcome === 'transfer_failed'))
    : status === 'in-progress' || status === 'forwarding';
  return isTalk ? (startedAt ?? null) : null;
}
