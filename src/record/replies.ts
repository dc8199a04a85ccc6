/**
 * The outbox row of a reply: who may send it, and what is known about it. Shared by the send activity and by
 * the status webhooks, because both bring facts about the same row and may come in any order.
 *
 * Invariants, held by single statements:
 * - only the claim (`pending → sending`) allows a send, and one claim allows one;
 * - a status never goes back (the order of the enum), and may skip steps;
 * - the inbound messages of a turn get their outcome in the statement that settles its reply.
 */

import type { Prisma } from '../../prisma/generated/client';
import type { ReportedStatus, StatusReport } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';

/** How the row is found: by our id, which travels with the send, or by WhatsApp's. */
export type ReplyKey = { messageId: string } | { providerMessageId: string };

export interface RaisedReply {
  messageId: string;
  previous: string;
  status: string;
  workflowId: string;
}

function keyCondition(key: ReplyKey): Prisma.Sql {
  return 'messageId' in key ? sql`m.id = ${key.messageId}::uuid` : sql`m.provider_message_id = ${key.providerMessageId}`;
}

/**
 * Raises the row to `status`, keeps WhatsApp's id, and settles the turn: on `sent` and above its messages are
 * answered or merged and nobody needs to look any more, on `failed` they failed and the conversation needs attention.
 * Null when there is no such row or it stands as high already. `onlyWhileSending`: a fact about a send in flight, which a
 * status that came meanwhile overrules.
 */
export async function raiseReply(
  db: Database,
  key: ReplyKey,
  fact: { status: ReportedStatus; phoneNumberId: string; providerMessageId?: string; failure?: string; onlyWhileSending?: boolean },
): Promise<RaisedReply | null> {
  const failed = fact.status === 'failed';
  const rows = await db.query<RaisedReply>(sql`
    WITH target AS (
      SELECT m.id, m.status AS previous, m.conversation_id, m.reply_to_id, m.text
      FROM messages m JOIN workspaces w ON w.id = m.workspace_id
      WHERE ${keyCondition(key)} AND m.direction = 'outbound' AND w.kapso_phone_number_id = ${fact.phoneNumberId}
      FOR UPDATE OF m
    ), raised AS (
      UPDATE messages m
      SET status = GREATEST(m.status, ${fact.status}::message_status),
          provider_message_id = COALESCE(m.provider_message_id, ${fact.providerMessageId ?? null}),
          failure = COALESCE(${fact.failure ?? null}, m.failure)
      FROM target t
      WHERE m.id = t.id AND (m.status < ${fact.status}::message_status OR m.provider_message_id IS NULL)
        AND (m.status = 'sending' OR NOT ${fact.onlyWhileSending ?? false})
      RETURNING m.id, t.previous, m.status, m.conversation_id, m.reply_to_id, m.text
    ), settled AS (
      UPDATE messages i
      SET outcome = CASE WHEN ${failed} THEN 'failed' WHEN i.id = r.reply_to_id THEN 'answered' ELSE 'merged' END::message_outcome
      FROM raised r
      WHERE i.turn_id = r.reply_to_id AND i.direction = 'inbound' AND (i.outcome IS NULL OR ${failed})
    ), noted AS (
      UPDATE conversations c
      SET needs_attention = ${failed},
          attention_reason = CASE WHEN ${failed} THEN 'reply failed' END,
          last_message_at = CASE WHEN ${failed} THEN c.last_message_at ELSE now() END,
          last_message_preview = CASE WHEN ${failed} THEN c.last_message_preview ELSE left(r.text, 100) END,
          unread_count = CASE WHEN ${failed} THEN c.unread_count ELSE 0 END,
          updated_at = now()
      FROM raised r
      WHERE c.id = r.conversation_id AND (${failed} OR r.previous < 'sent')
    )
    SELECT r.id AS "messageId", r.previous::text AS previous, r.status::text AS status, c.workflow_id AS "workflowId"
    FROM raised r JOIN conversations c ON c.id = r.conversation_id`);
  return rows[0] ?? null;
}

/**
 * Keeps the reports and raises the rows that were known to be sent already, which is nearly all of them, in one
 * statement. Returns the ids (WhatsApp's) that are done with; for the others `raiseReply` must be called, after this.
 * A row that somebody else is writing is left to `raiseReply`, so that no report waits for another one's row; and the
 * reports are written in one order, so that two of these statements cannot wait for each other.
 */
export async function keepReports(db: Database, reports: StatusReport[]): Promise<Set<string>> {
  const input = reports.map(({ providerMessageId, status, atMs, error }) => ({
    provider_message_id: providerMessageId,
    status,
    occurred_at: new Date(atMs).toISOString(),
    error: error ?? null,
  }));
  const rows = await db.query<{ id: string }>(sql`
    WITH report AS (
      SELECT * FROM jsonb_to_recordset(${JSON.stringify(input)}::jsonb)
        AS x(provider_message_id text, status message_status, occurred_at timestamptz, error jsonb)
    ), kept AS (
      INSERT INTO message_status_events (provider_message_id, status, occurred_at, error)
      SELECT provider_message_id, status::text, occurred_at, error FROM report ORDER BY provider_message_id, status
      ON CONFLICT DO NOTHING
    ), known AS (
      SELECT m.id, m.provider_message_id, m.status, r.highest
      FROM (SELECT provider_message_id, max(status) AS highest FROM report GROUP BY provider_message_id) r
      JOIN messages m ON m.provider_message_id = r.provider_message_id
      WHERE m.direction = 'outbound' AND m.status >= 'sent' AND (r.highest < 'failed' OR m.status = 'failed')
    ), risen AS (
      SELECT m.id, k.highest FROM messages m JOIN known k ON k.id = m.id WHERE m.status < k.highest
      FOR UPDATE OF m SKIP LOCKED
    ), raised AS (
      UPDATE messages m SET status = r.highest FROM risen r WHERE m.id = r.id
    )
    SELECT provider_message_id AS id FROM known k WHERE k.status >= k.highest OR EXISTS (SELECT 1 FROM risen r WHERE r.id = k.id)`);
  return new Set(rows.map((row) => row.id));
}

/**
 * Raises the row by the reports that came before its id was known. Must run after the statement that wrote the id:
 * then either this sees the report, or the report's own statement sees the id.
 */
export async function joinEarlyReports(db: Database, reply: { providerMessageId: string; phoneNumberId: string }): Promise<void> {
  const reports = await db.query<{ status: ReportedStatus; failure: string | null }>(sql`
    SELECT status, error->>'code' AS failure FROM message_status_events
    WHERE provider_message_id = ${reply.providerMessageId} AND status IN ('sent', 'delivered', 'read', 'failed')
    ORDER BY status::message_status DESC LIMIT 1`);
  const highest = reports[0];
  if (!highest || highest.status === 'sent') return;
  await raiseReply(
    db,
    { providerMessageId: reply.providerMessageId },
    { status: highest.status, phoneNumberId: reply.phoneNumberId, ...(highest.failure ? { failure: `whatsapp ${highest.failure}` } : {}) },
  );
}
