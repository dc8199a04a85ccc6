/**
 * The outbox row of a reply: who may send it, and what is known about it. Used by the send activity and by the status webhooks, which
 * report facts about the same row in any order.
 *
 * Invariants, each held by a single statement:
 * - only the claim (`pending → sending`) allows a send, and a claim allows only one;
 * - a status only rises (in the order of the enum), and may skip steps;
 * - the inbound messages of a turn get their outcome in the statement that settles its reply.
 *
 * A long reply has several rows, its parts. The first one has `reply_to_id`; the others name it in `part_of_id`. They are sent in order,
 * each with a claim of its own. The turn is answered once all are sent. If a part fails or stays in doubt, those after it are not sent.
 */

import { randomUUID } from 'node:crypto';
import type { Prisma } from '../../prisma/generated/client';
import type { ReportedStatus, SendProgress, SendVerdict, StatusReport } from '../../workflows/contract';
import { type Database, isOneOf, sql } from '../platform/database';
import { attentionAlert } from './alerts';
import { withoutCuredReasons, withoutReasons, withReason } from './attention';
import { currentConversation } from './merged-conversations';
import { effectiveMode, isAnsweredByHand, isAutomatic, isSilenced, modeNow, WITHHELD } from './modes';

/** A reply drafted by a model. */
export interface NewDraft {
  conversationId: string;
  /** The workflow whose turn it is. */
  workflowId: string;
  /** The inbound messages of the turn, oldest first. The reply belongs to the last one. */
  messageIds: string[];
  /** Those whose draft was discarded, because a later message came. */
  supersededIds?: string[];
  /** The texts to send, one message each. */
  texts: string[];
  provider: string;
  model: string;
  attempts: number;
  latencyMs: number;
  /** Null if unknown. */
  promptTokens: number | null;
  completionTokens: number | null;
}

/** A reply in the outbox. */
export interface StoredReply {
  /** Id of its row; for a reply in parts, of the first one. */
  messageId: string;
  /** The rows of the other parts, in order. */
  partIds: string[];
}

/**
 * Writes the reply and the turn of its messages in one statement. An existing reply of the turn wins.
 * Undefined if nothing was written: the bot must be silent, or the draft is too late: a message already has an outcome, belongs to a turn with later
 * messages (this attempt had timed out, and another one has stored its draft), or went to another workflow with a merged conversation. The
 * locking SELECT checks this, because PostgreSQL evaluates its condition again after waiting for a row: of two concurrent drafts, one is
 * refused.
 */
