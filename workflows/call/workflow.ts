/**
 * A voice call: one execution from its request or first event until its result is final. It places the call, or follows one placed
 * elsewhere. Vapi's events may be missing, repeated or out of order. So statuses only rise, every wait has a timeout, and Vapi is queried
 * once if an event is missing. After an unknown outcome the call is not placed again, because a phone may be ringing.
 */
import { ActivityFailure, CancellationScope, condition, patched, setHandler } from '@temporalio/workflow';
import type { CallEnding } from '../../activities';
import { type CallInput, type CallReported, type CallResult, callReported, endRequested, statusRank } from '../contract';
import { calls, telling } from '../proxies';
import { Alarm } from './alarm';
import { startCallback } from './callback';
import { type CallFlow, FIRST_END_PAUSE_MS, type FollowedCall, followCall } from './following';
import { FIRST_PAUSE_MS, forgetPlacement, longerPause, type PlacedCall, placeCall } from './placement';
import { showAttention, showPhase, showResult, showStatus } from './view';

/** Statuses for which the search attribute is set; `ended` comes with the result. A ringing phone counts as queued. */
const SHOWN_STATUSES = ['queued', 'in-progress', 'forwarding'] as const;

/** Places or follows a call, and returns its result. */
export async function callWorkflow(input: CallInput): Promise<CallResult> {
  // Fewer timers and upserts, and repeated requests to end a call. Can be removed when no call of 0.2 runs (a day after 0.3 is deployed).
  const call = new Call(input, patched('call-fewer-actions') ? 2 : 1);
  setHandler(callReported, (report) => call.apply(report));
  setHandler(endRequested, () => call.requestEnd());
  CancellationScope.current().cancelRequested.catch(() => call.requestEnd());
  // A phone may be ringing: a cancellation ends the call, and the workflow follows it until then.
  return await CancellationScope.nonCancellable(() => run(call));
}

async function run(call: Call): Promise<CallResult> {
  const queueUntilMs = Date.now() + call.input.queueForMs;
  let isPlaced = !call.input.dials;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = longerPause(pauseMs)) {
    const notPlaced = isPlaced ? undefined : await placeCall(call, queueUntilMs);
    if (notPlaced) return await conclude(call, notPlaced);
    const over = await followCall(call);
    if (over.kind === 'decided') return await conclude(call, over.ending);
    if (over.kind === 'from_record') return await conclude(call);
    if (!call.isEndRequested && Date.now() + pauseMs >= queueUntilMs) return await conclude(call);
    isPlaced = await forgetPlacement(call, over.providerCallId);
    if (!isPlaced) await pauseForSlot(call, pauseMs);
  }
}

async function pauseForSlot(call: Call, pauseMs: number): Promise<void> {
  showPhase(call, 'queued: no free slot');
  await condition(() => call.isEndRequested, pauseMs, { summary: 'no free slot: dial again' });
}

/** Writes the result, and notifies those who want it. Without an ending, the facts in the database decide. */
async function conclude(call: Call, ending?: CallEnding): Promise<CallResult> {
  showPhase(call, 'writing the result');
  const { callId } = call.input;
  const { result, hasCallback, hasConversation } = await calls.concludeCall.executeWithOptions({ summary: 'write the result' }, [
    { callId, ...(call.providerCallId ? { providerCallId: call.providerCallId } : {}), ...(ending ? { ending } : {}) },
  ]);
  showResult(result);
  call.status = result.status;
  if (hasCallback) await startCallback(callId);
  if (hasConversation) await tellConversation(call);
  showPhase(call, `done: ${result.outcome}${result.endedReason ? ` (${result.endedReason})` : ''}`);
  return result;
}

/** Writes a note about the call into the person's conversation. The result is valid without it. */
async function tellConversation(call: Call): Promise<void> {
  showPhase(call, 'telling the conversation');
  try {
    const { callId } = call.input;
    await telling.tellConversation.executeWithOptions({ summary: 'tell the conversation of the call' }, [{ callId }]);
  } catch (error) {
    if (!(error instanceof ActivityFailure)) throw error;
    showAttention(true);
  }
}

/** The state of the workflow. Placing and following each declare the part that they use. */
class Call implements PlacedCall, FollowedCall {
  readonly input: CallInput;
  readonly flow: CallFlow;
  readonly alarm = new Alarm();
  providerCallId: string | undefined;
  status = 'queued';
  statusSinceMs = Date.now();
  endedReason: string | undefined;
  hasReport = false;

  dials = 0;
  placedAtMs = Date.now();

  isEndRequested = false;
  isEndAsked = false;
  noWayToEndIn: string | undefined;
  askEndAtMs = 0;
  endPauseMs = FIRST_END_PAUSE_MS;
  readonly lookedIn = new Set<string>();

  /** Placements that were not dialled: later events about them change nothing. */
  readonly #formerIds = new Set<string>();
  #shownStatus = 'queued';

  constructor(input: CallInput, flow: CallFlow) {
    this.input = input;
    this.flow = flow;
  }

  /** Runs inside a signal handler: never throws, whatever an operator has typed as its argument. */
  apply(report: CallReported | undefined): void {
    if (typeof report?.providerCallId !== 'string') return;
    if (this.#formerIds.has(report.providerCallId)) return;
    this.providerCallId ??= report.providerCallId;
    if (this.providerCallId !== report.providerCallId) return;
    this.endedReason = report.endedReason ?? this.endedReason;
    if (report.type === 'end-of-call-report') this.hasReport = true;
    else if (report.status !== undefined) this.raiseStatus(report.status);
  }

  requestEnd(): void {
    this.isEndRequested = true;
    // A repeated request means that the first one had no effect.
    this.#forgetEnd();
  }

  raiseStatus(status: string): void {
    if (statusRank(status) > statusRank(this.status)) this.#enterStatus(status);
  }

  startAnew(formerId: string): void {
    this.#formerIds.add(formerId);
    this.providerCallId = undefined;
    this.endedReason = undefined;
    this.hasReport = false;
    this.#forgetEnd();
    this.lookedIn.clear();
    this.#enterStatus('queued');
  }

  #enterStatus(status: string): void {
    this.status = status;
    this.statusSinceMs = Date.now();
    if (this.flow >= 2 && (status === this.#shownStatus || !(SHOWN_STATUSES as readonly string[]).includes(status))) return;
    this.#shownStatus = status;
    showStatus(status);
  }

  #forgetEnd(): void {
    this.isEndAsked = false;
    this.noWayToEndIn = undefined;
    this.askEndAtMs = 0;
    this.endPauseMs = FIRST_END_PAUSE_MS;
  }
}
