/**
 * The walk along the provider chain: if a provider fails, the next one is called at once, and the failed one again after a growing pause or
 * its own `Retry-After`, until one has answered or the turn times out.
 */
import { CancellationScope, condition, isCancellation, log, sleep } from '@temporalio/workflow';
import type { Draft, DraftOrder, MovedTurn, WithheldTurn } from '../../activities';
import { CODE_FAULT, failureType, isTimeout, modelFailure, REFUSED_BY_DATABASE } from '../failures';
import { model, records } from '../proxies';
import type { Bell } from './bell';
import { type Candidate, Chain } from './chain';
import type { DraftResult, Turn } from './turn';
import { unlessRefused } from './unless-refused';
import type { ConversationView } from './view';

/** On top of an attempt's timeout, for loading the prompt and storing the draft. */
const MODEL_GRACE_MS = 20_000;

/** Gateways that restart are back within a second or two. */
const FIRST_PAUSE_MS = 1_000;
/** The most that a customer waits after the end of an outage; each waiting conversation then calls twice a minute. */
const LONGEST_PAUSE_MS = 30_000;

/** By then an operator should know that a customer is waiting. */
const ATTENTION_AFTER_MS = 60_000;

/** Waits after failures of our own. The first retry is immediate: if a worker has died, another one is usually there. */
const OWN_FIRST_PAUSE_MS = 1_000;
const OWN_LONGEST_PAUSE_MS = 20_000;

/** Attempts at one provider that ended with their worker: more than deployments explain, so the attempt itself may be what kills it. */
const MAX_LOST_ATTEMPTS = 10;

/** Temporal accepts 400 bytes, and a model's name may be long and in any script. */
const MAX_SUMMARY_LENGTH = 120;

/** How often a turn's draft is discarded for later messages, so that a customer who never stops writing still gets a reply. */
const MAX_RESTARTS = 2;

type Answer = Draft | MovedTurn | WithheldTurn;

type Choice = Turn['recorded']['providers'][number];

/** What can make a draft obsolete while it is being written. */
export interface Interruption {
  /** Whether somebody has taken over since the turn began, so that no draft of it may be used. */
  isStale(): boolean;
  /** Rings when that, or the turn, has changed. */
  changed: Bell;
}

/** The result of a cancelled step is ignored. */
function ignoreCancellation(error: unknown): void {
  if (!isCancellation(error)) log.warn('a step that nobody waits for any more has failed');
}

/** One turn's walk. If the first attempt succeeds, it adds no other command to the history. */
export class ProviderWalk {
  readonly #turn: Turn;
  readonly #view: ConversationView;
  readonly #chain: Chain<Choice>;
  readonly #attentionAtMs: number;
  /** Extended by the time that failures of our own cost. */
  #deadlineMs: number;
  #askedIds: string[];
  readonly #lostReplyToIds = new Set<string>();
  readonly #lostAttempts = new Map<Candidate<Choice>, number>();
  #ownFailures = 0;
  #hasRequestedAttention = false;
  readonly #interruption: Interruption;
  /** Messages whose own draft was discarded for a later message. */
  readonly #supersededIds = new Set<string>();
  #restarts = 0;

  constructor(turn: Turn, view: ConversationView, interruption: Interruption) {
    this.#interruption = interruption;
    const { timings } = turn.recorded;
    this.#turn = turn;
    this.#view = view;
    this.#askedIds = [...turn.messageIds];
    this.#chain = new Chain({ firstMs: timings.firstPauseMs ?? FIRST_PAUSE_MS, longestMs: timings.longestPauseMs ?? LONGEST_PAUSE_MS });
    this.#attentionAtMs = Date.now() + (timings.attentionAfterMs ?? ATTENTION_AFTER_MS);
    this.#deadlineMs = Date.now() + timings.turnMs;
  }

