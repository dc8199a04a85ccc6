/** Records what came in and what became of it. Every step may run twice: rows make it idempotent. */
import { ApplicationFailure } from '@temporalio/activity';
import type { Database } from '../src/platform/database';
import { isRefused } from '../src/platform/database-errors';
import type { Logger } from '../src/platform/logger';
import { usableChain } from '../src/providers/models/chain';
import type { LanguageModels, ModelChoice } from '../src/providers/models/client';
import { type NewAlert, raiseAlert } from '../src/record/alerts';
import { clearAttention, raiseAttention } from '../src/record/attention';
import { keepDeadLetters, type NewDeadLetter, type RefusedMessage } from '../src/record/dead-letters';
import { storeHandOverSentence } from '../src/record/hand-over';
import type { Identity } from '../src/record/identity';
import {
  type Elsewhere,
  type InboundContext,
  isSilent,
  type KnownContext,
  type RecordOrder,
  recordDeliveries,
} from '../src/record/inbound';
import { changeMode, type ModeVerdict, reopenTurn } from '../src/record/modes';
import { doubtReply, failTurn } from '../src/record/replies';
import { resumeConversation } from '../src/record/resume';
import type { AnswerLimits } from '../src/record/unanswered';
import { hasWorkspace } from '../src/record/workspaces';
import { type AttentionKind, type ModeAction, type ModeOrder, readConversationWorkflowId } from '../workflows/contract';
import { refusalCode } from './database-failures';
import { ownWorkflowId } from './own-workflow';
import type { ServicesByWorkspace, WorkspaceServices } from './services';

/** Bounds of a turn, in milliseconds: one attempt at one model, and everything until a draft stands. The workflow has defaults for the others. */
export interface TurnLimits {
  modelAttemptMs: number;
  /** Timeout of one attempt per provider. Missing in results of workers before 0.3: then it is `modelAttemptMs` for every attempt. */
  providerAttemptMs?: Record<string, number>;
  turnMs: number;
  /** After this long without a draft, the conversation asks for attention. */
  attentionAfterMs?: number;
  /** Wait before a provider that failed is tried again; doubles up to the longest. */
  firstPauseMs?: number;
  longestPauseMs?: number;
}

export interface Timings extends TurnLimits {
  quietMs: number;
  quietMaxMs: number;
  sessionTimeoutMs: number;
  sendConfirmMs: number;
}

/** The state of the conversation after recording, and what the workflow needs to reply. */
export interface Recorded {
  kind: 'recorded';
  /** Which behaviour the conversation follows from here on; results of workers before 0.2 have none and mean 1. */
  flow?: number;
  conversationId: string;
  mode: string;
  /** The bot must be silent: drafts begun earlier are discarded. Missing before 0.4: they are sent. */
  isSilent?: boolean;
  needsAttention: boolean;
  /** Ids of all messages in the conversation that still need a reply from this workflow, oldest first. */
  answerableIds: string[];
  /** Ids of messages that the database refused: they are dead letters, and may come again. */
  refusedIds?: string[];
  timings: Timings;
  /** What a message that arrives while a model is writing does to its draft. Missing before 0.4: `finish`. */
  onNewMessage?: string;
  /** The chain to walk, without providers that have no key. */
  providers: ModelChoice[];
  /** Messages among those given that belong to other workflows; they are not recorded here. */
  elsewhere?: Elsewhere[];
}

/** None of the messages belongs to this workflow. */
export interface RecordedElsewhere {
  kind: 'elsewhere';
  elsewhere: Elsewhere[];
  /** False: no conversation is this workflow's. */
  ownsConversation: boolean;
  /** As in `Recorded`. */
  refusedIds?: string[];
}

export type InboundOutcome = Recorded | RecordedElsewhere | { kind: 'unknown_number'; flow?: number } | { kind: 'refused' };

export interface RecordActivities {
  /** `unknown_number`: no workspace has it, and the messages are parked. `refused`: the database takes none of
   * them, and they are dead letters. */
  recordInbound(order: RecordOrder): Promise<InboundOutcome>;
  recordFailedTurn(order: { conversationId: string; messageIds: string[]; reason: string }): Promise<void>;
  /**
   * Gives the messages of an unconfirmed reply the outcome `unconfirmed`, and requests attention. `isSettled`: the outcome of the send
   * has become known, so nothing was changed.
   */
  recordDoubt(order: { messageId: string; conversationId: string }): Promise<{ isSettled: boolean }>;
  /** Asks for a person to look at the conversation; nothing else changes. */
  requestAttention(order: { conversationId: string; reason: string; kind?: AttentionKind; subject?: string }): Promise<void>;
  /** Takes reasons back. Returns whether others still ask for a person. */
  clearAttention(order: { conversationId: string; kinds: AttentionKind[] }): Promise<{ needsAttention: boolean }>;
  /** Changes who answers, unless another person has the conversation. `recorded`: its state afterwards. `sentenceId`: a message to be sent. */
  changeMode(request: {
    action: ModeAction;
    order: ModeOrder;
  }): Promise<{ verdict: ModeVerdict; recorded?: Recorded; sentenceId?: string }>;
  /**
   * The state of the conversation, with the messages that may be answered now. `reopenIds`: messages of a turn whose draft was thrown
   * away. Null if there is no such conversation.
   */
  resumeConversation(order: { conversationId: string; reopenIds?: string[] }): Promise<Recorded | null>;
  /** @throws ApplicationFailure `RecordError.UnknownNumber` as long as no workspace has the number */
  awaitWorkspace(order: { phoneNumberId: string }): Promise<void>;
}

