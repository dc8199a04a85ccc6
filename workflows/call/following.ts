/** Follows a placed call to its end by its events; if none arrive, by one query to Vapi per state. */
import { ActivityFailure, condition } from '@temporalio/workflow';
import type { CallEnding, CallLook } from '../../activities';
import type { CallInput } from '../contract';
import { voice } from '../proxies';
import type { Alarm } from './alarm';
import { phaseOf, type ShownCall, showAttention, showPhase, waitSummary } from './view';

/** Vapi's maximum for `maxDurationSeconds`, for calls whose own limit is unknown. */
const LONGEST_CALL_MS = 43_200_000;

/** Ended reasons of calls that Vapi did not dial because no slot was free (Vapi, ended reasons). */
const NO_FREE_SLOT = /concurrency-limit-reached$/;

/** Pause before Vapi is asked again to end a call, in milliseconds; doubled each time up to the longest. */
export const FIRST_END_PAUSE_MS = 5_000;
const LONGEST_END_PAUSE_MS = 60_000;

/** 1: a call begun by a worker of 0.1 or 0.2. It has a timer and a search attribute per status, and asks for its end once per state. */
export type CallFlow = 1 | 2;

/** The part of a call that following uses. */
export interface FollowedCall extends ShownCall {
  readonly input: CallInput;
  readonly flow: CallFlow;
  readonly alarm: Alarm;
  readonly statusSinceMs: number;
  readonly placedAtMs: number;
  endedReason: string | undefined;
  /** States in which Vapi was already queried: once per state is enough. */
  readonly lookedIn: Set<string>;
  readonly isEndRequested: boolean;
  /** Vapi was asked to end the call. */
  isEndAsked: boolean;
  /** The state in which Vapi gave no way to end the call; it is asked again in the next one. */
  noWayToEndIn: string | undefined;
  /** Flow 2: when Vapi is next asked to end the call, if it is still live, and the pause after that. */
  askEndAtMs: number;
  endPauseMs: number;
  /** Applies a status if it is higher than the current one. */
  raiseStatus(status: string): void;
}

/** How following ended. `from_record`: the facts in the database decide. `no_free_slot`: the call was not dialled. */
export type CallOver = { kind: 'from_record' } | { kind: 'decided'; ending: CallEnding } | { kind: 'no_free_slot'; providerCallId: string };

/** Returns once the report is stored, or it is clear that none will arrive. */
export async function followCall(call: FollowedCall): Promise<CallOver> {
  for (;;) {
    if (call.hasReport || hadNoSlot(call)) return overByRecord(call);
    if (mayAskForEnd(call)) await askForEnd(call);
    const { status } = call;
    showPhase(call, phaseOf(status));
    const hasNews = () => call.hasReport || call.status !== status || mayAskForEnd(call);
    if ((await isInTime(call, hasNews)) || hasNews()) continue;
    const over = await lookAtVapi(call);
    if (over) return over;
  }
}

/** Waits for news until the deadline of the current state. Returns false once the deadline is over, otherwise true, even without news. */
async function isInTime(call: FollowedCall, hasNews: () => boolean): Promise<boolean> {
  const untilMs = deadlineMs(call);
  const waitMs = untilMs - Date.now();
  if (waitMs <= 0) return false;
  const summary = waitSummary(call.status);
  if (call.flow < 2) return await condition(hasNews, waitMs, { summary });
  const mayAskLater = call.isEndRequested && isLive(call);
  await call.alarm.wait(hasNews, mayAskLater ? Math.min(untilMs, call.askEndAtMs) : untilMs, summary);
  return Date.now() < untilMs;
}