export async function storeDraft(db: Database, draft: NewDraft): Promise<StoredReply | undefined> {
  const { conversationId, workflowId, messageIds, supersededIds = [], provider, model, promptTokens, completionTokens } = draft;
  const [text, ...otherTexts] = draft.texts;
  const lastId = messageIds.at(-1);
  const newId = randomUUID();
  const rows = await db.query<{ id: string }>(sql`
    WITH own AS (
      SELECT id FROM messages WHERE ${isOneOf(sql`id`, messageIds)} AND outcome IS NULL AND ${isOf(workflowId)}
        AND (turn_id IS NULL OR turn_id = ANY(${messageIds}::uuid[]) AND NOT ${isAnsweredByHand(sql`messages.turn_id`)})
      ORDER BY id FOR UPDATE
    ), whole AS (
      SELECT 1 FROM own HAVING count(*) = ${messageIds.length} AND NOT ${mustBeSilent(conversationId)}
    ), turn AS (
      UPDATE messages SET turn_id = ${lastId}::uuid, is_superseded = ${isOneOf(sql`id`, supersededIds)} WHERE ${isOneOf(sql`id`, messageIds)} AND EXISTS (SELECT FROM whole)
    ), abandoned AS (
      -- Left behind by a terminated workflow or a lost attempt; its messages belong to this turn now.
      UPDATE messages SET status = 'failed', failure = 'replaced by a later draft'
      WHERE ${isOneOf(sql`reply_to_id`, messageIds)} AND reply_to_id <> ${lastId}::uuid AND status = 'pending' AND EXISTS (SELECT FROM whole)
    ), abandoned_parts AS (
      UPDATE messages p SET status = 'failed', failure = 'replaced by a later draft' FROM messages r
      WHERE p.part_of_id = r.id AND ${isOneOf(sql`r.reply_to_id`, messageIds)} AND r.reply_to_id <> ${lastId}::uuid AND p.status = 'pending'
        AND EXISTS (SELECT FROM whole)
    ), reply AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, status, reply_to_id, provider, model, attempts, latency_ms,
        prompt_tokens, completion_tokens, author)
      SELECT ${newId}::uuid, c.workspace_id, c.id, 'outbound', 'text', ${text}, 'pending', ${lastId}::uuid, ${provider}, ${model},
        ${draft.attempts}, ${draft.latencyMs}, ${promptTokens}, ${completionTokens}, 'model'
      FROM conversations c, whole WHERE c.id = ${currentConversation(conversationId)}
      ON CONFLICT (reply_to_id) DO UPDATE SET reply_to_id = EXCLUDED.reply_to_id
      RETURNING id, workspace_id, conversation_id
    ), parts AS (
      INSERT INTO messages (workspace_id, conversation_id, direction, kind, text, status, part_of_id, part, provider, model, author)
      SELECT r.workspace_id, r.conversation_id, 'outbound', 'text', o.text, 'pending', r.id, o.ordinal + 1, ${provider}, ${model}, 'model'
      FROM reply r, unnest(${otherTexts}::text[]) WITH ORDINALITY o(text, ordinal) WHERE r.id = ${newId}::uuid ORDER BY o.ordinal
      RETURNING id, part
    )
    SELECT id FROM (SELECT id, 1 AS part FROM reply UNION ALL SELECT id, part FROM parts) written ORDER BY part`);
  const [messageId, ...partIds] = rows.map(({ id }) => id);
  if (messageId === undefined) return undefined;
  // A statement does not see what others have committed since it began, so the parts of an existing reply are read with another one.
  return { messageId, partIds: messageId === newId ? partIds : await findParts(db, messageId) };
}

/** Whether the bot must be silent in the conversation. */
function mustBeSilent(conversationId: string): Prisma.Sql {
  return sql`(SELECT ${effectiveMode} <> 'ai' FROM conversations c JOIN workspaces w ON w.id = c.workspace_id WHERE c.id = ${currentConversation(conversationId)})`;
}

/** Whether the bot must be silent in the conversation now. */
export async function isBotSilent(db: Database, conversationId: string): Promise<boolean> {
  const rows = await db.query<{ silent: boolean }>(sql`SELECT ${mustBeSilent(conversationId)} AS silent`);
  return rows[0]?.silent ?? false;
}

async function findParts(db: Database, messageId: string): Promise<string[]> {
  const rows = await db.query<{ id: string }>(sql`SELECT id FROM messages WHERE part_of_id = ${messageId}::uuid ORDER BY part`);
  return rows.map(({ id }) => id);
}

/** Whether a message belongs to the workflow: one of a merged conversation may have gone to another. */
function isOf(workflowId: string): Prisma.Sql {
  return sql`(workflow_id IS NULL OR workflow_id = ${workflowId})`;
}

/** Messages that went to another workflow, with the conversation that theirs was merged into. */
export interface MovedMessages {
  messageIds: string[];
  workflowId: string;
}

/** Which of the messages went to another workflow; undefined if none did. */
export async function findMovedMessages(
  db: Database,
  { messageIds, workflowId }: { messageIds: string[]; workflowId: string },
): Promise<MovedMessages | undefined> {
  const rows = await db.query<MovedMessages>(sql`
    SELECT array_agg(id) AS "messageIds", workflow_id AS "workflowId" FROM messages
    WHERE ${isOneOf(sql`id`, messageIds)} AND NOT ${isOf(workflowId)} GROUP BY workflow_id`);
  return rows[0];
}

