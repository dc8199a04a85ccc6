/**
 * One execution per contact of a workspace, for as long as the person is writing.
 * It decides; activities act. Messages come in by signal only, are recorded, wait for a quiet moment together,
 * and are answered by one reply. One turn at a time.
 */
import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  condition,
  makeContinueAsNewFunc,
  setCurrentDetails,
  setHandler,
  sleep,
  TimeoutFailure,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities, Draft, DraftOrder, Recorded, RecordOrder } from '../activities';
import {
  attentionAttribute,
  type CallEnded,
  type ConversationInput,
  type ConversationResult,
  type ConversationState,
  type ConversationTotals,
  callEnded,
  conversationState,
  type MessagesReceived,
  messagesReceived,
  modeAttribute,
  type SendVerdict,
  sendReported,
} from './contract';
import { Inbox } from './inbox';
import { model, outbox, records, settlement, workspaces } from './proxies';

/** Until the first record tells the workspace's own value. */
const DEFAULT_SESSION_TIMEOUT_MS = 30 * 60_000;

/** When, within the time that an unconfirmed send is given, Kapso's list is asked. The last look decides. */
const LOOKS = [0.05, 0.2, 0.5, 1] as const;

/** A reply that was proven not delivered is sent again this often at most; then a person must look. */
const MAX_RESENDS = 3;

/** A certain refusal (throttled, unreachable) is tried again for this long: longer, and the answer comes too late to help. */
const SEND_RETRY_MS = 60 * 60_000;

/** Temporal ends a workflow whose input is larger than 2 MB. */
const MAX_SNAPSHOT_JSON = 500_000;

/** When Kapso could not be asked at the end of the time of proof, it is asked again after this long… */
const ASK_AGAIN_MS = 2 * 60_000;
/** …for a day: then the customer's window is closed, and a person must find out. */
const ASK_FOR_MS = 24 * 60 * 60_000;

/** Over the bound of an attempt, for reading the prompt and storing the draft; a database that is away gets as much. */
const MODEL_GRACE_MS = 20_000;

/** Before a provider is asked again that was not at fault; doubled each time. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 20_000;

type RecordOutcome = Awaited<ReturnType<Activities['recordInbound']>>;

/** What is being collected for one reply. */
interface Turn {
  messageIds: string[];
  firstAtMs: number;
  lastAtMs: number;
  recorded: Recorded;
}

export async function conversationWorkflow(input: ConversationInput): Promise<ConversationResult> {
  const conversation = new Conversation(input);
  CancellationScope.current().cancelRequested.catch(() => conversation.end());
  // What was taken is finished: a cancellation ends the session, not the turn.
  return await CancellationScope.nonCancellable(() => conversation.run());
}

/** Methods that only pass a promise on are no async functions: the SDK keeps a stack for each promise, which costs (docs/decisions/0005). */
class Conversation {
  readonly #input: ConversationInput;
  readonly #inbox: Inbox;
  readonly #totals: ConversationTotals;
  readonly #reports = new Map<string, 'sent' | 'failed'>();
  /** Messages that wait in the outbox to be sent after a call. */
  readonly #followUps: CallEnded[];
  #conversationId: string | undefined;
  #attention: boolean;
  #mode: string;
  #phase = 'waiting for a message';
  #sessionTimeoutMs: number;
  #lastActivityMs = Date.now();
  #sessionTimerRuns = false;
  #lastReply: string;
  #isEnding = false;

  constructor(input: ConversationInput) {
    const snapshot = input.snapshot;
    this.#input = input;
    this.#inbox = new Inbox(snapshot?.pending, snapshot?.seenIds);
    this.#totals = snapshot?.totals ?? {
      messages: 0,
      replies: 0,
      failedTurns: 0,
      duplicatesDropped: 0,
      promptTokens: 0,
      completionTokens: 0,
    };
    this.#attention = snapshot?.attention ?? false;
    this.#mode = snapshot?.mode ?? 'ai';
    this.#sessionTimeoutMs = snapshot?.sessionTimeoutMs ?? DEFAULT_SESSION_TIMEOUT_MS;
    this.#lastReply = snapshot?.lastReply ?? 'none yet';
    this.#conversationId = snapshot?.conversationId;
    this.#followUps = snapshot?.followUps ?? [];
    setHandler(messagesReceived, (received: MessagesReceived) => {
      this.#inbox.add(received);
    });
    setHandler(sendReported, (report) => {
      this.#reports.set(report.messageId, report.status);
    });
    setHandler(callEnded, (call) => {
      this.#conversationId ??= call.conversationId;
      // The note stands in the record, where the next prompt finds it; only a message to be sent is work.
      if (call.followUpId) this.#followUps.push(call);
    });
    setHandler(conversationState, () => this.#state());
  }

