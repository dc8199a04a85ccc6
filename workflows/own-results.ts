/**
 * Checks that a local activity's result belongs to its own input.
 *
 * When a workflow task times out while a local activity runs, as on a worker that gets no CPU time, Temporal repeats the task together with
 * the signals that have arrived since. The repeated task may schedule another local activity under the same number. The SDK does not start
 * it: it uses the result of the first, which is still running. Without this check, a message that was not recorded would count as recorded.
 *
 * Each input gets a label, derived from its content, that comes back with the result or the failure (activities/labels.ts). If the label
 * differs, the activity runs again; all of them are idempotent. Results in histories of releases before 0.4 have no label, and are accepted.
 */
import { ApplicationFailure, type LocalActivityOptions, log } from '@temporalio/workflow';
import { isLabelled, type LabelledResult } from './contract';

type LocalActivity = (order: never) => Promise<unknown>;

/** Local activities that take one input each. */
export type CheckedActivities<T extends Record<keyof T, LocalActivity>> = {
  [K in keyof T]: { executeWithOptions(options: LocalActivityOptions, orders: Parameters<T[K]>): ReturnType<T[K]> };
};

interface Runnable {
  executeWithOptions(options: LocalActivityOptions, orders: [object]): Promise<unknown>;
}

/** Wraps `activities`, a proxy of the SDK. */
export function checked<T extends Record<keyof T, LocalActivity>>(activities: CheckedActivities<T>): CheckedActivities<T> {
  const activity = (name: string) => (activities as unknown as Record<string, Runnable>)[name];
  return new Proxy({} as CheckedActivities<T>, {
    get: (_target, name) => ({
      executeWithOptions: (options: LocalActivityOptions, [order]: [object]) => {
        const run = activity(String(name));
        if (run === undefined) throw new TypeError(`no local activity ${String(name)}`);
        return runUntilOwn(run, options, { ...order, resultLabel: labelOf(String(name), order) });
      },
    }),
  });
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

/** The activity's name and a 64-bit hash of the input (two hashes in the style of FNV-1a), so that no text gets into a result. */
function labelOf(name: string, order: object): LabelledResult['resultLabel'] {
  const text = JSON.stringify(order);
  let one = 0x811c9dc5;
  let other = 0x9747b28c;
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    one = Math.imul(one ^ code, 0x01000193);
    other = Math.imul(other ^ code, 0x85ebca6b);
  }
  return `${name}:${(one >>> 0).toString(36)}${(other >>> 0).toString(36)}`;
}
