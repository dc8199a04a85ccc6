/** Calls a model for the reply of a turn. Stores the draft before the activity returns, so that a crash does not cost a second call. */

import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { ApplicationFailure, Context } from '@temporalio/activity';
import type { Database } from '../src/platform/database';
import { isForeignKeyViolation, isRefused } from '../src/platform/database-errors';
import { withDeadline } from '../src/platform/deadline';
import { describeError, type Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import { messagesOf, singleMessageOf } from '../src/providers/kapso/reply-text';
import type { ChatAnswer } from '../src/providers/models/answer';
import { type ModelChoice, modelLabel } from '../src/providers/models/client';
import { buildPrompt, type SaidMessage, withoutOlderHalf } from '../src/providers/models/prompt';
import { loadPromptMaterial } from '../src/record/prompts';
import { findMovedMessages, isBotSilent, type MovedMessages, storeDraft } from '../src/record/replies';
import { answerFailure, codeFault, isCodeFault, isTooLong, modelFailure, permanentModelFailure } from './failures';
import { createModelAlarm } from './model-alarm';
import { ownWorkflowId } from './own-workflow';
import type { ServicesByWorkspace, WorkspaceServices } from './services';

export interface DraftOrder {
  conversationId: string;
  /** The inbound messages of the turn, oldest first. The reply belongs to the last one. */
  messageIds: string[];
  provider: ModelChoice['provider'];
  model: string;
  /** Timeout of this attempt, in milliseconds. */
  attemptMs: number;
  /** Number of this attempt at this provider in this turn, from 1. Not set by conversations started by 0.1. */
  attempt?: number;
  /**
   * Last message ids of earlier attempts of this turn whose results were lost (a worker died, the database was down). Such an attempt
   * may have stored a draft, which is then used.
   */
  lostReplyToIds?: string[];
  /** True if the conversation can send a long reply in parts. Not set by versions before 0.3, which get it cut. */
  takesParts?: boolean;
  /** Messages whose draft was discarded, because a later message came. */
  supersededIds?: string[];
  /** True if the conversation understands `withheld`. Not set by versions before 0.4. */
  supportsSilence?: boolean;
}

/** The stored reply, without its text, which stays out of the history. */
export interface Draft {
  messageId: string;
  provider: string;
  model: string;
  /** Null if the server does not report it. */
  promptTokens: number | null;
  completionTokens: number | null;
  /** The other parts of a long reply, in the order in which they are sent. Missing or empty if there are none. */
  partIds?: string[];
  /** The messages that it answers, if an earlier attempt has stored it; otherwise it answers those of the order. */
  coveredIds?: string[];
}

/** Messages of the turn that another workflow answers now. */
export interface MovedTurn {
  moved: MovedMessages;
}

/** No draft was stored, because the bot must be silent. */
export interface WithheldTurn {
  withheld: true;
}

export interface ModelActivities {
  /**
   * Calls the provider once, or returns the draft that the turn already has.
   * @throws ApplicationFailure `ModelError.*` (see failures.ts), or, through no fault of the provider, `RecordError.Unavailable` (the
   * database is down), `RecordError.Refused` (it will never accept the statement), `WorkerError.Fault` (a bug, which a retry does
   * not cure) or `WorkerError.Stopping` (this worker is shutting down)
   */
  generateReply(order: DraftOrder): Promise<Draft | MovedTurn | WithheldTurn>;
}

/** How long before its heartbeat timeout an attempt sends a heartbeat: as late as is safe, because Temporal Cloud bills each. */
const HEARTBEAT_MARGIN_MS = 1_500;
/** Interval of heartbeats of an attempt without a heartbeat timeout, which needs none. */
const UNTIMED_HEARTBEAT_MS = 10_000;

/** Pauses between the attempts to store a reply, which has been paid for. */
const STORE_PAUSES_MS = [250, 1_000, 2_000, 4_000, 8_000];

/** What is known of the attempt that a draft comes from. */
interface DraftRun {
  latencyMs: number;
  attempts: number;
}

interface ModelDependencies {
  db: Database;
  services: ServicesByWorkspace<Pick<WorkspaceServices, 'models' | 'timeZone'>>;
  logger: Logger;
  metrics: Pick<WorkerMetrics, 'modelAsked'>;
}

/** The material of the prompt. */
interface Material {
  systemPrompt: string;
  customerName: string | null;
  /** Oldest first; ends with the turn. */
  said: SaidMessage[];
  workspaceId: string;
}

/** What a model call needs. */
type Question = Material & Pick<WorkspaceServices, 'models' | 'timeZone'>;

/** Added to a prompt whose answer was cut off: an answer cannot be continued safely, because it may have ended within a word. */
const BE_BRIEF = 'Your last answer to this was too long and was cut off. Answer again, completely, in at most three short sentences.';

/** The model activity. */
export function createModelActivities({ db, services, logger, metrics }: ModelDependencies): ModelActivities {
  const alarm = createModelAlarm({ db, logger });
  return {
    async generateReply(order) {
      const context = Context.current();
      const { heartbeatTimeoutMs } = context.info;
      const everyMs = heartbeatTimeoutMs ? Math.max(500, heartbeatTimeoutMs - HEARTBEAT_MARGIN_MS) : UNTIMED_HEARTBEAT_MS;
      const heartbeat = setInterval(() => context.heartbeat(), everyMs);
      try {
        return await draftReply(order, context);
      } finally {
        clearInterval(heartbeat);
      }
    },
  };

  async function draftReply(order: DraftOrder, context: Context): Promise<Draft | MovedTurn | WithheldTurn> {
    const {
      draft: earlierDraft,
      hasMoved,
      isSilent,
      material,
    } = await fromRecord('the prompt could not be loaded', () => loadMaterial(db, order));
    const moved = hasMoved ? await fromRecord('the prompt could not be loaded', () => findMovedTurn(order)) : undefined;
    if (moved) return moved;
    if (isSilent && order.supportsSilence) return { withheld: true };
    if (earlierDraft) return earlierDraft;
    const startedAtMs = Date.now();
    const question = { ...material, ...(await services.ofWorkspace(material.workspaceId)) };
    const answer = await watched(order, () => measured(order.provider, () => ask(order, question, context.cancellationSignal)));
    const latencyMs = Date.now() - startedAtMs;
    const { workflowExecution } = context.info;
    const attempt = order.attempt ?? context.info.attempt;
    const draft = await fromRecord('the reply could not be stored', () => storePatiently(order, answer, { latencyMs, attempts: attempt }));
    if ('messageId' in draft) logger.info({ workflowId: workflowExecution?.workflowId, attempt, latencyMs, ...draft }, 'reply drafted');
    return draft;
  }

  async function watched(choice: ModelChoice, call: () => Promise<ChatAnswer>): Promise<ChatAnswer> {
    try {
      const answer = await call();
      await alarm.succeeded(choice);
      return answer;
    } catch (error) {
      alarm.failed(choice, error);
      throw error;
    }
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

  async function ask(order: DraftOrder, question: Question, cancelled: AbortSignal): Promise<ChatAnswer> {
    if (!question.models.available.includes(order.provider))
      throw permanentModelFailure('ModelError.NotConfigured', `${modelLabel(order)} has no API key: set it, and restart the workers`);
    let answer: ChatAnswer;
    try {
      answer = await withDeadline(order.attemptMs, (signal) => wholeAnswer(order, question, signal), cancelled);
    } catch (error) {
      if (cancelled.aborted) throw ApplicationFailure.create({ type: 'WorkerError.Stopping', message: 'the worker is shutting down' });
      throw error instanceof ApplicationFailure ? error : modelFailure(order, error);
    }
    const failure = answerFailure(order, answer);
    if (failure) throw failure;
    return answer;
  }

  /** Asks once more, for a shorter answer, if the first one was cut off. */
  async function wholeAnswer(order: DraftOrder, question: Question, signal: AbortSignal): Promise<ChatAnswer> {
    const answer = await fittingAnswer(order, question, signal);
    if (!answer.isCutOff || answer.text === '') return answer;
    const systemPrompt = `${question.systemPrompt}\n\n${BE_BRIEF}`;
    return withCostOf(answer, await fittingAnswer(order, { ...question, systemPrompt }, signal));
  }

  /** If the prompt is too long for the model, leaves out the older half of the history, then all of it. */
  async function fittingAnswer(order: DraftOrder, question: Question, signal: AbortSignal): Promise<ChatAnswer> {
    const { models } = question;
    const turn = question.said.slice(-order.messageIds.length);
    const shorter = withoutOlderHalf(question.said, turn.length);
    for (const said of [question.said, ...(shorter ? [shorter] : [])]) {
      try {
        return await models.chat(order, promptOf({ ...question, said }), signal);
      } catch (error) {
        if (!isTooLong(error) || said.length === turn.length) throw error;
      }
    }
    return await models.chat(order, promptOf({ ...question, said: turn }), signal);
  }

  /** A failure here recurs with every provider. */
  function promptOf({ systemPrompt, customerName, said, timeZone }: Question): ReturnType<typeof buildPrompt> {
    try {
      return buildPrompt({ ...{ systemPrompt, customerName, said, timeZone }, nowMs: Date.now(), marker: randomBytes(6).toString('hex') });
    } catch (error) {
      throw faultOf('the prompt could not be built', error);
    }
  }

  function faultOf(step: string, error: unknown): ApplicationFailure {
    // Without the error's text, which may quote a message.
    const { name, stack } = describeError(error);
    logger.error({ kind: name, stack }, step);
    return codeFault(step, error);
  }

  /** A temporary database failure, such as a deadlock, must not count as a failure of the provider. */
  async function fromRecord<T>(failedStep: string, step: () => Promise<T>): Promise<T> {
    try {
      return await step();
    } catch (error) {
      if (isCodeFault(error)) throw faultOf(failedStep, error);
      if (isFinal(error)) throw error;
      throw ApplicationFailure.create({ type: 'RecordError.Unavailable', message: 'the database is unavailable', nonRetryable: true });
    }
  }

  async function store(
    order: DraftOrder,
    { text, promptTokens, completionTokens }: ChatAnswer,
    run: DraftRun,
  ): Promise<Draft | MovedTurn | WithheldTurn> {
    const { conversationId, messageIds, supersededIds = [], provider, model } = order;
    const draft = { provider, model, promptTokens, completionTokens };
    const turn = { conversationId, workflowId: ownWorkflowId(), messageIds, supersededIds };
    const texts = order.takesParts ? messagesOf(text) : [singleMessageOf(text)];
    const stored = await storeDraft(db, { ...turn, texts, ...draft, ...run });
    if (stored) return { messageId: stored.messageId, ...draft, ...(stored.partIds.length > 0 ? { partIds: stored.partIds } : {}) };
    const moved = await findMovedTurn(order);
    if (moved) return moved;
    if (order.supportsSilence && (await isBotSilent(db, conversationId))) return { withheld: true };
    throw refusedByRecord('the turn ended, or a later attempt stored its draft, before this one did');
  }

  async function findMovedTurn({ messageIds }: DraftOrder): Promise<MovedTurn | undefined> {
    const moved = await findMovedMessages(db, { messageIds, workflowId: ownWorkflowId() });
    return moved && { moved };
  }

  async function storePatiently(order: DraftOrder, answer: ChatAnswer, run: DraftRun): Promise<Draft | MovedTurn | WithheldTurn> {
    for (const pauseMs of STORE_PAUSES_MS) {
      try {
        return await store(order, answer, run);
      } catch (error) {
        if (isFinal(error) || isCodeFault(error)) throw error;
        logger.warn({ error, conversationId: order.conversationId }, 'the draft could not be stored yet');
        await delay(pauseMs);
      }
    }
    return await store(order, answer, run);
  }
}

function isFinal(error: unknown): boolean {
  // The conversation may be merged into another one while the statement runs: it finds that one the next time.
  return error instanceof ApplicationFailure || (isRefused(error) && !isForeignKeyViolation(error));
}

function refusedByRecord(message: string): ApplicationFailure {
  return ApplicationFailure.create({ type: 'RecordError.Refused', message, nonRetryable: true });
}

/** Loads the material of the prompt, and the draft if the turn already has one. */
async function loadMaterial(
  db: Database,
  order: DraftOrder,
): Promise<{ draft: Draft | null; hasMoved: boolean; isSilent: boolean; material: Material }> {
  const loaded = await loadPromptMaterial(db, { ...order, workflowId: ownWorkflowId() });
  if (!loaded) throw refusedByRecord('the conversation or its settings are not in the database');
  const { draft, hasMoved, isSilent, systemPrompt, customerName, said, workspaceId } = loaded;
  return { draft, hasMoved, isSilent, material: { systemPrompt, customerName, said: (said ?? []).toReversed(), workspaceId } };
}

/** The answer, with the tokens of the previous one added, which was paid for as well. */
function withCostOf(before: ChatAnswer, answer: ChatAnswer): ChatAnswer {
  const sum = (one: number | null, other: number | null) => (one === null || other === null ? null : one + other);
  return {
    ...answer,
    promptTokens: sum(before.promptTokens, answer.promptTokens),
    completionTokens: sum(before.completionTokens, answer.completionTokens),
  };
}
