/** Conversations whose bot is silent: expired modes, long waits, and manual messages that were left behind. */
import type { SendRequested } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { attentionAlert } from './alerts';
import { withReason } from './attention';
import { effectiveMode } from './modes';

/** A conversation, with the workflow that is to be told. */
export interface ToldConversation {
  conversationId: string;
  workflowId: string;
}

/** Rows per look; the next look finds the others. */
const AT_ONCE = 200;

/** Ends expired modes of conversations, so that lists and filters show it. */
export async function endExpiredModes(db: Database): Promise<ToldConversation[]> {
  return await db.query<ToldConversation>(sql`
    UPDATE conversations c SET mode = 'ai', mode_until = NULL, held_by = NULL, held_since = NULL, updated_at = now()
    WHERE c.id IN (SELECT id FROM conversations WHERE mode_until <= now() ORDER BY mode_until LIMIT ${AT_ONCE} FOR UPDATE SKIP LOCKED)
      AND c.mode_until <= now()
    RETURNING c.id AS "conversationId", c.workflow_id AS "workflowId"`);
}

/** Conversations with messages that wait although the bot may answer: a mode has ended, of the conversation, its workspace or the installation. */
export async function findResumable(db: Database): Promise<ToldConversation[]> {
  return await db.query<ToldConversation>(sql`
    SELECT c.id AS "conversationId", c.workflow_id AS "workflowId" FROM conversations c JOIN workspaces w ON w.id = c.workspace_id
    WHERE c.waiting_since IS NOT NULL AND ${effectiveMode} = 'ai' ORDER BY c.waiting_since LIMIT ${AT_ONCE}`);
}

const WAITS = { kind: 'waiting_for_person', text: 'the customer waits for a person, and the bot is silent' } as const;

/** Requests attention for customers who have waited longer than their workspace allows, since they wrote or a person last looked. */
export async function raiseLongWaits(db: Database): Promise<ToldConversation[]> {
  return await db.query<ToldConversation>(sql`
    WITH waiting AS (
      SELECT c.id FROM conversations c JOIN workspaces w ON w.id = c.workspace_id LEFT JOIN chatbot_settings s ON s.workspace_id = c.workspace_id
      WHERE GREATEST(c.waiting_since, c.attended_at) < now() - COALESCE(s.person_wait_ms, 600000) * interval '1 ms' AND c.waiting_since IS NOT NULL
        AND ${effectiveMode} <> 'ai' AND NOT c.attention @> '[{"kind": "waiting_for_person"}]'
      ORDER BY c.waiting_since LIMIT ${AT_ONCE} FOR UPDATE OF c SKIP LOCKED
    ), raised AS (
      UPDATE conversations c SET attention = ${withReason(sql`c.attention`, WAITS)}, needs_attention = true, updated_at = now()
      FROM waiting WHERE c.id = waiting.id AND NOT c.attention @> '[{"kind": "waiting_for_person"}]'
      RETURNING c.id, c.workflow_id
    ), alerted AS (${attentionAlert(WAITS, sql`SELECT id FROM raised`)})
    SELECT id AS "conversationId", workflow_id AS "workflowId" FROM raised`);
}

/** Older ones are too late to be sent. */
const LEFT_FOR_AT_MOST = sql`interval '1 day'`;
/** Whoever stored it tells the workflow at once. */
const LEFT_AFTER = sql`interval '15 seconds'`;

/** A message by hand, or of a hand-over, that was stored and never tried: Temporal did not take the signal, or the workflow was terminated. */
export interface LeftMessage extends SendRequested {
  workflowId: string;
}

/** Looks only at conversations that have changed lately, because no index has the status. */
export async function findLeftMessages(db: Database): Promise<LeftMessage[]> {
  return await db.query<LeftMessage>(sql`
    SELECT m.id AS "messageId", c.id AS "conversationId", c.workflow_id AS "workflowId", COALESCE(s.send_confirm_ms, 60000) AS "sendConfirmMs",
      ARRAY(SELECT i.id::text FROM messages i WHERE i.turn_id = m.reply_to_id ORDER BY i.position) AS "answeredIds"
    FROM (SELECT * FROM conversations WHERE last_message_at > now() - ${LEFT_FOR_AT_MOST} ORDER BY last_message_at DESC LIMIT 1000) c
      CROSS JOIN LATERAL (SELECT * FROM messages n WHERE n.conversation_id = c.id ORDER BY n.position DESC LIMIT 20) m
      LEFT JOIN chatbot_settings s ON s.workspace_id = c.workspace_id
    WHERE m.author IN ('person', 'system') AND m.status = 'pending' AND m.send_attempts = 0 AND m.created_at < now() - ${LEFT_AFTER}
    ORDER BY m.position LIMIT ${AT_ONCE}`);
}
