/** The note about a call in the conversation with the same person. */
import { type Database, sql } from '../platform/database';
import { effectiveMode } from './modes';

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

/** How long after a customer's last message WhatsApp accepts free text (Cloud API, customer service window). */
const WINDOW = sql`interval '24 hours'`;

/**
 * Writes the note, and the follow-up into the outbox. The follow-up is left out if the conversation is in mode `human` or `paused`, the
 * chatbot is off, or WhatsApp would refuse it; the note says which. Undefined if the call belongs to no conversation. Idempotent: the
 * note has the call's id, and the follow-up an id derived from it.
 */
export async function writeCallNote(db: Database, callId: string, followUp: FollowUp): Promise<WrittenNote | undefined> {
  const text = followUp.text ?? null;
  const rows = await db.query<WrittenNote>(sql`
    WITH call AS (
      SELECT r.*, c.workspace_id AS owner_workspace_id, c.workflow_id AS owner, ${effectiveMode} AS mode, s.chatbot_enabled, s.send_confirm_ms,
        EXISTS (SELECT 1 FROM messages m WHERE m.conversation_id = c.id AND m.direction = 'inbound'
          AND m.outcome IS DISTINCT FROM 'group' AND m.outcome IS DISTINCT FROM 'history' AND m.occurred_at > now() - ${WINDOW})
          AS is_window_open
      FROM vapi_call_results r JOIN conversations c ON c.id = r.conversation_id JOIN workspaces w ON w.id = c.workspace_id
        LEFT JOIN chatbot_settings s ON s.workspace_id = c.workspace_id
      WHERE r.id = ${callId}::uuid
    ), follow_up AS (
      SELECT md5(id::text || 'follow-up')::uuid AS id, replace(${text}::text, '{summary}', COALESCE(summary, '')) AS text,
        CASE WHEN mode <> 'ai' THEN mode::text WHEN chatbot_enabled IS NOT TRUE THEN 'chatbot_off'
          WHEN NOT is_window_open THEN 'window_closed' ELSE 'sent' END AS fate
      FROM call WHERE outcome = 'completed' AND ${text}::text IS NOT NULL
    ), note AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, payload, status)
      SELECT id, owner_workspace_id, conversation_id, 'note', 'voice_call', summary,
        jsonb_build_object('callId', id, 'outcome', outcome, 'direction', direction, 'durationSeconds', duration_seconds,
          'followUp', (SELECT fate FROM follow_up WHERE trim(text) <> '')), 'received'
      FROM call ON CONFLICT DO NOTHING RETURNING 1
    ), decided AS (
      -- A second attempt keeps what the first one decided.
      SELECT COALESCE((SELECT payload->>'followUp' FROM messages WHERE id = ${callId}::uuid), (SELECT fate FROM follow_up WHERE trim(text) <> '')) AS fate
    ), written AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, status)
      SELECT f.id, call.owner_workspace_id, call.conversation_id, 'outbound', 'text', left(f.text, ${followUp.maxLength}), 'pending'
      -- Reads the note, so that it comes first in the conversation.
      FROM follow_up f, call, decided, (SELECT count(*) FROM note) noted WHERE decided.fate = 'sent' ON CONFLICT DO NOTHING
    )
    SELECT call.owner AS "workflowId", call.conversation_id AS "conversationId", COALESCE(call.send_confirm_ms, 60000) AS "sendConfirmMs",
      (SELECT f.id FROM follow_up f, decided WHERE decided.fate = 'sent') AS "followUpId"
    FROM call`);
  return rows[0];
}
