/** Asking a model for the reply of a turn. The draft is stored before the activity returns: a crash never pays twice. */

import { setTimeout as delay } from 'node:timers/promises';
import { ApplicationFailure, Context } from '@temporalio/activity';
import { type Database, sql } from '../src/platform/database';
import { withDeadline } from '../src/platform/deadline';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import { MAX_TEXT_LENGTH } from '../src/providers/kapso/client';
import type { ChatAnswer, ChatMessage, LanguageModels, ModelChoice } from '../src/providers/models/client';
import { modelFailure, permanentModelFailure } from './failures';

export interface DraftOrder {
  conversationId: string;
  /** The inbound messages of the turn, oldest first. The reply hangs on the last one. */
  messageIds: string[];
  provider: ModelChoice['provider'];
  model: string;
  /** Bound of this attempt. */
  attemptMs: number;
}

/** The stored reply, without its text: that stays out of the history. */
export interface Draft {
  messageId: string;
  provider: string;
  model: string;
  promptTokens: number;
  completionTokens: number;
}

export interface ModelActivities {
  /**
   * @throws ApplicationFailure `ModelError.*` (see failures.ts), `RecordError.Unavailable` when the record could not be
   * read or written (that says nothing about the provider), or `RecordError.Refused` when it never will be
   */
  generateReply(order: DraftOrder): Promise<Draft>;
}

/** The worker is reported alive this often; a fifth of the heartbeat timeout. */
const HEARTBEAT_MS = 1_000;

/** A paid answer is worth waiting for the database: this often, with these pauses. */
const STORE_PAUSES_MS = [250, 1_000, 2_000, 4_000, 8_000];

interface ModelDependencies {
  db: Database;
  models: LanguageModels;
  logger: Logger;
  metrics: Pick<WorkerMetrics, 'modelAsked'>;
}

/** The model activity. */
export function createModelActivities({ db, models, logger, metrics }: ModelDependencies): ModelActivities {
  return {
    async generateReply(order) {
      const context = Context.current();
      const heartbeat = setInterval(() => context.heartbeat(), HEARTBEAT_MS);
      try {
        return await draftReply(order, context);
      } finally {
        clearInterval(heartbeat);
      }
    },
  };

  async function draftReply(order: DraftOrder, context: Context): Promise<Draft> {
    const prompt = await fromRecord(() => loadPrompt(db, order));
    if (prompt.draft) return prompt.draft;
    const startedAtMs = Date.now();
    const answer = await measured(order.provider, () => ask(order, prompt.messages, context.cancellationSignal));
    const latencyMs = Date.now() - startedAtMs;
    const draft = await fromRecord(() => storePatiently(order, answer, { latencyMs, attempts: context.info.attempt }));
    const { workflowExecution, attempt } = context.info;
    logger.info({ workflowId: workflowExecution?.workflowId, attempt, latencyMs, ...draft }, 'reply drafted');
    return draft;
  }

  async function measured(provider: string, call: () => Promise<ChatAnswer>): Promise<ChatAnswer> {
    const startedAtMs = Date.now();
    let result = 'answered';
    try {
      return await call();
    } catch (error) {
      result = (error instanceof ApplicationFailure && error.type) || 'other';
      throw error;
    } finally {
      metrics.modelAsked({ provider, result, seconds: (Date.now() - startedAtMs) / 1_000 });
    }
  }

  async function ask({ provider, model, attemptMs }: DraftOrder, messages: ChatMessage[], cancelled: AbortSignal): Promise<ChatAnswer> {
    let answer: ChatAnswer;
    try {
      answer = await withDeadline(attemptMs, (signal) => models.chat({ provider, model }, messages, signal), cancelled);
    } catch (error) {
      throw modelFailure(provider, error);
    }
    if (answer.finishReason === 'content_filter')
      throw permanentModelFailure('ModelError.ContentRefused', `${provider} refused the content`);
    if (answer.text === '') throw permanentModelFailure('ModelError.EmptyReply', `${provider} said nothing`);
    return answer;
  }

  async function storePatiently(order: DraftOrder, answer: ChatAnswer, run: { latencyMs: number; attempts: number }): Promise<Draft> {
    for (const pauseMs of STORE_PAUSES_MS) {
      try {
        return await storeDraft(db, order, answer, run);
      } catch (error) {
        if (isRefusal(error)) throw error;
        logger.warn({ error, conversationId: order.conversationId }, 'the draft could not be stored yet');
        await delay(pauseMs);
      }
    }
    return await storeDraft(db, order, answer, run);
  }
}

/**
 * Whether PostgreSQL understood and said no, which it would again: an SQLSTATE outside the classes of lost connections,
 * missing resources, intervention, conflicts and system errors. Everything else passes.
 */
function isRefusal(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^(?:08|40|53|55|57|58)/.test(code);
}