/**
 * Version of the conversation's behaviour, returned whenever a delivery is recorded. A run that an older worker began keeps the old
 * behaviour until then, so that its history replays. 2: messages are recorded on arrival, failed providers are retried until the turn
 * times out, and a separate workflow settles unconfirmed sends.
 */
const FLOW = 2;

/** The record's activities. */
export function createRecordActivities({
  db,
  services,
  limits,
  answerLimits,
  logger,
  identity,
}: {
  db: Database;
  services: ServicesByWorkspace<Pick<WorkspaceServices, 'models'>>;
  limits: TurnLimits;
  answerLimits: AnswerLimits;
  logger: Logger;
  identity: Identity;
}): RecordActivities {
  return {
    async recordInbound(order) {
      try {
        return await record(order);
      } catch (error) {
        if (!isFinal(error)) throw error;
        return await recordEach(order);
      }
    },

    async recordFailedTurn({ conversationId, messageIds, reason }) {
      logger.error({ conversationId, messageIds, reason }, 'turn failed: no reply; a person must look');
      await failTurn(db, { conversationId, workflowId: ownWorkflowId(), messageIds, reason });
    },

    async recordDoubt({ messageId, conversationId }) {
      const isSettled = !(await doubtReply(db, { messageId, conversationId }));
      if (!isSettled) logger.error({ conversationId, messageId }, 'unknown whether a reply went out; a person must look');
      return { isSettled };
    },

    async requestAttention({ conversationId, reason, kind, subject }) {
      await raiseAttention(db, {
        conversationId,
        kind: kind ?? 'send_unconfirmed',
        text: reason,
        ...(subject === undefined ? {} : { subject }),
      });
    },

    async clearAttention(order) {
      return { needsAttention: await clearAttention(db, order) };
    },

    async changeMode({ action, order }) {
      const verdict = await changeMode(db, action, order);
      const { conversationId } = order;
      if (verdict.kind !== 'changed') return { verdict };
      logger.info({ conversationId, action, mode: verdict.changed.mode }, 'mode of a conversation changed');
      const recorded = await resume(verdict.changed.conversationId);
      const sentence = { conversationId: verdict.changed.conversationId, language: order.handOver?.language };
      const sentenceId = action === 'handOver' ? await storeHandOverSentence(db, sentence) : undefined;
      return { verdict, ...(recorded ? { recorded } : {}), ...(sentenceId === undefined ? {} : { sentenceId }) };
    },

    async resumeConversation({ conversationId, reopenIds = [] }) {
      if (reopenIds.length > 0) await reopenTurn(db, conversationId, reopenIds);
      return (await resume(conversationId)) ?? null;
    },

    async awaitWorkspace({ phoneNumberId }) {
      if (await hasWorkspace(db, phoneNumberId)) return;
      throw ApplicationFailure.create({
        type: 'RecordError.UnknownNumber',
        message: `no workspace has the number id ${phoneNumberId}; its messages are parked until one has`,
        // A wait, which was already logged for each message, so the SDK must not warn at every attempt.
        category: 'BENIGN',
      });
    },
  };

  /** Without a model nobody is answered, so a message gets its outcome at once. */
  function hasModelOf(models: LanguageModels): (context: InboundContext) => boolean {
    return (context) => usableChain(context, models).length > 0;
  }

  async function resume(conversationId: string): Promise<Recorded | undefined> {
    const workflowId = ownWorkflowId();
    const { models } = await services.ofNumber(readConversationWorkflowId(workflowId).phoneNumberId);
    const rules = { identity, answerLimits, hasModel: hasModelOf(models) };
    const resumed = await resumeConversation(db, { conversationId, workflowId }, rules);
    return resumed && stateOf(resumed.context, resumed.answerableIds, models);
  }

  function stateOf(context: KnownContext, answerableIds: string[], models: LanguageModels): Recorded {
    const { conversationId, quietMs, quietMaxMs, sessionTimeoutMs, sendConfirmMs } = context;
    return {
      kind: 'recorded',
      flow: FLOW,
      conversationId,
      mode: context.mode ?? 'ai',
      ...(isSilent(context) ? { isSilent: true } : {}),
      needsAttention: context.needsAttention ?? false,
      answerableIds,
      timings: { quietMs, quietMaxMs, sessionTimeoutMs, sendConfirmMs, ...limits },
      ...(context.onNewMessage === 'finish' ? {} : { onNewMessage: context.onNewMessage }),
      providers: answerableIds.length > 0 ? usableChain(context, models) : [],
    };
  }

  async function record(order: RecordOrder): Promise<InboundOutcome> {
    const { models } = await services.ofNumber(order.phoneNumberId);
    const hasModel = hasModelOf(models);
    const recorded = await recordDeliveries(db, order, { identity, answerLimits, hasModel });
    if (recorded.kind === 'unknown_number') {
      const { phoneNumberId, workflowId } = order;
      logger.warn({ phoneNumberId, workflowId }, 'messages parked: no workspace has their number; they are delivered once one has');
      await raiseAlert(db, parkedAlert(phoneNumberId));
      return { kind: 'unknown_number', flow: FLOW };
    }
    const { own, elsewhere, ownsConversation } = recorded;
    if (!own) return { kind: 'elsewhere', elsewhere, ownsConversation };
    return { ...stateOf(own.context, own.answerableIds, models), ...(elsewhere.length > 0 ? { elsewhere } : {}) };
  }

  /** Records each message on its own, because the database may refuse only one of them. A refused message becomes a dead letter. */
  async function recordEach({ deliveries, ...workflow }: RecordOrder): Promise<InboundOutcome> {
    const outcomes: InboundOutcome[] = [];
    const refusedIds: string[] = [];
    const letters: NewDeadLetter[] = [];
    for (const { contact, message } of deliveries.flatMap(({ contact, messages }) => messages.map((message) => ({ contact, message })))) {
      try {
        outcomes.push(await record({ ...workflow, deliveries: [{ contact, messages: [message] }] }));
      } catch (error) {
        if (!isFinal(error)) throw error;
        refusedIds.push(message.id);
        letters.push(refusedLetter(workflow, { contact, message }, error));
      }
    }
    await keepDeadLetters(db, letters);
    const outcome = together(outcomes);
    if (letters.length === 0) return outcome;
    await askForPerson(workflow.workflowId, letters.length);
    if (outcome.kind === 'recorded') return { ...outcome, needsAttention: true, refusedIds };
    return outcome.kind === 'elsewhere' ? { ...outcome, refusedIds } : outcome;
  }

  async function askForPerson(workflowId: string, deadLetters: number): Promise<void> {
    logger.error({ workflowId, deadLetters }, 'the database refused messages; they are dead letters');
    const conversation = await db.orm.conversation.findUnique({ where: { workflowId }, select: { id: true } });
    if (conversation) await raiseAttention(db, { conversationId: conversation.id, kind: 'dead_letter', text: REFUSED_TEXT });
  }
}

