/**
 * One execution per contact of a workspace, for as long as the person is writing.
 * It decides; activities act. Messages come in by signal only, are recorded, wait for a quiet moment together,
 * and are answered by one reply. One turn at a time.
 */
import {
  CancellationScope,
  CancelledFailure,
  condition,
  makeContinueAsNewFunc,
  setHandler,
  sleep,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities, Draft, Recorded, RecordOrder } from '../../activities';
import {
  type CallEnded,
  type ConversationInput,
  type ConversationResult,
  callEnded,
  conversationState,
  type MessagesReceived,
  messagesReceived,
  sendReported,
} from '../contract';
import { records, workspaces } from '../proxies';
import { Delivery } from './delivery';
import { Inbox } from './inbox';
import { draftReply, extendTurn, quietLeftMs, type Turn } from './turn';
import { ConversationView } from './view';

/** Until the first record tells the workspace's own value. */
const DEFAULT_SESSION_TIMEOUT_MS = 30 * 60_000;

/** Temporal ends a workflow whose input is larger than 2 MB. */
const MAX_SNAPSHOT_JSON = 500_000;

type RecordOutcome = Awaited<ReturnType<Activities['recordInbound']>>;

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
  readonly #view: ConversationView;
  readonly #delivery: Delivery;
  /** Messages that wait in the outbox to be sent after a call. */
  readonly #followUps: CallEnded[];
  #sessionTimeoutMs: number;
  #lastActivityMs = Date.now();
  #sessionTimerRuns = false;
  #isEnding = false;

  constructor(input: ConversationInput) {
    const snapshot = input.snapshot;
    this.#input = input;
    this.#inbox = new Inbox(snapshot?.pending, snapshot?.seenIds);
    this.#view = new ConversationView(input.phoneNumberId, this.#inbox, snapshot);
    this.#delivery = new Delivery(this.#view);
    this.#sessionTimeoutMs = snapshot?.sessionTimeoutMs ?? DEFAULT_SESSION_TIMEOUT_MS;
    this.#followUps = snapshot?.followUps ?? [];
    setHandler(messagesReceived, (received: MessagesReceived) => {
      this.#inbox.add(received);
    });
    setHandler(sendReported, (report) => this.#delivery.report(report));
    setHandler(callEnded, (call) => {
      this.#view.conversationId ??= call.conversationId;
      // The note stands in the record, where the next prompt finds it; only a message to be sent is work.
      if (call.followUpId) this.#followUps.push(call);
    });
    setHandler(conversationState, () => this.#view.state());
  }

  async run(): Promise<ConversationResult> {
    for (;;) {
      if (this.#nothingWaits()) await this.#somethingToDo();
      // Nothing may be awaited between this look into the inbox and the return: a signal in between would be lost.
      if (this.#nothingWaits() && this.#isIdle()) return this.#view.result();
      if (this.#nothingWaits() && this.#isEnding) throw new CancelledFailure('an operator ended the session');
      if (!this.#inbox.isEmpty) {
        const turn = await this.#collectTurn();
        if (turn) await this.#answer(turn);
        this.#lastActivityMs = Date.now();
      } else if (this.#followUps.length > 0) await this.#followUp();
      else this.#delivery.applyReports();
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
    this.#view.showPhase('waiting for a message');
    if (!this.#sessionTimerRuns) this.#startSessionTimer();
    return condition(() => !this.#nothingWaits() || !this.#sessionTimerRuns || this.#delivery.hasReports || this.#isEnding);
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
      turn = extendTurn(turn, recorded, arrivedAtMs);
      const quietMs = turn ? quietLeftMs(turn) : 0;
      if (quietMs > 0) await this.#quiet(quietMs);
    }
    return turn;
  }

  /** Ends early when more arrives. */
  #quiet(waitMs: number): Promise<boolean> {
    this.#view.showPhase('waiting for the customer to finish');
    return condition(() => !this.#inbox.isEmpty, waitMs, { summary: 'customer may still be typing' });
  }

  #record(delivery: MessagesReceived): Promise<RecordOutcome> {
    this.#view.showPhase('recording');
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
    this.#view.totals.messages += delivery.messages.length;
    this.#view.conversationId = outcome.conversationId;
    this.#sessionTimeoutMs = outcome.timings.sessionTimeoutMs;
    this.#view.showMode(outcome.mode);
    this.#view.showAttention(outcome.needsAttention);
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
    this.#view.showAttention(true);
    let appeared = false;
    const waiting = workspaces.awaitWorkspace
      .executeWithOptions({ summary: `wait for a workspace with number id ${phoneNumberId}` }, [{ phoneNumberId }])
      .then(() => {
        appeared = true;
      });
    let parked = this.#inbox.size;
    while (!appeared && !this.#mayContinueAsNew()) {
      this.#view.showPhase(`waiting for a workspace with number id ${phoneNumberId}`);
      await Promise.race([waiting, condition(() => this.#inbox.size > parked)]);
      if (appeared || this.#inbox.size === parked) continue;
      const arrived = this.#inbox.newest(this.#inbox.size - parked);
      parked = this.#inbox.size;
      await records.recordInbound.executeWithOptions({ summary: 'park what arrived meanwhile' }, [this.#recordOrder(arrived)]);
    }
    return appeared;
  }

  async #answer(turn: Turn): Promise<void> {
    const { conversationId, timings } = turn.recorded;
    const draft = await draftReply(turn, this.#view);
    if ('failure' in draft) return await this.#turnFailed(turn, draft.failure);
    const { messageId } = draft;
    const { sendConfirmMs } = timings;
    this.#answered(draft, await this.#delivery.deliver({ messageId, conversationId, sendConfirmMs, answeredIds: turn.messageIds }));
  }

  #answered(draft: Draft, isDelivered: boolean): void {
    const { totals } = this.#view;
    totals.promptTokens += draft.promptTokens;
    totals.completionTokens += draft.completionTokens;
    if (isDelivered) {
      totals.replies += 1;
      // The model has seen what went unanswered before, and the customer has heard from us.
      this.#view.showAttention(false);
      this.#view.lastReply = `by ${draft.provider} (${draft.model})`;
    } else {
      totals.failedTurns += 1;
      this.#view.showAttention(true);
    }
  }

  async #turnFailed(turn: Turn, reason: string): Promise<void> {
    await records.recordFailedTurn.executeWithOptions({ summary: 'no reply: needs attention' }, [
      { conversationId: turn.recorded.conversationId, messageIds: turn.messageIds, reason },
    ]);
    this.#view.totals.failedTurns += 1;
    this.#view.showAttention(true);
  }

  /** Sends what a call has left in the outbox, with the same care as a reply. */
  async #followUp(): Promise<void> {
    const call = this.#followUps.shift();
    if (!call?.followUpId) return;
    const { conversationId, sendConfirmMs } = call;
    const isDelivered = await this.#delivery.deliver({ messageId: call.followUpId, conversationId, sendConfirmMs, answeredIds: [] });
    if (isDelivered) this.#view.lastReply = 'after a voice call';
    else this.#view.showAttention(true);
    this.#lastActivityMs = Date.now();
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
    this.#delivery.applyReports();
    return await continueAsNew({
      ...this.#input,
      snapshot: {
        ...this.#inbox.snapshot(),
        ...this.#view.snapshot(),
        sessionTimeoutMs: this.#sessionTimeoutMs,
        followUps: this.#followUps,
      },
    });
  }
}
