/**
 * `npm run retention` starts the retention run now by triggering its schedule; `npm run retention -- --dry-run` only prints what a run
 * would do. A worker does the work, because it has the database and the files; this command starts and displays it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Client, ScheduleNotFoundError, ScheduleOverlapPolicy, WorkflowNotFoundError } from '@temporalio/client';
import {
  type DueMonth,
  EXPIRING_ROWS,
  type ExpiringRows,
  RETENTION_WORKFLOW,
  type RetentionProgress,
  retentionInput,
  retentionProgress,
  retentionScheduleId,
} from '../../../workflows/contract';
import { readArguments, runCommand } from '../../platform/command-line';
import { loadEnvFile, readSettings, type Settings } from '../../platform/config';
import { ConnectionProblem } from '../../platform/connection-problems';
import { openTemporalClient, reachTemporal, temporalConfig } from '../../platform/temporal';
import { readInstanceFile } from '../instance-file';
import { say } from '../terminal';

const HELP = `usage: npm run retention [-- --dry-run]

Archives or deletes old calls and other old rows (the *_RETENTION_* settings) now instead of at night. A running worker does it; this
command starts it and shows its progress. Ctrl-C leaves it running.

  --dry-run   show what a run would do, without changing anything
  -h, --help  show this help

exit status: 0 when the run has ended; 1 if it failed or did not start; 2 for wrong arguments; 78 for invalid settings`;

const POLL_INTERVAL_MS = 500;

/** A worker that is running has picked up the run by then. */
const WORKER_TIMEOUT_MS = 20_000;

async function main(args: string[]): Promise<number> {
  const line = readArguments(args, { help: HELP, options: { 'dry-run': { type: 'boolean' } } });
  if (line === undefined) return 0;
  loadEnvFile();
  // biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
  const environment = process.env;
  const settings = readSettings(environment);
  const config = temporalConfig(withLocalTemporal(environment, settings));
  const client = openTemporalClient(config);
  try {
    await reachTemporal(client, config);
    const workflowId = line.values['dry-run'] ? await startDryRun(client, settings) : await triggerRun(client, settings);
    say(`workflow in the Temporal UI: ${workflowId}`);
    printResult(await follow(client, workflowId));
    return 0;
  } catch (error) {
    throw new Error(reasonOf(error), { cause: error });
  } finally {
    await client.connection.close();
  }
}

/** Without TEMPORAL_ADDRESS, connects to the Temporal server of `npm start`. @throws TerminalError if no instance is running */
function withLocalTemporal(environment: NodeJS.ProcessEnv, settings: Settings): Record<string, string | undefined> {
  if (settings.TEMPORAL_ADDRESS !== undefined) return environment;
  const { temporalAddress } = readInstanceFile(settings.DATA_DIR);
  return { ...environment, TEMPORAL_ADDRESS: temporalAddress ?? undefined };
}

async function startDryRun(client: Client, settings: Settings): Promise<string> {
  const { workflowId } = await client.workflow.start(RETENTION_WORKFLOW, {
    workflowId: `${retentionScheduleId(settings.TEMPORAL_TASK_QUEUE)}-dry-run`,
    workflowIdConflictPolicy: 'TERMINATE_EXISTING',
    taskQueue: settings.TEMPORAL_TASK_QUEUE,
    args: [{ ...retentionInput(settings), dryRun: true }],
    staticSummary: 'lists the calls that are due; changes nothing',
  });
  return workflowId;
}

/** Uses the schedule, which prevents overlapping runs. If a run is already in progress, returns that one. */
async function triggerRun(client: Client, settings: Settings): Promise<string> {
  const handle = client.schedule.getHandle(retentionScheduleId(settings.TEMPORAL_TASK_QUEUE));
  const before = await runsOf(handle);
  if (before.running !== undefined) return before.running;
  await handle.trigger(ScheduleOverlapPolicy.SKIP);
  for (let waitedMs = 0; waitedMs < WORKER_TIMEOUT_MS; waitedMs += POLL_INTERVAL_MS) {
    const { running, latest } = await runsOf(handle);
    if (running !== undefined) return running;
    if (latest !== undefined && latest !== before.latest) return latest;
    await delay(POLL_INTERVAL_MS);
  }
  throw new Error('the schedule did not start a run; check it in the Temporal UI');
}

async function runsOf(handle: ReturnType<Client['schedule']['getHandle']>): Promise<{ running?: string; latest?: string }> {
  const { info } = await handle.describe();
  const running = info.runningActions.at(-1)?.workflow.workflowId;
  const latest = info.recentActions.at(-1)?.action.workflow.workflowId;
  return { ...(running === undefined ? {} : { running }), ...(latest === undefined ? {} : { latest }) };
}

