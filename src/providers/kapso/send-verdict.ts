/** Interprets Kapso's response to a send. */
import type { SendVerdict } from '../../../workflows/contract';
import type { SendAnswer } from './client';

/** Kapso limits the rate per minute (429 without a header). */
const KAPSO_RATE_WINDOW_MS = 60_000;
/** Another send of the conversation is in progress: Kapso asks to wait for 1 to 3 seconds. */
const IN_FLIGHT_MS = 2_000;
/** Kapso's state of the 24-hour window can lag behind a message that has just arrived. */
const WINDOW_LAG_MS = 3_000;
const WINDOW_LAG_TRIES = 3;
const DAY_MS = 24 * 60 * 60_000;

/** Graph codes of temporary rejections: throughput (130429, 4, 80007), and too many messages to one recipient (131056). */
const THROTTLED = new Set([130429, 4, 80007]);
const PAIR_THROTTLED = 131056;
/** Graph codes after which Meta may still have sent the message, so that a second send could show it twice. */
const AMBIGUOUS = new Set([1, 2, 131000, 131016, 131057, 133004]);
const WINDOW_CLOSED = 131047;

/** Graph codes that Meta documents as rejections, whatever their HTTP status (Meta, error codes). */
const REFUSALS = new Set([
  0, 3, 10, 33, 100, 190, 368, 130472, 130497, 131005, 131008, 131009, 131021, 131026, 131031, 131037, 131042, 131048, 131049, 131050,
  131051, 131052, 131053, 132000, 132001, 132005, 132007, 132012, 132015, 132016, 133010,
]);

/** Whether Meta documents the code as a rejection; 200 to 299 mean that a permission is missing. */
function isKnownRefusal(graphCode: number): boolean {
  return REFUSALS.has(graphCode) || (graphCode >= 200 && graphCode <= 299);
}

/** What else is known about the send. */
export interface SendAttempt {
  /** 1 for the first attempt. */
  sendAttempts: number;
  /** Age of the message being answered, in milliseconds. */
  lastInboundAgeMs: number;
}

/** Decides what to do next, by Meta's error codes and Kapso's own errors. The first match wins. `isLast`: a temporary rejection is final. */
export function judgeSend(answer: SendAnswer, { sendAttempts, lastInboundAgeMs }: SendAttempt, isLast: boolean): SendVerdict {
  const again = (retryAfterMs: number, reason: string): SendVerdict =>
    isLast ? { status: 'failed', reason: `${reason}, for too long` } : { status: 'pending', retryAfterMs, reason };
  const backoffMs = Math.min(60_000, 1_000 * 2 ** Math.min(sendAttempts - 1, 6));
  // Never shorter than our own pause: a provider that always says "at once" would be asked in a tight loop.
  const throttled = (waitMs: number, reason: string) => again(Math.max(waitMs, backoffMs), reason);
  switch (answer.kind) {
    case 'accepted':
      return { status: 'sent' };
    case 'unknown':
      return { status: 'unconfirmed' };
    case 'not_sent':
      return again(backoffMs, `unreachable ${answer.code}`);
    case 'refused':
      break;
  }
  const { httpStatus, graphCode, kapsoError, retryAfterMs } = answer;
  if (graphCode !== undefined && AMBIGUOUS.has(graphCode)) return { status: 'unconfirmed' };
  if (graphCode !== undefined && THROTTLED.has(graphCode)) return throttled(retryAfterMs ?? backoffMs, `throttled ${graphCode}`);
  if (graphCode === PAIR_THROTTLED) return throttled(retryAfterMs ?? 4 ** Math.min(sendAttempts, 5) * 1_000, `throttled ${graphCode}`);
  if (graphCode === WINDOW_CLOSED) return { status: 'failed', reason: 'WhatsAppSendError.WindowClosed' };
  // An unknown kind of server error proves nothing.
  if (graphCode !== undefined && httpStatus >= 500 && !isKnownRefusal(graphCode)) return { status: 'unconfirmed' };
  if (graphCode !== undefined) return { status: 'failed', reason: `WhatsAppSendError.Refused ${graphCode}` };
  if (httpStatus === 429) return throttled(retryAfterMs ?? KAPSO_RATE_WINDOW_MS, 'throttled by Kapso');
  if (httpStatus === 409) return throttled(retryAfterMs ?? IN_FLIGHT_MS, 'another send is in flight');
  if (httpStatus === 422 && /24-hour window/i.test(kapsoError ?? '')) {
    const mayLag = lastInboundAgeMs < DAY_MS && sendAttempts < WINDOW_LAG_TRIES;
    return mayLag ? again(WINDOW_LAG_MS, 'the window may lag behind') : { status: 'failed', reason: 'WhatsAppSendError.WindowClosed' };
  }
  if (httpStatus === 401 || httpStatus === 403) return { status: 'failed', reason: 'WhatsAppSendError.Unauthorized' };
  if (httpStatus === 402) return { status: 'failed', reason: 'WhatsAppSendError.Plan' };
  if (httpStatus === 404) return { status: 'failed', reason: 'WhatsAppSendError.UnknownNumber' };
  return { status: 'failed', reason: `WhatsAppSendError.Refused http ${httpStatus}` };
}