/** The message that the row `part` answers, whether it is a reply's first row or a later one. */
function answeredBy(part: Prisma.Sql): Prisma.Sql {
  return sql`COALESCE(${part}.reply_to_id, (SELECT f.reply_to_id FROM messages f WHERE f.id = ${part}.part_of_id))`;
}

/** A claimed reply, which may be sent once. */
export interface ClaimedReply {
  text: string;
  phone: string | null;
  businessScopedUserId: string | null;
  phoneNumberId: string;
  /** The model that wrote it; null if none did. */
  provider: string | null;
  sendAttempts: number;
  lastInboundAgeMs: number;
  /** WhatsApp's id of the message that it quotes. */
  quotedProviderId: string | null;
}

/** Claims a reply for sending, with one atomic UPDATE. Undefined if it cannot be claimed: not while the bot must be silent, unless a person wrote it. */
export async function claimReply(db: Database, messageId: string): Promise<ClaimedReply | undefined> {
  const rows = await db.query<ClaimedReply>(sql`
    UPDATE messages m SET status = 'sending', claimed_at = now(), send_attempts = m.send_attempts + 1
    FROM conversations c, contacts p, workspaces w
    WHERE m.id = ${messageId}::uuid AND m.status = 'pending'
      AND c.id = m.conversation_id AND p.id = c.contact_id AND w.id = m.workspace_id
      AND (NOT ${isAutomatic} OR ${effectiveMode} = 'ai')
    RETURNING m.text, p.phone, p.business_scoped_user_id AS "businessScopedUserId", w.kapso_phone_number_id AS "phoneNumberId", m.provider,
      m.send_attempts AS "sendAttempts",
      (SELECT q.provider_message_id FROM messages q WHERE q.id = m.quoted_id) AS "quotedProviderId",
      (extract(epoch FROM now() - COALESCE((SELECT i.created_at FROM messages i WHERE i.id = ${answeredBy(sql`m`)}), ${lastInboundAt})) * 1000)::float8
        AS "lastInboundAgeMs"`);
  return rows[0];
}

/** When the customer of message `m` last wrote. */
const lastInboundAt = sql`(
  SELECT i.created_at FROM messages i WHERE i.conversation_id = m.conversation_id AND i.direction = 'inbound' ORDER BY i.position DESC LIMIT 1)`;

/** Ends our own claim (identified by `sendAttempts`) when the send is not known to have succeeded. If a status webhook has already raised the row, it stays unchanged. */
export async function endClaim(
  db: Database,
  { messageId, sendAttempts, status }: { messageId: string; sendAttempts: number; status: 'pending' | 'unconfirmed' },
): Promise<void> {
  await db.query(sql`
    UPDATE messages SET status = ${status}::message_status
    WHERE id = ${messageId}::uuid AND status = 'sending' AND send_attempts = ${sendAttempts}`);
}

/**
 * The state of the row. If it is `sending` although we did not claim it, the worker that did has died or hangs: the outcome is unknown,
 * and the row becomes `unconfirmed`. If it waits although the bot must be silent, it is discarded.
 */
export async function endForeignClaim(db: Database, messageId: string): Promise<SendVerdict> {
  const rows = await db.query<ReplyState>(sql`
    UPDATE messages m SET
      status = CASE WHEN m.status = 'sending' THEN 'unconfirmed' WHEN ${isToBeWithheld} THEN 'failed' ELSE m.status END::message_status,
      failure = CASE WHEN ${isToBeWithheld} THEN ${WITHHELD} ELSE m.failure END,
      withheld_at = CASE WHEN ${isToBeWithheld} THEN now() ELSE m.withheld_at END
    WHERE m.id = ${messageId}::uuid
    RETURNING m.status::text, m.failure, m.withheld_at IS NOT NULL AS "isWithheld", (SELECT c.needs_attention FROM conversations c WHERE c.id = m.conversation_id) AS "needsAttention"`);
  return verdictOf(rows[0]);
}

