/**
 * Who answers: the mode of a conversation, of its workspace and of the installation. The bot may answer only if all three are `ai`.
 *
 * A change commits first, and then withholds the drafts that wait in the outbox, in a statement of its own. That decides every race with
 * a claim, without a lock on the conversation. A claim that began before the change may have locked its row already: the second statement
 * waits for it and finds the message being sent. Otherwise the claim finds the row withheld. A claim that begins afterwards sees the mode.
 * See docs/decisions/0018-modes.md.
 */
import { Prisma } from '../../prisma/generated/client';
import { type HandOver, type Mode, type ModeAction, type ModeChanged, type ModeOrder, PHONE_HOLDER } from '../../workflows/contract';
import { type Database, isOneOf, type Statements, sql } from '../platform/database';
import { attentionAlert } from './alerts';
import { withoutReasons, withReason } from './attention';
import { currentConversation } from './merged-conversations';

/** The mode of the row `alias` of conversations, workspaces or installation; `ai` once its deadline has passed. */
export function modeNow(alias: 'c' | 'w' | 'i'): Prisma.Sql {
  const row = Prisma.raw(alias);
  return sql`CASE WHEN ${row}.mode_until <= now() THEN 'ai'::conversation_mode ELSE ${row}.mode END`;
}

/** The mode that applies to conversation `c` of workspace `w`: its own, or if that is `ai`, the one of the workspace or installation. */
export const effectiveMode: Prisma.Sql = sql`COALESCE(NULLIF(${modeNow('c')}, 'ai'), NULLIF(${modeNow('w')}, 'ai'),
  (SELECT ${modeNow('i')} FROM installation i WHERE i.id = 1), 'ai')`;

/** Whether the bot wrote the outbound message `m`: then it is not sent while the bot must be silent. */
export const isAutomatic: Prisma.Sql = sql`(m.author IS NULL OR m.author = 'model')`;

/** Whether the bot must be silent in the conversation of message `m`. */
export const isSilenced: Prisma.Sql = sql`(
  SELECT ${effectiveMode} <> 'ai' FROM conversations c JOIN workspaces w ON w.id = c.workspace_id WHERE c.id = m.conversation_id)`;

/** Whether a person has answered the turn, or is about to: then nobody else does. */
export function isAnsweredByHand(turnId: Prisma.Sql): Prisma.Sql {
  // Not EXISTS, for which PostgreSQL might read the whole table.
  return sql`COALESCE((SELECT h.author = 'person' FROM messages h WHERE h.reply_to_id = ${turnId}), false)`;
}

/** The failure of a draft that was discarded. */
export const WITHHELD = 'not sent: a person took over, or the bot was paused';

/** The result of a requested change. */
export type ModeVerdict = { kind: 'changed'; changed: ModeChanged } | { kind: 'held'; heldBy: string; since: string } | { kind: 'unknown' };

/** Changes the mode of a conversation, unless another person has it, and withholds the drafts that wait. Safe to repeat. */
export async function changeMode(db: Database, action: ModeAction, order: ModeOrder): Promise<ModeVerdict> {
  const rows = await db.query<{ id: string }>(changeOf(action, order));
  const [row] = rows;
  if (!row) return await refusalOf(db, order.conversationId);
  const withheldIds = speaksAfter(action) ? [] : await withholdDrafts(db, row.id);
  if (action === 'close') await closeMessages(db, row.id);
  return { kind: 'changed', changed: await stateAfter(db, row.id, withheldIds) };
}

/** Whether the change leaves the bot as it was, so that its drafts stay. */
function speaksAfter(action: ModeAction): boolean {
  return action === 'attend';
}

