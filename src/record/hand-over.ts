/** The text that is sent to the customer when the conversation is handed over. */
import { type Database, sql } from '../platform/database';

/**
 * Stores the workspace's text in the outbox, unless a person already has the conversation, or the customer has got the text since the
 * hand-over began. Returns the message that waits to be sent; undefined if there is none. Safe to repeat.
 */
export async function storeHandOverSentence(
  db: Database,
  { conversationId, language }: { conversationId: string; language: string | undefined },
): Promise<string | undefined> {
  const texts = sql`s.hand_over_texts`;
  const rows = await db.query<{ id: string }>(sql`
    WITH target AS (
      SELECT c.id, c.workspace_id, c.held_since,
        COALESCE(${texts}->>${language ?? null}::text, ${texts}->>'en', (SELECT value FROM jsonb_each_text(${texts}) ORDER BY key LIMIT 1)) AS text
      FROM conversations c JOIN chatbot_settings s ON s.workspace_id = c.workspace_id
      WHERE c.id = ${conversationId}::uuid AND c.mode = 'human' AND c.held_by IS NULL FOR UPDATE OF c
    ), known AS (
      SELECT m.id, m.status FROM messages m, target t
      WHERE m.conversation_id = t.id AND m.author = 'system' AND m.created_at >= t.held_since ORDER BY m.position DESC LIMIT 1
    ), inserted AS (
      INSERT INTO messages (workspace_id, conversation_id, direction, kind, text, status, author)
      SELECT t.workspace_id, t.id, 'outbound', 'text', t.text, 'pending', 'system' FROM target t WHERE t.text IS NOT NULL AND NOT EXISTS (SELECT FROM known)
      RETURNING id
    )
    SELECT id FROM inserted UNION ALL SELECT id FROM known WHERE status = 'pending'`);
  return rows[0]?.id;
}
