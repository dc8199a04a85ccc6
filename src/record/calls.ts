/**
 * The row of a call: which one an event belongs to, and what it changes there. Shared by the call workflow's activities
 * and by the webhook, because both bring facts about the same call and may come in any order, and more than once.
 *
 * Invariants, held by single statements:
 * - one row per call: two first events at once make one;
 * - an id of Vapi's stands in one row; a call of ours takes it over from the row that an event made for a stranger;
 * - the status only goes forward, and nothing known becomes unknown;
 * - once the call is done, facts are kept as events, and a report fills what is still missing.
 */
import type { Prisma } from '../../prisma/generated/client';
import { type CallEvent, type CallReport, callWorkflowId } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { callOutcome } from './call-outcome';

/** A row, as far as it says where a fact belongs. */
export interface CallRow {
  callId: string;
  workflowId: string;
  providerCallId: string | null;
  formerProviderCallIds: string[];
  status: string;
  outcome: string | null;
  needsAttention: boolean;
  maxDurationSeconds: number;
  answeredAt: Date | null;
  doneAt: Date | null;
}

/** What an event found, or made. */
export interface KeptCallEvent {
  row: CallRow;
  /** False when the same fact was kept before. */
  isNew: boolean;
  /** True for a placement that Vapi ended without dialling: the row follows another one, and nobody needs to be told. */
  isFormer: boolean;
}

/** A row and an id can change hands between two statements, but each step of that happens once. */
const ATTEMPTS = 5;
const UNIQUE_VIOLATION = '23505';

/** How far a call has come. A status of no height (`not-found`, or one that is new) is kept as an event and never applied. */
const heightOf = (status: Prisma.Sql) =>
  sql`COALESCE(array_position(ARRAY['scheduled', 'queued', 'ringing', 'in-progress', 'forwarding', 'ended'], ${status}), 0)`;

/** The higher one of what the row says and what came. */
const raised = (known: Prisma.Sql, reported: Prisma.Sql) =>
  sql`CASE WHEN ${heightOf(reported)} > ${heightOf(known)} THEN ${reported} ELSE ${known} END`;

const rowColumns = sql`r.id AS "callId", r.workflow_id AS "workflowId", r.provider_call_id AS "providerCallId",
  r.former_provider_call_ids AS "formerProviderCallIds", r.status, r.outcome, r.needs_attention AS "needsAttention",
  r.max_duration_seconds AS "maxDurationSeconds", r.answered_at AS "answeredAt", r.done_at AS "doneAt"`;

/**
 * The row that an id of Vapi's belongs to: ours, when our id came with it and the row follows no other call; else the one
 * that has (or had) Vapi's id. Our id alone is no proof: people place calls again with the same metadata.
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
 * Gives Vapi's id to our row, if it has none yet. A row that was made for the same id as a stranger's gives up the id and
 * all that it has learnt, and is closed. Returns whether the row has the id now.
 */
export async function adoptProviderCall(
  db: Database,
  { callId, providerCallId }: { callId: string; providerCallId: string },
): Promise<boolean> {
  return await despiteRaces(async () => {
    const rows = await db.query<{ adopted: boolean }>(sql`
      WITH own AS (
        SELECT id FROM vapi_call_results
        WHERE id = ${callId}::uuid AND NOT ${providerCallId} = ANY(former_provider_call_ids)
          AND (provider_call_id IS NULL OR provider_call_id = ANY(former_provider_call_ids))
        FOR UPDATE
      ), stranger AS (
        SELECT s.* FROM vapi_call_results s, own
        WHERE s.provider_call_id = ${providerCallId} AND s.id <> own.id AND s.request_hash IS NULL
        FOR UPDATE OF s
      ), taken AS (
        SELECT 1 FROM vapi_call_results t, own
        WHERE t.provider_call_id = ${providerCallId} AND t.id <> own.id AND t.request_hash IS NOT NULL
      ), closed AS (
        UPDATE vapi_call_results c
        SET provider_call_id = NULL, status = 'ended', outcome = 'canceled', ended_reason = 'adopted', needs_attention = false,
            done_at = COALESCE(c.done_at, now()), updated_at = now()
        FROM stranger s WHERE c.id = s.id
        RETURNING c.id
      ), adopted AS (
        UPDATE vapi_call_results r
        SET provider_call_id = ${providerCallId},
            status = CASE WHEN r.done_at IS NULL THEN ${raised(sql`r.status`, sql`s.status`)} ELSE r.status END,
            ended_reason = COALESCE(r.ended_reason, s.ended_reason), started_at = COALESCE(r.started_at, s.started_at),
            answered_at = COALESCE(r.answered_at, s.answered_at), ended_at = COALESCE(r.ended_at, s.ended_at),
            duration_seconds = COALESCE(r.duration_seconds, s.duration_seconds), cost = COALESCE(r.cost, s.cost),
            transcript = COALESCE(r.transcript, s.transcript), messages = COALESCE(r.messages, s.messages),
            recording_url = COALESCE(r.recording_url, s.recording_url), summary = COALESCE(r.summary, s.summary),
            structured_data = COALESCE(r.structured_data, s.structured_data),
            success_evaluation = COALESCE(r.success_evaluation, s.success_evaluation),
            provider_context = COALESCE(r.provider_context, s.provider_context), raw_payload = COALESCE(r.raw_payload, s.raw_payload),
            updated_at = now()
        -- Read through closed: the id is free only when that has run.
        FROM own LEFT JOIN (SELECT s.* FROM stranger s JOIN closed ON closed.id = s.id) s ON true
        WHERE r.id = own.id AND NOT EXISTS (SELECT 1 FROM taken)
        RETURNING 1
      )
      SELECT EXISTS (SELECT 1 FROM adopted)
        OR EXISTS (SELECT 1 FROM vapi_call_results WHERE id = ${callId}::uuid AND provider_call_id = ${providerCallId}
            AND NOT ${providerCallId} = ANY(former_provider_call_ids)) AS adopted`);
    return rows[0]?.adopted ?? false;
  });
}

