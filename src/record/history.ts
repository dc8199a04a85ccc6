/** Imports history: earlier messages, which nobody answers. Idempotent: a page may be imported twice. */
import type { ContactIdentity, InboundMessage, ReportedStatus, SyncPosition } from '../../workflows/contract';
import { conversationWorkflowId } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { maskPhoneNumbers } from '../platform/logger';
import { cutText } from '../platform/text';
import { contextOf, type KnownContext, PREVIEW_LENGTH, type RecordingRules } from './inbound';

/** A message of one person. */
export interface PastMessage {
  direction: 'inbound' | 'outbound';
  message: Omit<InboundMessage, 'id'>;
  /** Of an outbound message. */
  status?: ReportedStatus;
  /** Our ids, of an outbound message that Parley may have sent. */
  correlationIds: string[];
}

/** A person, with their messages and the replies. */
export interface PastTalk {
  contact: ContactIdentity;
  /** When Kapso saw the person last; milliseconds since 1970. */
  lastActiveAtMs: number;
  messages: PastMessage[];
}

/** Creates or completes the person's conversation. Undefined if no workspace has the number. */
export async function findTalk(
  db: Database,
  phoneNumberId: string,
  { contact, lastActiveAtMs }: Pick<PastTalk, 'contact' | 'lastActiveAtMs'>,
  rules: Pick<RecordingRules, 'identity' | 'answerLimits'>,
): Promise<KnownContext | undefined> {
  const contactKey = rules.identity.contactKey(phoneNumberId, contact);
  const workflow = { phoneNumberId, contactKey, workflowId: conversationWorkflowId(phoneNumberId, contactKey) };
  return await contextOf(db, workflow, { contact, statedAtMs: lastActiveAtMs }, { ...rules, hasModel: () => false });
}

/** Lists a conversation that has no message yet at the time when Kapso saw the person last. */
export async function placeTalk(db: Database, { conversationId }: KnownContext, lastActiveAtMs: number): Promise<void> {
  await db.query(sql`
    UPDATE conversations SET last_message_at = ${new Date(Math.min(lastActiveAtMs, Date.now()))}
    WHERE id = ${conversationId}::uuid AND last_message_at IS NULL`);
}

/** So long a conversation waits for a workspace, and then answers what is parked. */
const PARKED_FOR = sql`interval '1 day'`;

/**
 * Writes the messages that are neither in the record nor parked. A reply of ours whose send is unsettled is not written a second time: its
 * own row gets WhatsApp's id later.
 */