/** Prints the progress until the run has ended. @throws if it fails, or if no worker picks it up */
async function follow(client: Client, workflowId: string): Promise<RetentionProgress> {
  const handle = client.workflow.getHandle(workflowId);
  const result: Promise<RetentionProgress> = handle.result();
  let ended = false;
  result.then(
    () => {
      ended = true;
    },
    () => {
      ended = true;
    },
  );
  const startedAtMs = Date.now();
  let shown = '';
  while (!ended) {
    const { historyLength } = await handle.describe();
    // Only two events: the run has started, but no worker has picked up its first task.
    if (historyLength <= 2 && Date.now() - startedAtMs > WORKER_TIMEOUT_MS)
      throw new Error('no worker picks up the run; start one (npm start or npm run worker), and the run will continue');
    const progress = historyLength > 3 ? await currentProgress(client, workflowId) : undefined;
    const line = progress === undefined ? '' : progressLine(progress);
    if (line !== '' && line !== shown) say(line);
    shown = line;
    await Promise.race([delay(POLL_INTERVAL_MS), result.catch(() => undefined)]);
  }
  return await result;
}

/** Undefined while the worker is busy; the next poll follows soon. */
async function currentProgress(client: Client, workflowId: string): Promise<RetentionProgress | undefined> {
  try {
    return await client.connection.withDeadline(Date.now() + 5_000, () => client.workflow.getHandle(workflowId).query(retentionProgress));
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) throw error;
    return undefined;
  }
}

function progressLine({ due, removed, action }: RetentionProgress): string {
  if (due.length === 0) return '';
  return `${action}: ${removed} of ${due.reduce((sum, { calls }) => sum + calls, 0)} calls`;
}

function printResult(progress: RetentionProgress): void {
  const { action, dryRun, due, removed, files, orphans, deadLetters, expired, cutoffAtMs } = progress;
  say('');
  if (action === 'keep') say('calls are kept (CALL_RETENTION_ACTION)');
  else say(`calls done before ${day(cutoffAtMs)}: ${due.reduce((sum, { calls }) => sum + calls, 0)}`);
  for (const month of due) say(`  ${monthLine(month)}`);
  say(orphanLine('calls that were never started', orphans.unplaced, dryRun ? '' : ', closed as failed'));
  say(orphanLine('calls that nobody followed', orphans.unfollowed, dryRun ? '' : ', followed to their end now'));
  say(orphanLine('calls whose workflow was stopped', orphans.stopped, dryRun ? '' : ', followed to their end now'));
  if (dryRun) sayDryRun(progress);
  else {
    if (action !== 'keep') say(`${action === 'archive' ? 'archived and deleted' : 'deleted'}: ${removed} calls with their events`);
    for (const file of files) say(`  ${file}`);
    say(`old dead letters deleted: ${deadLetters}`);
    for (const kind of EXPIRING_ROWS) say(`${EXPIRED_WORDS[kind]} deleted: ${expired[kind]}`);
  }
}

const EXPIRED_WORDS: Record<ExpiringRows, string> = {
  statusEvents: 'old status events of replies',
  callEvents: 'old events of calls',
  parkedMessages: 'old messages to numbers without a workspace',
  auditEntries: 'old entries of the audit log',
  spooledRequests: 'delivered requests of the spool',
};

function orphanLine(what: string, calls: number, done: string): string {
  return `${what}: ${calls}${calls === 0 ? '' : done}`;
}

function sayDryRun({ action, due, files, deadLetters, expired }: RetentionProgress): void {
  say(`old dead letters that a run would delete: ${deadLetters}`);
  for (const kind of EXPIRING_ROWS) say(`${EXPIRED_WORDS[kind]} that a run would delete: ${expired[kind]}`);
  if (action === 'delete' && due.length > 0) say('a run would delete them with their events');
  for (const folder of due.length > 0 ? files : []) {
    say(`a run would write them to ${folder} on the worker's machine and then delete them:`);
    for (const { month } of due) say(`  calls-${month}.<time>-<random>.jsonl.gz`);
  }
  say('dry run: nothing was changed');
}

function monthLine({ month, calls, oldestAtMs, newestAtMs }: DueMonth): string {
  return `${month}: ${calls} calls, the oldest of ${day(oldestAtMs)}, the newest of ${day(newestAtMs)}`;
}

function day(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10);
}

function reasonOf(error: unknown): string {
  if (error instanceof ScheduleNotFoundError) return 'there is no schedule yet; a worker creates it when it starts';
  if (!(error instanceof Error)) return String(error);
  if (error instanceof ConnectionProblem) return error.message;
  return error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message;
}

runCommand(main);
