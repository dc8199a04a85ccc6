/** Converts database errors to Temporal failures, for all activities. */
import { ApplicationFailure } from '@temporalio/activity';
import { isDatabaseAway, isRefused } from '../src/platform/database-errors';

/** The SQLSTATE of a database error. Leaves out its text, because it may quote a row, and failures are stored in the history. */
export function refusalCode(error: unknown): string {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' ? code : 'unknown';
}

type Activity = (...args: never[]) => Promise<unknown>;

/**
 * Wraps activities so that database errors become failures: `RecordError.Refused` is not retryable (the statement would be rejected
 * again), `RecordError.Unavailable` is. Other errors stay unchanged.
 */
export function withDatabaseFailures<T extends Record<keyof T, Activity>>(activities: T): T {
  const wrapped = Object.entries<Activity>(activities).map(([name, run]) => {
    const activity: Activity = async (...args) => {
      try {
        return await run(...args);
      } catch (error) {
        throw databaseFailure(error) ?? error;
      }
    };
    return [name, activity];
  });
  return Object.fromEntries(wrapped) as T;
}

function databaseFailure(error: unknown): ApplicationFailure | undefined {
  if (isRefused(error)) {
    const message = `the database refused a statement (SQLSTATE ${refusalCode(error)})`;
    return ApplicationFailure.create({ type: 'RecordError.Refused', message, nonRetryable: true });
  }
  if (isDatabaseAway(error)) return ApplicationFailure.create({ type: 'RecordError.Unavailable', message: 'the database is unavailable' });
  return undefined;
}
