/** Retention of calls: what a run is started with, and what it says of its progress. */
import { defineQuery } from '@temporalio/workflow';

export interface RetentionInput {
  /** Calls that were done longer ago are archived or deleted. */
  days: number;
  /** `archive`: to files, then deleted. `keep`: calls stay. */
  action: 'archive' | 'delete' | 'keep';
  /** Nothing is changed; the result says what would be. */
  dryRun?: boolean;
  /** Calls in one statement (default 500). */
  batchSize?: number;
  /** An open call is looked at when it is this old (default one hour): whoever was to follow it does so by then. */
  orphanAfterMs?: number;
}

/** The calls of one month (UTC, by the time at which they were done) that are due. */
export interface DueMonth {
  /** `2026-08`. */
  month: string;
  calls: number;
  oldestAtMs: number;
  newestAtMs: number;
}

/** Where a batch of calls ends, in the order in which they were created. */
export interface CallPosition {
  createdAt: string;
  id: string;
}

/**
 * Why an open call has no workflow. `unplaced`: whatever became of it, the call is ours and nothing was dialled.
 * `unfollowed`: it was never started, or Temporal has forgotten it. `stopped`: it was terminated, failed or timed out.
 */
export type OrphanReason = 'unplaced' | 'unfollowed' | 'stopped';

/** An open call that no workflow follows. */
export interface Orphan {
  callId: string;
  why: OrphanReason;
  /** The request to place it was begun, and nobody knows Vapi's id. */
  isPlacementUnknown: boolean;
}

export interface RetentionProgress {
  /** Calls done before this time are due. */
  cutoffAtMs: number;
  action: RetentionInput['action'];
  dryRun: boolean;
  due: DueMonth[];
  /** Calls archived or deleted so far. */
  removed: number;
  /** Files that were written; of a dry run: the folder where they would be. */
  files: string[];
  /** Open calls without a workflow: those closed (`unplaced`) and followed again to their end, or (dry run) to be. */
  orphans: Record<OrphanReason, number>;
  isDone: boolean;
}

export const retentionProgress = defineQuery<RetentionProgress>('retentionProgress');
export const RETENTION_WORKFLOW = 'retentionWorkflow';

const RETENTION_SCHEDULE = 'parley-call-retention';
const DEFAULT_TASK_QUEUE = 'parley';

/** Installations that share a namespace have task queues of their own, and so schedules of their own. */
export function retentionScheduleId(taskQueue: string): string {
  return taskQueue === DEFAULT_TASK_QUEUE ? RETENTION_SCHEDULE : `${RETENTION_SCHEDULE}-${taskQueue}`;
}

/** What a run is started with, by the settings. */
export function retentionInput(settings: { CALL_RETENTION_DAYS: number; CALL_RETENTION_ACTION: RetentionInput['action'] }): RetentionInput {
  return { days: settings.CALL_RETENTION_DAYS, action: settings.CALL_RETENTION_ACTION };
}
