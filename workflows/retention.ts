/**
 * Once a day: handles open calls without a workflow, archives or deletes old calls, month by month, and deletes other expired rows.
 */
import { ActivityFailure, patched, setCurrentDetails, setHandler } from '@temporalio/workflow';
import type { ClosedCall } from '../activities/orphans';
import { startCallback } from './call/callback';
import {
  type CallPosition,
  type DueMonth,
  EXPIRING_ROWS,
  type Orphan,
  type RetentionInput,
  type RetentionProgress,
  retentionProgress,
} from './contract';
import { archives, retention, telling, voice } from './proxies';

const DAY_MS = 24 * 60 * 60_000;
const DEFAULT_BATCH = 500;
const DEFAULT_ORPHAN_AFTER_MS = 60 * 60_000;

/** Further orphans are left to the next run. Each may start a callback, and a workflow may have 2,000 open children. */
const MAX_ORPHANS = 1_000;

export async function retentionWorkflow(input: RetentionInput): Promise<RetentionProgress> {
  const progress: RetentionProgress = {
    cutoffAtMs: Date.now() - input.days * DAY_MS,
    action: input.action,
    dryRun: input.dryRun ?? false,
    due: [],
    removed: 0,
    files: [],
    orphans: { unplaced: 0, unfollowed: 0, stopped: 0 },
    deadLetters: 0,
    expired: { statusEvents: 0, callEvents: 0, parkedMessages: 0, auditEntries: 0, spooledRequests: 0 },
    isDone: false,
  };
  setHandler(retentionProgress, () => progress);
  await closeOrphans(input, progress);
  await settleArchives(progress);
  const { months, folder } = await findDue(progress);
  progress.due = months;
  if (progress.dryRun) progress.files = progress.action === 'archive' ? [folder] : [];
  else for (const month of months) await remove(month, input, progress);
  await deleteDeadLetters(input, progress);
  await deleteExpired(input, progress);
  progress.isDone = true;
  showProgress(progress);
  return progress;
}

/** Leaves calls with a running workflow alone: a call may be queued for half an hour and last for twelve hours. */
async function closeOrphans(input: RetentionInput, progress: RetentionProgress): Promise<void> {
  const createdBeforeMs = Date.now() - (input.orphanAfterMs ?? DEFAULT_ORPHAN_AFTER_MS);
  const batchSize = input.batchSize ?? DEFAULT_BATCH;
  let after: CallPosition | undefined;
  do {
    const { orphans, next } = await retention.findOrphans.executeWithOptions({ summary: 'find open calls that no workflow follows' }, [
      { createdBeforeMs, batchSize, ...(after ? { after } : {}) },
    ]);
    const unplaced = orphans.filter(({ why }) => why === 'unplaced');
    const others = orphans.filter(({ why }) => why !== 'unplaced');
    progress.orphans.unplaced += progress.dryRun ? unplaced.length : await closeUnplaced(unplaced);
    if (!progress.dryRun) await followAgain(others);
    for (const { why } of others) progress.orphans[why] += 1;
    showProgress(progress);
    after = next;
  } while (after !== undefined && orphansOf(progress) < MAX_ORPHANS);
}

/** Returns how many were closed; a call that was dialled in the meantime is not. */
async function closeUnplaced(orphans: Orphan[]): Promise<number> {
  if (orphans.length === 0) return 0;
  const callIds = orphans.map(({ callId }) => callId);
  const closed = await retention.closeUnplaced.executeWithOptions({ summary: 'close calls that were never started' }, [{ callIds }]);
  await Promise.all(closed.map(tellOfCall));
  return closed.length;
}

/** Notifies as at the end of every call. The note is optional: the result is valid without it. */
async function tellOfCall({ callId, hasCallback, hasConversation }: ClosedCall): Promise<void> {
  if (hasCallback) await startCallback(callId);
  if (!hasConversation) return;
  try {
    await telling.tellConversation.executeWithOptions({ summary: 'tell the conversation of the call' }, [{ callId }]);
  } catch (error) {
    if (!(error instanceof ActivityFailure)) throw error;
  }
}

/** Starts workflows that follow these calls to their end, however long that takes. */
async function followAgain(orphans: Orphan[]): Promise<void> {
  if (orphans.length === 0) return;
  await findPlacements(orphans.filter(({ isPlacementUnknown }) => isPlacementUnknown));
  const callIds = orphans.map(({ callId }) => callId);
  await retention.followAgain.executeWithOptions({ summary: 'follow calls whose workflow is gone' }, [{ callIds }]);
}

