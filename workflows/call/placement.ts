/** Places a call: one request at a time, and none after an unknown outcome. */
import { ActivityFailure, condition, workflowInfo } from '@temporalio/workflow';
import type { DialVerdict as ActivityVerdict, CallEnding } from '../../activities';
import type { CallInput } from '../contract';
import { calls, dialling, voice } from '../proxies';
import { type ShownCall, showPhase } from './view';

/** When, within the ring timeout, to look for a call whose placement had an unknown outcome. */
const SEARCHES = [0.05, 0.25, 1] as const;

/** Pause before the next attempt when Vapi has no free slot, in milliseconds; doubled each time up to the longest. */
export const FIRST_PAUSE_MS = 5_000;
/** Vapi may ask for a shorter pause; the first time this is respected, down to this minimum. */
const SHORTEST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/** The part of a call that placing uses. */
export interface PlacedCall extends ShownCall {
  readonly input: CallInput;
  providerCallId: string | undefined;
  readonly isEndRequested: boolean;
  /** The number of requests with a known outcome. */
  dials: number;
  /** When the last request ended. */
  placedAtMs: number;
  /** Resets the state after a placement that was not dialled. */
  startAnew(formerId: string): void;
}

/** `named`: an event told the id of the call before Vapi responded. */
type DialVerdict = ActivityVerdict | { status: 'named' };

const CANCELED = { outcome: 'canceled', endedReason: 'manually-canceled', needsAttention: false } as const satisfies CallEnding;

/** Places the call, with pauses while Vapi has no free slot. Returns undefined once Vapi has the call; otherwise how it ended. */
export async function placeCall(call: PlacedCall, queueUntilMs: number): Promise<CallEnding | undefined> {
  let whyNotYet = 'it was over before a worker could dial';
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = longerPause(pauseMs)) {
    if (call.isEndRequested) return CANCELED;
    showPhase(call, 'dialling');
    const verdict = await dial(call);
    call.placedAtMs = Date.now();
    switch (verdict.status) {
      case 'placed':
        call.providerCallId ??= verdict.providerCallId;
        call.dials += 1;
        return undefined;
      case 'named':
        call.dials += 1;
        return undefined;
      case 'refused':
        return failed(verdict.reason);
      case 'expired':
        return failed(`not placed in the time for queueing: ${whyNotYet}`);
      case 'unknown':
        return await search(call, verdict.reason);
      case 'later': {
        call.dials = verdict.dials;
        whyNotYet = verdict.reason;
        const waitMs = pauseBeforeRetry(verdict.retryAfterMs, pauseMs);
        if (Date.now() + waitMs > queueUntilMs) return failed(`not placed in the time for queueing: ${whyNotYet}`);
        showPhase(call, `queued: ${verdict.reason}`);
        await condition(() => call.isEndRequested, Math.max(1, waitMs), { summary: `dial again: ${verdict.reason}` });
      }
    }
  }
}

/** Sends at most one request. If the worker dies and the outcome is lost, an event of the call can still tell it. */
async function dial(call: PlacedCall): Promise<DialVerdict> {
  const { callId, queueForMs } = call.input;
  // Counted from the request for the call: if no worker is running, the first workflow task can come much later.
  const notAfterMs = workflowInfo().startTime.getTime() + queueForMs;
  const answered = dialling.dialCall
    .executeWithOptions({ summary: 'place the call' }, [{ callId, dials: call.dials, notAfterMs }])
    .catch(unknownOutcome);
  const named = condition(() => call.providerCallId !== undefined).then((): DialVerdict => ({ status: 'named' }));
  return await Promise.race([answered, named]);
}

function unknownOutcome(error: unknown): DialVerdict {
  if (!(error instanceof ActivityFailure)) throw error;
  return { status: 'unknown', reason: 'the worker ended before it said' };
}

/** After an unknown outcome: finds the call by an event or in Vapi's list; otherwise the outcome stays unknown. */
async function search(call: PlacedCall, reason: string): Promise<CallEnding | undefined> {
  for (const part of SEARCHES) {
    showPhase(call, `unknown whether the call was placed (${reason}): looking for it`);
    const waitMs = Math.max(1, call.placedAtMs + call.input.ringTimeoutMs * part - Date.now());
    await condition(() => call.providerCallId !== undefined, waitMs, { summary: 'unknown whether a phone rings' });
    call.providerCallId ??= await findAtVapi(call);
    if (call.providerCallId !== undefined) {
      call.dials += 1;
      return undefined;
    }
  }
  const error = `unknown whether the call was placed (${reason}), and Vapi does not list it`;
  return { outcome: 'unknown', endedReason: null, error, needsAttention: true };
}

async function findAtVapi(call: PlacedCall): Promise<string | undefined> {
  try {
    const { callId } = call.input;
    return (await voice.findCall.executeWithOptions({ summary: 'look for the call at Vapi' }, [{ callId }])) ?? undefined;
  } catch (error) {
    if (!(error instanceof ActivityFailure)) throw error;
    return undefined;
  }
}

/**
 * Undoes a placement that, according to Vapi, was not dialled. Returns true if the row nevertheless follows another placement, which this
 * workflow must then follow too.
 */
export async function forgetPlacement(call: PlacedCall, formerId: string): Promise<boolean> {
  call.startAnew(formerId);
  const { followedId } = await calls.requeueCall.executeWithOptions({ summary: 'no free slot: queued again' }, [
    { callId: call.input.callId, providerCallId: formerId },
  ]);
  call.providerCallId ??= followedId ?? undefined;
  return call.providerCallId !== undefined;
}

/** The pause after one of this length, in milliseconds. */
export function longerPause(pauseMs: number): number {
  return Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
}

/** Respects the pause that Vapi asks for the first time; if it keeps asking, the pauses grow. */
function pauseBeforeRetry(retryAfterMs: number | undefined, ownMs: number): number {
  if (retryAfterMs === undefined) return ownMs;
  return Math.max(retryAfterMs, ownMs === FIRST_PAUSE_MS ? SHORTEST_PAUSE_MS : ownMs);
}

function failed(error: string): CallEnding {
  return { outcome: 'failed', endedReason: null, error, needsAttention: true };
}
