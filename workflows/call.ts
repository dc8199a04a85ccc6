/**
 * One execution per voice call, until its result stands. It places the call, or follows one that others placed.
 * Vapi promises neither that an event comes, nor once, nor in order: states only go forward, every wait is bounded, and Vapi
 * itself is asked once when an event is missing. Placing is never repeated after an unknown outcome: a phone may ring.
 */
import { ActivityFailure, CancellationScope, condition, setCurrentDetails, setHandler, upsertSearchAttributes } from '@temporalio/workflow';
import type { DialVerdict as ActivityVerdict, CallEnding, CallLook } from '../activities';
import { startCallback } from './callback';
import {
  attentionAttribute,
  type CallInput,
  type CallReported,
  type CallResult,
  callOutcomeAttribute,
  callReported,
  callStatusAttribute,
  endRequested,
} from './contract';
import { calls, dialling, telling, voice } from './proxies';

/** Vapi's own names, from lowest to highest. A status that is not among them is recorded, and never applied. */
const HEIGHTS = ['scheduled', 'queued', 'ringing', 'in-progress', 'forwarding', 'ended'];

/** When, within the ring timeout, a call is looked for whose placement had no clear outcome. Nobody finds it: unknown. */
const SEARCHES = [0.05, 0.25, 1] as const;

/** A call that found no free slot is placed again after this long, doubled each time up to the second. */
const FIRST_PAUSE_MS = 5_000;
/** Vapi may name a shorter time; the first time it is believed, down to this. */
const SHORTEST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/** The longest that any call can be set to take (Vapi, `maxDurationSeconds`): for calls whose own bound is not known. */
const LONGEST_CALL_MS = 43_200_000;

/** The way in which Vapi ends a call that it did not place for want of a slot (Vapi, ended reasons). */
const NO_FREE_SLOT = /concurrency-limit-reached$/;

export async function callWorkflow(input: CallInput): Promise<CallResult> {
  const call = new Call(input);
  CancellationScope.current().cancelRequested.catch(() => call.requestEnd());
  // A phone may ring: a cancellation ends the call, not the following of it.
  return await CancellationScope.nonCancellable(() => call.run());
}

/** `named`: an event came before the answer. */
type DialVerdict = ActivityVerdict | { status: 'named' };

/** Why a call is over; `from_record`: as the record's facts say. */
type Over = { kind: 'from_record' } | { kind: 'decided'; ending: CallEnding } | { kind: 'no_free_slot'; providerCallId: string };

const CANCELED: Over = { kind: 'decided', ending: { outcome: 'canceled', endedReason: 'manually-canceled', needsAttention: false } };

class Call {
  readonly #input: CallInput;
  #providerCallId: string | undefined;
  readonly #formerIds = new Set<string>();
  #status = 'queued';
  #endedReason: string | undefined;
  #hasReport = false;
  #isEndRequested = false;
  #isEndAsked = false;
  /** The state in which Vapi knew no way to end the call: it is asked again in the next. */
  #noWayToEndIn: string | undefined;
  /** Placements that are known to have dialled nothing. */
  #dials = 0;
  #statusSinceMs = Date.now();
  #placedAtMs = Date.now();
  /** States in which Vapi was asked already: once is enough in each. */
  readonly #lookedIn = new Set<string>();
  #phase = 'starting';

