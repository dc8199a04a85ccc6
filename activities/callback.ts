/** Posts a call's result to its callback URL. A delivery may be repeated; the receiver recognises it by its message id. */
import { ApplicationFailure, Context } from '@temporalio/activity';
import { callView } from '../src/api/views/call';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import { type CallbackAnswer, type CallbackClient, isKestraResume } from '../src/providers/callback/client';
import { raiseAlert } from '../src/record/alerts';
import { findCall, recordCallbackFailure } from '../src/record/calls';

/** Timeout of one delivery. The Standard Webhooks specification recommends 15 to 30 s for a receiver's response. */
export const CALLBACK_TIMEOUT_MS = 15_000;

/**
 * For how long a rejection (4xx) is retried, in milliseconds. A receiver that is being deployed, or whose key is being rotated, rejects
 * requests for some minutes; a longer rejection is permanent.
 */
const REFUSALS_FOR_MS = 10 * 60_000;

/** A flow creates the call and then pauses: if it pauses at all, it does so within seconds. */
const NOT_PAUSED_RETRY_MS = 2_000;

/** Temporary 4xx statuses (RFC 9110, 6585, 8470). 409 is Kestra's "not paused (yet)". */
const PASSING_4XX = new Set([408, 409, 425, 429]);
const GONE = 410;

/**
 * Whether the result was delivered. `gone`: the receiver responded with 410; `no_address`: the call has no callback URL, or no longer has a
 * row; `resumed`: the first callback has resumed the Kestra execution, which waits for no update.
 */
export type CallbackDelivery = { delivered: true } | { delivered: false; reason: 'gone' | 'no_address' | 'resumed' };

export type CallbackErrorType =
  | 'CallbackError.NotDone'
  | 'CallbackError.Forbidden'
  | 'CallbackError.NotPaused'
  | 'CallbackError.Refused'
  | 'CallbackError.Unavailable';

export interface CallbackActivities {
  /** Makes one delivery attempt. `isUpdate`: a late report has improved the result. @throws ApplicationFailure of a CallbackErrorType */
  deliverCallback(order: { callId: string; isUpdate?: boolean }): Promise<CallbackDelivery>;
  /** Marks the call as needing a person. */
  recordFailedCallback(order: { callId: string; reason: string }): Promise<void>;
}

export interface CallbackDependencies {
  db: Database;
  callbacks: CallbackClient;
  logger: Logger;
  metrics: Pick<WorkerMetrics, 'callbackTried'>;
  /** For how long a rejection is retried, in milliseconds. */
  refusalsForMs?: number;
}

/** The activities of a call's callback. */
export function createCallbackActivities({
  db,
  callbacks,
  logger,
  metrics,
  refusalsForMs = REFUSALS_FOR_MS,
}: CallbackDependencies): CallbackActivities {
  return {
    async deliverCallback({ callId, isUpdate = false }) {
      const row = await findCall(db, callId);
      if (!row?.callbackUrl) return { delivered: false, reason: 'no_address' };
      if (row.doneAt === null) throw passing('CallbackError.NotDone', 'the call is not done');
      const isKestra = URL.canParse(row.callbackUrl) && isKestraResume(new URL(row.callbackUrl));
      if (isUpdate && isKestra) return { delivered: false, reason: 'resumed' };
      const answer = await callbacks.post(row.callbackUrl, { ...callView(row), isUpdate });
      const { attempt, scheduledTimestampMs } = Context.current().info;
      logger.info({ callId, isUpdate, attempt, ...answer }, 'callback');
      const refusalsAreFinal = Date.now() - scheduledTimestampMs >= refusalsForMs;
      return countResult(() => judge(answer, { isKestra, refusalsAreFinal }));
    },

    async recordFailedCallback({ callId, reason }) {
      logger.error({ callId, reason }, 'callback not delivered; the call needs attention');
      metrics.callbackTried('given_up');
      await recordCallbackFailure(db, callId);
      await raiseAlert(db, {
        cause: 'callback failed',
        text: `callback failed: the result of a call was not delivered: ${reason}`,
        subject: `call ${callId}`,
      });
    },
  };

  /** Counts the result of an attempt, successful or not. */
  function countResult(judgement: () => CallbackDelivery): CallbackDelivery {
    let result = 'other';
    try {
      const delivery = judgement();
      result = delivery.delivered ? 'delivered' : delivery.reason;
      return delivery;
    } catch (error) {
      result = (error instanceof ApplicationFailure && error.type) || result;
      throw error;
    } finally {
      metrics.callbackTried(result);
    }
  }
}

function judge(answer: CallbackAnswer, { isKestra, refusalsAreFinal }: { isKestra: boolean; refusalsAreFinal: boolean }): CallbackDelivery {
  switch (answer.kind) {
    case 'no_answer':
      throw passing('CallbackError.Unavailable', `no answer: ${answer.reason}`);
    case 'forbidden':
      // An operator may still allow the host or set the key, and the name may resolve differently, but that is not worth a day of attempts.
      throw refusalsAreFinal ? final('CallbackError.Forbidden', answer.problem) : passing('CallbackError.Forbidden', answer.problem);
    case 'answered':
      return judgeStatus(answer, isKestra, refusalsAreFinal);
  }
}

function judgeStatus(answer: CallbackAnswer & { kind: 'answered' }, isKestra: boolean, refusalsAreFinal: boolean): CallbackDelivery {
  const { httpStatus, retryAfterMs } = answer;
  const said = `the receiver responded with ${httpStatus}`;
  if (httpStatus >= 200 && httpStatus < 300) return { delivered: true };
  if (httpStatus === GONE) return { delivered: false, reason: 'gone' };
  if (isKestra && httpStatus === 409) {
    // Retried quickly at first, then by the policy: the flow may have ended, or was resumed by a delivery whose response was lost.
    const retryMs = refusalsAreFinal ? undefined : NOT_PAUSED_RETRY_MS;
    throw passing('CallbackError.NotPaused', 'the execution is not paused: not yet, or no more', retryMs);
  }
  if (httpStatus >= 500 || PASSING_4XX.has(httpStatus)) throw passing('CallbackError.Unavailable', said, retryAfterMs);
  // Including 3xx: following a redirect would bypass the list of allowed hosts.
  throw refusalsAreFinal ? final('CallbackError.Refused', said) : passing('CallbackError.Refused', said, retryAfterMs);
}

function passing(type: CallbackErrorType, message: string, retryAfterMs?: number): ApplicationFailure {
  return ApplicationFailure.create({ type, message, ...(retryAfterMs === undefined ? {} : { nextRetryDelay: retryAfterMs }) });
}

function final(type: CallbackErrorType, message: string): ApplicationFailure {
  return ApplicationFailure.create({ type, message, nonRetryable: true });
}
