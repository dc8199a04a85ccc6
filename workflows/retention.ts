/** Once a day: lost calls are closed, and calls that are old enough are archived or deleted, month by month. */
import { setCurrentDetails, setHandler } from '@temporalio/workflow';
import { startCallback } from './callback';
import { type DueMonth, type RetentionInput, type RetentionProgress, retentionProgress } from './contract';
import { archives, retention } from './proxies';

const DAY_MS = 24 * 60 * 60_000;
const DEFAULT_BATCH = 500;
const DEFAULT_ORPHAN_AFTER_MS = 60 * 60_000;

export async function retentionWorkflow(input: RetentionInput): Promise<RetentionProgress> {
  const progress: RetentionProgress = {
    cutoffAtMs: Date.now() - input.days * DAY_MS,
    action: input.action,
    dryRun: input.dryRun ?? false,
    due: [],
    removed: 0,
    files: [],
    orphans: 0,
    isDone: false,
  };
  setHandler(retentionProgress, () => progress);
  await closeOrphans(input, progress);
  await settleArchives(progress);
  const { months, folder } = await findDue(progress);
  progress.due = months;
  if (progress.dryRun) progress.files = progress.action === 'archive' ? [folder] : [];
  else for (const month of months) await remove(month, input, progress);
  progress.isDone = true;
  say(progress);
  return progress;
}

async function closeOrphans(input: RetentionInput, progress: RetentionProgress): Promise<void> {
  const order = { olderThanMs: input.orphanAfterMs ?? DEFAULT_ORPHAN_AFTER_MS, dryRun: progress.dryRun };
  const { found, withCallback } = await retention.closeOrphans.executeWithOptions({ summary: 'close calls that were never started' }, [
    order,
  ]);
  progress.orphans = found;
  for (const callId of withCallback) await startCallback(callId);
  say(progress);
}

/** Also when calls are kept or deleted now: the rows of a complete file are gone by what was decided then. */
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
  say(progress);
}

function say({ action, dryRun, due, removed, files, orphans, isDone }: RetentionProgress): void {
  const total = due.reduce((sum, { calls }) => sum + calls, 0);
  setCurrentDetails(
    [
      `${isDone ? 'done' : 'working'}${dryRun ? ' (dry run)' : ''}: ${action}, ${removed} of ${total} calls in ${due.length} months`,
      `calls never started: ${orphans}`,
      ...files.map((file) => `file: ${file}`),
    ].join('\n\n'),
  );
}
