/**
 * Merges two contacts, in a transaction that has locked both. Messages are locked before conversations, as by the statements that settle a
 * turn, so that they cannot deadlock.
 */
import { type Statements, sql } from '../platform/database';
import { unitedReasons } from './attention';

/**
 * Moves everything of the contact `from` to the contact `into`, and deletes `from`. Messages that are in no turn yet go to the owner of the
 * conversation. A turn with a draft stays with its workflow.
 */
export async function mergeContact(tx: Statements, { from, into }: { from: string; into: string }): Promise<void> {
  const [source] = await conversationsOf(tx, from);
  const [target] = await conversationsOf(tx, into);
  if (source && target) await mergeConversation(tx, { from: source.id, into: target.id, owner: target.workflowId });
  else if (source) await tx.query(sql`UPDATE conversations SET contact_id = ${into}::uuid WHERE id = ${source.id}::uuid`);
  await tx.query(sql`UPDATE contact_aliases SET contact_id = ${into}::uuid WHERE contact_id = ${from}::uuid`);
  await tx.query(sql`
    UPDATE contacts p SET name = COALESCE(p.name, f.name), username = COALESCE(p.username, f.username), phone = COALESCE(p.phone, f.phone),
      business_scoped_user_id = COALESCE(p.business_scoped_user_id, f.business_scoped_user_id), created_at = LEAST(p.created_at, f.created_at)
    FROM contacts f WHERE p.id = ${into}::uuid AND f.id = ${from}::uuid`);
  await tx.query(sql`DELETE FROM contacts WHERE id = ${from}::uuid`);
}

async function conversationsOf(tx: Statements, contactId: string): Promise<{ id: string; workflowId: string }[]> {
  return await tx.query(sql`SELECT id, workflow_id AS "workflowId" FROM conversations WHERE contact_id = ${contactId}::uuid`);
}

async function mergeConversation(tx: Statements, conversations: { from: string; into: string; owner: string }): Promise<void> {
  const { from, into } = conversations;
  await moveMessages(tx, conversations);
  await tx.query(sql`SELECT 1 FROM conversations WHERE id IN (${from}::uuid, ${into}::uuid) ORDER BY id FOR UPDATE`);
  // Once more, for messages that were inserted before the lock; it keeps out new ones.
  await moveMessages(tx, conversations);
  await tx.query(sql`UPDATE vapi_call_results SET conversation_id = ${into}::uuid WHERE conversation_id = ${from}::uuid`);
  await tx.query(sql`
    UPDATE conversations c SET
      (mode, mode_until, held_by, held_since) = (
        SELECT s.mode, s.mode_until, s.held_by, s.held_since FROM (VALUES (c.id, c.mode, c.mode_until, c.held_by, c.held_since),
          (f.id, f.mode, f.mode_until, f.held_by, f.held_since)) s(id, mode, mode_until, held_by, held_since)
        ORDER BY s.mode_until <= now() NULLS FIRST, array_position(ARRAY['human', 'paused', 'ai'], s.mode::text), s.id = c.id DESC LIMIT 1),
      waiting_since = LEAST(c.waiting_since, f.waiting_since), hand_over = COALESCE(c.hand_over, f.hand_over),
      needs_attention = c.needs_attention OR f.needs_attention, attention = ${unitedReasons(sql`c.attention`, sql`f.attention`)},
      attention_reason = COALESCE(c.attention_reason, f.attention_reason),
      last_message_at = GREATEST(c.last_message_at, f.last_message_at),
      last_message_preview = CASE WHEN f.last_message_at > c.last_message_at OR c.last_message_at IS NULL
        THEN f.last_message_preview ELSE c.last_message_preview END,
      unread_count = c.unread_count + f.unread_count, created_at = LEAST(c.created_at, f.created_at), updated_at = now()
    FROM conversations f WHERE c.id = ${into}::uuid AND f.id = ${from}::uuid`);
  await tx.query(sql`UPDATE merged_conversations SET conversation_id = ${into}::uuid WHERE conversation_id = ${from}::uuid`);
  await tx.query(sql`INSERT INTO merged_conversations (id, conversation_id) VALUES (${from}::uuid, ${into}::uuid)`);
}

async function moveMessages(tx: Statements, { from, into, owner }: { from: string; into: string; owner: string }): Promise<void> {
  await tx.query(sql`
    UPDATE messages SET conversation_id = ${into}::uuid,
      workflow_id = CASE WHEN direction = 'inbound' AND outcome IS NULL AND turn_id IS NULL THEN ${owner} ELSE workflow_id END
    WHERE conversation_id = ${from}::uuid`);
}