/** How long the current state may last without news. The last deadline ends the call. */
function deadlineMs({ input, status, statusSinceMs, placedAtMs, lookedIn }: FollowedCall): number {
  const { dials, ringTimeoutMs, maxDurationMs, reportGraceMs } = input;
  const longestMs = dials ? maxDurationMs : LONGEST_CALL_MS;
  if (status === 'ended') return statusSinceMs + reportGraceMs;
  // Twice the maximum duration: the first query found the call still live after the expected time.
  if (lookedIn.has(status)) return placedAtMs + 2 * (ringTimeoutMs + longestMs + reportGraceMs);
  const isTalking = status === 'in-progress' || status === 'forwarding';
  return statusSinceMs + (isTalking ? maxDurationMs + reportGraceMs : ringTimeoutMs);
}

/** Queries Vapi about the call. Undefined if the call continues. */
async function lookAtVapi(call: FollowedCall): Promise<CallOver | undefined> {
  const isLast = call.status === 'ended' || call.lookedIn.has(call.status);
  call.lookedIn.add(call.status);
  showPhase(call, 'asking Vapi about the call');
  const look = await lookAtCall(call);
  if (look.hasReport || look.isEnded) {
    call.endedReason ??= look.endedReason;
    return overByRecord(call);
  }
  if (call.status === 'ended') return overByRecord(call);
  if (look.status !== undefined) call.raiseStatus(look.status);
  if (!isLast && look.kind !== 'not_found') return undefined;
  const error = look.kind === 'not_found' ? 'Vapi knows no such call' : 'no end of the call was reported';
  return { kind: 'decided', ending: { outcome: 'unknown', endedReason: null, error, needsAttention: true } };
}

async function lookAtCall({ input: { callId }, providerCallId }: FollowedCall): Promise<CallLook> {
  try {
    const order = { callId, ...(providerCallId ? { providerCallId } : {}) };
    return await voice.lookAtCall.executeWithOptions({ summary: 'ask Vapi about the call' }, [order]);
  } catch (error) {
    if (!(error instanceof ActivityFailure)) throw error;
    return { kind: 'unreachable', hasReport: false, isEnded: false };
  }
}

function overByRecord(call: FollowedCall): CallOver {
  const { providerCallId } = call;
  return hadNoSlot(call) && providerCallId !== undefined ? { kind: 'no_free_slot', providerCallId } : { kind: 'from_record' };
}

/** No useful report will arrive for such a call. */
function hadNoSlot({ input, providerCallId, endedReason }: FollowedCall): boolean {
  return input.dials && providerCallId !== undefined && NO_FREE_SLOT.test(endedReason ?? '');
}

function mayAskForEnd(call: FollowedCall): boolean {
  const { flow, status, isEndRequested, isEndAsked, noWayToEndIn, askEndAtMs } = call;
  if (!isEndRequested || !isLive(call)) return false;
  if (flow < 2) return !isEndAsked && noWayToEndIn !== status;
  // Asks again in a new state, which may offer a way, and otherwise repeatedly, even if Vapi accepted the request but the call goes on.
  return Date.now() >= askEndAtMs || (noWayToEndIn !== undefined && noWayToEndIn !== status);
}

function isLive({ providerCallId, status }: FollowedCall): boolean {
  return providerCallId !== undefined && status !== 'ended';
}

/** Asks Vapi to end the call; the end is then reported like any other. Does not wait for the response if the call ends by itself. */
async function askForEnd(call: FollowedCall): Promise<void> {
  const { providerCallId, status } = call;
  if (providerCallId === undefined) return;
  showPhase(call, 'ending the call');
  const answered = voice.endCall.executeWithOptions({ summary: 'end the call' }, [{ providerCallId }]).then(
    () => {
      call.isEndAsked = true;
      call.noWayToEndIn = undefined;
    },
    (error: unknown) => {
      if (!(error instanceof ActivityFailure)) throw error;
      // The call continues, and is followed to its own end.
      if (call.flow < 2 || call.noWayToEndIn === undefined) showAttention(true);
      call.noWayToEndIn = status;
    },
  );
  await Promise.race([answered, condition(() => call.hasReport || call.status === 'ended')]);
  call.askEndAtMs = Date.now() + call.endPauseMs;
  call.endPauseMs = Math.min(2 * call.endPauseMs, LONGEST_END_PAUSE_MS);
}
