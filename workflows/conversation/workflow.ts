/**
 * One execution per person who writes to a workspace, for as long as they are writing.
 * It decides; activities act. Messages come in by signal only, are recorded when they arrive, wait for a quiet moment together,
 * and are answered by one reply. One turn at a time.
 */
import {
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  condition,
  isCancellation,
  log,
  makeContinueAsNewFunc,
  setHandler,
  sleep,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities, Draft, MovedTurn, Recorded, RecordOrder } from '../../activities';
import {
  type CallEnded,
  type ConversationInput,
  type ConversationResult,
  callEnded,
  conversationState,
  lookAgain,
  type MessagesReceived,
  MODE_ACTIONS,
  MODE_HELD,
  MODE_UNKNOWN_CONVERSATION,
  type ModeAction,
  type ModeChanged,
  type ModeOrder,
  messagesReceived,
  modeUpdates,
  sendReported,
  sendRequested,
} from '../contract';
import { failureType, REFUSED_BY_DATABASE } from '../failures';
import { records, workspaces } from '../proxies';
import { Bell } from './bell';
import { Delivery } from './delivery';
import { draftReply } from './draft-reply';
import { countElsewhere, handOver } from './hand-over';
import { HandSends } from './hand-sends';
import { countMessages, countOwners, Inbox } from './inbox';
import { checkModeOrder } from './mode-orders';
import { extendTurn, failTurn, quietLeftMs, type Turn } from './turn';
import { unlessRefused } from './unless-refused';
import { ConversationView } from './view';

/** Until the first record tells the workspace's own value. */
const DEFAULT_SESSION_TIMEOUT_MS = 30 * 60_000;

/** How long to wait for a workspace with the number. Parked messages stay in the database after that. */
const WAIT_FOR_WORKSPACE_MS = 24 * 60 * 60_000;

/** Temporal ends a workflow whose input is larger than 2 MB. */
const MAX_SNAPSHOT_JSON = 500_000;

type RecordOutcome = Awaited<ReturnType<Activities['recordInbound']>>;

export async function conversationWorkflow(input: ConversationInput): Promise<ConversationResult> {
  const conversation = new Conversation(input);
  CancellationScope.current().cancelRequested.catch(() => conversation.end());
  // What was taken is finished: a cancellation ends the session, not the turn.
  return await CancellationScope.nonCancellable(() => conversation.run());
}

function idsOf(deliveries: readonly MessagesReceived[]): string[] {
  return deliveries.flatMap(({ messages }) => messages.map(({ id }) => id));
}

/** Methods that only pass a promise on are no async functions: the SDK keeps a stack for each promise, which costs (docs/decisions/0005). */
class Conversation {
  readonly #input: ConversationInput;
  readonly #inbox: Inbox;
  readonly #view: ConversationView;
  readonly #delivery: Delivery;
  /** Messages that wait in the outbox to be sent after a call. */
  readonly #followUps: CallEnded[];
  /** See `Recorded.flow`: from 2 on, messages are recorded whatever else the conversation is doing. */
  #flow: number;
  /** Running while messages are being recorded. */
  #recording: Promise<void> | undefined;
  /** Wakes the main loop while it has nothing to do. */
  readonly #somethingHappened = new Bell();
  /** Wakes the recorder: a message has arrived while the main loop is answering. */
  readonly #arrivedMeanwhile = new Bell();
  /** A model thinks, or a reply is being sent. */
  #isAnswering = false;
  /** Recorded, and not yet being answered. */
  #open: Turn | undefined;
  /** Being drafted: what arrives meanwhile belongs to it. */
  #drafting: Turn | undefined;
  /** How often the bot was silenced: a draft that was begun before the last time is not used. */
  #silences = 0;
  /** Rings when a draft that is being written may have become obsolete. */
  readonly #draftChanged = new Bell();
  /** Changes that wait for their turn. */
  #waitingChanges = 0;
  readonly #handSends: HandSends;
  /** Messages of turns that this run has taken. A query that began earlier may still return them as open. */
  readonly #takenIds = new Set<string>();
  #sessionTimeoutMs: number;
  #lastActivityMs = Date.now();
  #sessionTimerRuns = false;
  #waitingSinceMs: number | undefined;
  /** How many messages of the inbox are parked: the oldest ones, while no workspace has the number. */
  #parkedCount = 0;
  #hasGivenUpOnWorkspace = false;
  #hasUnreportedLetters = false;
  /** The workflow that owns the person's conversation, while this one owns none. */
  #mergedInto: string | undefined;
  #isEnding = false;