function parkedAlert(phoneNumberId: string): NewAlert {
  return {
    cause: `messages parked: ${phoneNumberId}`,
    text: 'messages parked: no workspace has their number; they are delivered once one has',
    subject: `number id ${phoneNumberId}`,
  };
}

/** Whether the same message would fail again: the database refuses it, or it has a value that no code of ours can take. */
function isFinal(error: unknown): boolean {
  return isRefused(error) || error instanceof TypeError || error instanceof RangeError;
}

/** The outcome of messages that were recorded one by one: the last of them knows all that want a reply. */
function together(outcomes: InboundOutcome[]): InboundOutcome {
  const last = outcomes.findLast(({ kind }) => kind === 'recorded') ?? outcomes.at(-1) ?? { kind: 'refused' };
  if (last.kind !== 'recorded' && last.kind !== 'elsewhere') return last;
  const elsewhere = outcomes.flatMap((outcome) => ('elsewhere' in outcome ? (outcome.elsewhere ?? []) : []));
  return elsewhere.length > 0 ? { ...last, elsewhere } : last;
}

const REFUSED_TEXT = 'the database refused a message; it is kept as a dead letter';

function refusedLetter(
  workflow: Omit<RecordOrder, 'deliveries'>,
  refused: Omit<RefusedMessage, 'phoneNumberId'>,
  error: unknown,
): NewDeadLetter {
  const { phoneNumberId, workflowId } = workflow;
  return {
    source: 'conversation',
    reason: 'record_refused',
    detail: `the database refused the message (SQLSTATE ${refusalCode(error)})`,
    phoneNumberId,
    providerMessageId: refused.message.providerMessageId,
    workflowId,
    body: { phoneNumberId, ...refused },
  };
}