/** A call that Vapi does not list ends as unknown; if Vapi is unreachable, so do the remaining ones. */
async function findPlacements(orphans: Orphan[]): Promise<void> {
  try {
    for (const { callId } of orphans) await voice.findCall.executeWithOptions({ summary: 'look for the call at Vapi' }, [{ callId }]);
  } catch (error) {
    if (!(error instanceof ActivityFailure)) throw error;
  }
}

/** Runs also if the action is now keep or delete, because a complete file was written to replace its rows. */
async function settleArchives(progress: RetentionProgress): Promise<void> {
  if (progress.dryRun) return;
  const { files, calls } = await archives.settleArchives.executeWithOptions({ summary: 'finish what an earlier run began' }, []);
  progress.removed += calls;
  progress.files.push(...files);
}

async function findDue(progress: RetentionProgress): Promise<{ months: DueMonth[]; folder: string }> {
  if (progress.action === 'keep') return { months: [], folder: '' };
  const options = { summary: `find calls done before ${new Date(progress.cutoffAtMs).toISOString()}` };
  return await retention.findDueCalls.executeWithOptions(options, [{ cutoffAtMs: progress.cutoffAtMs }]);
}

async function remove({ month, calls }: DueMonth, input: RetentionInput, progress: RetentionProgress): Promise<void> {
  const order = { month, cutoffAtMs: progress.cutoffAtMs, batchSize: input.batchSize ?? DEFAULT_BATCH };
  const options = { summary: `${progress.action} ${calls} calls of ${month}` };
  if (progress.action === 'archive') {
    const archived = await archives.archiveMonth.executeWithOptions(options, [order]);
    progress.removed += archived.calls;
    progress.files.push(...archived.files);
  } else {
    progress.removed += (await archives.deleteMonth.executeWithOptions(options, [order])).calls;
  }
  showProgress(progress);
}

async function deleteDeadLetters(
  { deadLetterDays, batchSize = DEFAULT_BATCH }: RetentionInput,
  progress: RetentionProgress,
): Promise<void> {
  if (deadLetterDays === undefined) return;
  // Can be removed when no dry run of 0.2 is in progress (a minute after 0.3 is deployed).
  if (progress.dryRun && !patched('dry-run-counts-dead-letters')) return;
  const beforeMs = Date.now() - deadLetterDays * DAY_MS;
  const { countDeadLetters, deleteDeadLetters: run } = retention;
  const options = { summary: `${progress.dryRun ? 'count' : 'delete'} dead letters last seen before ${new Date(beforeMs).toISOString()}` };
  progress.deadLetters = (await (progress.dryRun ? countDeadLetters : run).executeWithOptions(options, [{ beforeMs, batchSize }])).letters;
}

/** After the calls, so that a call that could not be archived keeps its events. Runs begun by an earlier version lack some kinds, or all. */
async function deleteExpired(
  { expireDays, batchSize = DEFAULT_BATCH }: RetentionInput,
  { dryRun, expired }: Pick<RetentionProgress, 'dryRun' | 'expired'>,
): Promise<void> {
  for (const kind of EXPIRING_ROWS) {
    const days = expireDays?.[kind];
    if (days === undefined) continue;
    const order = { kind, beforeMs: Date.now() - days * DAY_MS, batchSize };
    const options = { summary: `${dryRun ? 'count' : 'delete'} ${kind} from before ${new Date(order.beforeMs).toISOString()}` };
    const { countExpired, deleteExpired: run } = retention;
    expired[kind] = (await (dryRun ? countExpired : run).executeWithOptions(options, [order])).rows;
  }
}

function showProgress({ action, dryRun, due, removed, files, orphans, deadLetters, expired, isDone }: RetentionProgress): void {
  const total = due.reduce((sum, { calls }) => sum + calls, 0);
  setCurrentDetails(
    [
      `${isDone ? 'done' : 'working'}${dryRun ? ' (dry run)' : ''}: ${action}, ${removed} of ${total} calls in ${due.length} months`,
      `calls without a workflow: ${orphansOf({ orphans })}`,
      `never dialled: ${orphans.unplaced}${dryRun ? '' : ' (closed as failed)'}`,
      `nobody followed them: ${orphans.unfollowed}, their workflow was stopped: ${orphans.stopped}${dryRun ? '' : ' (followed to their end now)'}`,
      ...(deadLetters > 0 ? [`old dead letters: ${deadLetters}${dryRun ? '' : ' (deleted)'}`] : []),
      ...EXPIRING_ROWS.filter((kind) => expired[kind] > 0).map((kind) => `${kind}: ${expired[kind]} too old${dryRun ? '' : ' (deleted)'}`),
      ...files.map((file) => `file: ${file}`),
    ].join('\n\n'),
  );
}

function orphansOf({ orphans }: Pick<RetentionProgress, 'orphans'>): number {
  return orphans.unplaced + orphans.unfollowed + orphans.stopped;
}