async function fromRecord<T>(step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if (error instanceof ApplicationFailure) throw error;
    const [type, message] = isRefusal(error)
      ? ['RecordError.Refused', 'the record refused the statement']
      : ['RecordError.Unavailable', 'the record could not be read or written'];
    throw ApplicationFailure.create({ type, message, nonRetryable: true });
  }
}

interface PromptRow {
  systemPrompt: string;
  /** Newest first. */
  said: { direction: 'inbound' | 'outbound' | 'note'; kind: string; text: string | null }[] | null;
  draft: Draft | null;
}

/** What the model is to read: the system prompt, the last messages that the customer has seen or written, and the turn. */
async function loadPrompt(
  db: Database,
  { conversationId, messageIds }: DraftOrder,
): Promise<{ draft: Draft | null; messages: ChatMessage[] }> {
  const lastId = messageIds.at(-1);
  const rows = await db.query<PromptRow>(sql`
    SELECT s.system_prompt AS "systemPrompt",
      (SELECT json_agg(h ORDER BY h.position DESC) FROM (
        SELECT m.position, m.direction, m.kind, m.text FROM messages m
        WHERE m.conversation_id = c.id AND m.position <= (SELECT position FROM messages WHERE id = ${lastId}::uuid)
          AND m.status NOT IN ('pending', 'sending', 'failed')
        ORDER BY m.position DESC LIMIT s.history_limit + ${messageIds.length}
      ) h) AS said,
      (SELECT json_build_object('messageId', d.id, 'provider', d.provider, 'model', d.model,
          'promptTokens', COALESCE(d.prompt_tokens, 0), 'completionTokens', COALESCE(d.completion_tokens, 0))
        FROM messages d WHERE d.reply_to_id = ${lastId}::uuid) AS draft
    FROM conversations c JOIN chatbot_settings s ON s.workspace_id = c.workspace_id
    WHERE c.id = ${conversationId}::uuid`);
  const row = rows[0];
  if (!row)
    throw ApplicationFailure.create({
      type: 'RecordError.Refused',
      message: 'the conversation or its settings are not in the record',
      nonRetryable: true,
    });
  const said = (row.said ?? []).reverse().map(({ direction, kind, text }): ChatMessage => {
    const content = text?.trim() || `[${kind}]`;
    if (direction === 'note')
      return { role: 'system', content: `Between these messages there was a ${kind.replace('_', ' ')}. ${content}` };
    return { role: direction === 'inbound' ? 'user' : 'assistant', content };
  });
  return { draft: row.draft, messages: [{ role: 'system', content: row.systemPrompt }, ...said] };
}

/** WhatsApp's longest text; what a model says beyond it is cut, visibly, before it is recorded: the record shows what was sent. */
function fitting(text: string): string {
  const storable = text.replaceAll('\0', '').toWellFormed();
  return storable.length <= MAX_TEXT_LENGTH ? storable : `${storable.slice(0, MAX_TEXT_LENGTH - 1)}…`.toWellFormed();
}

/** Writes the reply and the turn of its messages in one statement. An existing reply of the turn wins. */
async function storeDraft(
  db: Database,
  order: DraftOrder,
  answer: ChatAnswer,
  run: { latencyMs: number; attempts: number },
): Promise<Draft> {
  const { conversationId, messageIds, provider, model } = order;
  const lastId = messageIds.at(-1);
  const rows = await db.query<{ id: string }>(sql`
    WITH turn AS (
      UPDATE messages SET turn_id = ${lastId}::uuid WHERE id = ANY(${messageIds}::uuid[])
    ), abandoned AS (
      -- A draft that a terminated workflow left behind, whose messages are in this turn now.
      UPDATE messages SET status = 'failed', failure = 'replaced by a later draft'
      WHERE reply_to_id = ANY(${messageIds}::uuid[]) AND reply_to_id <> ${lastId}::uuid AND status = 'pending'
    )
    INSERT INTO messages (workspace_id, conversation_id, direction, kind, text, status, reply_to_id, provider, model, attempts, latency_ms,
      prompt_tokens, completion_tokens)
    SELECT c.workspace_id, c.id, 'outbound', 'text', ${fitting(answer.text)}, 'pending', ${lastId}::uuid, ${provider}, ${model},
      ${run.attempts}, ${run.latencyMs}, ${answer.promptTokens}, ${answer.completionTokens}
    FROM conversations c WHERE c.id = ${conversationId}::uuid
    ON CONFLICT (reply_to_id) DO UPDATE SET reply_to_id = EXCLUDED.reply_to_id
    RETURNING id`);
  const row = rows[0];
  if (!row) throw new Error('the draft was not written');
  const { promptTokens, completionTokens } = answer;
  return { messageId: row.id, provider, model, promptTokens, completionTokens };
}
