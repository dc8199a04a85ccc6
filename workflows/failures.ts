/** What an activity's failure says, for workflows to branch on. */
import { ActivityFailure, ApplicationFailure, TimeoutFailure } from '@temporalio/workflow';

/** Whether the activity's last attempt ended because its worker did, which says nothing about whom it asked. */
export function diedWithItsWorker(error: unknown): boolean {
  return error instanceof ActivityFailure && error.cause instanceof TimeoutFailure && error.cause.timeoutType === 'HEARTBEAT';
}

/**
 * The dotted type of what an activity failed with; never its text. A local activity's failure comes without the `ActivityFailure`
 * around it. @throws the error itself when it is no failure of an activity
 */
export function failureType(error: unknown): string {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  if (cause === error && !(error instanceof ApplicationFailure)) throw error;
  if (cause instanceof ApplicationFailure) return cause.type ?? 'unknown';
  return cause instanceof Error ? cause.name : 'unknown';
}

/** PostgreSQL understood a statement and said no, which it would again. */
export const REFUSED_BY_DATABASE = 'RecordError.Refused';
