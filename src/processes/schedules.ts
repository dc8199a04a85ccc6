/** Temporal Schedules, created and updated by the workers. */
import { isDeepStrictEqual } from 'node:util';
import { type Client, isGrpcServiceError, ScheduleAlreadyRunning, type ScheduleOptions, ScheduleOverlapPolicy } from '@temporalio/client';
import { RETENTION_WORKFLOW, type RetentionInput, retentionInput, retentionScheduleId } from '../../workflows/contract';
import type { Settings } from '../platform/config';
import type { Logger } from '../platform/logger';

/** gRPC status codes worth a retry: the server is unreachable or not ready yet. */
const TRANSIENT_CODES = new Set([4 /* DEADLINE_EXCEEDED */, 14 /* UNAVAILABLE */]);

type RetentionSettings = Parameters<typeof retentionInput>[0] & Pick<Settings, 'TEMPORAL_TASK_QUEUE'>;

/**
 * Creates the retention schedule if it is missing, and updates its action if the settings have changed; an operator's changes to
 * its time of day, or a pause, stay. Safe to run in several processes at once: all write the same. Logs a warning where the
 * server does not allow creating schedules.
 * @throws if Temporal is unreachable
 */
export async function ensureRetentionSchedule(client: Client, settings: RetentionSettings, logger: Logger): Promise<void> {
  const scheduleId = retentionScheduleId(settings.TEMPORAL_TASK_QUEUE);
  try {
    await createOrUpdate(client, retentionSchedule(scheduleId, settings));
  } catch (error) {
    if (isTransient(error)) throw error;
    logger.warn({ error, scheduleId }, 'the schedule of call retention could not be made; run `npm run retention` by other means');
  }
}

function retentionSchedule(scheduleId: string, settings: RetentionSettings): ScheduleOptions & { action: { args: [RetentionInput] } } {
  return {
    scheduleId,
    // Daily (UTC), but not on the hour, when everything else runs.
    spec: { calendars: [{ hour: 3, minute: 17, comment: 'daily' }] },
    action: {
      type: 'startWorkflow',
      workflowType: RETENTION_WORKFLOW,
      workflowId: scheduleId,
      taskQueue: settings.TEMPORAL_TASK_QUEUE,
      args: [retentionInput(settings)],
      staticSummary: 'archives or deletes old calls',
    },
    // Two runs at once would archive the same calls. After an outage of the server, a missed run is made up once.
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

function isTransient(error: unknown): boolean {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  return isGrpcServiceError(cause) && TRANSIENT_CODES.has(cause.code);
}