const isToBeWithheld = sql`m.status = 'pending' AND ${isAutomatic} AND ${isSilenced}`;

/** The state of the row; `under_way` if it was claimed less than `freshForMs` ago, otherwise as in `endForeignClaim`. */
export async function checkClaim(db: Database, messageId: string, freshForMs: number): Promise<SendProgress> {
  const rows = await db.query<unknown>(sql`
    SELECT 1 FROM messages WHERE id = ${messageId}::uuid AND status = 'sending' AND claimed_at > now() - ${freshForMs} * interval '1 ms'`);
  return rows.length > 0 ? { status: 'under_way' } : await endForeignClaim(db, messageId);
}

interface ReplyState {
  status: string;
  failure: string | null;
  isWithheld: boolean;
  /** Null if the conversation is being merged into another one at this moment. */
  needsAttention: boolean | null;
}

function verdictOf(row: ReplyState | undefined): SendVerdict {
  switch (row?.status) {
    case 'sent':
    case 'delivered':
    case 'read':
      return { status: 'sent', ...(row.needsAttention === null ? {} : { needsAttention: row.needsAttention }) };
    case 'pending':
      return { status: 'pending', retryAfterMs: 0, reason: 'not delivered' };
    case 'failed':
      return row.isWithheld ? { status: 'withheld' } : { status: 'failed', reason: row.failure ?? 'unknown' };
    case undefined:
      return { status: 'failed', reason: 'the reply is not in the database' };
    default:
      return { status: 'unconfirmed' };
  }
}

/** Finds the row by our id, which is part of the send, or by WhatsApp's. */
export type ReplyKey = { messageId: string } | { providerMessageId: string };

export interface RaisedReply {
  messageId: string;
  previous: string;
  status: string;
  workflowId: string;
  /** Whether the conversation still needs a person. */
  needsAttention: boolean;
}

function keyCondition(key: ReplyKey): Prisma.Sql {
  return 'messageId' in key ? sql`m.id = ${key.messageId}::uuid` : sql`m.provider_message_id = ${key.providerMessageId}`;
}

/**
 * Raises the row to `status`, stores WhatsApp's id, and settles the turn: from `sent` up its messages are answered or merged, and the
 * reasons that a reply cures are removed; on `failed` they failed, and the conversation needs attention. A reply in parts settles its turn
 * once all are sent, or once one fails; no part is sent after that. If a person wrote it, its messages get the
 * outcome `human`. Null if there is no such row, or its status is not lower.
 * `claim`: applies only while this claim is current; `isLate`: applies only to a reply that is unconfirmed or waits.
 */