  constructor(input: ConversationInput) {
    const snapshot = input.snapshot;
    this.#input = input;
    this.#inbox = new Inbox(snapshot?.pending, snapshot?.seenIds);
    this.#view = new ConversationView(input.phoneNumberId, this.#inbox, snapshot);
    this.#delivery = new Delivery(this.#view);
    this.#handSends = new HandSends(this.#delivery, this.#view, () => this.#handSendsEnded());
    this.#sessionTimeoutMs = snapshot?.sessionTimeoutMs ?? DEFAULT_SESSION_TIMEOUT_MS;
    this.#followUps = snapshot?.followUps ?? [];
    this.#flow = snapshot?.flow ?? 1;
    this.#open = snapshot?.open as Turn | undefined;
    this.#waitingSinceMs = snapshot?.waitingSinceMs;
    // Handlers never throw: an operator may have typed the argument in the Temporal UI.
    setHandler(messagesReceived, (received) => {
      this.#inbox.add(received);
      this.#somethingHappened.ring();
      if (this.#isAnswering) this.#arrivedMeanwhile.ring();
    });
    setHandler(sendReported, (report) => {
      this.#delivery.report(report);
      // After the timer or the cancellation that came with it: a session that is over ends without a look at the report, as in 0.1.
      void Promise.resolve().then(() => this.#somethingHappened.ring());
    });
    setHandler(callEnded, (call: CallEnded | undefined) => {
      if (typeof call?.conversationId !== 'string') return;
      this.#view.conversationId ??= call.conversationId;
      // The next prompt finds the note in the database; only a message to be sent is work.
      if (call.followUpId) this.#followUps.push(call);
      this.#somethingHappened.ring();
    });
    setHandler(lookAgain, (order) => {
      if (typeof order?.conversationId !== 'string') return;
      // The database refuses what is no id.
      void CancellationScope.nonCancellable(() => unlessRefused(this.#resume(order.conversationId)));
    });
    setHandler(sendRequested, (order) => {
      this.#handSends.add(order);
      this.#somethingHappened.ring();
    });
    for (const action of MODE_ACTIONS)
      setHandler(modeUpdates[action], (order) => CancellationScope.nonCancellable(() => this.#changeMode(action, order)), {
        validator: (order) => checkModeOrder(action, order),
      });
    setHandler(conversationState, () => this.#view.state());
  }

  /** Changes who answers; resolves once the change has taken effect. One change at a time, and none while messages are being recorded. */
  async #changeMode(action: ModeAction, order: ModeOrder): Promise<ModeChanged> {
    const options = { summary: `${action} by a person` };
    const verdict = await this.#alone(async () => {
      const { verdict: decided, recorded, sentenceId } = await records.changeMode.executeWithOptions(options, [{ action, order }]);
      // A draft that was begun before knows nothing of what the person did.
      if (decided.kind === 'changed' && action !== 'attend') this.#silences += 1;
      if (recorded) this.#applyState(recorded);
      if (recorded && sentenceId !== undefined) {
        const { conversationId, timings } = recorded;
        this.#handSends.add({ messageId: sentenceId, conversationId, sendConfirmMs: timings.sendConfirmMs });
      }
      return decided;
    });
    switch (verdict.kind) {
      case 'changed':
        return verdict.changed;
      case 'held': {
        const { heldBy, since } = verdict;
        throw ApplicationFailure.nonRetryable(`${heldBy} has the conversation since ${since}`, MODE_HELD, { heldBy, since });
      }
      case 'unknown':
        throw ApplicationFailure.nonRetryable('no such conversation', MODE_UNKNOWN_CONVERSATION);
    }
  }

  /** Reads the mode, and queues the messages that may be answered. `reopenIds`: messages of a turn whose draft was discarded. */
  async #resume(conversationId: string, reopenIds: string[] = []): Promise<void> {
    const options = { summary: 'see who answers, and what waits' };
    const order = { conversationId, ...(reopenIds.length > 0 ? { reopenIds } : {}) };
    await this.#alone(async () => {
      const recorded = await records.resumeConversation.executeWithOptions(options, [order]);
      if (recorded) this.#applyState(recorded);
    });
  }

  /** Runs a step, which applies its own result, while nothing else reads or changes what is open. */
  async #alone<T>(step: () => Promise<T>): Promise<T> {
    this.#waitingChanges += 1;
    while (this.#recording) await this.#recording;
    this.#waitingChanges -= 1;
    const running = step();
    const end = () => {
      this.#recording = undefined;
      this.#somethingHappened.ring();
      if (this.#isAnswering) this.#arrivedMeanwhile.ring();
    };
    this.#recording = running.then(end, end);
    this.#somethingHappened.ring();
    return await running;
  }

  #handSendsEnded(): void {
    this.#lastActivityMs = Date.now();
    this.#somethingHappened.ring();
  }

  async run(): Promise<ConversationResult> {
    // Here and not earlier: only now is it out of reach of a cancellation.
    if (this.#flow >= 2) void this.#recordMeanwhile();
    for (;;) {
      while (this.#nothingWaits() && this.#handSends.areRunning) await this.#somethingHappened.rung();
      if (this.#nothingWaits() && !this.#mergedInto) {
        this.#showIdle();
        while (this.#hasNothingToDo()) await this.#somethingHappened.rung();
      }
      // A person's message that came during the wait is sent before the session ends.
      if (this.#nothingWaits() && this.#handSends.areRunning) continue;
      // Nothing may be awaited between this look into the inbox and the return: a signal in between would be lost.
      if (this.#nothingWaits() && this.#mergedInto) return this.#endMerged(this.#mergedInto);
      if (this.#nothingWaits() && this.#isIdle()) return this.#view.result();
      if (this.#nothingWaits() && this.#isEnding) throw new CancelledFailure('an operator ended the session');
      if (this.#hasMessages()) {
        const turn = await this.#collectTurn();
        this.#startAnswering();
        if (turn) await this.#answer(turn);
        this.#isAnswering = false;
        const ended = this.#hasGivenUpOnWorkspace ? await this.#endWithoutWorkspace() : undefined;
        if (ended) return ended;
        this.#lastActivityMs = Date.now();
      } else if (this.#followUps.length > 0) {
        this.#startAnswering();
        await this.#followUp();
        this.#isAnswering = false;
      } else this.#delivery.applyReports();
      if (this.#mayContinueAsNew()) await this.#continueAsNew();
    }
  }

  #hasMessages(): boolean {
    return !this.#inbox.isEmpty || this.#recording !== undefined || this.#open !== undefined || this.#waitingChanges > 0;
  }

  #nothingWaits(): boolean {
    return !this.#hasMessages() && this.#followUps.length === 0;
  }

  /** Ends the session as soon as nothing waits. */
  end(): void {
    this.#isEnding = true;
    this.#somethingHappened.ring();
  }

  /** One session timer serves many messages. */
  #showIdle(): void {
    this.#view.showPhase('waiting for a message');
    if (!this.#sessionTimerRuns) this.#startSessionTimer();
  }

  #hasNothingToDo(): boolean {
    return this.#nothingWaits() && this.#sessionTimerRuns && !this.#delivery.hasReports && !this.#isEnding;
  }

  #startSessionTimer(): void {
    const remainingMs = Math.max(1, this.#lastActivityMs + this.#sessionTimeoutMs - Date.now());
    this.#sessionTimerRuns = true;
    const fired = () => {
      this.#sessionTimerRuns = false;
      this.#somethingHappened.ring();
    };
    void sleep(remainingMs, { summary: 'session ends when nothing is said' }).then(fired, fired);
  }

  #isIdle(): boolean {
    return !this.#sessionTimerRuns && Date.now() - this.#lastActivityMs >= this.#sessionTimeoutMs;
  }

  /** Waits until the customer has been quiet for a moment. Undefined if nothing that arrived needs a reply. */
  async #collectTurn(): Promise<Turn | undefined> {
    for (let isQuiet = false; ; ) {
      if (this.#hasArrivals()) {
        this.#view.showPhase('recording');
        await this.#recordArrivals();
      }
      const turn = this.#open;
      const quietMs: number = turn && !isQuiet && !this.#hasGivenUpOnWorkspace ? quietLeftMs(turn) : 0;
      if (quietMs <= 0) {
        this.#open = undefined;
        return turn;
      }
      this.#view.showPhase('waiting for the customer to finish');
      isQuiet = !(await condition(() => this.#hasArrivals(), quietMs, { summary: 'customer may still be typing' }));
    }
  }

  #hasArrivals(): boolean {
    return !this.#inbox.isEmpty || this.#recording !== undefined;
  }

  /** Flow 2: records what arrives while the main loop is answering. Otherwise the main loop does. */
  async #recordMeanwhile(): Promise<void> {
    for (;;) {
      while (this.#mayRecordMeanwhile()) await this.#recordArrivals();
      await this.#arrivedMeanwhile.rung();
    }
  }

  /** What waits for a workspace is the main loop's affair. */
  #mayRecordMeanwhile(): boolean {
    return this.#isAnswering && !this.#inbox.isEmpty && this.#recording === undefined && this.#waitingSinceMs === undefined;
  }

  /** Moves the inbox to the database, one run at a time: concurrent callers get the same promise. The inbox must not be empty. */
  #recordArrivals(): Promise<void> {
    this.#recording ??= this.#drainInbox();
    return this.#recording;
  }

  async #drainInbox(): Promise<void> {
    try {
      while (!this.#inbox.isEmpty) {
        const arrivedAtMs = Date.now();
        const deliveries = this.#inbox.takeAll();
        const outcome = await this.#record(deliveries);
        if (outcome.kind === 'unknown_number') {
          // Parked by now. They are recorded when a workspace has the number, or by the next run.
          this.#inbox.putBack(deliveries);
          const flow = outcome.flow ?? 1;
          // Flow 1 took what arrived while these were being parked for parked as well.
          this.#parkedCount = flow >= 2 ? countMessages(deliveries) : this.#inbox.size;
          if (!(await this.#workspaceAppeared(flow))) return;
        } else {
          this.#apply(outcome, deliveries, arrivedAtMs);
          if ('elsewhere' in outcome && outcome.elsewhere) await handOver(deliveries, outcome.elsewhere, this.#inbox);
          if (outcome.kind === 'recorded' && this.#hasUnreportedLetters) await this.#reportDeadLetters(outcome.conversationId);
        }
      }
    } finally {
      this.#recording = undefined;
    }
  }

  #apply(outcome: Exclude<RecordOutcome, { kind: 'unknown_number' }>, deliveries: MessagesReceived[], arrivedAtMs: number): void {
    switch (outcome.kind) {
      case 'recorded':
        this.#mergedInto = undefined;
        this.#inbox.forget(deliveries, outcome.refusedIds ?? []);
        this.#applyRecorded(outcome, countMessages(deliveries) - countElsewhere(outcome.elsewhere) - countOwners(deliveries), arrivedAtMs);
        return;
      case 'elsewhere':
        this.#inbox.forget(deliveries, outcome.refusedIds ?? []);
        this.#waitingSinceMs = undefined;
        this.#mergedInto = outcome.ownsConversation ? undefined : outcome.elsewhere.at(-1)?.workflowId;
        return;
      case 'refused':
        this.#inbox.forget(deliveries, idsOf(deliveries));
        this.#hasUnreportedLetters = true;
        this.#view.showAttention(true);
    }
  }

  /** Requests attention late: when a person's first message was refused, there was no conversation to mark yet. */
  async #reportDeadLetters(conversationId: string): Promise<void> {
    this.#hasUnreportedLetters = false;
    const order = {
      conversationId,
      kind: 'dead_letter',
      reason: 'the database refused an earlier message; it is kept as a dead letter',
    } as const;
    const summary = 'an earlier message is a dead letter: needs attention';
    await unlessRefused(records.requestAttention.executeWithOptions({ summary }, [order]));
    this.#view.showAttention(true);
  }

  #record(deliveries: MessagesReceived[]): Promise<RecordOutcome> {
    const count = countMessages(deliveries);
    const options = { summary: `record ${count} message${count === 1 ? '' : 's'}` };
    return records.recordInbound.executeWithOptions(options, [this.#recordOrder(deliveries)]).catch((error: unknown) => {
      if (failureType(error) !== REFUSED_BY_DATABASE) throw error;
      log.error('the database refused messages, and to keep them as dead letters', { count });
      return { kind: 'refused' };
    });
  }

  #applyRecorded(recorded: Recorded, count: number, arrivedAtMs: number): void {
    this.#view.totals.messages += count;
    this.#waitingSinceMs = undefined;
    this.#applyState(recorded, arrivedAtMs);
  }

  #applyState(recorded: Recorded, arrivedAtMs = Date.now()): void {
    this.#view.conversationId = recorded.conversationId;
    this.#sessionTimeoutMs = recorded.timings.sessionTimeoutMs;
    this.#view.showMode(recorded.mode);
    this.#view.showAttention(recorded.needsAttention);
    if (recorded.isSilent) this.#silence();
    else this.#collect(recorded, arrivedAtMs);
    this.#draftChanged.ring();
    const recordsMeanwhile = this.#flow >= 2;
    this.#flow = Math.max(this.#flow, recorded.flow ?? 1);
    if (!recordsMeanwhile && this.#flow >= 2) void this.#recordMeanwhile();
  }

  /** Open messages wait in the database. */
  #silence(): void {
    this.#silences += 1;
    this.#open = undefined;
  }

  /** Adds what wants a reply to the turn that is being drafted, else to the next one. */
  #collect(recorded: Recorded, arrivedAtMs: number): void {
    const answerableIds = this.#flow < 2 ? recorded.answerableIds : recorded.answerableIds.filter((id) => !this.#takenIds.has(id));
    const fresh = { ...recorded, answerableIds };
    if (this.#drafting) extendTurn(this.#drafting, fresh, arrivedAtMs);
    else this.#open = extendTurn(this.#open, fresh, arrivedAtMs);
  }

  #recordOrder(deliveries: MessagesReceived[]): RecordOrder {
    const { phoneNumberId, contactKey } = this.#input;
    return { phoneNumberId, contactKey, workflowId: workflowInfo().workflowId, deliveries };
  }

  /**
   * Waits until a workspace has the number; parks what arrives meanwhile. Returns false if the history grows too long (the next run
   * continues to wait) or, from flow 2 on, if the session was ended or a day has passed.
   */
  async #workspaceAppeared(flow: number): Promise<boolean> {
    const { phoneNumberId } = this.#input;
    this.#view.showAttention(true);
    this.#waitingSinceMs ??= Date.now();
    const waiting = new CancellationScope();
    let appeared = false;
    let isOver = false;
    const summary = `wait for a workspace with number id ${phoneNumberId}`;
    const asked = waiting.run(() => workspaces.awaitWorkspace.executeWithOptions({ summary }, [{ phoneNumberId }]));
    const answered = asked.then(
      () => {
        appeared = true;
      },
      (error: unknown) => {
        // Cancelled below, when nobody waits for it any more.
        if (!isCancellation(error)) throw error;
      },
    );
    if (flow >= 2) {
      const forMs = this.#input.waitForWorkspaceMs ?? WAIT_FOR_WORKSPACE_MS;
      const leftMs = Math.max(1, this.#waitingSinceMs + forMs - Date.now());
      const end = () => {
        isOver = true;
      };
      void waiting.run(() => condition(() => this.#isEnding, leftMs, { summary: 'give up waiting for a workspace' })).then(end, end);
    }
    while (!appeared && !this.#mayContinueAsNew()) {
      this.#view.showPhase(`waiting for a workspace with number id ${phoneNumberId}`);
      await Promise.race([answered, condition(() => this.#hasUnparked() || isOver)]);
      if (this.#hasUnparked() && !appeared) await this.#parkArrivals();
      else if (isOver && !appeared) {
        this.#hasGivenUpOnWorkspace = true;
        break;
      }
    }
    if (flow >= 2) waiting.cancel();
    return appeared;
  }

  #hasUnparked(): boolean {
    return this.#inbox.size > this.#parkedCount;
  }

  #parkArrivals(): Promise<RecordOutcome> {
    const arrived = this.#inbox.newest(this.#inbox.size - this.#parkedCount);
    this.#parkedCount = this.#inbox.size;
    return records.recordInbound.executeWithOptions({ summary: 'park what arrived meanwhile' }, [this.#recordOrder(arrived)]);
  }

  /** Everything was handed over; whoever writes next finds the owner through a new run. */
  #endMerged(mergedInto: string): ConversationResult {
    this.#view.showPhase(`merged into ${mergedInto}`);
    return { ...this.#view.result(), mergedInto };
  }

  /**
   * Parks what has arrived since; a new run works on it when a workspace has the number. Undefined if one has it after all: then this run
   * goes on.
   */
  async #endWithoutWorkspace(): Promise<ConversationResult | undefined> {
    // Nothing may be awaited between the last look at the inbox and the return: a signal in between would be lost.
    while (this.#hasUnparked() || this.#followUps.length > 0) {
      if (this.#followUps.length > 0) await this.#followUp();
      else if ((await this.#parkArrivals()).kind !== 'unknown_number') return this.#goOnWithWorkspace();
    }
    if (this.#isEnding) throw new CancelledFailure('an operator ended the session');
    return this.#view.result();
  }

  /** What is still in the inbox is recorded again, which changes nothing, and answered. */
  #goOnWithWorkspace(): undefined {
    this.#hasGivenUpOnWorkspace = false;
    this.#waitingSinceMs = undefined;
  }

  /** From here on, the recorder takes what arrives. */
  #startAnswering(): void {
    this.#isAnswering = true;
    if (!this.#inbox.isEmpty) this.#arrivedMeanwhile.ring();
  }

  async #answer(turn: Turn): Promise<void> {
    const { conversationId, timings } = turn.recorded;
    this.#drafting = turn;
    const silences = this.#silences;
    const isStale = () => this.#silences > silences;
    const drafted = await draftReply(turn, this.#view, { isStale, changed: this.#draftChanged });
    this.#drafting = undefined;
    if ('withheld' in drafted || isStale()) return await this.#withhold(turn);
    if ('moved' in drafted) return this.#leaveToOwner(turn, drafted.moved);
    const { askedIds } = drafted;
    this.#take(turn, askedIds);
    if ('failure' in drafted) return await this.#turnFailed(turn, askedIds, drafted.failure);
    const { draft } = drafted;
    const { messageId, partIds = [] } = draft;
    const reply = { messageId, conversationId, sendConfirmMs: timings.sendConfirmMs, answeredIds: askedIds, flow: this.#flow };
    const delivered = await this.#delivery.deliverParts(reply, partIds);
    if (delivered === 'withheld') await this.#withhold({ ...turn, messageIds: askedIds });
    else this.#answered(draft, delivered === 'sent');
  }

  /** The bot was silenced: unanswered messages wait for the person, or for its next turn. */
  async #withhold({ messageIds, recorded: { conversationId } }: Turn): Promise<void> {
    for (const id of messageIds) this.#takenIds.delete(id);
    await this.#resume(conversationId, messageIds);
  }

  /** The owner answers the messages that moved. The rest of this turn, if any, becomes the next turn. */
  #leaveToOwner(turn: Turn, { messageIds: movedIds, workflowId }: MovedTurn['moved']): void {
    this.#mergedInto = workflowId;
    const messageIds = turn.messageIds.filter((id) => !movedIds.includes(id));
    if (messageIds.length > 0) this.#open = { ...turn, messageIds };
  }

  /** What arrived after the last ask is the next turn. */
  #take(turn: Turn, askedIds: string[]): void {
    for (const id of askedIds) this.#takenIds.add(id);
    const messageIds = turn.messageIds.filter((id) => !this.#takenIds.has(id));
    if (messageIds.length > 0) this.#open = { ...turn, messageIds, firstAtMs: turn.lastAtMs };
  }

  #answered(draft: Draft, isDelivered: boolean): void {
    const { totals } = this.#view;
    // Unknown if the server does not report it.
    totals.promptTokens += draft.promptTokens ?? 0;
    totals.completionTokens += draft.completionTokens ?? 0;
    if (isDelivered) {
      totals.replies += 1;
      this.#view.replied(`by ${draft.provider} (${draft.model})`);
    } else {
      totals.failedTurns += 1;
      this.#view.showAttention(true);
    }
  }

  async #turnFailed({ recorded: { conversationId } }: Turn, messageIds: string[], reason: string): Promise<void> {
    await failTurn({ conversationId, messageIds, reason }, 'no reply: needs attention');
    this.#view.totals.failedTurns += 1;
    this.#view.failed(reason);
    this.#view.showAttention(true);
  }

  /** Sends what a call has left in the outbox, with the same care as a reply. */
  async #followUp(): Promise<void> {
    const call = this.#followUps.shift();
    if (!call?.followUpId) return;
    const { conversationId, sendConfirmMs } = call;
    const reply = { messageId: call.followUpId, conversationId, sendConfirmMs, answeredIds: [], flow: this.#flow };
    const delivered = await this.#delivery.deliver(reply);
    if (delivered === 'sent') this.#view.replied('after a voice call');
    if (delivered === 'failed') this.#view.showAttention(true);
    this.#lastActivityMs = Date.now();
  }

  /** The history is long, and what waits is small enough to be handed on: a larger inbox is worked on first. */
  #mayContinueAsNew(): boolean {
    const { continueAsNewSuggested, historyLength } = workflowInfo();
    const isLong = continueAsNewSuggested || historyLength >= (this.#input.maxHistoryEvents ?? Number.POSITIVE_INFINITY);
    const isFree = !this.#isEnding && !this.#mergedInto && !this.#handSends.areRunning;
    return isLong && isFree && JSON.stringify(this.#inbox.snapshot()).length < MAX_SNAPSHOT_JSON;
  }

  /**
   * No handler is running once nothing is being recorded and no change waits; what waits in the inbox travels along. Returns if a person's
   * message has come meanwhile, which is sent first.
   */
  async #continueAsNew(): Promise<void> {
    // The next run may be on a newer version of the worker; servers before 1.30 keep it on this one (docs/decisions/0010).
    const continueAsNew = makeContinueAsNewFunc<typeof conversationWorkflow>({ initialVersioningBehavior: 'AUTO_UPGRADE' });
    while (this.#recording || this.#waitingChanges > 0) await this.#recording;
    if (this.#handSends.areRunning) return;
    this.#delivery.applyReports();
    await continueAsNew({
      ...this.#input,
      snapshot: {
        ...this.#inbox.snapshot(),
        ...this.#view.snapshot(),
        sessionTimeoutMs: this.#sessionTimeoutMs,
        followUps: this.#followUps,
        flow: this.#flow,
        ...(this.#open ? { open: this.#open } : {}),
        ...(this.#waitingSinceMs === undefined ? {} : { waitingSinceMs: this.#waitingSinceMs }),
      },
    });
  }
}
