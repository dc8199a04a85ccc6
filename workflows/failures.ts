/** Reads the failures of activities, for workflows to branch on. */
import { ActivityFailure, ApplicationFailure, TimeoutFailure } from '@temporalio/workflow';
import type { ModelFailureDetails } from '../activities';

/** Whether the activity's last attempt ended because its worker died, which says nothing about the service it called. */
export function diedWithItsWorker(error: unknown): boolean {
  return error instanceof ActivityFailure && error.cause instanceof TimeoutFailure && error.cause.timeoutType === 'HEARTBEAT';
}

/** Whether the activity timed out: its worker died, hangs, or is waiting for the database. */
export function isTimeout(error: unknown): boolean {
  return error instanceof ActivityFailure && error.cause instanceof TimeoutFailure;
}

/**
 * The dotted type of an activity's failure, never its text. The failure of a local activity is not wrapped in an `ActivityFailure`.
 * @throws the error itself if it is not the failure of an activity
 */
export function failureType(error: unknown): string {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  if (cause === error && !(error instanceof ApplicationFailure)) throw error;
  if (cause instanceof ApplicationFailure) return cause.type ?? 'unknown';
  return cause instanceof Error ? cause.name : 'unknown';
}

/** PostgreSQL rejected a statement, and would do so again. */
export const REFUSED_BY_DATABASE = 'RecordError.Refused';

/** A worker could not build the prompt or the reply, and another attempt would fail in the same way. */
export const CODE_FAULT = 'WorkerError.Fault';

/** How a model failed. `text` is for operators. */
export interface ModelFailure {
  text: string;
  isPermanent: boolean;
  isEmptyAnswer: boolean;
  isTimeout: boolean;
  retryAfterMs: number;
}

/** A model failure, as classified by activities/failures.ts. Only the texts of our own failures are safe to show. */
export function modelFailure(error: unknown): ModelFailure {
  const type = failureType(error);
  const cause = error instanceof ActivityFailure && error.cause instanceof ApplicationFailure ? error.cause : undefined;
  const details = cause?.details?.[0] as ModelFailureDetails | undefined;
  return {
    text: cause && (type.startsWith('ModelError.') || type === CODE_FAULT) ? cause.message : type,
    isPermanent: cause?.nonRetryable ?? false,
    isEmptyAnswer: hasNothingToSend(type),
    isTimeout: type === 'ModelError.Timeout',
    retryAfterMs: details?.retryAfterMs ?? 0,
  };
}

/** Whether the model has answered, at a cost, but without a whole text to send. */
function hasNothingToSend(type: string): boolean {
  return type === 'ModelError.EmptyReply' || type === 'ModelError.CutOff' || type === 'ModelError.ContentRefused';
}

/** Prefixes of the types of our own failures, whose texts are safe to show. */
const OWN_TYPES = ['KapsoError.', 'RecordError.'] as const;

/** Why an activity failed, in words for operators. @throws the error itself if it is not the failure of an activity */
export function failureText(error: unknown): string {
  const type = failureType(error);
  const cause = error instanceof ActivityFailure ? error.cause : error;
  return cause instanceof ApplicationFailure && OWN_TYPES.some((prefix) => type.startsWith(prefix)) ? cause.message : type;
}