  async run(): Promise<ConversationResult> {
    for (;;) {
      if (this.#nothingWaits()) await this.#somethingToDo();
      // Nothing may be awaited between this look into the inbox and the return: a signal in between would be lost.
      if (this.#nothingWaits() && this.#isIdle()) return this.#result();
      if (this.#nothingWaits() && this.#isEnding) throw new CancelledFailure('an operator ended the session');
      if (!this.#inbox.isEmpty) {
        const turn = await this.#collectTurn();
        if (turn) {
          const draft = await this.#draftReply(turn);
          if (draft) this.#answered(draft, await this.#deliverDraft(draft, turn));
        }
        this.#lastActivityMs = Date.now();
      } else if (this.#followUps.length > 0) await this.#followUp();
      else this.#applyReports();
      if (this.#mayContinueAsNew()) await this.#continueAsNew();
    }
  }

  #nothingWaits(): boolean {
    return this.#inbox.isEmpty && this.#followUps.length === 0;
  }

  /** Ends the session as soon as nothing waits. */
  end(): void {
    this.#isEnding = true;
  }

  /** Resolves when a message waits, a report came, or the session timer fired. One timer serves many messages. */
  #somethingToDo(): Promise<void> {
    this.#say('waiting for a message');
    if (!this.#sessionTimerRuns) this.#startSessionTimer();
    return condition(() => !this.#nothingWaits() || !this.#sessionTimerRuns || this.#reports.size > 0 || this.#isEnding);
  }

  #startSessionTimer(): void {
    const remainingMs = Math.max(1, this.#lastActivityMs + this.#sessionTimeoutMs - Date.now());
    this.#sessionTimerRuns = true;
    const fired = () => {
      this.#sessionTimerRuns = false;
    };
    void sleep(remainingMs, { summary: 'session ends when nothing is said' }).then(fired, fired);
  }

  #isIdle(): boolean {
    return !this.#sessionTimerRuns && Date.now() - this.#lastActivityMs >= this.#sessionTimeoutMs;
  }

  /** Records what arrives until the customer was quiet for a moment. Undefined when nothing of it wants a reply. */
  async #collectTurn(): Promise<Turn | undefined> {
    let turn: Turn | undefined;
    while (!this.#inbox.isEmpty) {
      const arrivedAtMs = Date.now();
      const delivery = this.#inbox.takeAll();
      const recorded = this.#recorded(delivery, await this.#record(delivery));
      if (!recorded) {
        // The messages are back in the inbox: they are recorded when the workspace is there, or by the next run.
        if (await this.#workspaceAppeared()) continue;
        return turn;
      }
      if (recorded.answerableIds.length > 0) {
        const messageIds = [...new Set([...(turn?.messageIds ?? []), ...recorded.answerableIds])];
        turn = { messageIds, firstAtMs: turn?.firstAtMs ?? arrivedAtMs, lastAtMs: arrivedAtMs, recorded };
      }
      const quietMs = turn ? quietLeftMs(turn) : 0;
      if (quietMs > 0) await this.#quiet(quietMs);
    }
    return turn;
  }

  /** Ends early when more arrives. */
  #quiet(waitMs: number): Promise<boolean> {
    this.#say('waiting for the customer to finish');
    return condition(() => !this.#inbox.isEmpty, waitMs, { summary: 'customer may still be typing' });
  }

  #record(delivery: MessagesReceived): Promise<RecordOutcome> {
    this.#say('recording');
    const count = delivery.messages.length;
    const options = { summary: `record ${count} message${count === 1 ? '' : 's'}` };
    return records.recordInbound.executeWithOptions(options, [this.#recordOrder(delivery)]);
  }

  /** Undefined when no workspace has the number: then the record has parked the messages, and the inbox has them back. */
  #recorded(delivery: MessagesReceived, outcome: RecordOutcome): Recorded | undefined {
    if (outcome.kind === 'unknown_number') {
      this.#inbox.putBack(delivery);
      return undefined;
    }
    this.#totals.messages += delivery.messages.length;
    this.#conversationId = outcome.conversationId;
    this.#sessionTimeoutMs = outcome.timings.sessionTimeoutMs;
    this.#showMode(outcome.mode);
    this.#showAttention(outcome.needsAttention);
    return outcome;
  }

  #recordOrder(delivery: MessagesReceived): RecordOrder {
    const { phoneNumberId, contactKey } = this.#input;
    return { phoneNumberId, contactKey, workflowId: workflowInfo().workflowId, ...delivery };
  }

  /**
   * Waits until a workspace has the number; what arrives meanwhile is parked as well. False when the history has grown
   * long before: then the next run goes on waiting.
   */
  async #workspaceAppeared(): Promise<boolean> {
    const { phoneNumberId } = this.#input;
    this.#showAttention(true);
    let appeared = false;
    const waiting = workspaces.awaitWorkspace
      .executeWithOptions({ summary: `wait for a workspace with number id ${phoneNumberId}` }, [{ phoneNumberId }])
      .then(() => {
        appeared = true;
      });
    let parked = this.#inbox.size;
    while (!appeared && !this.#mayContinueAsNew()) {
      this.#say(`waiting for a workspace with number id ${phoneNumberId}`);
      await Promise.race([waiting, condition(() => this.#inbox.size > parked)]);
      if (appeared || this.#inbox.size === parked) continue;
      const arrived = this.#inbox.newest(this.#inbox.size - parked);
      parked = this.#inbox.size;
      await records.recordInbound.executeWithOptions({ summary: 'park what arrived meanwhile' }, [this.#recordOrder(arrived)]);
    }
    return appeared;
  }

  #answered(draft: Draft, isDelivered: boolean): void {
    this.#totals.promptTokens += draft.promptTokens;
    this.#totals.completionTokens += draft.completionTokens;
    if (isDelivered) {
      this.#totals.replies += 1;
      // The model has seen what went unanswered before, and the customer has heard from us.
      this.#showAttention(false);
      this.#lastReply = `by ${draft.provider} (${draft.model})`;
    } else {
      this.#totals.failedTurns += 1;
      this.#showAttention(true);
    }
  }

  #deliverDraft({ messageId }: Draft, { messageIds, recorded: { conversationId, timings } }: Turn): Promise<boolean> {
    return this.#deliver(messageId, { conversationId, sendConfirmMs: timings.sendConfirmMs }, messageIds);
  }

  /** Walks the provider chain. Retrying one provider is the activity's policy; going to the next is decided here. */
  async #draftReply(turn: Turn): Promise<Draft | undefined> {
    const { timings, providers, conversationId } = turn.recorded;
    const deadlineMs = Date.now() + timings.turnMs;
    const failures: string[] = [];
    for (const { provider, model: name } of providers) {
      const boundMs = deadlineMs - Date.now();
      if (boundMs <= 0) {
        failures.push('turn: out of time');
        break;
      }
      const order = { conversationId, messageIds: turn.messageIds, provider, model: name, attemptMs: timings.modelAttemptMs };
      for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
        try {
          return await this.#ask(order, boundMs);
        } catch (error) {
          // Our own trouble says nothing about the provider. The record is waited for as long as it takes.
          const isOurs = failureType(error) === 'RecordError.Unavailable' || (diedWithItsWorker(error) && Date.now() < deadlineMs);
          if (!isOurs) {
            failures.push(`${provider}: ${failureType(error)}`);
            break;
          }
        }
        await sleep(pauseMs, { summary: `no fault of ${provider}: it is asked again` });
      }
    }
    await this.#turnFailed(turn, failures.length > 0 ? failures.join('; ') : 'no provider has a key');
    return undefined;
  }

  #ask(order: DraftOrder, boundMs: number): Promise<Draft> {
    this.#say(`asking ${order.provider}`);
    const options = {
      summary: `reply via ${order.provider}`,
      startToCloseTimeout: order.attemptMs + MODEL_GRACE_MS,
      scheduleToCloseTimeout: boundMs,
    };
    return model.generateReply.executeWithOptions(options, [order]);
  }

  async #turnFailed(turn: Turn, reason: string): Promise<void> {
    await records.recordFailedTurn.executeWithOptions({ summary: 'no reply: needs attention' }, [
      { conversationId: turn.recorded.conversationId, messageIds: turn.messageIds, reason },
    ]);
    this.#totals.failedTurns += 1;
    this.#showAttention(true);
  }

  async #sendFailed(conversationId: string, messageIds: string[]): Promise<false> {
    await records.recordFailedTurn.executeWithOptions({ summary: 'reply not delivered: needs attention' }, [
      { conversationId, messageIds, reason: 'send: proven not delivered, too often' },
    ]);
    return false;
  }

  /** Sends what a call has left in the outbox, with the same care as a reply. */
  async #followUp(): Promise<void> {
    const call = this.#followUps.shift();
    if (!call?.followUpId) return;
    if (await this.#deliver(call.followUpId, call, [])) this.#lastReply = 'after a voice call';
    else this.#showAttention(true);
    this.#lastActivityMs = Date.now();
  }

  /** Brings the reply to the customer exactly once, or says that it could not. */
  async #deliver(
    messageId: string,
    conversation: { conversationId: string; sendConfirmMs: number },
    messageIds: string[],
  ): Promise<boolean> {
    const giveUpAtMs = Date.now() + SEND_RETRY_MS;
    let resends = 0;
    for (;;) {
      this.#say('sending the reply');
      const isLast = Date.now() >= giveUpAtMs;
      let verdict: SendVerdict = await outbox.sendReply.executeWithOptions({ summary: 'send reply' }, [{ messageId, isLast }]);
      if (verdict.status === 'unconfirmed') {
        verdict = await this.#settle(messageId, conversation);
        if (verdict.status === 'pending' && ++resends > MAX_RESENDS) return await this.#sendFailed(conversation.conversationId, messageIds);
      }
      switch (verdict.status) {
        case 'sent':
          return true;
        case 'failed':
        case 'unconfirmed':
          return false;
        case 'pending':
          if (verdict.retryAfterMs > 0) await sleep(verdict.retryAfterMs, { summary: `send again: ${verdict.reason}` });
      }
    }
  }