export async function raiseReply(
  db: Database,
  key: ReplyKey,
  fact: { status: ReportedStatus; phoneNumberId: string; providerMessageId?: string; failure?: string; claim?: number; isLate?: boolean },
): Promise<RaisedReply | null> {
  const failed = fact.status === 'failed';
  const undelivered = ['WhatsApp did not deliver a reply', fact.failure].filter(Boolean).join(': ');
  const text = failed ? undelivered : 'WhatsApp did not get all parts of a reply';
  const reason = { kind: 'reply_failed', text } as const;
  const broken = withReason(withoutReasons(sql`c.attention`, [], sql`r.id::text`), reason);
  const cured = withoutCuredReasons(sql`c.attention`, sql`r.created_at`, sql`r.id::text`);
  const attention = sql`CASE WHEN r.is_broken THEN ${broken} WHEN r.is_whole AND r.author IS DISTINCT FROM 'system' THEN ${cured} ELSE c.attention END`;
  const alerted = sql`, alerted AS (${attentionAlert(reason, sql`SELECT n.id FROM noted n, reply r WHERE r.is_broken`)})`;
  const rows = await db.query<RaisedReply>(sql`
    WITH target AS (
      SELECT m.id, m.status AS previous, ${answeredBy(sql`m`)} AS answered_id, COALESCE(m.part_of_id, m.id) AS first_id
      FROM messages m JOIN workspaces w ON w.id = m.workspace_id
      WHERE ${keyCondition(key)} AND m.direction = 'outbound' AND w.kapso_phone_number_id = ${fact.phoneNumberId}
        AND (m.status < ${fact.status}::message_status OR m.provider_message_id IS NULL)
        AND (${fact.claim ?? null}::int IS NULL OR (m.status = 'sending' AND m.send_attempts = ${fact.claim ?? null}::int))
        AND (m.status IN ('pending', 'unconfirmed') OR NOT ${fact.isLate ?? false})
      FOR UPDATE OF m
    ), raised AS (
      UPDATE messages m
      SET status = GREATEST(m.status, ${fact.status}::message_status),
          provider_message_id = COALESCE(m.provider_message_id, ${fact.providerMessageId ?? null}),
          occurred_at = COALESCE(CASE WHEN t.previous < 'sent' THEN m.claimed_at END, m.occurred_at),
          failure = COALESCE(${fact.failure ?? null}, m.failure)
      FROM target t WHERE m.id = t.id
      RETURNING m.id, t.previous, m.status, m.conversation_id, t.answered_id, t.first_id, m.part, m.text, m.created_at, m.author
    ), reply AS (
      SELECT r.*, ${failed} OR EXISTS (${otherParts(sql`p.status = 'failed' AND p.withheld_at IS NULL`)}) AS is_broken,
        NOT EXISTS (${otherParts(sql`p.status NOT IN ('sent', 'delivered', 'read')`)}) AS is_whole
      FROM raised r
    ), settled AS (
      UPDATE messages i
      SET outcome = CASE WHEN r.is_broken THEN 'failed' WHEN r.author = 'person' THEN 'human' WHEN i.id = r.answered_id THEN 'answered'
        WHEN i.is_superseded THEN 'superseded' ELSE 'merged' END::message_outcome
      FROM reply r
      WHERE i.turn_id = r.answered_id AND i.direction = 'inbound' AND (r.is_broken OR r.is_whole)
        AND (i.outcome IS NULL OR i.outcome = 'unconfirmed' OR ${failed})
    ), ended AS (
      UPDATE messages p SET status = 'failed', failure = 'an earlier part of the reply was not delivered'
      FROM reply r WHERE p.part_of_id = r.first_id AND p.part > r.part AND p.status = 'pending' AND ${failed}
    ), noted AS (
      UPDATE conversations c
      SET attention = CASE WHEN r.is_broken OR c.needs_attention THEN ${attention} ELSE c.attention END,
          needs_attention = r.is_broken OR (c.needs_attention AND ${attention} <> '[]'),
          last_message_at = CASE WHEN ${failed} THEN c.last_message_at ELSE now() END,
          last_message_preview = CASE WHEN ${failed} THEN c.last_message_preview ELSE left(r.text, 100) END,
          unread_count = CASE WHEN ${failed} OR r.author = 'system' OR (r.author IS DISTINCT FROM 'person' AND ${modeNow('c')} <> 'ai')
            THEN c.unread_count ELSE 0 END,
          updated_at = now()
      FROM reply r
      WHERE c.id = r.conversation_id AND (${failed} OR r.previous < 'sent')
      RETURNING c.id, c.needs_attention
    )${alerted}
    SELECT r.id AS "messageId", r.previous::text AS previous, r.status::text AS status, c.workflow_id AS "workflowId",
      COALESCE((SELECT needs_attention FROM noted), c.needs_attention) AS "needsAttention"
    FROM raised r JOIN conversations c ON c.id = r.conversation_id`);
  return rows[0] ?? null;
}