/**
 * Keeps a fact: finds its row or makes it, writes the event once, and raises the row. `foreignCallId` is the id that a row
 * gets when nobody here knows the call. @throws when the record is away
 */
export async function keepCallEvent(db: Database, event: CallEvent, foreignCallId: string): Promise<KeptCallEvent> {
  let parties: { ownCallId?: string; providerCallId: string } = event;
  let isNew = false;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    const found = await findCallRow(db, parties);
    if (!found) {
      await insertForeignRow(db, event, foreignCallId);
      continue;
    }
    const isFormer = found.formerProviderCallIds.includes(event.providerCallId);
    if (!isFormer && found.providerCallId !== event.providerCallId) {
      const adopted = await adoptProviderCall(db, { callId: found.callId, providerCallId: event.providerCallId });
      // The row follows another call by now: our id came back with a call that is not this row's.
      if (!adopted) parties = { providerCallId: event.providerCallId };
      continue;
    }
    const applied = await applyEvent(db, event, found.callId);
    isNew ||= applied.isNew;
    if (applied.row) return { row: applied.row, isNew, isFormer };
    if (isFormer || found.doneAt !== null) return { row: found, isNew, isFormer };
    // The id went to another row, or the call was concluded, in between: the fact belongs to what is there now.
  }
  throw new Error(`no row could be found or made for the call ${event.providerCallId}`);
}

/** Does nothing when another event was first. */
async function insertForeignRow(db: Database, event: CallEvent, callId: string): Promise<void> {
  const { providerCallId, status, direction, fromNumber, toNumber, assistantId, phoneNumberId, maxDurationSeconds } = event;
  await db.query(sql`
    INSERT INTO vapi_call_results
      (id, workflow_id, provider_call_id, direction, status, from_number, to_number, assistant_id, phone_number_id, max_duration_seconds)
    VALUES (${callId}::uuid, ${callWorkflowId(callId)}, ${providerCallId}, ${direction}::call_direction,
      ${status === 'scheduled' ? status : 'queued'}, ${fromNumber ?? null},
      ${toNumber ?? null}, ${assistantId ?? null}, ${phoneNumberId ?? null}, COALESCE(${maxDurationSeconds ?? null}::int, 600))
    ON CONFLICT DO NOTHING`);
}

/**
 * Writes the event and raises the row in one step, so that no crash can part them; twice is the same as once. The row is
 * undefined when it did not take the fact: it is done, or follows another call.
 */
