/**
 * Inbound messages: from a delivery to rows of the person's conversation. Every statement may run twice, and rows make the
 * second run harmless.
 */
import type { Prisma } from '../../prisma/generated/client';
import type { ContactIdentity, InboundMessage, MessagesReceived } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { isWorkspaceOf } from './workspaces';

/** What a workflow hands on to be recorded. */
export interface RecordOrder {
  phoneNumberId: string;
  contactKey: string;
  workflowId: string;
  /** Each knows its own contact. */
  deliveries: MessagesReceived[];
}

/** A delivery on its way into the database. */
export interface InboundDelivery extends MessagesReceived {
  phoneNumberId: string;
  contactKey: string;
  workflowId: string;
}

/** The settings of a workspace, and what is known of the person who wrote. */
export interface InboundContext {
  workspaceId: string;
  chatbotEnabled: boolean;
  aiEnabled: boolean;
  providerChain: string[];
  model: string | null;
  quietMs: number;
  quietMaxMs: number;
  sessionTimeoutMs: number;
  sendConfirmMs: number;
  conversationId: string | null;
  workflowId: string | null;
  mode: string | null;
  needsAttention: boolean | null;
  contactName: string | null;
  username: string | null;
  phone: string | null;
  businessScopedUserId: string | null;
}

/** Kinds whose text is a wish to be answered: what was written, or a caption. */
const ANSWERABLE_KINDS = new Set(['text', 'image', 'video', 'document', 'audio', 'sticker']);

const PREVIEW_LENGTH = 100;

/** The workspace with its settings and, when the contact is known, the conversation: found by key, else by business-scoped id. */
export async function findInboundContext(
  db: Database,
  { phoneNumberId, contactKey, contact }: InboundDelivery,
): Promise<InboundContext | undefined> {
  const rows = await db.query<InboundContext>(sql`
    SELECT w.id AS "workspaceId", COALESCE(s.chatbot_enabled, false) AS "chatbotEnabled", COALESCE(s.ai_enabled, false) AS "aiEnabled",
      COALESCE(s.provider_chain, '{}') AS "providerChain", s.model,
      COALESCE(s.quiet_ms, 3000) AS "quietMs", COALESCE(s.quiet_max_ms, 15000) AS "quietMaxMs",
      COALESCE(s.session_timeout_ms, 1800000) AS "sessionTimeoutMs", COALESCE(s.send_confirm_ms, 60000) AS "sendConfirmMs",
      c.id AS "conversationId", c.workflow_id AS "workflowId", c.mode::text AS mode, c.needs_attention AS "needsAttention", p.name AS "contactName", p.username, p.phone, p.business_scoped_user_id AS "businessScopedUserId"
    FROM workspaces w
    LEFT JOIN chatbot_settings s ON s.workspace_id = w.id
    LEFT JOIN LATERAL (
      SELECT * FROM contacts WHERE workspace_id = w.id
        AND (contact_key = ${contactKey} OR business_scoped_user_id = ${contact.businessScopedUserId ?? null})
      ORDER BY (contact_key = ${contactKey}) DESC LIMIT 1
    ) p ON true
    LEFT JOIN conversations c ON c.contact_id = p.id
    WHERE ${isWorkspaceOf(phoneNumberId)}`);
  return rows[0];
}

/** Whether the webhook brought something about the person that the record does not have. */
function knowsMore(contact: ContactIdentity, known: InboundContext): boolean {
  const isNews = (value: string | undefined, recorded: string | null) => value !== undefined && value !== recorded;
  return (
    isNews(contact.name, known.contactName) ||
    isNews(contact.username, known.username) ||
    isNews(contact.phone, known.phone) ||
    isNews(contact.businessScopedUserId, known.businessScopedUserId)
  );
}

/** Returns the conversation's id; writes only when something about the person or the workflow is new. */
export async function ensureConversation(db: Database, workspace: InboundContext, order: InboundDelivery): Promise<string> {
  const { contact, contactKey, workflowId } = order;
  const isKnown = workspace.conversationId !== null && workspace.workflowId === workflowId;
  if (isKnown && workspace.conversationId && !knowsMore(contact, workspace)) return workspace.conversationId;
  const knownContact = workspace.conversationId
    ? sql`(SELECT p.contact_key FROM contacts p JOIN conversations c ON c.contact_id = p.id WHERE c.id = ${workspace.conversationId}::uuid)`
    : sql`${contactKey}`;
  const rows = await db.query<{ id: string }>(sql`
    WITH contact AS (
      INSERT INTO contacts (workspace_id, contact_key, phone, business_scoped_user_id, name, username)
      VALUES (${workspace.workspaceId}::uuid, ${knownContact}, ${contact.phone ?? null}, ${contact.businessScopedUserId ?? null},
        ${contact.name ?? null}, ${contact.username ?? null})
      ON CONFLICT (workspace_id, contact_key) DO UPDATE SET
        phone = COALESCE(EXCLUDED.phone, contacts.phone),
        business_scoped_user_id = COALESCE(EXCLUDED.business_scoped_user_id, contacts.business_scoped_user_id),
        name = COALESCE(EXCLUDED.name, contacts.name), username = COALESCE(EXCLUDED.username, contacts.username)
      RETURNING id
    )
    INSERT INTO conversations (workspace_id, contact_id, workflow_id)
    SELECT ${workspace.workspaceId}::uuid, id, ${workflowId} FROM contact
    ON CONFLICT (contact_id) DO UPDATE SET workflow_id = EXCLUDED.workflow_id, updated_at = now()
    RETURNING id`);
  const row = rows[0];
  if (!row) throw new Error('the conversation was not written');
  return row.id;
}

