/** Assigns Vapi's id of a call to our row. */
import { type Database, sql } from '../platform/database';
import { higherStatus } from './call-status';

/**
 * Assigns Vapi's id to our row, if it has none yet. If an event has already created a row for this id, that row hands over the id and its
 * data, and is closed. Returns whether our row has the id now.
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
            status = CASE WHEN r.done_at IS NULL THEN ${higherStatus(sql`r.status`, sql`s.status`)} ELSE r.status END,
            ended_reason = COALESCE(r.ended_reason, s.ended_reason), started_at = COALESCE(r.started_at, s.started_at),
            answered_at = COALESCE(r.answered_at, s.answered_at), ended_at = COALESCE(r.ended_at, s.ended_at),
            duration_seconds = COALESCE(r.duration_seconds, s.duration_seconds), cost = COALESCE(r.cost, s.cost),
            transcript = COALESCE(r.transcript, s.transcript), messages = COALESCE(r.messages, s.messages),
            customer_spoke = COALESCE(r.customer_spoke, s.customer_spoke),
            recording_url = COALESCE(r.recording_url, s.recording_url), summary = COALESCE(r.summary, s.summary),
            structured_data = COALESCE(r.structured_data, s.structured_data),
            success_evaluation = COALESCE(r.success_evaluation, s.success_evaluation),
            provider_context = COALESCE(r.provider_context, s.provider_context), raw_payload = COALESCE(r.raw_payload, s.raw_payload),
            updated_at = now()
        -- Reads through "closed", which must free the id first.
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

/** Maximum attempts of a statement that loses a race for an id. */
const ATTEMPTS = 5;
const UNIQUE_VIOLATION = '23505';

/** Another transaction can take an id between the statement's read and its write; the next attempt sees its row. */
async function despiteRaces<T>(step: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await step();
    } catch (error) {
      if (attempt >= ATTEMPTS || (error as { code?: unknown }).code !== UNIQUE_VIOLATION) throw error;
    }
  }
}
