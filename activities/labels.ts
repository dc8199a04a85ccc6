/** Returns the label of an activity's input with its result or failure, so a workflow can tell whether it belongs to that input (workflows/own-results.ts). */
import { ApplicationFailure } from '@temporalio/activity';
import { isLabelled, type LabelledResult } from '../workflows/contract';

type Activity = (...args: never[]) => Promise<unknown>;

/** Wraps activities. An input without a label gets the plain result. */
export function withLabels<T extends Record<keyof T, Activity>>(activities: T): T {
  const wrapped = Object.entries<Activity>(activities).map(([name, run]) => {
    const activity = async (...orders: unknown[]): Promise<unknown> => {
      const [labelled] = orders;
      if (!isLabelled(labelled)) return await run(...(orders as never[]));
      const { resultLabel, ...order } = labelled;
      try {
        return { resultLabel, result: await run(order as never) } satisfies LabelledResult;
      } catch (error) {
        throw labelledFailure(error, resultLabel);
      }
    };
    return [name, activity];
  });
  return Object.fromEntries(wrapped) as T;
}

function labelledFailure(error: unknown, resultLabel: string): unknown {
  if (!(error instanceof ApplicationFailure)) return error;
  const { message, type, nonRetryable, details, nextRetryDelay, category, cause } = error;
  return ApplicationFailure.create({
    message,
    nonRetryable: nonRetryable ?? false,
    details: [...(details ?? []), { resultLabel }],
    ...(type == null ? {} : { type }),
    ...(nextRetryDelay == null ? {} : { nextRetryDelay }),
    ...(category == null ? {} : { category }),
    ...(cause === undefined ? {} : { cause }),
  });
}
