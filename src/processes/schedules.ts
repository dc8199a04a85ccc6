/** What runs by the clock: Temporal Schedules, made and kept up to date by the workers. */
import { isDeepStrictEqual } from 'node:util';
import { type Client, isGrpcServiceError, ScheduleAlreadyRunning, type ScheduleOptions, ScheduleOverlapPolicy } from '@temporalio/client';
import { RETENTION_WORKFLOW, type RetentionInput, retentionInput, retentionScheduleId } from '../../workflows/contract';
import type { Settings } from '../platform/config';
import type { Logger } from '../platform/logger';

/** gRPC status codes after which another attempt may succeed: the server is not there, or not yet. */
const PASSING = new Set([4 /* DEADLINE_EXCEEDED */, 14 /* UNAVAILABLE */]);

type RetentionSettings = Pick<Settings, 'CALL_RETENTION_DAYS' | 'CALL_RETENTION_ACTION' | 'TEMPORAL_TASK_QUEUE'>;

/**
 * Makes the schedule of retention when it is missing, and changes what it starts when the settings have changed; the time of
 * day and a pause are the operator's. Any number of processes may do so at once: they write the same. Where schedules
 * may not be made, it warns and goes on.
 * @throws when Temporal cannot be reached
 */
export async function ensureRetentionSchedule(client: Client, settings: RetentionSettings, logger: Logger): Promise<void> {
  const scheduleId = retentionScheduleId(settings.TEMPORAL_TASK_QUEUE);
  try {
    await createOrUpdate(client, retentionSchedule(scheduleId, settings));
  } catch (error) {
    if (isPassing(error)) throw error;
    logger.warn({ error, scheduleId }, 'the schedule of call retention could not be made; run `npm run retention` by other means');
  }
}

function retentionSchedule(scheduleId: string, settings: RetentionSettings): ScheduleOptions & { action: { args: [RetentionInput] } } {
  return {
    scheduleId,
    // Once a day (UTC), away from the full hour at which everything else runs.
    spec: { calendars: [{ hour: 3, minute: 17, comment: 'daily' }] },
    action: {
      type: 'startWorkflow',
      workflowType: RETENTION_WORKFLOW,
      workflowId: scheduleId,
      taskQueue: settings.TEMPORAL_TASK_QUEUE,
      args: [retentionInput(settings)],
      staticSummary: 'archives or deletes old calls',
    },
    // Two at once would archive the same calls. A day that the server slept through is made up for once.
    policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: '1 day' },
  };
}

async function createOrUpdate(client: Client, wanted: ReturnType<typeof retentionSchedule>): Promise<void> {
  try {
    await client.schedule.create(wanted);
    return;
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw error;
  }
  const handle = client.schedule.getHandle(wanted.scheduleId);
  const { action } = await handle.describe();
  const isCurrent = isDeepStrictEqual(action.args, wanted.action.args) && action.taskQueue === wanted.action.taskQueue;
  if (!isCurrent) await handle.update((current) => ({ ...current, action: wanted.action }));
}

function isPassing(error: unknown): boolean {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  return isGrpcServiceError(cause) && PASSING.has(cause.code);
}
