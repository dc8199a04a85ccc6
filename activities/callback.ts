/** Telling a caller how its call ended. Every step may run twice: the receiver drops what it has by the id of the message. */
import { ApplicationFailure, Context } from '@temporalio/activity';
import { callView } from '../src/api/views/call';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import { type CallbackAnswer, type CallbackClient, isKestraResume } from '../src/providers/callback/client';

/** Bound of one delivery. The Standard Webhooks specification recommends 15 to 30 s for a receiver's answer. */
export const CALLBACK_TIMEOUT_MS = 15_000;

/**
 * A refusal (4xx) is tried again for this long: a receiver that is being deployed, or whose key is being changed, refuses
 * for some minutes; what it refuses longer it refuses for good.
 */
const REFUSALS_FOR_MS = 10 * 60_000;

/** A flow creates the call and pauses right after: it is ready for the answer within seconds, if it is to be ready at all. */
const NOT_PAUSED_RETRY_MS = 2_000;

/** 4xx that speak of the moment and not of the request (RFC 9110, 6585, 8470). 409 is Kestra's "not paused (yet)". */
const PASSING_4XX = new Set([408, 409, 425, 429]);
const GONE = 410;

/** Whether the caller was told. `gone`: it does not want to be; `no_address`: there is nobody to tell (any more). */
export type CallbackDelivery = { delivered: true } | { delivered: false; reason: 'gone' | 'no_address' };

export type CallbackErrorType =
  | 'CallbackError.NotDone'
  | 'CallbackError.Forbidden'
  | 'CallbackError.NotPaused'
  | 'CallbackError.Refused'
  | 'CallbackError.Unavailable';

export interface CallbackActivities {
  /** One delivery. @throws ApplicationFailure of a CallbackErrorType */
  deliverCallback(order: { callId: string }): Promise<CallbackDelivery>;
  /** Asks for a person to look at the call. */
  recordFailedCallback(order: { callId: string; reason: string }): Promise<void>;
}

export interface CallbackDependencies {
  db: Database;
  callbacks: CallbackClient;
  logger: Logger;
  metrics: Pick<WorkerMetrics, 'callbackTried'>;
  /** Milliseconds for which a refusal is tried again. */
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
    async deliverCallback({ callId }) {
      const row = await db.orm.vapiCallResult.findUnique({ where: { id: callId } });
      if (!row?.callbackUrl) return { delivered: false, reason: 'no_address' };
      if (row.doneAt === null) throw passing('CallbackError.NotDone', 'the call is not done');
      const answer = await callbacks.post(row.callbackUrl, callView(row));
      const { attempt, scheduledTimestampMs } = Context.current().info;
      logger.info({ callId, attempt, ...answer }, 'callback');
      const isKestra = URL.canParse(row.callbackUrl) && isKestraResume(new URL(row.callbackUrl));
      const refusalsAreFinal = Date.now() - scheduledTimestampMs >= refusalsForMs;
      return counted(() => judge(answer, { isKestra, refusalsAreFinal }));
    },

    async recordFailedCallback({ callId, reason }) {
      logger.error({ callId, reason }, 'callback not delivered; a person must look');
      metrics.callbackTried('given_up');
      await db.orm.vapiCallResult.updateMany({ where: { id: callId }, data: { needsAttention: true } });
    },
  };

  function counted(judgement: () => CallbackDelivery): CallbackDelivery {
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
      // The operator may add the host or the key; a name may lead elsewhere tomorrow. Neither is worth a day of attempts.
      throw refusalsAreFinal ? final('CallbackError.Forbidden', answer.problem) : passing('CallbackError.Forbidden', answer.problem);
    case 'answered':
      return judgeStatus(answer, isKestra, refusalsAreFinal);
  }
}

function judgeStatus(answer: CallbackAnswer & { kind: 'answered' }, isKestra: boolean, refusalsAreFinal: boolean): CallbackDelivery {
  const { httpStatus, retryAfterMs } = answer;
  const said = `the receiver answered ${httpStatus}`;
  if (httpStatus >= 200 && httpStatus < 300) return { delivered: true };
  if (httpStatus === GONE) return { delivered: false, reason: 'gone' };
  if (isKestra && httpStatus === 409) {
    // Soon at first; later as the policy says: the flow may have ended, or gone on with an answer that we did not hear.
    const retryMs = refusalsAreFinal ? undefined : NOT_PAUSED_RETRY_MS;
    throw passing('CallbackError.NotPaused', 'the execution is not paused: not yet, or no more', retryMs);
  }
  if (httpStatus >= 500 || PASSING_4XX.has(httpStatus)) throw passing('CallbackError.Unavailable', said, retryAfterMs);
  // 3xx as well: a redirect is not followed, because it would lead around the list of allowed hosts.
  throw refusalsAreFinal ? final('CallbackError.Refused', said) : passing('CallbackError.Refused', said, retryAfterMs);
}

function passing(type: CallbackErrorType, message: string, retryAfterMs?: number): ApplicationFailure {
  return ApplicationFailure.create({ type, message, ...(retryAfterMs === undefined ? {} : { nextRetryDelay: retryAfterMs }) });
}

function final(type: CallbackErrorType, message: string): ApplicationFailure {
  return ApplicationFailure.create({ type, message, nonRetryable: true });
}