  constructor(input: CallInput) {
    this.#input = input;
    setHandler(callReported, (report) => this.#apply(report));
    setHandler(endRequested, () => this.requestEnd());
  }

  requestEnd(): void {
    this.#isEndRequested = true;
    // Who asks a second time has seen the first one change nothing.
    this.#isEndAsked = false;
    this.#noWayToEndIn = undefined;
  }

  async run(): Promise<CallResult> {
    const queueUntilMs = Date.now() + this.#input.queueForMs;
    let isPlaced = !this.#input.dials;
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      const over = (isPlaced ? undefined : await this.#place(queueUntilMs)) ?? (await this.#follow());
      if (over.kind !== 'no_free_slot') return await this.#conclude(over);
      if (!this.#isEndRequested && Date.now() + pauseMs >= queueUntilMs) return await this.#conclude({ kind: 'from_record' });
      isPlaced = await this.#forgetPlacement(over.providerCallId);
      if (!isPlaced) await this.#pause(pauseMs);
    }
  }

  /** Undefined when Vapi has the call. */
  async #place(queueUntilMs: number): Promise<Over | undefined> {
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      if (this.#isEndRequested) return CANCELED;
      this.#say('dialling');
      const verdict = await this.#dial();
      this.#placedAtMs = Date.now();
      switch (verdict.status) {
        case 'placed':
          this.#providerCallId ??= verdict.providerCallId;
          this.#dials += 1;
          return undefined;
        case 'named':
          this.#dials += 1;
          return undefined;
        case 'refused':
          return { kind: 'decided', ending: { outcome: 'failed', endedReason: null, error: verdict.reason, needsAttention: true } };
        case 'unknown':
          return await this.#search(verdict.reason);
        case 'later': {
          this.#dials = verdict.dials;
          const waitMs = pauseBefore(verdict.retryAfterMs, pauseMs);
          if (Date.now() + waitMs > queueUntilMs) return neverPlaced(verdict.reason);
          this.#say(`queued: ${verdict.reason}`);
          await condition(() => this.#isEndRequested, Math.max(1, waitMs), { summary: `dial again: ${verdict.reason}` });
        }
      }
    }
  }

  /**
   * One request at most. When its end was lost with the worker, nobody knows whether a phone rings; an event that names the
   * call says it first.
   */
  async #dial(): Promise<DialVerdict> {
    const answered = dialling.dialCall
      .executeWithOptions({ summary: 'place the call' }, [{ callId: this.#input.callId, dials: this.#dials }])
      .catch(unknownOutcome);
    const named = condition(() => this.#providerCallId !== undefined).then((): DialVerdict => ({ status: 'named' }));
    return await Promise.race([answered, named]);
  }

  /** After an unknown outcome: a webhook names the call, Vapi's list does, or nobody does. */
  async #search(reason: string): Promise<Over | undefined> {
    for (const part of SEARCHES) {
      this.#say(`unknown whether the call was placed (${reason}): looking for it`);
      const waitMs = Math.max(1, this.#placedAtMs + this.#input.ringTimeoutMs * part - Date.now());
      await condition(() => this.#providerCallId !== undefined, waitMs, { summary: 'unknown whether a phone rings' });
      this.#providerCallId ??= await this.#find();
      if (this.#providerCallId !== undefined) {
        this.#dials += 1;
        return undefined;
      }
    }
    const error = `unknown whether the call was placed (${reason}), and Vapi does not list it`;
    return { kind: 'decided', ending: { outcome: 'unknown', endedReason: null, error, needsAttention: true } };
  }

  async #find(): Promise<string | undefined> {
    try {
      const found = await voice.findCall.executeWithOptions({ summary: 'look for the call at Vapi' }, [{ callId: this.#input.callId }]);
      return found ?? undefined;
    } catch (error) {
      if (!(error instanceof ActivityFailure)) throw error;
      return undefined;
    }
  }

  /**
   * Nothing was dialled by this placement, for certain: the row starts anew, and what still comes about the placement counts no more.
   * True when the row follows another one all the same, which then is to be followed here as well.
   */
  async #forgetPlacement(formerId: string): Promise<boolean> {
    this.#formerIds.add(formerId);
    this.#providerCallId = undefined;
    this.#endedReason = undefined;
    this.#hasReport = false;
    this.#isEndAsked = false;
    this.#noWayToEndIn = undefined;
    this.#lookedIn.clear();
    this.#enter('queued');
    const { followedId } = await calls.requeueCall.executeWithOptions({ summary: 'no free slot: queued again' }, [
      { callId: this.#input.callId, providerCallId: formerId },
    ]);
    this.#providerCallId ??= followedId ?? undefined;
    return this.#providerCallId !== undefined;
  }

  async #pause(pauseMs: number): Promise<void> {
    this.#say('queued: no free slot');
    await condition(() => this.#isEndRequested, pauseMs, { summary: 'no free slot: dial again' });
  }

  /** Until the report is stored, or it is clear that none will come. */
  async #follow(): Promise<Over> {
    for (;;) {
      if (this.#hasReport || this.#hadNoSlot()) return this.#overByRecord();
      if (this.#mayAskForEnd()) await this.#end();
      const status = this.#status;
      const waitMs = this.#deadlineMs() - Date.now();
      this.#say(phaseOf(status));
      const hasNews = () => this.#hasReport || this.#status !== status || this.#mayAskForEnd();
      const wasInTime = waitMs > 0 && (await condition(hasNews, waitMs, { summary: waitSummary(status) }));
      if (wasInTime || hasNews()) continue;
      const over = await this.#look();
      if (over) return over;
    }
  }

  /** Until when the present state may last without news. The last bound ends everything. */
  #deadlineMs(): number {
    const { dials, ringTimeoutMs, maxDurationMs, reportGraceMs } = this.#input;
    const longestMs = dials ? maxDurationMs : LONGEST_CALL_MS;
    if (this.#status === 'ended') return this.#statusSinceMs + reportGraceMs;
    // Twice what the call can take: the first look has found it alive later than expected.
    if (this.#lookedIn.has(this.#status)) return this.#placedAtMs + 2 * (ringTimeoutMs + longestMs + reportGraceMs);
    const isTalking = this.#status === 'in-progress' || this.#status === 'forwarding';
    return this.#statusSinceMs + (isTalking ? maxDurationMs + reportGraceMs : ringTimeoutMs);
  }

  /** Asks Vapi, once in each state. Undefined when the call goes on. */
  async #look(): Promise<Over | undefined> {
    const isLast = this.#status === 'ended' || this.#lookedIn.has(this.#status);
    this.#lookedIn.add(this.#status);
    this.#say('asking Vapi about the call');
    const look = await this.#ask();
    if (look.hasReport || look.isEnded) {
      this.#endedReason ??= look.endedReason;
      return this.#overByRecord();
    }
    if (this.#status === 'ended') return this.#overByRecord();
    if (look.status !== undefined) this.#rise(look.status);
    if (!isLast && look.kind !== 'not_found') return undefined;
    const error = look.kind === 'not_found' ? 'Vapi knows no such call' : 'no end of the call was reported';
    return { kind: 'decided', ending: { outcome: 'unknown', endedReason: null, error, needsAttention: true } };
  }

  async #ask(): Promise<CallLook> {
    try {
      return await voice.lookAtCall.executeWithOptions({ summary: 'ask Vapi about the call' }, [
        { callId: this.#input.callId, ...(this.#providerCallId ? { providerCallId: this.#providerCallId } : {}) },
      ]);
    } catch (error) {
      if (!(error instanceof ActivityFailure)) throw error;
      return { kind: 'unreachable', hasReport: false, isEnded: false };
    }
  }

  #overByRecord(): Over {
    const providerCallId = this.#providerCallId;
    return this.#hadNoSlot() && providerCallId !== undefined ? { kind: 'no_free_slot', providerCallId } : { kind: 'from_record' };
  }

  /** There is nothing to wait for then: who was not called has no report. */
  #hadNoSlot(): boolean {
    return this.#input.dials && this.#providerCallId !== undefined && NO_FREE_SLOT.test(this.#endedReason ?? '');
  }

  #mayAskForEnd(): boolean {
    const isLive = this.#providerCallId !== undefined && this.#status !== 'ended';
    return this.#isEndRequested && isLive && !this.#isEndAsked && this.#noWayToEndIn !== this.#status;
  }

  /** Asks Vapi to end the call; its end is then reported like any other. One that ends by itself meanwhile is not waited with. */
  async #end(): Promise<void> {
    const providerCallId = this.#providerCallId;
    if (providerCallId === undefined) return;
    const status = this.#status;
    this.#say('ending the call');
    const asked = voice.endCall.executeWithOptions({ summary: 'end the call' }, [{ providerCallId }]).then(
      () => {
        this.#isEndAsked = true;
      },
      (error: unknown) => {
        if (!(error instanceof ActivityFailure)) throw error;
        // It goes on, and is followed to its own end.
        this.#noWayToEndIn = status;
        this.#showAttention(true);
      },
    );
    await Promise.race([asked, condition(() => this.#hasReport || this.#status === 'ended')]);
  }

  async #conclude(over: Over): Promise<CallResult> {
    this.#say('writing the result');
    const { result, hasCallback, hasConversation } = await calls.concludeCall.executeWithOptions({ summary: 'write the result' }, [
      {
        callId: this.#input.callId,
        ...(this.#providerCallId ? { providerCallId: this.#providerCallId } : {}),
        ...(over.kind === 'decided' ? { ending: over.ending } : {}),
      },
    ]);
    upsertSearchAttributes([
      { key: callStatusAttribute, value: result.status },
      { key: callOutcomeAttribute, value: result.outcome },
      { key: attentionAttribute, value: result.needsAttention },
    ]);
    this.#status = result.status;
    if (hasCallback) await startCallback(this.#input.callId);
    if (hasConversation) await this.#tellConversation();
    this.#say(`done: ${result.outcome}${result.endedReason ? ` (${result.endedReason})` : ''}`);
    return result;
  }

  /** The person's conversation gets a note of the call. The result stands without it. */
  async #tellConversation(): Promise<void> {
    this.#say('telling the conversation');
    try {
      await telling.tellConversation.executeWithOptions({ summary: 'tell the conversation of the call' }, [{ callId: this.#input.callId }]);
    } catch (error) {
      if (!(error instanceof ActivityFailure)) throw error;
      this.#showAttention(true);
    }
  }

  /** Runs inside a signal handler: never throws. */
  #apply(report: CallReported): void {
    if (this.#formerIds.has(report.providerCallId)) return;
    this.#providerCallId ??= report.providerCallId;
    if (this.#providerCallId !== report.providerCallId) return;
    this.#endedReason = report.endedReason ?? this.#endedReason;
    if (report.type === 'end-of-call-report') this.#hasReport = true;
    else if (report.status !== undefined) this.#rise(report.status);
  }

  /** One way only: a lower or equal state is recorded, never applied. */
  #rise(status: string): void {
    if (HEIGHTS.indexOf(status) > HEIGHTS.indexOf(this.#status)) this.#enter(status);
  }

  #enter(status: string): void {
    this.#status = status;
    this.#statusSinceMs = Date.now();
    upsertSearchAttributes([{ key: callStatusAttribute, value: status }]);
  }

  #showAttention(attention: boolean): void {
    upsertSearchAttributes([{ key: attentionAttribute, value: attention }]);
  }

  #say(phase: string): void {
    this.#phase = phase;
    setCurrentDetails(
      [
        `Voice call · ${this.#input.dials ? 'placed by us' : 'followed; not placed by this run'}`,
        `**${this.#phase}**`,
        `status ${this.#status}${this.#endedReason ? ` · ended: ${this.#endedReason}` : ''}${this.#hasReport ? ' · report is here' : ''}`,
        `call ${this.#input.callId} · at Vapi ${this.#providerCallId ?? 'not known yet'}`,
      ].join('\n\n'),
    );
  }
}

function unknownOutcome(error: unknown): DialVerdict {
  if (!(error instanceof ActivityFailure)) throw error;
  return { status: 'unknown', reason: 'the worker ended before it said' };
}

/** What Vapi says is believed at first; a Vapi that says it again and again is asked ever more rarely. */
function pauseBefore(retryAfterMs: number | undefined, ownMs: number): number {
  if (retryAfterMs === undefined) return ownMs;
  return Math.max(retryAfterMs, ownMs === FIRST_PAUSE_MS ? SHORTEST_PAUSE_MS : ownMs);
}

function neverPlaced(reason: string): Over {
  return {
    kind: 'decided',
    ending: { outcome: 'failed', endedReason: null, error: `not placed in the time for queueing: ${reason}`, needsAttention: true },
  };
}

function phaseOf(status: string): string {
  return status === 'ended' ? 'ended; waiting for the report' : `following: ${status}`;
}

function waitSummary(status: string): string {
  if (status === 'ended') return 'the report may still come';
  return status === 'in-progress' || status === 'forwarding' ? 'until the call must be over' : 'until somebody must have answered';
}