/**
 * When WhatsApp sent the row `m`, by its report; null if there is none, or none that can be true: a day's numbers (src/record/message-metrics.ts)
 * depend on this time.
 */
const sentTime = sql`(SELECT e.occurred_at FROM message_status_events e
  WHERE e.provider_message_id = m.provider_message_id AND e.status = 'sent' AND ${isPlausible(sql`e.occurred_at`)})`;

/** Whether the row `m` can have been sent at this time: its claim and WhatsApp's clock roughly agree. */
function isPlausible(at: Prisma.Sql): Prisma.Sql {
  return sql`${at} BETWEEN m.claimed_at - interval '1 hour' AND m.claimed_at + interval '1 day'`;
}

/** The other rows `p` of the reply that the row `r` belongs to, if they meet the condition. */
function otherParts(condition: Prisma.Sql): Prisma.Sql {
  return sql`
    SELECT FROM messages p WHERE p.part_of_id = r.first_id AND p.id <> r.id AND ${condition}
    UNION ALL SELECT FROM messages p WHERE p.id = r.first_id AND p.id <> r.id AND ${condition}`;
}

/**
 * Stores the reports and raises the rows already known as sent, which is nearly all of them, in one statement. Returns the ids
 * (WhatsApp's) that are settled; for the others, `raiseReply` must be called afterwards. Rows that are locked are left to `raiseReply`, so
 * that no report waits for another one's row. The reports are written in a fixed order, so that two of these statements cannot deadlock.
 */
export async function keepReports(db: Database, reports: StatusReport[]): Promise<Set<string>> {
  const input = reports.map(({ providerMessageId, status, atMs, error }) => ({
    provider_message_id: providerMessageId,
    status,
    occurred_at: new Date(atMs).toISOString(),
    error: error ?? null,
  }));
  const rows = await db.query<{ id: string }>(sql`
    WITH report AS (
      SELECT * FROM jsonb_to_recordset(${JSON.stringify(input)}::jsonb)
        AS x(provider_message_id text, status message_status, occurred_at timestamptz, error jsonb)
    ), kept AS (
      INSERT INTO message_status_events (provider_message_id, status, occurred_at, error)
      SELECT provider_message_id, status::text, occurred_at, error FROM report ORDER BY provider_message_id, status
      ON CONFLICT DO NOTHING
    ), known AS (
      SELECT m.id, m.provider_message_id, r.highest, t.sent_at, m.status < r.highest OR m.occurred_at <> t.sent_at IS TRUE AS changes
      FROM (
        SELECT provider_message_id, max(status) AS highest, min(occurred_at) FILTER (WHERE status = 'sent') AS sent_at
        FROM report GROUP BY provider_message_id
      ) r
      JOIN messages m ON m.provider_message_id = r.provider_message_id
      -- A statement does not see the rows that it inserts.
      CROSS JOIN LATERAL (SELECT CASE WHEN ${isPlausible(sql`r.sent_at`)} THEN COALESCE(${sentTime}, r.sent_at) END AS sent_at) t
      WHERE m.direction = 'outbound' AND m.status >= 'sent' AND (r.highest < 'failed' OR m.status = 'failed')
    ), risen AS (
      SELECT m.id, k.highest, k.sent_at FROM messages m JOIN known k ON k.id = m.id WHERE k.changes FOR UPDATE OF m SKIP LOCKED
    ), raised AS (
      UPDATE messages m SET status = GREATEST(m.status, r.highest), occurred_at = COALESCE(r.sent_at, m.occurred_at)
      FROM risen r WHERE m.id = r.id
    )
    SELECT provider_message_id AS id FROM known k WHERE NOT k.changes OR EXISTS (SELECT 1 FROM risen r WHERE r.id = k.id)`);
  return new Set(rows.map((row) => row.id));
}

