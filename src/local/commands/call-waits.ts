/** Describes what a call is waiting for. The timeouts are those of the call's workflow. */

import { QUEUE_FOR_MS } from '../../../workflows/contract';

/** Timeouts of a call, in seconds; see CALL_RING_TIMEOUT_SECONDS and CALL_REPORT_GRACE_SECONDS. */
export interface CallTimeouts {
  ring: number;
  /** Maximum length of the conversation. */
  talk: number;
  grace: number;
}

/** After `seconds` without an event, Parley queries Vapi. */
export interface CallWait {
  text: string;
  seconds: number;
}

const PLACING_MINUTES = QUEUE_FOR_MS / 60_000;

/** What the call is waiting for in its current state. */
export function currentWait(call: { status: string; providerCallId?: string | null | undefined }, timeouts: CallTimeouts): CallWait {
  const { ring, talk, grace } = timeouts;
  switch (call.status) {
    case 'ended':
      return { text: `waiting for Vapi's report (up to ${grace} s, then Parley queries Vapi)`, seconds: grace };
    case 'in-progress':
    case 'forwarding':
      return { text: `may last ${talk} s (without an end event, Parley queries Vapi ${grace} s later)`, seconds: talk + grace };
    default:
      // Without Vapi's id, the call is not known to be placed yet.
      return call.providerCallId
        ? { text: `waiting for an event from Vapi (up to ${ring} s, then Parley queries Vapi)`, seconds: ring }
        : { text: `being placed (for up to ${PLACING_MINUTES} min while Vapi has no free slot)`, seconds: PLACING_MINUTES * 60 };
  }
}

/** For a call that has not ended after Parley queried Vapi. */
export function overdueText({ ring, talk, grace }: CallTimeouts): string {
  return `Parley queried Vapi: no end yet; it stops following the call at most ${2 * (ring + talk + grace)} s after placing it`;
}
