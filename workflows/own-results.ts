/**
 * Checks that a local activity's result belongs to its own input.
 *
 * When a workflow task times out while a local activity runs, as on a worker that gets no CPU time, Temporal repeats the task together with
 * the signals that have arrived since. The repeated task may schedule another local activity under the same number. The SDK does not start
 * it: it uses the result of the first, which is still running. Without this check, a message that was not recorded would count as recorded.
 *
 * Each input gets a label that comes back with the result or the failure (activities/labels.ts). If the label differs, the activity runs
 * again; all of them are idempotent. Results in histories of releases before 0.4 have no label, and are accepted.
 *
 * A label is part of the history: a replay that makes another one runs the activity again, and fails. So it consists of ids only, and what
 * it consists of never changes.
 */
import { ApplicationFailure, type LocalActivityOptions, log } from '@temporalio/workflow';
import { isLabelled, type LabelledResult } from './contract';

type LocalActivity = (order: never) => Promise<unknown>;

/** Local activities that take one input each. */
export type CheckedActivities<T extends Record<keyof T, LocalActivity>> = {
  [K in keyof T]: { executeWithOptions(options: LocalActivityOptions, orders: Parameters<T[K]>): ReturnType<T[K]> };
};

/** What tells the inputs of each activity apart. */
export type LabelParts<T extends Record<keyof T, LocalActivity>> = {
  [K in keyof T]: (order: Parameters<T[K]>[0]) => readonly (string | undefined)[];
};

interface Runnable {
  executeWithOptions(options: LocalActivityOptions, orders: [object]): Promise<unknown>;
}

/** Wraps `activities`, a proxy of the SDK. */
export function checked<T extends Record<keyof T, LocalActivity>>(
  activities: CheckedActivities<T>,
  labels: LabelParts<T>,
): CheckedActivities<T> {
  const wrapped = Object.keys(labels).map((name) => {
    const activity = activities[name as keyof T] as unknown as Runnable;
    const partsOf = labels[name as keyof T] as (order: object) => readonly (string | undefined)[];
    const executeWithOptions = (options: LocalActivityOptions, [order]: [object]) =>
      runUntilOwn(activity, options, { ...order, resultLabel: labelOf(name, partsOf(order)) });
    return [name, { executeWithOptions }];
  });
  return Object.fromEntries(wrapped) as CheckedActivities<T>;
}

/** Not async, because each further promise costs (docs/decisions/0005). */
function runUntilOwn(run: Runnable, options: LocalActivityOptions, order: { resultLabel: string }): Promise<unknown> {
  return run.executeWithOptions(options, [order]).then(
    (result) => {
      if (!isLabelled(result)) return result;
      return result.resultLabel === order.resultLabel ? result.result : runAgain(run, options, order);
    },
    (error: unknown) => {
      const label = labelOfFailure(error);
      if (label === undefined || label === order.resultLabel) throw error;
      return runAgain(run, options, order);
    },
  );
}

function runAgain(run: Runnable, options: LocalActivityOptions, order: { resultLabel: string }): Promise<unknown> {
  log.warn('a local activity got the result of another one, after a workflow task that timed out; it runs again');
  return runUntilOwn(run, options, order);
}

function labelOfFailure(error: unknown): string | undefined {
  if (!(error instanceof ApplicationFailure)) return undefined;
  const last: unknown = error.details?.at(-1);
  return isLabelled(last) ? last.resultLabel : undefined;
}

/** The name and a hash of the parts (two of FNV-1a's kind, 64 bits together). */
function labelOf(name: string, parts: readonly (string | undefined)[]): LabelledResult['resultLabel'] {
  const text = parts.map((part) => part ?? '').join('\n');
  let one = 0x811c9dc5;
  let other = 0x9747b28c;
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    one = Math.imul(one ^ code, 0x01000193);
    other = Math.imul(other ^ code, 0x85ebca6b);
  }
  return `${name}:${(one >>> 0).toString(36)}${(other >>> 0).toString(36)}`;
}