/**
 * Writes the messages that are new, and returns the ids of all in the conversation that still want a reply. Among them
 * are those of an earlier run of this step whose end was lost, and those that a terminated workflow left behind.
 */
export async function insertMessages(
  db: Database,
  workspace: InboundContext,
  conversationId: string,
  mode: string,
  order: InboundDelivery,
): Promise<string[]> {
  const input = order.messages.map((message, index) => ({
    ord: index,
    id: message.id,
    provider_message_id: message.providerMessageId,
    kind: message.kind,
    text: message.text ?? null,
    payload: message.payload ?? null,
    occurred_at: new Date(message.sentAtMs).toISOString(),
    outcome: immediateOutcome(message, workspace, mode),
  }));
  const ids = order.messages.map((message) => message.providerMessageId);
  // What this statement inserts and what stood there before it are disjoint: a statement does not see its own rows.
  const rows = await db.query<OpenMessage>(sql`
    WITH inserted AS (
      INSERT INTO messages (id, workspace_id, conversation_id, workflow_id, direction, status, provider_message_id, kind, text, payload, occurred_at,
        outcome)
      SELECT x.id, ${workspace.workspaceId}::uuid, ${conversationId}::uuid, ${order.workflowId}, 'inbound', 'received', x.provider_message_id, x.kind,
        x.text, x.payload, x.occurred_at, x.outcome::message_outcome
      FROM jsonb_to_recordset(${JSON.stringify(input)}::jsonb)
        AS x(ord int, id uuid, provider_message_id text, kind text, text text, payload jsonb, occurred_at timestamptz, outcome text)
      ORDER BY x.ord
      ON CONFLICT DO NOTHING
      RETURNING id, position, outcome
    ), released AS (
      UPDATE parked_messages SET released_at = now()
      WHERE phone_number_id = ${order.phoneNumberId} AND provider_message_id = ANY(${ids}) AND released_at IS NULL
    ), said AS (
      SELECT count(*) AS count FROM inserted WHERE outcome IS DISTINCT FROM 'history'
    ), noted AS (
      UPDATE conversations SET unread_count = unread_count + (SELECT count FROM said), last_message_at = now(),
        last_message_preview = ${preview(order.messages.at(-1))}, updated_at = now()
      WHERE id = ${conversationId}::uuid AND ((SELECT count FROM said) > 0 OR last_message_at IS NULL)
    )
    SELECT id, position, outcome IS NULL AS "isOpen", true AS "isNew" FROM inserted
    UNION ALL
    SELECT id, position, true, false FROM messages m WHERE ${isOpenFor(conversationId, order.workflowId)}
    ORDER BY position`);
  if (rows.filter((row) => row.isNew).length === order.messages.length) return openIds(rows);
  // Some stood there already: perhaps from an earlier run of this step that ended after this statement had begun, so
  // that this statement could not see them. The next one can.
  return openIds(
    await db.query<OpenMessage>(sql`
      SELECT id, position, true AS "isOpen", false AS "isNew" FROM messages m WHERE ${isOpenFor(conversationId, order.workflowId)}
      ORDER BY position`),
  );
}

interface OpenMessage {
  id: string;
  isOpen: boolean;
  isNew: boolean;
}

function openIds(rows: OpenMessage[]): string[] {
  return rows.filter((row) => row.isOpen).map((row) => row.id);
}

/**
 * Messages `m` that this workflow recorded and that still want a reply: without an outcome, and in no turn or in one
 * whose draft nobody has sent (its workflow was terminated). Those of another workflow of the same person are its own.
 */
function isOpenFor(conversationId: string, workflowId: string): Prisma.Sql {
  return sql`m.conversation_id = ${conversationId}::uuid AND m.direction = 'inbound' AND m.outcome IS NULL AND m.workflow_id = ${workflowId}
    AND (m.turn_id IS NULL OR EXISTS (SELECT 1 FROM messages r WHERE r.reply_to_id = m.turn_id AND r.status = 'pending'))`;
}

/** What becomes of a message at once; null when it wants a reply. */
function immediateOutcome(message: InboundMessage, workspace: InboundContext, mode: string): string | null {
  if (message.isHistory) return 'history';
  if (mode === 'human' || mode === 'paused') return mode;
  if (!workspace.chatbotEnabled || !workspace.aiEnabled) return 'ai_disabled';
  if (!ANSWERABLE_KINDS.has(message.kind) || !message.text?.trim()) return 'unsupported';
  return null;
}

function preview(message: InboundMessage | undefined): string {
  return (message?.text ?? `[${message?.kind ?? 'message'}]`).slice(0, PREVIEW_LENGTH).toWellFormed();
}
