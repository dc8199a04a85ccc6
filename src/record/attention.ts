/** The reasons why a conversation needs a person. A reason stays until it is resolved. */
import type { Prisma } from '../../prisma/generated/client';
import type { AttentionKind } from '../../workflows/contract';
import { type Database, type Statements, sql } from '../platform/database';
import { attentionAlert } from './alerts';
import { currentConversation } from './merged-conversations';

/** The reasons that a sent reply cures: the customer has heard from us, and the model has seen the unanswered messages. */
const CURED_BY_REPLY: AttentionKind[] = ['turn_failed', 'reply_failed', 'waiting_for_model'];

/**
 * Reasons about messages that were not answered, or for a person to answer. A reply cures them if it was written later: one of the bot that
 * was on its way when the conversation was handed over does not.
 */
const CURED_BY_LATER_DRAFT: AttentionKind[] = ['too_old', 'loop', 'waiting_for_person', 'handed_over'];

interface Reason {
  kind: AttentionKind;
  text: string;
  subject?: string;
}

const isAbout = (reason: Prisma.Sql, kind: AttentionKind, subject: string | undefined) =>
  sql`(${reason}->>'kind' = ${kind} AND ${reason}->>'subject' IS NOT DISTINCT FROM ${subject ?? null}::text)`;

/** `attention` with this reason added; if it is already there, it keeps its time and gets the new text. */
export function withReason(attention: Prisma.Sql, { kind, text, subject }: Reason): Prisma.Sql {
  const added = JSON.stringify({ kind, text, ...(subject === undefined ? {} : { subject }) });
  return sql`(
    SELECT COALESCE(jsonb_agg(reason) FILTER (WHERE NOT ${isAbout(sql`reason`, kind, subject)}), '[]')
      || (${added}::jsonb || jsonb_build_object('since',
        COALESCE(min(reason->>'since') FILTER (WHERE ${isAbout(sql`reason`, kind, subject)}), to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))))
    FROM jsonb_array_elements(${attention}) reason)`;
}

/** `attention` without the reasons of these kinds, and without those about this subject. */
export function withoutReasons(attention: Prisma.Sql, kinds: readonly AttentionKind[], subject?: Prisma.Sql): Prisma.Sql {
  const remains = subject === undefined ? sql`true` : sql`reason->>'subject' IS DISTINCT FROM ${subject}`;
  return sql`(
    SELECT COALESCE(jsonb_agg(reason), '[]') FROM jsonb_array_elements(${attention}) reason WHERE reason->>'kind' <> ALL(${[...kinds]}) AND ${remains})`;
}

/** `attention` without the reasons that a sent reply cures. `draftedAt`: when the reply was drafted. */
export function withoutCuredReasons(attention: Prisma.Sql, draftedAt: Prisma.Sql, subject: Prisma.Sql): Prisma.Sql {
  const isSeen = sql`reason->>'kind' = ANY(${CURED_BY_LATER_DRAFT}) AND (reason->>'since')::timestamptz < ${draftedAt}`;
  return sql`(
    SELECT COALESCE(jsonb_agg(reason), '[]') FROM jsonb_array_elements(${withoutReasons(attention, CURED_BY_REPLY, subject)}) reason
    WHERE NOT (${isSeen}))`;
}

/** The reasons of two conversations that turned out to be one; of a kind and subject the older one. */
export function unitedReasons(attention: Prisma.Sql, other: Prisma.Sql): Prisma.Sql {
  return sql`(
    SELECT COALESCE(jsonb_agg(u.reason ORDER BY u.reason->>'since'), '[]') FROM (
      SELECT DISTINCT ON (b.reason->>'kind', b.reason->>'subject') b.reason FROM jsonb_array_elements(${attention} || ${other}) b(reason)
      ORDER BY b.reason->>'kind', b.reason->>'subject', b.reason->>'since') u)`;
}

/** Adds a reason, and raises its alert; nothing else of the conversation changes. */
export async function raiseAttention(db: Database, { conversationId, ...reason }: Reason & { conversationId: string }): Promise<void> {
  await db.query(sql`
    WITH raised AS (
      UPDATE conversations c SET attention = ${withReason(sql`c.attention`, reason)}, needs_attention = true, updated_at = now()
      WHERE id = ${currentConversation(conversationId)} RETURNING id
    )
    ${attentionAlert(reason, sql`SELECT id FROM raised`)}`);
}

/** Removes the reasons of these kinds. Returns whether others remain. */
export async function clearAttention(
  db: Database,
  { conversationId, kinds }: { conversationId: string; kinds: AttentionKind[] },
): Promise<boolean> {
  const left = withoutReasons(sql`c.attention`, kinds);
  const rows = await db.query<{ needsAttention: boolean }>(sql`
    UPDATE conversations c SET attention = ${left}, needs_attention = ${left} <> '[]', updated_at = now()
    WHERE id = ${currentConversation(conversationId)} RETURNING needs_attention AS "needsAttention"`);
  return rows[0]?.needsAttention ?? false;
}

/** Removes the reason `dead_letter` from the conversation of a workflow, unless another of its letters is still open. */
export async function clearDeadLetterAttention(db: Statements, workflowId: string): Promise<void> {
  const left = withoutReasons(sql`c.attention`, ['dead_letter']);
  await db.query(sql`
    UPDATE conversations c SET attention = ${left}, needs_attention = ${left} <> '[]', updated_at = now()
    WHERE c.workflow_id = ${workflowId} AND c.needs_attention
      AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.workflow_id = ${workflowId} AND d.replayed_at IS NULL)`);
}