export async function importMessages(
  db: Database,
  phoneNumberId: string,
  { conversationId, workspaceId, workflowId }: KnownContext,
  messages: readonly PastMessage[],
  { identity }: Pick<RecordingRules, 'identity'>,
): Promise<void> {
  const input = messages.map(({ direction, message, status, correlationIds }) => ({
    id: identity.messageId(phoneNumberId, message.providerMessageId),
    direction,
    status: direction === 'inbound' ? 'received' : (status ?? 'sent'),
    provider_message_id: message.providerMessageId,
    kind: message.kind,
    text: message.text ?? null,
    payload: message.payload ?? null,
    occurred_at: new Date(Math.min(message.sentAtMs, Date.now())).toISOString(),
    outcome: message.isInGroup ? 'group' : 'history',
    sent_ids: correlationIds.filter((id) => UUID.test(id)),
  }));
  await db.query(sql`
    WITH past AS (
      SELECT * FROM jsonb_to_recordset(${JSON.stringify(input)}::jsonb) AS x(id uuid, direction text, status text, provider_message_id text,
        kind text, text text, payload jsonb, occurred_at timestamptz, outcome text, sent_ids uuid[])
    ), inserted AS (
      INSERT INTO messages (id, workspace_id, conversation_id, workflow_id, direction, status, provider_message_id, kind, text, payload,
        occurred_at, timeline_at, outcome)
      SELECT x.id, ${workspaceId}::uuid, ${conversationId}::uuid, CASE WHEN x.direction = 'inbound' THEN ${workflowId} END,
        x.direction::message_direction, x.status::message_status, x.provider_message_id, x.kind, x.text, x.payload, x.occurred_at, x.occurred_at,
        x.outcome::message_outcome
      FROM past x
      WHERE x.direction = 'inbound' AND NOT EXISTS (SELECT FROM parked_messages k WHERE k.phone_number_id = ${phoneNumberId}
          AND k.provider_message_id = x.provider_message_id AND k.released_at IS NULL AND k.created_at > now() - ${PARKED_FOR})
        OR x.direction = 'outbound' AND NOT EXISTS (SELECT FROM messages o WHERE o.id = ANY(x.sent_ids))
        AND NOT EXISTS (SELECT FROM messages o WHERE o.conversation_id = ${conversationId}::uuid AND o.direction = 'outbound'
          AND o.provider_message_id IS NULL AND o.status IN ('pending', 'sending', 'unconfirmed') AND o.text = x.text)
      ORDER BY x.occurred_at
      ON CONFLICT DO NOTHING
    ), newest AS (
      SELECT occurred_at, left(COALESCE(text, '[' || kind || ']'), ${PREVIEW_LENGTH}) AS preview FROM past
      WHERE outcome = 'history' ORDER BY occurred_at DESC LIMIT 1
    )
    UPDATE conversations c SET last_message_at = GREATEST(c.last_message_at, n.occurred_at), last_message_preview = n.preview
    FROM newest n
    WHERE c.id = ${conversationId}::uuid AND (c.last_message_preview IS NULL OR c.last_message_at < n.occurred_at)`);
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

/** How many of these messages (WhatsApp's ids) are stored as history. */
export async function countHistory(db: Database, workspaceId: string, ids: readonly string[]): Promise<number> {
  const rows = await db.query<{ count: number }>(sql`
    SELECT count(*)::int AS count FROM messages
    WHERE provider_message_id = ANY(${ids}::text[]) AND workspace_id = ${workspaceId}::uuid AND outcome IN ('history', 'group')`);
  return rows[0]?.count ?? 0;
}

/** How an import ended, or `running`. */
export type SyncStatus = 'running' | 'done' | 'failed' | 'canceled';

/**
 * The position at which an import begins: that of an earlier one that was not finished, unless `fromStart`. Safe to repeat. `untilMs`: for
 * one that begins anew.
 */
export async function beginSync(
  db: Database,
  { workspaceId, syncId, fromStart, untilMs }: { workspaceId: string; syncId: string; fromStart: boolean; untilMs: number },
): Promise<SyncPosition> {
  const until = new Date(untilMs);
  const isAnew = sql`(h.status = 'done' OR ${fromStart})`;
  await db.query(sql`
    INSERT INTO history_syncs AS h (workspace_id, sync_id, status, phase, until)
    VALUES (${workspaceId}::uuid, ${syncId}::uuid, 'running', 'conversations', ${until})
    ON CONFLICT (workspace_id) DO UPDATE SET sync_id = ${syncId}::uuid, status = 'running', problem = NULL, finished_at = NULL,
      started_at = now(), updated_at = now(),
      phase = CASE WHEN ${isAnew} THEN 'conversations' ELSE h.phase END, cursor = CASE WHEN ${isAnew} THEN NULL ELSE h.cursor END,
      until = CASE WHEN ${isAnew} THEN ${until} ELSE h.until END,
      conversations = CASE WHEN ${isAnew} THEN 0 ELSE h.conversations END, messages = CASE WHEN ${isAnew} THEN 0 ELSE h.messages END,
      imported = CASE WHEN ${isAnew} THEN 0 ELSE h.imported END, unreadable = CASE WHEN ${isAnew} THEN 0 ELSE h.unreadable END
    WHERE h.sync_id <> ${syncId}::uuid`);
  const row = await db.orm.historySync.findUniqueOrThrow({ where: { workspaceId } });
  const { phase, cursor, conversations, messages, imported, unreadable } = row;
  const counts = { conversations, messages, imported, unreadable };
  return { phase: phase as SyncPosition['phase'], ...(cursor === null ? {} : { cursor }), untilMs: row.until.getTime(), ...counts };
}

/** Stores how far an import has come; nothing if another one has begun. */
export async function saveSyncPosition(db: Database, workspaceId: string, syncId: string, position: SyncPosition): Promise<void> {
  const { phase, cursor = null, conversations, messages, imported, unreadable } = position;
  const data = { phase, cursor, conversations, messages, imported, unreadable };
  await db.orm.historySync.updateMany({ where: { workspaceId, syncId }, data });
}

/** Stores how an import ended. */
export async function endSync(
  db: Database,
  { workspaceId, syncId, status, problem }: { workspaceId: string; syncId: string; status: SyncStatus; problem?: string },
): Promise<void> {
  const text = problem === undefined ? null : cutText(maskPhoneNumbers(problem), 500);
  await db.orm.historySync.updateMany({ where: { workspaceId, syncId }, data: { status, problem: text, finishedAt: new Date() } });
}

/** The newest import of a workspace; null if there was none. */
export async function findSync(db: Database, workspaceId: string) {
  return await db.orm.historySync.findUnique({ where: { workspaceId } });
}