  /**
   * A send whose outcome is unknown is never blindly repeated: its `sent` webhook settles it, or a look into
   * Kapso's list does. Only when the last look finds nothing is it proven not delivered, and pending again.
   */
  async #settle(
    messageId: string,
    { conversationId, sendConfirmMs: confirmMs }: { conversationId: string; sendConfirmMs: number },
  ): Promise<SendVerdict> {
    const startedAtMs = Date.now();
    for (const part of LOOKS) {
      const waitMs = Math.max(1, startedAtMs + confirmMs * part - Date.now());
      const verdict = await this.#lookUp(messageId, waitMs, part === 1);
      if (verdict.status !== 'unconfirmed') return verdict;
    }
    await records.requestAttention.executeWithOptions({ summary: 'send unconfirmed: needs attention' }, [
      { conversationId, reason: 'unknown whether the reply went out, and Kapso cannot be asked' },
    ]);
    this.#showAttention(true);
    let verdict: SendVerdict = { status: 'unconfirmed' };
    while (verdict.status === 'unconfirmed' && Date.now() - startedAtMs < ASK_FOR_MS)
      verdict = await this.#lookUp(messageId, ASK_AGAIN_MS, true);
    return verdict;
  }

  /** Waits for a report or `waitMs`, then looks. Stays unconfirmed when Kapso could not be asked: only an answer is proof. */
  async #lookUp(messageId: string, waitMs: number, isLast: boolean): Promise<SendVerdict> {
    this.#say('waiting for proof of the send');
    await condition(() => this.#reports.has(messageId), waitMs, { summary: 'unknown whether the reply went out' });
    this.#reports.delete(messageId);
    try {
      return await settlement.lookUpSend.executeWithOptions({ summary: 'look the reply up at Kapso' }, [{ messageId, isLast }]);
    } catch (error) {
      // Anything but the activity's own failure is not ours to swallow.
      failureType(error);
      return { status: 'unconfirmed' };
    }
  }

  /** Reports about earlier replies: a late failure needs a person. */
  #applyReports(): void {
    if ([...this.#reports.values()].includes('failed')) this.#showAttention(true);
    this.#reports.clear();
  }

  /** The history is long, and what waits is small enough to be handed on: a larger inbox is worked on first. */
  #mayContinueAsNew(): boolean {
    const { continueAsNewSuggested, historyLength } = workflowInfo();
    const isLong = continueAsNewSuggested || historyLength >= (this.#input.maxHistoryEvents ?? Number.POSITIVE_INFINITY);
    return isLong && !this.#isEnding && JSON.stringify(this.#inbox.snapshot()).length < MAX_SNAPSHOT_JSON;
  }

  /** Handlers are synchronous, so none is running here; what waits in the inbox travels along. */
  async #continueAsNew(): Promise<never> {
    const continueAsNew = makeContinueAsNewFunc<typeof conversationWorkflow>();
    this.#applyReports();
    return await continueAsNew({
      ...this.#input,
      snapshot: {
        ...this.#inbox.snapshot(),
        totals: this.#result(),
        attention: this.#attention,
        mode: this.#mode,
        sessionTimeoutMs: this.#sessionTimeoutMs,
        lastReply: this.#lastReply,
        followUps: this.#followUps,
        ...(this.#conversationId ? { conversationId: this.#conversationId } : {}),
      },
    });
  }

  #showMode(mode: string): void {
    if (mode === this.#mode) return;
    this.#mode = mode;
    upsertSearchAttributes([{ key: modeAttribute, value: mode }]);
  }

  #showAttention(attention: boolean): void {
    if (attention === this.#attention) return;
    this.#attention = attention;
    upsertSearchAttributes([{ key: attentionAttribute, value: attention }]);
  }

  #say(phase: string): void {
    this.#phase = phase;
    const { messages, replies, failedTurns } = this.#totals;
    setCurrentDetails(
      [
        `WhatsApp conversation · number id ${this.#input.phoneNumberId}`,
        `**${phase}**${this.#attention ? ' · needs attention' : ''}`,
        `messages ${messages} · replies ${replies} · failed turns ${failedTurns} · waiting ${this.#inbox.size}`,
        `mode ${this.#mode} · last reply ${this.#lastReply}`,
        this.#conversationId ? `conversation ${this.#conversationId}` : '',
      ].join('\n\n'),
    );
  }

  #state(): ConversationState {
    return { ...this.#result(), phase: this.#phase, pendingMessages: this.#inbox.size, attention: this.#attention };
  }

  #result(): ConversationResult {
    return {
      ...this.#totals,
      duplicatesDropped: this.#totals.duplicatesDropped + this.#inbox.duplicatesDropped,
      ...(this.#conversationId ? { conversationId: this.#conversationId } : {}),
    };
  }
}

/** How long the customer must still be quiet; bounded from the turn's first message on. */
function quietLeftMs({ firstAtMs, lastAtMs, recorded: { timings } }: Turn): number {
  return Math.min(lastAtMs + timings.quietMs, firstAtMs + timings.quietMaxMs) - Date.now();
}

/** Whether the activity's last attempt ended because its worker did, which says nothing about whom it asked. */
function diedWithItsWorker(error: unknown): boolean {
  return error instanceof ActivityFailure && error.cause instanceof TimeoutFailure && error.cause.timeoutType === 'HEARTBEAT';
}

/** The dotted type of what an activity failed with, for the record; never its text. */
function failureType(error: unknown): string {
  if (!(error instanceof ActivityFailure)) throw error;
  const cause = error.cause;
  if (cause instanceof ApplicationFailure) return cause.type ?? 'unknown';
  return cause?.name ?? 'unknown';
}
