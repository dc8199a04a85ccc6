/** A process of this project under the supervisor: its start, its readiness, and its log. */
import { setTimeout as sleep } from 'node:timers/promises';
import { EXIT_SETTINGS } from '../platform/lifecycle';
import { logFile } from './embedded/instance';
import { spawnServer } from './embedded/process';
import type { Running } from './embedded/supervisor';
import type { Environment, Start } from './start-context';
import { say, shortPath } from './terminal';

const READY_WITHIN_MS = 60_000;
/** Longer than the processes themselves allow their last requests and activities. */
const STOP_WITHIN_MS = 20_000;
const ASK_EVERY_MS = 100;
const SHORT_LINE = 200;

export interface ProjectProcess extends Running {
  /** Whether it has logged a line with `message`. */
  said(message: string): boolean;
}

interface ProjectProcessOptions {
  name: string;
  entry: string;
  environment: Environment;
  untilReady(child: ProjectProcess, signal: AbortSignal): Promise<void>;
}

export async function runProcess(start: Start, options: ProjectProcessOptions): Promise<void> {
  const { name, entry } = options;
  const file = logFile(start.settings.DATA_DIR, name.toLowerCase());
  await start.supervisor.run({
    name,
    marks: [entry],
    isHopeless: (how) => how.includes(`exit code ${EXIT_SETTINGS}`),
    start: (onSpawn) => spawnProcess(options, file, onSpawn),
  });
}

async function spawnProcess(options: ProjectProcessOptions, file: string, onSpawn: (pid: number) => void): Promise<ProjectProcess> {
  const { name, entry, environment } = options;
  const said = new Set<string>();
  const server = await spawnServer({
    command: process.execPath,
    args: ['--import', 'tsx', entry],
    environment,
    channel: true,
    logFile: file,
    onSpawn,
    onLog: (line) => {
      const { message, isTrouble, text } = readLogLine(line);
      said.add(message);
      if (isTrouble) say(`${name}: ${text.slice(0, SHORT_LINE)}`);
    },
  });
  const child: ProjectProcess = {
    pid: server.pid,
    ended: server.ended,
    stop: () => server.stop('SIGTERM', STOP_WITHIN_MS),
    said: (message) => said.has(message),
  };
  try {
    await ready(options, child);
    return child;
  } catch (error) {
    await child.stop();
    throw new Error(
      `${error instanceof Error ? error.message : error}; its last lines (all in ${shortPath(file)}):\n${server.lastLines()}`,
    );
  }
}

/** @throws Error when it ends first, or is not ready in time */
async function ready({ name, untilReady }: ProjectProcessOptions, child: ProjectProcess): Promise<void> {
  const decided = new AbortController();
  const early = child.ended.then((how) => {
    throw new Error(`${name} ended before it was ready (${how})`);
  });
  const late = sleep(READY_WITHIN_MS, undefined, { signal: decided.signal }).then(() => {
    throw new Error(`${name} was not ready within ${READY_WITHIN_MS / 1_000} s`);
  });
  // The one that comes after the decision has nobody left to tell.
  for (const outcome of [early, late]) outcome.catch(() => undefined);
  try {
    await Promise.race([untilReady(child, decided.signal), early, late]);
  } finally {
    decided.abort();
  }
}

export async function until(condition: () => boolean | Promise<boolean>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && !(await condition())) await sleep(ASK_EVERY_MS);
}

interface LogLine {
  message: string;
  /** A warning, an error, or what a crash prints. */
  isTrouble: boolean;
  text: string;
}

function readLogLine(line: string): LogLine {
  const parsed = parseJson(line);
  if (parsed === undefined) return { message: '', isTrouble: /error/i.test(line), text: line };
  const { level, msg, error, err, problems } = parsed as Record<string, unknown> & {
    error?: { message?: string };
    err?: { message?: string };
  };
  const message = typeof msg === 'string' ? msg : '';
  const details = [error?.message ?? err?.message, problems].filter(Boolean).map(String);
  return { message, isTrouble: ['warn', 'error', 'fatal'].includes(String(level)), text: [`${level}: ${message}`, ...details].join(': ') };
}

function parseJson(line: string): object | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as object;
  } catch {
    return undefined;
  }
}
