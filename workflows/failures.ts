/** What an activity's failure says, for workflows to branch on. */
import { ActivityFailure, ApplicationFailure, TimeoutFailure } from '@temporalio/workflow';

/** Whether the activity's last attempt ended because its worker did, which says nothing about whom it asked. */
export function diedWithItsWorker(error: unknown): boolean {
  return error instanceof ActivityFailure && error.cause instanceof TimeoutFailure && error.cause.timeoutType === 'HEARTBEAT';
}

/** The dotted type of what an activity failed with; never its text. @throws the error itself when it is no failure of an activity */
export function failureType(error: unknown): string {
  if (!(error instanceof ActivityFailure)) throw error;
  const cause = error.cause;
  if (cause instanceof ApplicationFailure) return cause.type ?? 'unknown';
  return cause?.name ?? 'unknown';
}

/** PostgreSQL understood a statement and said no, which it would again. */
export const REFUSED_BY_DATABASE = 'RecordError.Refused';