async function applyEvent(db: Database, event: CallEvent, callId: string): Promise<{ isNew: boolean; row: CallRow | undefined }> {
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
      SET status = ${raised(sql`r.status`, sql`${reached}::text`)},
          started_at = COALESCE(${startedAt ?? null}::timestamptz, r.started_at, ${inProgressAt}::timestamptz),
          answered_at = LEAST(r.answered_at, ${inProgressAt}::timestamptz),
          ended_at = COALESCE(${endedAt ?? null}::timestamptz, LEAST(r.ended_at, ${endedBy}::timestamptz)),
          ended_reason = COALESCE(r.ended_reason, ${endedReason ?? null}),
          from_number = COALESCE(r.from_number, ${fromNumber ?? null}), to_number = COALESCE(r.to_number, ${toNumber ?? null}),
          assistant_id = COALESCE(r.assistant_id, ${assistantId ?? null}),
          phone_number_id = COALESCE(r.phone_number_id, ${phoneNumberId ?? null}),
          updated_at = now()
      WHERE r.id = ${callId}::uuid AND r.provider_call_id = ${providerCallId} AND r.done_at IS NULL
        AND NOT ${providerCallId} = ANY(r.former_provider_call_ids)
      RETURNING ${rowColumns}
    )
    SELECT EXISTS (SELECT 1 FROM fact) AS "isNew", changed.* FROM (SELECT 1) one LEFT JOIN changed ON true`);
  const { isNew = false, ...row } = rows[0] ?? { callId: null };
  return { isNew, row: row.callId === null ? undefined : row };
}

/**
 * Keeps a report, or a snapshot of the call. What it says of a call that has ended replaces what was known, and what it
 * does not say stays; a call that is done, or a snapshot of one still going on, only fills what is missing. A late report
 * of a call whose outcome was `unknown` brings the outcome. The row must have the report's id of Vapi's; when that went to
 * another row, the report goes there. Returns whether this was the first report.
 */
export async function keepCallReport(db: Database, callId: string, report: CallReport): Promise<boolean> {
  const kept = await writeReport(db, callId, report);
  if (kept !== undefined) return kept;
  const { providerCallId } = report;
  const owner = await findCallRow(db, { providerCallId });
  return owner ? ((await writeReport(db, owner.callId, report)) ?? false) : false;
}

/** Undefined when the row does not follow this call. */
async function writeReport(db: Database, callId: string, report: CallReport): Promise<boolean | undefined> {
  const inConversation = callOutcome(report.endedReason, true);
  const { outcome, error } = callOutcome(report.endedReason, report.startedAt !== undefined);
  const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value));
  // Of a call still going on, a sum so far is no result.
  const result = report.isEnded ? report : { ...report, cost: undefined, durationSeconds: undefined, raw: undefined };
  const kept = (known: Prisma.Sql, reported: Prisma.Sql) =>
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
    SET status = CASE WHEN b.is_open OR b.was_unknown THEN ${raised(sql`r.status`, sql`n.status`)} ELSE r.status END,
        outcome = CASE WHEN b.was_unknown THEN ${outcome} ELSE r.outcome END,
        error = CASE WHEN NOT b.was_unknown THEN r.error
          WHEN r.answered_at IS NOT NULL THEN ${inConversation.error}::text ELSE ${error}::text END,
        ended_reason = CASE WHEN b.was_unknown THEN n.ended_reason ELSE ${kept(sql`r.ended_reason`, sql`n.ended_reason`)} END,
        started_at = ${kept(sql`r.started_at`, sql`n.started_at`)},
        -- A call that was never answered has no start.
        answered_at = COALESCE(r.answered_at, n.started_at),
        ended_at = ${kept(sql`r.ended_at`, sql`n.ended_at`)},
        duration_seconds = ${kept(sql`r.duration_seconds`, sql`n.duration_seconds`)},
        cost = ${kept(sql`r.cost`, sql`n.cost`)},
        transcript = ${kept(sql`r.transcript`, sql`n.transcript`)},
        messages = ${kept(sql`r.messages`, sql`n.messages`)},
        recording_url = ${kept(sql`r.recording_url`, sql`n.recording_url`)},
        summary = ${kept(sql`r.summary`, sql`n.summary`)},
        structured_data = ${kept(sql`r.structured_data`, sql`n.structured_data`)},
        success_evaluation = ${kept(sql`r.success_evaluation`, sql`n.success_evaluation`)},
        provider_context = ${kept(sql`r.provider_context`, sql`n.provider_context`)},
        raw_payload = ${kept(sql`r.raw_payload`, sql`n.raw_payload`)},
        from_number = COALESCE(r.from_number, ${report.fromNumber ?? null}), to_number = COALESCE(r.to_number, ${report.toNumber ?? null}),
        assistant_id = COALESCE(r.assistant_id, ${report.assistantId ?? null}),
        phone_number_id = COALESCE(r.phone_number_id, ${report.phoneNumberId ?? null}),
        updated_at = now()
    FROM before b, news n
    WHERE r.id = b.id
    RETURNING b.had_none AND r.raw_payload IS NOT NULL AS "isFirst"`);
  return rows[0]?.isFirst;
}

/** An id can be taken between the look and the step; the next look sees by whom. */
async function despiteRaces<T>(step: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await step();
    } catch (error) {
      if (attempt >= ATTEMPTS || (error as { code?: unknown }).code !== UNIQUE_VIOLATION) throw error;
    }
  }
}
