/** What a call waits for, in the words of the terminal. The bounds are those of the call's workflow. */

import { QUEUE_FOR_MS } from '../../../workflows/contract';

/** In seconds; see CALL_RING_TIMEOUT_SECONDS and CALL_REPORT_GRACE_SECONDS. */
export interface CallBounds {
  ring: number;
  /** The longest that the conversation may take. */
  talk: number;
  grace: number;
}

/** Without news after `seconds`, Vapi is asked. */
export interface CallWait {
  text: string;
  seconds: number;
}

const PLACING_MINUTES = QUEUE_FOR_MS / 60_000;

/** What is waited for in the present state of a call. */
export function waitOf(call: { status: string; providerCallId?: string | null | undefined }, bounds: CallBounds): CallWait {
  const { ring, talk, grace } = bounds;
  switch (call.status) {
    case 'ended':
      return { text: `waiting for Vapi's report (at most ${grace} s, then Vapi is asked)`, seconds: grace };
    case 'in-progress':
    case 'forwarding':
      return { text: `it may take ${talk} s (without word of its end, Vapi is asked ${grace} s after that)`, seconds: talk + grace };
    default:
      // Without Vapi's id nobody knows yet that Vapi has the call.
      return call.providerCallId
        ? { text: `waiting for Vapi's word (at most ${ring} s, then Vapi is asked)`, seconds: ring }
        : { text: `being placed (for at most ${PLACING_MINUTES} min while Vapi has no free slot)`, seconds: PLACING_MINUTES * 60 };
  }
}

/** For a call that still goes on when Vapi has been asked. */
export function overdueText({ ring, talk, grace }: CallBounds): string {
  return `Vapi was asked, and names no end yet; the call is given up at most ${2 * (ring + talk + grace)} s after it was placed`;
}
