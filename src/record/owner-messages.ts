/**
 * Messages that the owner typed in the WhatsApp Business app. They are part of the conversation, and take it over: the bot resumes after
 * a while, or at the release. Messages that Parley sent are never taken for the owner's.
 */
import { type InboundMessage, PHONE_HOLDER } from '../../workflows/contract';
import { type Database, type Statements, sql } from '../platform/database';
import { modeNow, withholdDrafts } from './modes';
import { joinEarlyReports } from './replies';

/** Where the messages belong. */
export interface OwnerMessagesOrder {
  conversationId: string;
  workspaceId: string;
  phoneNumberId: string;
  /** How long the bot is silent after the last of them. */
  ownerPauseMs: number;
  /** Oldest first. */
  messages: InboundMessage[];
}

/** Stores the messages, edits and deletions, and takes the conversation over if one of them is new. Safe to repeat. */
export async function recordOwnerMessages(db: Database, order: OwnerMessagesOrder): Promise<void> {
  const { conversationId, phoneNumberId, messages } = order;
  const taken = await db.transaction((tx) => recordAndTakeOver(tx, order));
  // Only now, because it must see what has been committed.
  for (const { providerMessageId } of messages) await joinEarlyReports(db, { providerMessageId, phoneNumberId });
  if (taken === undefined) return;
  await withholdDrafts(db, conversationId);
  await settleOpen(db, conversationId, new Date(taken.newestMs));
}

/** Together, because a repetition finds the messages known, and takes nothing over. Undefined if nothing is new, or the bot may speak. */
async function recordAndTakeOver(tx: Statements, order: OwnerMessagesOrder): Promise<{ newestMs: number } | undefined> {
  let newestMs: number | undefined;
  for (const message of order.messages) if (await recordOne(tx, order, message)) newestMs = Math.max(newestMs ?? 0, message.sentAtMs);
  if (newestMs === undefined) return undefined;
  return (await takeOverByPhone(tx, order.conversationId, newestMs + order.ownerPauseMs)) ? { newestMs } : undefined;
}

/** Whether something has changed. */
async function recordOne(db: Statements, order: OwnerMessagesOrder, message: InboundMessage): Promise<boolean> {
  const { edits, deletes } = message.fromBusiness ?? {};
  if (edits !== undefined) return (await editMessage(db, order, edits, message)) || (await insertMessage(db, order, message, edits));
  if (deletes !== undefined)
    return (await deleteMessage(db, order, deletes, message)) || (await insertMessage(db, order, message, deletes));
  return await insertMessage(db, order, message, message.providerMessageId);
}

/** How long before WhatsApp's time of a message our send of it may have been claimed. */
const SEND_TAKES = sql`interval '2 minutes'`;

/**
 * Returns false if the message is known, or is one that we are sending: its `sent` webhook may come before the response that has its id.
 * An edit or a deletion that overtakes its message is stored in its place.
 */
async function insertMessage(
  db: Statements,
  { conversationId, workspaceId }: OwnerMessagesOrder,
  { id, kind, text, payload, sentAtMs, fromBusiness }: InboundMessage,
  providerMessageId: string,
): Promise<boolean> {
  const sentAt = new Date(Math.min(sentAtMs, Date.now()));
  const isDeletion = fromBusiness?.deletes !== undefined;
  const shown = isDeletion ? null : (text ?? null);
  const rows = await db.query(sql`
    WITH own AS (
      SELECT FROM messages m WHERE m.conversation_id = ${conversationId}::uuid AND m.direction = 'outbound' AND m.status IN ('sending', 'unconfirmed')
        AND m.text = ${text ?? ''} AND m.claimed_at BETWEEN ${sentAt}::timestamptz - ${SEND_TAKES} AND ${sentAt}::timestamptz + ${SEND_TAKES}
    ), inserted AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, payload, provider_message_id, status, author, occurred_at,
        edited_at, deleted_at)
      SELECT ${id}::uuid, ${workspaceId}::uuid, ${conversationId}::uuid, 'outbound', ${kind}, ${shown}, ${isDeletion ? null : JSON.stringify(payload ?? null)}::jsonb,
        ${providerMessageId}, 'sent', 'phone', ${sentAt}, ${fromBusiness?.edits === undefined ? null : sentAt}, ${isDeletion ? sentAt : null}
      WHERE NOT EXISTS (SELECT FROM own) ON CONFLICT DO NOTHING RETURNING id
    ), noted AS (
      UPDATE conversations SET last_message_at = now(), unread_count = 0, updated_at = now(),
        last_message_preview = ${isDeletion ? '[deleted]' : (text ?? `[${kind}]`).slice(0, PREVIEW_LENGTH).toWellFormed()}
      WHERE id = ${conversationId}::uuid AND EXISTS (SELECT FROM inserted)
    )
    SELECT id FROM inserted`);
  return rows.length > 0;
}