function changeOf(action: ModeAction, order: ModeOrder): Prisma.Sql {
  const { conversationId, by, to, untilMs, handOver } = order;
  const where = sql`c.id = ${currentConversation(conversationId)}`;
  const free = sql`${where} AND ${mayTake(order)}`;
  switch (action) {
    case 'takeOver':
      return sql`UPDATE conversations c SET ${held('human', by, untilMs)}, ${NO_LONGER_HANDED_OVER} WHERE ${free} RETURNING c.id`;
    case 'assign':
      return sql`UPDATE conversations c SET ${held('human', to ?? by, untilMs)}, ${NO_LONGER_HANDED_OVER} WHERE ${free} RETURNING c.id`;
    case 'pause':
      return sql`UPDATE conversations c SET ${held('paused', by, untilMs)} WHERE ${free} RETURNING c.id`;
    case 'release': {
      const left = withoutReasons(sql`c.attention`, ['handed_over', 'waiting_for_person']);
      return sql`UPDATE conversations c SET ${RELEASED}, attention = ${left}, needs_attention = ${left} <> '[]' WHERE ${free} RETURNING c.id`;
    }
    case 'close':
      return sql`UPDATE conversations c SET ${RELEASED}, attention = '[]', needs_attention = false, attended_at = now(), unread_count = 0 WHERE ${free} RETURNING c.id`;
    case 'attend':
      return sql`UPDATE conversations c SET attention = '[]', needs_attention = false, attended_at = now(), updated_at = now() WHERE ${where} RETURNING c.id`;
    case 'handOver':
      return handOverStatement(where, handOver ?? { reason: 'other' });
  }
}

/** Whether it is free, or held by the requester or by the person named in `from`. Anyone may take over from the phone, or from a hold without a name. */
function mayTake({ by, from }: ModeOrder): Prisma.Sql {
  return sql`(${modeNow('c')} <> 'human' OR c.held_by IS NULL OR c.held_by IN (${by}, ${from ?? by}, ${PHONE_HOLDER}))`;
}

/** Columns of `c`. If the holder stays the same, `held_since` does too. */
function held(mode: 'human' | 'paused', holder: string, untilMs: number | undefined): Prisma.Sql {
  const isSame = sql`${modeNow('c')} = ${mode}::conversation_mode AND c.held_by = ${holder}`;
  return sql`mode = ${mode}::conversation_mode, mode_until = ${untilMs === undefined ? null : new Date(untilMs)}, held_by = ${holder},
    held_since = CASE WHEN ${isSame} THEN c.held_since ELSE now() END, updated_at = now()`;
}

/** Somebody has it now, so `handed_over` is cleared; the hand-over itself stays readable. */
const stillNeeded = withoutReasons(sql`c.attention`, ['handed_over']);
const NO_LONGER_HANDED_OVER = sql`attention = ${stillNeeded}, needs_attention = ${stillNeeded} <> '[]'`;

const RELEASED = sql`mode = 'ai', mode_until = NULL, held_by = NULL, held_since = NULL, hand_over = NULL, updated_at = now()`;

/** The bot stops. A person who has the conversation keeps it; otherwise it waits for one. */
function handOverStatement(where: Prisma.Sql, { reason, summary, questions }: HandOver): Prisma.Sql {
  const isHeld = sql`${modeNow('c')} = 'human'`;
  const note = JSON.stringify({ reason, summary: summary ?? null, questions: questions ?? [] });
  const attention = { kind: 'handed_over', text: `handed over: ${reason.replaceAll('_', ' ')}` } as const;
  return sql`
    WITH handed AS (
      UPDATE conversations c SET mode = 'human', mode_until = CASE WHEN ${isHeld} THEN c.mode_until END,
        held_by = CASE WHEN ${isHeld} THEN c.held_by END, held_since = CASE WHEN ${isHeld} THEN c.held_since ELSE now() END,
        hand_over = ${note}::jsonb || jsonb_build_object('at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')),
        attention = ${withReason(sql`c.attention`, attention)}, needs_attention = true, updated_at = now()
      WHERE ${where} RETURNING c.id
    ), alerted AS (${attentionAlert(attention, sql`SELECT id FROM handed`)})
    SELECT id FROM handed`;
}

