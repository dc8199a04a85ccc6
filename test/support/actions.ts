/**
 * Counts what Temporal Cloud bills for a workflow, as far as its history tells (Temporal Cloud Actions, November 2026). Heartbeats and
 * queries are in no history, and neither is the rest of a group: the signals and workflows that activities start elsewhere.
 */
import type { WorkflowHandle } from '@temporalio/client';

type History = Awaited<ReturnType<WorkflowHandle['fetchHistory']>>;
type Event = NonNullable<History['events']>[number];

/** Billable actions by kind. `markers`: the local activities and patches of one workflow task count once. `activities`: attempts. */
export interface Actions {
  starts: number;
  signals: number;
  timers: number;
  activities: number;
  markers: number;
  upserts: number;
  updates: number;
  /** Two for each: the start and the execution. Do not add the child's own start to it. */
  children: number;
  total: number;
}

/** The search attribute of `patched`, which is not billed. */
const CHANGE_VERSION = 'TemporalChangeVersion';

/** The billable actions of one run, as `fetchHistory` returns it. */
export function countActions({ events }: History): Actions {
  const all = events ?? [];
  const count = (isBilled: (event: Event) => unknown) => all.filter(isBilled).length;
  const signals =
    count((event) => event.workflowExecutionSignaledEventAttributes) +
    count((event) => event.signalExternalWorkflowExecutionInitiatedEventAttributes);
  const actions = {
    // A signal that starts its workflow is one action, and comes before the first workflow task.
    starts:
      all[1]?.workflowExecutionSignaledEventAttributes || all[0]?.workflowExecutionStartedEventAttributes?.parentWorkflowExecution ? 0 : 1,
    signals,
    timers: count((event) => event.timerStartedEventAttributes),
    activities: all.reduce((sum, event) => sum + attemptsIn(event), 0),
    markers: new Set(
      all.flatMap(({ markerRecordedEventAttributes: marker }) => (marker ? [String(marker.workflowTaskCompletedEventId)] : [])),
    ).size,
    upserts: count(isBilledUpsert),
    updates: count((event) => event.workflowExecutionUpdateAcceptedEventAttributes),
    children: 2 * count((event) => event.startChildWorkflowExecutionInitiatedEventAttributes),
  };
  return { ...actions, total: Object.values(actions).reduce((sum, billed) => sum + billed, 0) };
}

/** The history has only the last attempt, with its number. */
function attemptsIn({ activityTaskStartedEventAttributes: started }: Event): number {
  return started?.attempt ?? 0;
}

function isBilledUpsert({ upsertWorkflowSearchAttributesEventAttributes: upsert }: Event): boolean {
  const names = Object.keys(upsert?.searchAttributes?.indexedFields ?? {});
  return names.some((name) => name !== CHANGE_VERSION);
}
