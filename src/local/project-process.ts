/** Runs a process of this project under the supervisor: starts it, waits until it is ready, and follows its log. */
import { setTimeout as sleep } from 'node:timers/promises';
import { EXIT_SETTINGS } from '../platform/exit-status';
import { logFile } from './embedded/instance';
import { spawnServer } from './embedded/process';
import type { RunningService } from './embedded/supervisor';
import type { Environment, StartContext } from './start-context';
import { say, shortPath } from './terminal';

const READY_TIMEOUT_MS = 60_000;
/** Longer than the shutdown limits of the API and the worker. */
const STOP_TIMEOUT_MS = 20_000;
const POLL_INTERVAL_MS = 100;
const MAX_LINE_LENGTH = 200;

/** A running process of this project. */
export interface ProjectProcess extends RunningService {
  /** Whether it has logged `message`. */
  hasLogged(message: string): boolean;
}

interface ProjectProcessOptions {
  name: string;
  entry: string;
  environment: Environment;
  waitUntilReady(child: ProjectProcess, signal: AbortSignal): Promise<void>;
}

/** Starts the process and waits until it is ready. */
export async function runProcess(context: StartContext, options: ProjectProcessOptions): Promise<void> {
  const { name, entry } = options;
  const file = logFile(context.settings.DATA_DIR, name.toLowerCase());
  await context.supervisor.run({
    name,
    marks: [entry],
    isFatal: (how) => how.includes(`exit code ${EXIT_SETTINGS}`),
    start: (onSpawn) => spawnProcess(options, file, onSpawn),
  });
}

async function spawnProcess(options: ProjectProcessOptions, file: string, onSpawn: (pid: number) => void): Promise<ProjectProcess> {
  const { name, entry, environment } = options;
  const logged = new Set<string>();
  const server = await spawnServer({
    command: process.execPath,
    args: ['--import', 'tsx', entry],
    environment,
    channel: true,
    logFile: file,
    onSpawn,
    onLog: (line) => {
      const { message, isProblem, text } = readLogLine(line);
      logged.add(message);
      if (isProblem) say(`${name}: ${text.slice(0, MAX_LINE_LENGTH)}`);
    },
  });
  const child: ProjectProcess = {
    pid: server.pid,
    ended: server.ended,
    stop: () => server.stop('SIGTERM', STOP_TIMEOUT_MS),
    hasLogged: (message) => logged.has(message),
  };
  try {
    await waitForStart(options, child);
    return child;
  } catch (error) {
    await child.stop();
    throw new Error(
      `${error instanceof Error ? error.message : error}; last log lines (all in ${shortPath(file)}):\n${server.lastLines()}`,
    );
  }
}

/** @throws Error if the process exits first or is not ready in time */
async function waitForStart({ name, waitUntilReady }: ProjectProcessOptions, child: ProjectProcess): Promise<void> {
  const settled = new AbortController();
  const exited = child.ended.then((how) => {
    throw new Error(`${name} exited before it was ready (${how})`);
  });
  const timedOut = sleep(READY_TIMEOUT_MS, undefined, { signal: settled.signal }).then(() => {
    throw new Error(`${name} was not ready within ${READY_TIMEOUT_MS / 1_000} s`);
  });
  // Whichever rejects after the race is over must not count as unhandled.
  for (const failure of [exited, timedOut]) failure.catch(() => undefined);
  try {
    await Promise.race([waitUntilReady(child, settled.signal), exited, timedOut]);
  } finally {
    settled.abort();
  }
}

/** Polls `condition` until it holds or `signal` aborts. */
export async function waitUntil(condition: () => boolean | Promise<boolean>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && !(await condition())) await sleep(POLL_INTERVAL_MS);
}

interface LogLine {
  message: string;
  /** True for warnings, errors and the output of a crash. */
  isProblem: boolean;
  text: string;
}

function readLogLine(line: string): LogLine {
  const parsed = parseJson(line);
  if (parsed === undefined) return { message: '', isProblem: /error/i.test(line), text: line };
  const { level, msg, error, err, problems } = parsed as Record<string, unknown> & {
    error?: { message?: string };
    err?: { message?: string };
  };
  const message = typeof msg === 'string' ? msg : '';
  const details = [error?.message ?? err?.message, problems].filter(Boolean).map(String);
  return { message, isProblem: ['warn', 'error', 'fatal'].includes(String(level)), text: [`${level}: ${message}`, ...details].join(': ') };
}

function parseJson(line: string): object | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as object;
  } catch {
    return undefined;
  }
}