async function refusalOf(db: Database, conversationId: string): Promise<ModeVerdict> {
  const rows = await db.query<{ heldBy: string | null; since: Date | null }>(sql`
    SELECT c.held_by AS "heldBy", c.held_since AS since FROM conversations c WHERE c.id = ${currentConversation(conversationId)}`);
  const [row] = rows;
  if (!row) return { kind: 'unknown' };
  return { kind: 'held', heldBy: row.heldBy ?? 'nobody', since: (row.since ?? new Date()).toISOString() };
}

/**
 * Discards the bot's drafts of a conversation that wait in the outbox, and returns their ids. Their messages wait again. Runs
 * after the change of the mode has been committed.
 */
export async function withholdDrafts(db: Statements, conversationId: string): Promise<string[]> {
  const rows = await db.query<{ id: string }>(sql`
    WITH waiting AS (
      SELECT m.id, m.reply_to_id FROM messages m
      WHERE m.conversation_id = ${conversationId}::uuid AND m.direction = 'outbound' AND m.status = 'pending' AND ${isAutomatic}
      ORDER BY m.id FOR UPDATE
    ), withheld AS (
      UPDATE messages m SET status = 'failed', failure = ${WITHHELD}, withheld_at = now(), reply_to_id = NULL
      FROM waiting d WHERE m.id = d.id RETURNING m.id
    ), reopened AS (
      UPDATE messages i SET turn_id = NULL FROM waiting d WHERE i.turn_id = d.reply_to_id AND i.outcome IS NULL
    )
    SELECT id FROM withheld`);
  await noteWaiting(db, conversationId);
  return rows.map(({ id }) => id);
}

/** Sets since when the customer has waited, if messages wait, whatever the mode: if the bot may answer, they are resumed. */
async function noteWaiting(db: Statements, conversationId: string): Promise<void> {
  await db.query(sql`
    UPDATE conversations c SET waiting_since = COALESCE(c.waiting_since, o.since) FROM (
      SELECT min(m.created_at) AS since FROM messages m
      WHERE m.conversation_id = ${conversationId}::uuid AND m.direction = 'inbound' AND m.outcome IS NULL AND m.turn_id IS NULL) o
    WHERE c.id = ${conversationId}::uuid AND o.since IS NOT NULL AND c.waiting_since IS NULL`);
}

/** The person has dealt with the open messages in another way. Messages whose reply is being sent get their outcome from that reply. */
async function closeMessages(db: Statements, conversationId: string): Promise<void> {
  await db.query(sql`
    WITH closed AS (
      UPDATE messages SET outcome = 'human'
      WHERE conversation_id = ${conversationId}::uuid AND direction = 'inbound' AND outcome IS NULL AND turn_id IS NULL
    )
    UPDATE conversations SET waiting_since = NULL WHERE id = ${conversationId}::uuid`);
}

/** An older claim was lost, and does not concern the turn that a person interrupts. */
const ON_ITS_WAY = sql`interval '1 hour'`;

async function stateAfter(db: Statements, conversationId: string, withheldIds: string[]): Promise<ModeChanged> {
  const rows = await db.query<{ mode: Mode; heldBy: string | null; onTheirWayIds: string[] }>(sql`
    SELECT ${effectiveMode}::text AS mode, c.held_by AS "heldBy", ARRAY(
      SELECT m.id::text FROM messages m WHERE m.conversation_id = c.id AND m.direction = 'outbound' AND m.status IN ('sending', 'unconfirmed')
        AND m.claimed_at > now() - ${ON_ITS_WAY} AND ${isAutomatic} ORDER BY m.position) AS "onTheirWayIds"
    FROM conversations c JOIN workspaces w ON w.id = c.workspace_id WHERE c.id = ${conversationId}::uuid`);
  const { mode = 'ai' as const, heldBy = null, onTheirWayIds = [] } = rows[0] ?? {};
  return { conversationId, mode, heldBy, withheldIds, onTheirWayIds };
}

/**
 * Makes the messages of a turn wait again after its reply, or a part of it, was discarded. A part that the customer has seen stays in the
 * conversation, and answers nothing.
 */
