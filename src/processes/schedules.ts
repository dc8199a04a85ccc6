/** Temporal Schedules, created and updated by the workers. */
import { isDeepStrictEqual } from 'node:util';
import {
  type Client,
  isGrpcServiceError,
  ScheduleAlreadyRunning,
  ScheduleNotFoundError,
  type ScheduleOptions,
  ScheduleOverlapPolicy,
} from '@temporalio/client';
import {
  REPAIR_WORKFLOW,
  RETENTION_WORKFLOW,
  type RepairInput,
  type RetentionInput,
  repairScheduleId,
  retentionInput,
  retentionScheduleId,
} from '../../workflows/contract';
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

type WantedSchedule = ScheduleOptions & { action: { args: [object] } };

/** Creates the schedule, or updates its action, and its interval if it has one. */
async function createOrUpdate(client: Client, wanted: WantedSchedule): Promise<void> {
  try {
    await client.schedule.create(wanted);
    return;
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw error;
  }
  const handle = client.schedule.getHandle(wanted.scheduleId);
  const { action, spec } = await handle.describe();
  const { intervals } = wanted.spec;
  const hasInterval =
    intervals === undefined ||
    isDeepStrictEqual(
      spec.intervals?.map(({ every }) => every),
      intervals.map(({ every }) => every),
    );
  const isCurrent = isDeepStrictEqual(action.args, wanted.action.args) && action.taskQueue === wanted.action.taskQueue && hasInterval;
  if (isCurrent) return;
  await handle.update((current) => ({ ...current, action: wanted.action, spec: hasInterval ? current.spec : wanted.spec }));
}

type RepairSettings = Pick<Settings, 'REPAIR_MINUTES' | 'TEMPORAL_TASK_QUEUE'>;

/**
 * Creates or updates the repair schedule of a number, and starts a pass at once: this process may have been away. Deletes the schedule if
 * repair is off. Logs a warning where the server does not allow schedules. @throws if Temporal is unreachable
 */
export async function ensureRepairSchedule(client: Client, phoneNumberId: string, settings: RepairSettings, logger: Logger): Promise<void> {
  const scheduleId = repairScheduleId(phoneNumberId);
  try {
    if (settings.REPAIR_MINUTES === 0) return await deleteSchedule(client, scheduleId);
    await createOrUpdate(client, repairSchedule(scheduleId, phoneNumberId, settings));
    await triggerRepair(client, phoneNumberId);
  } catch (error) {
    if (isTransient(error)) throw error;
    logger.warn({ error, scheduleId }, 'the schedule of repair could not be made; messages that no webhook brings are not found');
  }
}

/** Starts a pass, after the one in progress if there is one (which repeats itself if the webhook is paused). Does nothing without a schedule. @throws if Temporal is unreachable */
export async function triggerRepair(client: Client, phoneNumberId: string): Promise<void> {
  try {
    await client.schedule.getHandle(repairScheduleId(phoneNumberId)).trigger(ScheduleOverlapPolicy.BUFFER_ONE);
  } catch (error) {
    if (!(error instanceof ScheduleNotFoundError)) throw error;
  }
}

async function deleteSchedule(client: Client, scheduleId: string): Promise<void> {
  try {
    await client.schedule.getHandle(scheduleId).delete();
  } catch (error) {
    if (!(error instanceof ScheduleNotFoundError)) throw error;
  }
}

function repairSchedule(
  scheduleId: string,
  phoneNumberId: string,
  settings: RepairSettings,
): ScheduleOptions & { action: { args: [RepairInput] } } {
  return {
    scheduleId,
    // The jitter spreads the numbers of an installation, which share Kapso's limit.
    spec: { intervals: [{ every: settings.REPAIR_MINUTES * 60_000 }], jitter: '30 s' },
    action: {
      type: 'startWorkflow',
      workflowType: REPAIR_WORKFLOW,
      workflowId: scheduleId,
      taskQueue: settings.TEMPORAL_TASK_QUEUE,
      args: [{ phoneNumberId }],
      staticSummary: `finds messages that no webhook brought · number id ${phoneNumberId}`,
    },
    // Two passes at once would read the same list. After an outage of the server, the first pass finds everything.
    policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: '1 minute' },
  };
}

function isTransient(error: unknown): boolean {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  return isGrpcServiceError(cause) && TRANSIENT_CODES.has(cause.code);
}
