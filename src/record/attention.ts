/** What asks for a person to look at a conversation. */
import { type Database, sql } from '../platform/database';

/** Asks for a person; nothing else of the conversation changes. */
export async function raiseAttention(db: Database, { conversationId, reason }: { conversationId: string; reason: string }): Promise<void> {
  await db.query(sql`
    UPDATE conversations SET needs_attention = true, attention_reason = ${reason}, updated_at = now() WHERE id = ${conversationId}::uuid`);
}