export async function reopenTurn(db: Database, conversationId: string, messageIds: string[]): Promise<void> {
  await db.query(sql`
    WITH replies AS (
      SELECT m.id, m.status FROM messages m WHERE ${isOneOf(sql`m.reply_to_id`, messageIds)} AND ${isAutomatic}
        AND (m.status IN ('pending', 'failed') OR EXISTS (SELECT FROM messages p WHERE p.part_of_id = m.id AND (p.withheld_at IS NOT NULL OR p.status = 'pending')))
      ORDER BY m.id FOR UPDATE
    ), parts AS (
      UPDATE messages p SET status = 'failed', failure = ${WITHHELD}, withheld_at = now()
      FROM replies r WHERE p.part_of_id = r.id AND p.status = 'pending'
    ), detached AS (
      UPDATE messages m SET reply_to_id = NULL, status = CASE WHEN m.status = 'pending' THEN 'failed' ELSE m.status END,
        failure = CASE WHEN m.status = 'pending' THEN ${WITHHELD} ELSE m.failure END,
        withheld_at = CASE WHEN m.status = 'pending' THEN now() ELSE m.withheld_at END
      FROM replies r WHERE m.id = r.id
    )
    UPDATE messages i SET turn_id = NULL WHERE ${isOneOf(sql`i.id`, messageIds)} AND i.outcome IS NULL
      AND (i.turn_id IS NULL OR i.turn_id = ANY(${messageIds}::uuid[])) AND NOT ${isAnsweredByHand(sql`i.turn_id`)}`);
  const rows = await db.query<{ id: string }>(sql`SELECT ${currentConversation(conversationId)}::text AS id`);
  if (rows[0]) await noteWaiting(db, rows[0].id);
}

/** Longer than a refused send is retried. */
const WAITS_AT_MOST = sql`interval '2 hours'`;

/** Sets the mode of a workspace, or of the installation, and withholds the drafts that wait there. Returns false if there is no such workspace. */
export async function changeModeAbove(
  db: Database,
  workspaceId: string | undefined,
  { mode, untilMs }: { mode: Mode; untilMs?: number | undefined },
): Promise<boolean> {
  const set = sql`mode = ${mode}::conversation_mode, mode_until = ${untilMs === undefined || mode === 'ai' ? null : new Date(untilMs)}`;
  const rows =
    workspaceId === undefined
      ? await db.query(sql`UPDATE installation SET ${set} RETURNING id`)
      : await db.query(sql`UPDATE workspaces SET ${set} WHERE id = ${workspaceId}::uuid RETURNING id`);
  if (rows.length === 0) return false;
  if (mode === 'ai') return true;
  const affected = await db.query<{ id: string }>(sql`
    SELECT c.id FROM conversations c
    WHERE c.last_message_at > now() - ${WAITS_AT_MOST} AND (${workspaceId ?? null}::uuid IS NULL OR c.workspace_id = ${workspaceId ?? null}::uuid)
      AND EXISTS (
        SELECT FROM (SELECT * FROM messages n WHERE n.conversation_id = c.id ORDER BY n.position DESC LIMIT 50) m
        WHERE m.direction = 'outbound' AND m.status = 'pending' AND ${isAutomatic})`);
  for (const { id } of affected) await withholdDrafts(db, id);
  return true;
}

/** The mode of a workspace, or of the installation; undefined if there is no such workspace. */
export async function findModeAbove(
  db: Database,
  workspaceId: string | undefined,
): Promise<{ mode: Mode; modeUntil: Date | null } | undefined> {
  const columns = (alias: 'w' | 'i') => {
    const row = Prisma.raw(alias);
    return sql`${modeNow(alias)}::text AS mode, CASE WHEN ${row}.mode_until > now() THEN ${row}.mode_until END AS "modeUntil"`;
  };
  const rows = await db.query<{ mode: Mode; modeUntil: Date | null }>(
    workspaceId === undefined
      ? sql`SELECT ${columns('i')} FROM installation i WHERE i.id = 1`
      : sql`SELECT ${columns('w')} FROM workspaces w WHERE w.id = ${workspaceId}::uuid`,
  );
  return rows[0];
}