/**
 * Applies the reports that arrived before the row had WhatsApp's id. Must run after the statement that wrote the id: then either this
 * sees the report, or the report's own statement sees the id.
 */
export async function joinEarlyReports(db: Database, reply: { providerMessageId: string; phoneNumberId: string }): Promise<void> {
  const reports = await db.query<{ status: ReportedStatus; failure: string | null }>(sql`
    SELECT status, error->>'code' AS failure FROM message_status_events
    WHERE provider_message_id = ${reply.providerMessageId} AND status IN ('sent', 'delivered', 'read', 'failed')
    ORDER BY status::message_status DESC`);
  const highest = reports[0];
  if (!highest) return;
  if (reports.some(({ status }) => status === 'sent')) await noteSentTime(db, reply.providerMessageId);
  if (highest.status === 'sent') return;
  await raiseReply(
    db,
    { providerMessageId: reply.providerMessageId },
    { status: highest.status, phoneNumberId: reply.phoneNumberId, ...(highest.failure ? { failure: `whatsapp ${highest.failure}` } : {}) },
  );
}

/** Sets the row's time to that of its `sent` report, if it differs. */
export async function noteSentTime(db: Database, providerMessageId: string): Promise<void> {
  await db.query(sql`
    UPDATE messages m SET occurred_at = ${sentTime}
    WHERE m.provider_message_id = ${providerMessageId} AND m.direction = 'outbound'
      AND m.occurred_at <> ${sentTime}`);
}

/** What identifies a sent reply in Kapso's list. */
export interface SentReply {
  phoneNumberId: string;
  /** Which claim sent it last. */
  sendAttempts: number;
  draftedAtMs: number;
  claimedAtMs: number;
  text: string;
  phone: string | null;
  businessScopedUserId: string | null;
}

export async function findSentReply(db: Database, messageId: string): Promise<SentReply> {
  const rows = await db.query<SentReply>(sql`
    SELECT w.kapso_phone_number_id AS "phoneNumberId", m.send_attempts AS "sendAttempts", (extract(epoch FROM m.claimed_at) * 1000)::float8 AS "claimedAtMs",
      (extract(epoch FROM m.created_at) * 1000)::float8 AS "draftedAtMs", m.text, p.phone,
      p.business_scoped_user_id AS "businessScopedUserId"
    FROM messages m JOIN workspaces w ON w.id = m.workspace_id
    JOIN conversations c ON c.id = m.conversation_id JOIN contacts p ON p.id = c.contact_id
    WHERE m.id = ${messageId}::uuid`);
  const reply = rows[0];
  if (!reply) throw new Error(`message ${messageId} is not in the database`);
  return reply;
}

/** The ids among `ids` that belong to other rows: another reply with the same text must not be mistaken for this one. */
export async function findOtherReplies(db: Database, ids: string[], messageId: string): Promise<Set<string>> {
  const rows = await db.query<{ id: string }>(sql`
    SELECT provider_message_id AS id FROM messages WHERE provider_message_id = ANY(${ids}) AND id <> ${messageId}::uuid`);
  return new Set(rows.map((row) => row.id));
}

/**
 * Gives the messages of an unconfirmed reply the outcome `unconfirmed`, and requests attention. The parts after it are not sent, because
 * they might make no sense without it. Returns false if the row is no longer unconfirmed.
 * Locks the row, so that a status that settles it comes either before or after.
 */
