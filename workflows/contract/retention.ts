/** Retention: the input and the progress of a run. */
import { defineQuery } from '@temporalio/workflow';

/**
 * Rows with a retention of their own: status events of replies, events of calls (usually deleted with their call), messages to a number
 * without a workspace, the audit log, and delivered requests of the spool.
 */
export const EXPIRING_ROWS = ['statusEvents', 'callEvents', 'parkedMessages', 'auditEntries', 'spooledRequests'] as const;
export type ExpiringRows = (typeof EXPIRING_ROWS)[number];

export interface RetentionInput {
  /** Calls done more than this many days ago are archived or deleted. */
  days: number;
  /** `archive`: written to files, then deleted. `keep`: not touched. */
  action: 'archive' | 'delete' | 'keep';
  /** Changes nothing, and returns what would be done. */
  dryRun?: boolean;
  /** Dead letters that were last seen longer ago are deleted. Not set by versions before 0.2: they stay. */
  deadLetterDays?: number;
  /** Rows written (spool: delivered) more than this many days ago are deleted. A kind that the version which began the run did not know is kept. */
  expireDays?: Partial<Record<ExpiringRows, number>>;
  /** Calls per statement (default 500). */
  batchSize?: number;
  /** Minimum age of an open call to be checked (default: one hour). By then its workflow should be running. */
  orphanAfterMs?: number;
}

/** The due calls of a month (UTC, by the time they were done). */
export interface DueMonth {
  /** `2026-08`. */
  month: string;
  calls: number;
  oldestAtMs: number;
  newestAtMs: number;
}

/** A position in the list of calls, ordered by creation. */
export interface CallPosition {
  createdAt: string;
  id: string;
}

/**
 * Why an open call has no workflow. `unplaced`: the call is ours and was not dialled, whatever became of its workflow. `unfollowed`: the
 * workflow was never started, or Temporal has deleted it. `stopped`: the workflow was terminated, failed or timed out.
 */
export type OrphanReason = 'unplaced' | 'unfollowed' | 'stopped';

/** An open call that no workflow follows. */
export interface Orphan {
  callId: string;
  why: OrphanReason;
  /** The request to place it was begun, but Vapi's id is unknown. */
  isPlacementUnknown: boolean;
}

export interface RetentionProgress {
  /** Calls done before this time are due; milliseconds since 1970. */
  cutoffAtMs: number;
  action: RetentionInput['action'];
  dryRun: boolean;
  due: DueMonth[];
  /** Calls archived or deleted so far. */
  removed: number;
  /** The files written; in a dry run, the folder where they would be. */
  files: string[];
  /** Open calls without a workflow: those that were, or in a dry run would be, closed (`unplaced`) or followed again. */
  orphans: Record<OrphanReason, number>;
  /** Number of dead letters that were deleted, or would be in a dry run. */
  deadLetters: number;
  /** Number of other rows that were deleted, or would be in a dry run. */
  expired: Record<ExpiringRows, number>;
  isDone: boolean;
}

export const retentionProgress = defineQuery<RetentionProgress>('retentionProgress');
export const RETENTION_WORKFLOW = 'retentionWorkflow';

const RETENTION_SCHEDULE = 'parley-call-retention';
const DEFAULT_TASK_QUEUE = 'parley';

/** Installations that share a namespace have their own task queues, and so their own schedules. */
export function retentionScheduleId(taskQueue: string): string {
  return taskQueue === DEFAULT_TASK_QUEUE ? RETENTION_SCHEDULE : `${RETENTION_SCHEDULE}-${taskQueue}`;
}

/** Events of a call are older than its end, and must not be deleted before the call is archived. */
const CALL_EVENT_MARGIN_DAYS = 7;

/** The input of a run, from the settings. */
export function retentionInput(settings: {
  CALL_RETENTION_DAYS: number;
  CALL_RETENTION_ACTION: RetentionInput['action'];
  DEAD_LETTER_RETENTION_DAYS: number;
  STATUS_EVENT_RETENTION_DAYS: number;
  CALL_EVENT_RETENTION_DAYS: number;
  PARKED_MESSAGE_RETENTION_DAYS: number;
  AUDIT_RETENTION_DAYS: number;
  SPOOL_RETENTION_DAYS: number;
}): RetentionInput {
  const { CALL_RETENTION_DAYS: days, CALL_RETENTION_ACTION: action, CALL_EVENT_RETENTION_DAYS } = settings;
  return {
    days,
    action,
    deadLetterDays: settings.DEAD_LETTER_RETENTION_DAYS,
    expireDays: {
      statusEvents: settings.STATUS_EVENT_RETENTION_DAYS,
      callEvents: action === 'keep' ? CALL_EVENT_RETENTION_DAYS : Math.max(CALL_EVENT_RETENTION_DAYS, days + CALL_EVENT_MARGIN_DAYS),
      parkedMessages: settings.PARKED_MESSAGE_RETENTION_DAYS,
      auditEntries: settings.AUDIT_RETENTION_DAYS,
      spooledRequests: settings.SPOOL_RETENTION_DAYS,
    },
  };
}