const PREVIEW_LENGTH = 100;

async function editMessage(db: Statements, { workspaceId }: OwnerMessagesOrder, edited: string, message: InboundMessage): Promise<boolean> {
  const at = new Date(message.sentAtMs);
  const rows = await db.query(sql`
    UPDATE messages SET text = ${message.text ?? null}, edited_at = ${at}
    WHERE provider_message_id = ${edited} AND workspace_id = ${workspaceId}::uuid AND direction = 'outbound' AND deleted_at IS NULL
      AND (edited_at IS NULL OR edited_at < ${at}) RETURNING id`);
  return rows.length > 0;
}

async function deleteMessage(
  db: Statements,
  { workspaceId }: OwnerMessagesOrder,
  deleted: string,
  message: InboundMessage,
): Promise<boolean> {
  const rows = await db.query(sql`
    UPDATE messages SET text = NULL, payload = NULL, deleted_at = ${new Date(message.sentAtMs)}
    WHERE provider_message_id = ${deleted} AND workspace_id = ${workspaceId}::uuid AND direction = 'outbound' AND deleted_at IS NULL
    RETURNING id`);
  return rows.length > 0;
}

/** Unless a person or a pause has it, or the time is over. Whether the phone has it now. */
async function takeOverByPhone(db: Statements, conversationId: string, untilMs: number): Promise<boolean> {
  const until = new Date(untilMs);
  const isPhones = sql`(${modeNow('c')} = 'human' AND c.held_by = ${PHONE_HOLDER})`;
  await db.query(sql`
    UPDATE conversations c SET mode = 'human', held_by = ${PHONE_HOLDER}, updated_at = now(),
      held_since = CASE WHEN ${isPhones} THEN c.held_since ELSE now() END,
      mode_until = CASE WHEN ${isPhones} THEN GREATEST(c.mode_until, ${until}) ELSE ${until} END
    WHERE c.id = ${conversationId}::uuid AND ${until}::timestamptz > now() AND (${modeNow('c')} = 'ai' OR ${isPhones})`);
  const rows = await db.query<{ isSilent: boolean }>(sql`
    SELECT ${modeNow('c')} <> 'ai' AS "isSilent" FROM conversations c WHERE c.id = ${conversationId}::uuid`);
  return rows[0]?.isSilent ?? false;
}

/** The messages that the customer had written by then were answered on the phone. */
async function settleOpen(db: Database, conversationId: string, answeredAt: Date): Promise<void> {
  await db.query(sql`
    WITH settled AS (
      UPDATE messages SET outcome = 'human' WHERE conversation_id = ${conversationId}::uuid AND direction = 'inbound' AND outcome IS NULL
        AND turn_id IS NULL AND occurred_at <= ${answeredAt} RETURNING id
    )
    UPDATE conversations SET waiting_since = (
      SELECT min(m.created_at) FROM messages m WHERE m.conversation_id = ${conversationId}::uuid AND m.direction = 'inbound' AND m.outcome IS NULL
        AND m.turn_id IS NULL AND m.id NOT IN (SELECT id FROM settled))
    WHERE id = ${conversationId}::uuid`);
}
