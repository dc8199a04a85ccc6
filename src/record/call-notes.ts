/** The note about a call in the conversation with the same person. */
import { type Database, sql } from '../platform/database';

/** Where the note was written, and the follow-up to be sent. */
export interface WrittenNote {
  /** The workflow that owns the conversation. */
  workflowId: string;
  conversationId: string;
  sendConfirmMs: number;
  /** The message in the outbox; null if there is none. */
  followUpId: string | null;
}

/** A message to be sent after a completed call; `{summary}` is replaced with the call's summary. */
export interface FollowUp {
  text: string | undefined;
  /** In characters; a longer text is cut. */
  maxLength: number;
}

/**
 * Writes the note, and the follow-up into the outbox. Undefined if the call belongs to no conversation. Idempotent: the note has the
 * call's id, and the follow-up an id derived from it.
 */
export async function writeCallNote(db: Database, callId: string, followUp: FollowUp): Promise<WrittenNote | undefined> {
  const text = followUp.text ?? null;
  const rows = await db.query<WrittenNote>(sql`
    WITH call AS (
      SELECT r.*, c.workspace_id, c.workflow_id AS owner FROM vapi_call_results r JOIN conversations c ON c.id = r.conversation_id
      WHERE r.id = ${callId}::uuid
    ), note AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, payload, status)
      SELECT id, workspace_id, conversation_id, 'note', 'voice_call', summary,
        jsonb_build_object('callId', id, 'outcome', outcome, 'direction', direction, 'durationSeconds', duration_seconds), 'received'
      FROM call ON CONFLICT DO NOTHING
    ), follow_up AS (
      SELECT md5(id::text || 'follow-up')::uuid AS id, replace(${text}::text, '{summary}', COALESCE(summary, '')) AS text
      FROM call WHERE outcome = 'completed' AND ${text}::text IS NOT NULL
    ), written AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, status)
      SELECT f.id, call.workspace_id, call.conversation_id, 'outbound', 'text', left(f.text, ${followUp.maxLength}), 'pending'
      FROM follow_up f, call WHERE trim(f.text) <> '' ON CONFLICT DO NOTHING
    )
    SELECT call.owner AS "workflowId", call.conversation_id AS "conversationId", COALESCE(s.send_confirm_ms, 60000) AS "sendConfirmMs",
      (SELECT id FROM follow_up WHERE trim(text) <> '') AS "followUpId"
    FROM call LEFT JOIN chatbot_settings s ON s.workspace_id = call.workspace_id`);
  return rows[0];
}
