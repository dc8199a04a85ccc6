/** Messages that people write by hand: outbox rows like the bot's, but sent whatever the mode. */
import { type Database, sql } from '../platform/database';
import { effectiveMode } from './modes';

/** A message to be sent. */
export interface NewHandMessage {
  /** Derived from the request's idempotency key. */
  id: string;
  conversationId: string;
  text: string;
  /** A message of the conversation that it quotes. */
  quotedId?: string | undefined;
  /** The person's name. */
  by: string;
  requestHash: string;
}

/** What the workflow needs to send it. */
export interface HandMessageInOutbox {
  kind: 'stored';
  id: string;
  conversationId: string;
  workflowId: string;
  sendConfirmMs: number;
  status: string;
  requestHash: string | null;
  answeredIds: string[];
}

export type HandMessageVerdict = HandMessageInOutbox | { kind: 'window_closed'; lastInboundAt: Date | null } | { kind: 'nothing_to_quote' };

/** How long after a customer's last message WhatsApp accepts free text (Cloud API, customer service window). */
const WINDOW_MS = 24 * 60 * 60_000;

/**
 * Stores the message, unless it was stored before, or returns why WhatsApp would not accept it. While the bot is silent, it is the reply
 * to all open messages. The conversation must exist.
 */
export async function storeHandMessage(db: Database, message: NewHandMessage): Promise<HandMessageVerdict> {
  const stored = await findHandMessage(db, message.id);
  if (stored) return stored;
  const { conversationId, quotedId = null } = message;
  const rows = await db.query<{ lastInboundAt: Date | null; canQuote: boolean }>(sql`
    SELECT (SELECT max(m.occurred_at) FROM messages m WHERE m.conversation_id = ${conversationId}::uuid AND m.direction = 'inbound'
        AND m.outcome IS DISTINCT FROM 'group' AND m.outcome IS DISTINCT FROM 'history') AS "lastInboundAt",
      (${quotedId}::uuid IS NULL OR EXISTS (SELECT FROM messages q WHERE q.id = ${quotedId}::uuid AND q.conversation_id = ${conversationId}::uuid
        AND q.provider_message_id IS NOT NULL)) AS "canQuote"`);
  const { lastInboundAt = null, canQuote = false } = rows[0] ?? {};
  if (!canQuote) return { kind: 'nothing_to_quote' };
  if (!lastInboundAt || Date.now() - lastInboundAt.getTime() > WINDOW_MS) return { kind: 'window_closed', lastInboundAt };
  await insert(db, message);
  const written = await findHandMessage(db, message.id);
  if (!written) throw new Error(`message ${message.id} is not in the database`);
  return written;
}

async function insert(db: Database, { id, conversationId, text, quotedId, by, requestHash }: NewHandMessage): Promise<void> {
  await db.query(sql`
    WITH target AS (
      SELECT c.id, c.workspace_id, ${effectiveMode} <> 'ai' AS is_silent
      FROM conversations c JOIN workspaces w ON w.id = c.workspace_id WHERE c.id = ${conversationId}::uuid
    ), open AS (
      SELECT m.id, m.position FROM messages m
      WHERE m.conversation_id = ${conversationId}::uuid AND m.direction = 'inbound' AND m.outcome IS NULL AND m.turn_id IS NULL
        AND (SELECT is_silent FROM target)
      ORDER BY m.id FOR UPDATE
    ), last AS (
      SELECT id FROM open ORDER BY position DESC LIMIT 1
    ), inserted AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, status, reply_to_id, quoted_id, author, author_name, request_hash)
      SELECT ${id}::uuid, t.workspace_id, t.id, 'outbound', 'text', ${text}, 'pending', (SELECT id FROM last), ${quotedId ?? null}::uuid, 'person',
        ${by}, ${requestHash}
      FROM target t ON CONFLICT (id) DO NOTHING RETURNING id
    ), turn AS (
      UPDATE messages SET turn_id = (SELECT id FROM last) WHERE id IN (SELECT id FROM open) AND EXISTS (SELECT FROM inserted)
    )
    UPDATE conversations SET waiting_since = NULL, updated_at = now()
    WHERE id = ${conversationId}::uuid AND EXISTS (SELECT FROM open) AND EXISTS (SELECT FROM inserted)`);
}

/** Undefined if there is none with this id. */
async function findHandMessage(db: Database, id: string): Promise<HandMessageInOutbox | undefined> {
  const rows = await db.query<HandMessageInOutbox>(sql`
    SELECT 'stored' AS kind, m.id, m.conversation_id AS "conversationId", c.workflow_id AS "workflowId", m.status::text AS status,
      COALESCE(s.send_confirm_ms, 60000) AS "sendConfirmMs", m.request_hash AS "requestHash",
      ARRAY(SELECT i.id::text FROM messages i WHERE i.turn_id = m.reply_to_id ORDER BY i.position) AS "answeredIds"
    FROM messages m JOIN conversations c ON c.id = m.conversation_id LEFT JOIN chatbot_settings s ON s.workspace_id = m.workspace_id
    WHERE m.id = ${id}::uuid AND m.author IN ('person', 'system')`);
  return rows[0];
}
