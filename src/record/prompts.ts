/** Loads the material of a prompt, in one statement, because every reply needs it. */
import type { Prisma } from '../../prisma/generated/client';
import { type Database, isOneOf, sql } from '../platform/database';
import { currentConversation } from './merged-conversations';
import { effectiveMode } from './modes';
import { INTERNAL_NOTE } from './notes';
import { newestFirst } from './timeline';

/** A reply that was drafted before. */
export interface StoredDraft {
  messageId: string;
  /** The inbound messages that it answers, oldest first. */
  coveredIds: string[];
  provider: string;
  model: string;
  /** Null if unknown. */
  promptTokens: number | null;
  completionTokens: number | null;
  /** The other parts of a long reply, in order. */
  partIds: string[];
}

/** The turn that a prompt is for. */
export interface PromptOrder {
  conversationId: string;
  workflowId: string;
  /** Oldest first. */
  messageIds: string[];
  lostReplyToIds?: string[];
}

/** A message of a prompt. */
export interface PromptMessage {
  direction: 'inbound' | 'outbound' | 'note';
  kind: string;
  text: string | null;
  author: 'model' | 'person' | 'phone' | 'system' | null;
  /** Milliseconds since 1970. */
  atMs: number;
}

/** The material of a prompt. */
export interface PromptMaterial {
  workspaceId: string;
  systemPrompt: string;
  /** In the customer's own words. */
  customerName: string | null;
  /** The turn, newest first, then what was said before it was answered. */
  said: PromptMessage[] | null;
  /** The draft that this turn already has. */
  draft: StoredDraft | null;
  /** Whether a message of the turn went to another workflow. */
  hasMoved: boolean;
  /** Whether the bot must be silent. */
  isSilent: boolean;
}

/**
 * The system prompt, the customer's name, the last messages that the customer has seen or written in the private chat, the notes of calls
 * and those that people wrote for the model, and the turn's draft if there is one. The messages of the turn come last, in the order in which
 * they were written, because one may have been delivered late.
 * The draft is the reply to the last message, or to one of `lostReplyToIds` (see `DraftOrder`). Any other reply to an earlier message was
 * left by a terminated workflow and does not count. Undefined if the conversation or its settings do not exist.
 */
export async function loadPromptMaterial(
  db: Database,
  { conversationId, workflowId, messageIds, lostReplyToIds = [] }: PromptOrder,
): Promise<PromptMaterial | undefined> {
  const lastId = messageIds.at(-1);
  const isAbandoned =
    lostReplyToIds.length === 0 ? sql`false` : sql`(${isOneOf(sql`d.reply_to_id`, lostReplyToIds)} AND d.status = 'pending')`;
  const isDraft = sql`(d.author IS NULL OR d.author = 'model')`;
  const rows = await db.query<PromptMaterial>(sql`
    WITH turn AS (
      SELECT m.id, m.position, m.direction, m.kind, m.text, m.author, m.occurred_at, m.workflow_id FROM messages m WHERE ${isOneOf(sql`m.id`, messageIds)}
    )
    SELECT c.workspace_id AS "workspaceId", s.system_prompt AS "systemPrompt", p.name AS "customerName",
      (SELECT json_agg(h ORDER BY h."writtenAt" DESC NULLS LAST, h."placeAt" DESC, h.position DESC) FROM (
        SELECT t.position, t.direction, t.kind, t.text, t.author, t.occurred_at AS "writtenAt", ${msOf(sql`t.occurred_at`)} AS "atMs", NULL AS "placeAt" FROM turn t
        UNION ALL
        (SELECT m.position, m.direction, m.kind, m.text, m.author, NULL, ${msOf(sql`m.occurred_at`)}, COALESCE(m.timeline_at, m.created_at) FROM messages m
        WHERE m.conversation_id = c.id AND m.id <> ALL(${messageIds}::uuid[]) AND m.status NOT IN ('pending', 'sending', 'failed') AND m.deleted_at IS NULL
          AND (m.direction <> 'inbound' OR m.outcome <> 'group')
          AND (m.kind <> ${INTERNAL_NOTE} OR m.payload->>'forModel' = 'true')
        ORDER BY ${newestFirst('m')} LIMIT s.history_limit)
      ) h) AS said,
      (SELECT json_build_object('messageId', d.id, 'provider', d.provider, 'model', d.model,
          'promptTokens', d.prompt_tokens, 'completionTokens', d.completion_tokens,
          'partIds', COALESCE((SELECT json_agg(p.id ORDER BY p.part) FROM messages p WHERE p.part_of_id = d.id), '[]'),
          'coveredIds', (SELECT json_agg(i.id ORDER BY i.position) FROM messages i WHERE i.turn_id = d.reply_to_id))
        FROM messages d
        WHERE (d.reply_to_id = ${lastId}::uuid OR ${isAbandoned}) AND ${isDraft}
        ORDER BY d.reply_to_id = ${lastId}::uuid DESC, d.created_at DESC LIMIT 1) AS draft,
      EXISTS (SELECT 1 FROM turn WHERE workflow_id <> ${workflowId}) AS "hasMoved", ${effectiveMode} <> 'ai' AS "isSilent"
    FROM conversations c JOIN workspaces w ON w.id = c.workspace_id JOIN chatbot_settings s ON s.workspace_id = c.workspace_id JOIN contacts p ON p.id = c.contact_id
    WHERE c.id = ${currentConversation(conversationId)}`);
  return rows[0];
}

function msOf(time: Prisma.Sql): Prisma.Sql {
  return sql`(extract(epoch FROM ${time}) * 1000)::float8`;
}
