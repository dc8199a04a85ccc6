/** The result of a conversation's latest session. Computed from its messages, so it is available as long as they are. */
import type { MessageOutcome } from '../../prisma/generated/client';
import { type Database, sql } from '../platform/database';
import { currentConversation } from './merged-conversations';
import { INTERNAL_NOTE } from './notes';

/** The messages since the last pause that was longer than the session timeout. */
export interface Session {
  conversationId: string;
  workspaceId: string;
  workflowId: string;
  mode: 'ai' | 'human' | 'paused';
  needsAttention: boolean;
  attention: unknown;
  unreadCount: number;
  /** Null if the conversation has no messages. */
  startedAt: Date | null;
  lastMessageAt: Date | null;
  /** Of the customer. */
  messages: number;
  /** Sent to the customer; a long reply counts once. */
  replies: number;
  /** Messages of the customer without an outcome. */
  pending: number;
  outcomes: Partial<Record<MessageOutcome, number>>;
}

/** A longer session is counted from here on. */
const MOST_MESSAGES = 2_000;

/** Undefined if the workspace has no such conversation. `workspaceId` undefined: any. */
export async function findSession(db: Database, id: string, workspaceId: string | undefined): Promise<Session | undefined> {
  const rows = await db.query<Session>(sql`
    WITH conversation AS (
      SELECT c.*, COALESCE(s.session_timeout_ms, 1800000) * interval '1 ms' AS session_timeout
      FROM conversations c LEFT JOIN chatbot_settings s ON s.workspace_id = c.workspace_id
      WHERE c.id = ${currentConversation(id)} AND (${workspaceId ?? null}::uuid IS NULL OR c.workspace_id = ${workspaceId ?? null}::uuid)
    ), recent AS (
      SELECT m.position, m.direction, m.status, m.outcome, m.created_at, m.reply_to_id, m.part_of_id
      FROM conversation c CROSS JOIN LATERAL (
        SELECT * FROM messages m WHERE m.conversation_id = c.id AND m.kind <> ${INTERNAL_NOTE} AND m.outcome IS DISTINCT FROM 'history'
        ORDER BY m.position DESC LIMIT ${MOST_MESSAGES}
      ) m
    ), paused AS (
      -- A reply belongs to the session of its message, however long the model took.
      SELECT r.position, r.reply_to_id IS NULL AND r.part_of_id IS NULL
        AND r.created_at - lag(r.created_at) OVER (ORDER BY r.position) > (SELECT session_timeout FROM conversation) AS is_first
      FROM recent r
    ), session AS (
      SELECT * FROM recent WHERE position >= COALESCE((SELECT max(position) FROM paused WHERE is_first), 0)
    )
    SELECT c.id AS "conversationId", c.workspace_id AS "workspaceId", c.workflow_id AS "workflowId", c.mode::text AS mode,
      c.needs_attention AS "needsAttention", c.attention, c.unread_count AS "unreadCount", n.*,
      COALESCE((SELECT json_object_agg(o.outcome, o.count) FROM (
        SELECT outcome, count(*)::int AS count FROM session WHERE outcome IS NOT NULL GROUP BY 1) o), '{}') AS outcomes
    FROM conversation c CROSS JOIN (
      SELECT min(created_at) AS "startedAt", max(created_at) AS "lastMessageAt",
        count(*) FILTER (WHERE direction = 'inbound')::int AS messages,
        count(*) FILTER (WHERE direction = 'inbound' AND outcome IS NULL)::int AS pending,
        count(*) FILTER (WHERE direction = 'outbound' AND part_of_id IS NULL AND status IN ('sent', 'delivered', 'read'))::int AS replies
      FROM session
    ) n`);
  return rows[0];
}
