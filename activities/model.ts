/** Asking a model for the reply of a turn. The draft is stored before the activity returns: a crash never pays twice. */

import { setTimeout as delay } from 'node:timers/promises';
import { ApplicationFailure, Context } from '@temporalio/activity';
import type { Database } from '../src/platform/database';
import { withDeadline } from '../src/platform/deadline';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import { MAX_TEXT_LENGTH } from '../src/providers/kapso/client';
import type { ChatAnswer, ChatMessage, LanguageModels, ModelChoice } from '../src/providers/models/client';
import { loadPromptMaterial } from '../src/record/prompts';
import { storeDraft } from '../src/record/replies';
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

  async function store(
    { conversationId, messageIds, provider, model }: DraftOrder,
    { text, promptTokens, completionTokens }: ChatAnswer,
    run: { latencyMs: number; attempts: number },
  ): Promise<Draft> {
    const draft = { provider, model, promptTokens, completionTokens };
    return { messageId: await storeDraft(db, { conversationId, messageIds, text: fitting(text), ...draft, ...run }), ...draft };
  }

  async function storePatiently(order: DraftOrder, answer: ChatAnswer, run: { latencyMs: number; attempts: number }): Promise<Draft> {
    for (const pauseMs of STORE_PAUSES_MS) {
      try {
        return await store(order, answer, run);
      } catch (error) {
        if (isRefusal(error)) throw error;
        logger.warn({ error, conversationId: order.conversationId }, 'the draft could not be stored yet');
        await delay(pauseMs);
      }
    }
    return await store(order, answer, run);
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

/** What the model is to read, and the draft that the turn has already. */
async function loadPrompt(db: Database, order: DraftOrder): Promise<{ draft: Draft | null; messages: ChatMessage[] }> {
  const material = await loadPromptMaterial(db, order);
  if (!material)
    throw ApplicationFailure.create({
      type: 'RecordError.Refused',
      message: 'the conversation or its settings are not in the record',
      nonRetryable: true,
    });
  const said = (material.said ?? []).reverse().map(({ direction, kind, text }): ChatMessage => {
    const content = text?.trim() || `[${kind}]`;
    if (direction === 'note')
      return { role: 'system', content: `Between these messages there was a ${kind.replace('_', ' ')}. ${content}` };
    return { role: direction === 'inbound' ? 'user' : 'assistant', content };
  });
  return { draft: material.draft, messages: [{ role: 'system', content: material.systemPrompt }, ...said] };
}

/** WhatsApp's longest text; what a model says beyond it is cut, visibly, before it is recorded: the record shows what was sent. */
function fitting(text: string): string {
  const storable = text.replaceAll('\0', '').toWellFormed();
  return storable.length <= MAX_TEXT_LENGTH ? storable : `${storable.slice(0, MAX_TEXT_LENGTH - 1)}…`.toWellFormed();
}