export async function doubtReply(
  db: Database,
  { messageId, conversationId }: { messageId: string; conversationId: string },
): Promise<boolean> {
  const reason = { kind: 'send_unconfirmed', text: 'unknown whether a reply was delivered, and Kapso cannot tell' } as const;
  const attention = withReason(sql`c.attention`, { ...reason, subject: messageId });
  const rows = await db.query<unknown>(sql`
    WITH doubtful AS (
      SELECT m.id, ${answeredBy(sql`m`)} AS answered_id, COALESCE(m.part_of_id, m.id) AS first_id, m.part
      FROM messages m WHERE m.id = ${messageId}::uuid AND m.status = 'unconfirmed' FOR UPDATE OF m
    ), ended AS (
      UPDATE messages p SET status = 'failed', failure = 'unknown whether an earlier part of the reply was delivered'
      FROM doubtful d WHERE p.part_of_id = d.first_id AND p.part > d.part AND p.status = 'pending'
    ), unconfirmed AS (
      UPDATE messages i SET outcome = 'unconfirmed' FROM doubtful d
      WHERE i.turn_id = d.answered_id AND i.direction = 'inbound' AND i.outcome IS NULL
    ), noted AS (
      UPDATE conversations c SET attention = ${attention}, needs_attention = true, updated_at = now()
      FROM doubtful WHERE c.id = ${currentConversation(conversationId)} RETURNING c.id
    ), alerted AS (
      ${attentionAlert(reason, sql`SELECT id FROM noted`)}
    )
    SELECT 1 FROM doubtful`);
  return rows.length > 0;
}

/** Fails a reply that Kapso does not list, when it is too late to send it again. */
export async function failLateReply(
  db: Database,
  { messageId, phoneNumberId }: { messageId: string; phoneNumberId: string },
): Promise<void> {
  await raiseReply(
    db,
    { messageId },
    { status: 'failed', phoneNumberId, failure: 'not delivered, and too late to send again', isLate: true },
  );
}

/**
 * Makes a reply that is proven not delivered claimable again, unless the look that proves it ends too late, after its activity has timed
 * out: if the messages already have the outcome `unconfirmed`, nobody would send the reply; if it was claimed again, that send is not
 * disproved.
 */
export async function releaseReply(
  db: Database,
  { messageId, sendAttempts }: { messageId: string; sendAttempts: number },
): Promise<SendVerdict> {
  await db.query(sql`
    UPDATE messages r SET status = 'pending' WHERE r.id = ${messageId}::uuid AND r.status = 'unconfirmed'
      AND r.send_attempts = ${sendAttempts}
      AND NOT EXISTS (SELECT 1 FROM messages i WHERE i.turn_id = ${answeredBy(sql`r`)} AND i.outcome = 'unconfirmed')`);
  return await endForeignClaim(db, messageId);
}

/** Ends a turn without a reply: its messages and its draft fail, and the conversation needs attention. */
export async function failTurn(
  db: Database,
  { conversationId, workflowId, messageIds, reason }: { conversationId: string; workflowId: string; messageIds: string[]; reason: string },
): Promise<void> {
  const failure = { kind: 'turn_failed', text: reason } as const;
  const attention = withReason(withoutReasons(sql`c.attention`, ['waiting_for_model']), failure);
  await db.query(sql`
    WITH own AS (
      SELECT id FROM messages WHERE ${isOneOf(sql`id`, messageIds)} AND ${isOf(workflowId)} ORDER BY id FOR UPDATE
    ), failed AS (
      UPDATE messages SET outcome = 'failed', failure = ${reason} WHERE id IN (SELECT id FROM own) AND outcome IS NULL
    ), abandoned AS (
      UPDATE messages SET status = 'failed', failure = ${reason} WHERE reply_to_id IN (SELECT id FROM own) AND status = 'pending'
    ), abandoned_parts AS (
      UPDATE messages p SET status = 'failed', failure = ${reason} FROM messages r
      WHERE p.part_of_id = r.id AND r.reply_to_id IN (SELECT id FROM own) AND p.status = 'pending'
    ), noted AS (
      UPDATE conversations c SET attention = ${attention}, needs_attention = true, updated_at = now()
      WHERE id = ${currentConversation(conversationId)} RETURNING id
    )
    ${attentionAlert(failure, sql`SELECT id FROM noted`)}`);
}