  async run(): Promise<DraftResult> {
    for (;;) {
      if (this.#interruption.isStale()) return { withheld: true, askedIds: this.#askedIds };
      // Each time anew, because a message that has arrived since brings the current settings.
      this.#chain.use(this.#turn.recorded.providers);
      const { nextAtMs } = this.#chain;
      if (nextAtMs === undefined) return this.#failed(`no model can answer: ${this.#chain.report}`);
      if (Date.now() >= this.#deadlineMs) return this.#failed(`no model answered in time: ${this.#chain.report}`);
      const candidate = this.#chain.next(Date.now());
      if (!candidate) {
        await this.#pause(nextAtMs);
        continue;
      }
      const askedAtMs = Date.now();
      candidate.attempts += 1;
      this.#askedIds = [...this.#turn.messageIds];
      try {
        const answer = await this.#ask(candidate, this.#attemptMs(candidate));
        if (this.#interruption.isStale()) return { withheld: true, askedIds: this.#askedIds };
        if (this.#isOutdated()) {
          this.#restart(candidate);
          continue;
        }
        if (answer === undefined) continue;
        if (this.#hasRequestedAttention) await this.#clearAttention();
        if ('moved' in answer) return { ...answer, askedIds: [] };
        if ('withheld' in answer) return { ...answer, askedIds: this.#askedIds };
        return { draft: answer, askedIds: answer.coveredIds ?? this.#askedIds };
      } catch (error) {
        if (failureType(error) === REFUSED_BY_DATABASE)
          return this.#failed('the database refused to load the prompt or to store the draft');
        // No other provider would change it, and no retry.
        if (failureType(error) === CODE_FAULT) return this.#failed(modelFailure(error).text);
        await this.#attemptFailed(candidate, askedAtMs, error);
      }
    }
  }

  /** Undefined if the attempt was ended, because nobody would use its draft. */
  #ask(candidate: Candidate<Choice>, attemptMs: number): Promise<Answer | undefined> {
    const ask = () => this.#watched(this.#generate(candidate, attemptMs), attemptMs + MODEL_GRACE_MS);
    return this.#unless(() => this.#interruption.isStale() || this.#isOutdated(), ask);
  }

  /** The result of `step`; undefined if it was cancelled, because `isPointless` has become true. */
  async #unless<T>(isPointless: () => boolean, step: () => Promise<T>): Promise<T | undefined> {
    const scope = new CancellationScope();
    const running = scope.run(step);
    for (;;) {
      const first = await Promise.race([running.then((result) => ({ result })), this.#interruption.changed.rung()]);
      if (first) return first.result;
      if (!isPointless()) continue;
      running.catch(ignoreCancellation);
      scope.cancel();
      return undefined;
    }
  }

  /** Whether a message has arrived since the model was called, so that its draft is discarded. */
  #isOutdated(): boolean {
    const { recorded, messageIds } = this.#turn;
    return recorded.onNewMessage === 'restart' && this.#restarts < MAX_RESTARTS && messageIds.length > this.#askedIds.length;
  }

  /** The same provider is called again: it was not at fault. */
  #restart(candidate: Candidate<Choice>): void {
    this.#restarts += 1;
    candidate.attempts -= 1;
    for (const id of this.#askedIds) this.#supersededIds.add(id);
  }

  #failed(failure: string): DraftResult {
    return { failure, askedIds: this.#askedIds };
  }

  async #attemptFailed(candidate: Candidate<Choice>, askedAtMs: number, error: unknown): Promise<void> {
    const type = failureType(error);
    const isLost = isTimeout(error) || type === 'WorkerError.Stopping';
    if (isLost && this.#countLostAttempt(candidate) >= MAX_LOST_ATTEMPTS) {
      const text = `the worker died or hung ${MAX_LOST_ATTEMPTS} times while it called ${candidate.choice.provider}`;
      this.#chain.failed(candidate, { text, isPermanent: true }, Date.now());
    } else if (isLost || type === 'RecordError.Unavailable') await this.#recover(candidate, askedAtMs);
    else this.#chain.failed(candidate, modelFailure(error), Date.now());
  }

  #generate({ choice: { provider, model: name }, attempts }: Candidate<Choice>, attemptMs: number): Promise<Answer> {
    const { conversationId } = this.#turn.recorded;
    const order: DraftOrder = {
      conversationId,
      messageIds: this.#askedIds,
      provider,
      model: name,
      attemptMs,
      attempt: attempts,
      takesParts: true,
      supportsSilence: true,
      ...(this.#supersededIds.size > 0 ? { supersededIds: [...this.#supersededIds] } : {}),
      ...(this.#lostReplyToIds.size > 0 ? { lostReplyToIds: [...this.#lostReplyToIds] } : {}),
    };
    if (!this.#hasRequestedAttention) this.#view.showPhase(`asking ${provider}`);
    const options = {
      summary: attempts === 1 ? `reply via ${provider}` : `reply via ${provider}, attempt ${attempts}`,
      // Without a schedule-to-start timeout, so that an outage of all workers fails no attempt.
      startToCloseTimeout: order.attemptMs + MODEL_GRACE_MS,
      // This walk decides what follows a failure.
      retry: { maximumAttempts: 1 },
    };
    return model.generateReply.executeWithOptions(options, [order]);
  }

  #attemptMs(candidate: Candidate<Choice>): number {
    const { modelAttemptMs, providerAttemptMs } = this.#turn.recorded.timings;
    const leftMs = this.#deadlineMs - Date.now();
    // As in workers before 0.3: a longer attempt starts a timer that their histories do not have.
    if (!providerAttemptMs) return Math.max(1, Math.min(modelAttemptMs, leftMs));
    return this.#chain.boundMs(candidate, providerAttemptMs[candidate.choice.provider] ?? modelAttemptMs, leftMs);
  }

  /** Requests attention in the middle of an attempt if it takes too long. Starts a timer only if the attempt could. */
  #watched<T>(asking: Promise<T>, longestMs: number): Promise<T> {
    const leftMs = this.#attentionAtMs - Date.now();
    return this.#hasRequestedAttention || longestMs <= leftMs ? asking : this.#watchedFor(leftMs, asking);
  }

  async #watchedFor<T>(leftMs: number, asking: Promise<T>): Promise<T> {
    let isOver = false;
    const end = () => {
      isOver = true;
    };
    void asking.then(end, end);
    const options = { summary: 'request attention if there is no reply by then' };
    if (!(await condition(() => isOver, Math.max(1, leftMs), options))) await this.#requestAttention();
    return await asking;
  }

  /** A failure of our own does not count against the provider or the turn. A database outage is waited out, however long it takes. */
  async #recover({ choice: { provider } }: Candidate<Choice>, askedAtMs: number): Promise<void> {
    const lastId = this.#askedIds.at(-1);
    if (lastId) this.#lostReplyToIds.add(lastId);
    const pauseMs = this.#ownFailures === 0 ? 0 : Math.min(OWN_FIRST_PAUSE_MS * 2 ** (this.#ownFailures - 1), OWN_LONGEST_PAUSE_MS);
    this.#ownFailures += 1;
    if (pauseMs > 0) {
      const summary = `call ${provider} again: the last attempt was lost`;
      if (!this.#hasRequestedAttention) this.#view.showPhase(summary);
      await sleep(pauseMs, { summary });
    }
    this.#deadlineMs += Date.now() - askedAtMs;
  }

  #countLostAttempt(candidate: Candidate<Choice>): number {
    const count = (this.#lostAttempts.get(candidate) ?? 0) + 1;
    this.#lostAttempts.set(candidate, count);
    return count;
  }

  /** Waits until a provider may be called again, attention is due, or the turn times out. */
  async #pause(nextAtMs: number): Promise<void> {
    const reason = this.#showPhase();
    const untilMs = Math.min(nextAtMs, this.#deadlineMs, this.#hasRequestedAttention ? Number.POSITIVE_INFINITY : this.#attentionAtMs);
    const options = { summary: `try again: ${reason}`.slice(0, MAX_SUMMARY_LENGTH) };
    await this.#unless(this.#interruption.isStale, () => sleep(Math.max(1, untilMs - Date.now()), options));
    if (!this.#hasRequestedAttention && Date.now() >= this.#attentionAtMs) await this.#requestAttention();
  }

  #showPhase(): string {
    const { waitingFor } = this.#chain;
    this.#view.showPhase(`waiting for a model: ${waitingFor}`);
    return waitingFor;
  }

  async #requestAttention(): Promise<void> {
    this.#hasRequestedAttention = true;
    const { conversationId } = this.#turn.recorded;
    const reason = `waiting for a model: ${this.#chain.waitingFor}`;
    const order = { conversationId, kind: 'waiting_for_model', reason } as const;
    await unlessRefused(records.requestAttention.executeWithOptions({ summary: 'no model answers: needs attention' }, [order]));
    this.#view.showAttention(true);
    this.#showPhase();
  }

  /** Not needed if the turn fails: the statement that records this clears it, too. */
  async #clearAttention(): Promise<void> {
    const { conversationId } = this.#turn.recorded;
    const order = { conversationId, kinds: ['waiting_for_model' as const] };
    const cleared = await unlessRefused(records.clearAttention.executeWithOptions({ summary: 'a model has answered' }, [order]));
    if (cleared) this.#view.showAttention(cleared.needsAttention);
  }
}
