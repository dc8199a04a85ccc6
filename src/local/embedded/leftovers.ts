/** Stops processes that an earlier run recorded but could not stop because it was killed. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const POLL_INTERVAL_MS = 50;

/** A process as recorded by the run that started it. */
export interface RecordedProcess {
  name: string;
  pid: number;
  /** Texts that its command line contains, because the pid alone may have been reused. */
  marks: string[];
}

/** Whether process `pid` is running and its command line contains every text of `marks`. */
export async function isRunning(pid: number, marks: readonly string[]): Promise<boolean> {
  if (!Number.isInteger(pid) || pid <= 1) return false;
  const line = await commandLine(pid);
  return line !== undefined && line !== '' && marks.every((mark) => line.includes(mark));
}

/** Stops those that are still running, in parallel: SIGINT, then SIGKILL after `graceMs`. Resolves to the names of those stopped. */
export async function stopLeftovers(recorded: readonly RecordedProcess[], graceMs = 10_000): Promise<string[]> {
  const stopped = await Promise.all(recorded.map((process) => stopLeftover(process, graceMs)));
  return recorded.filter((_, index) => stopped[index]).map(({ name }) => name);
}

async function stopLeftover({ pid, marks }: RecordedProcess, graceMs: number): Promise<boolean> {
  if (!(await isRunning(pid, marks))) return false;
  sendSignal(pid, 'SIGINT');
  if (await exitsWithin(pid, marks, graceMs)) return true;
  sendSignal(pid, 'SIGKILL');
  await exitsWithin(pid, marks, graceMs);
  return true;
}

/** Polls, because a process that is not our child emits no exit event. */
async function exitsWithin(pid: number, marks: readonly string[], limitMs: number): Promise<boolean> {
  const deadline = Date.now() + limitMs;
  while (await isRunning(pid, marks)) {
    if (Date.now() > deadline) return false;
    await sleep(POLL_INTERVAL_MS);
  }
  return true;
}

/** Sends a signal to process `pid`; ignores that it may have exited already. */
export function sendSignal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has exited already.
  }
}

/** Undefined if there is no such process; empty for a zombie. */
async function commandLine(pid: number): Promise<string | undefined> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ').trim();
  } catch {
    // No /proc on this system.
  }
  return run('ps', ['-o', 'args=', '-p', String(pid)]).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  );
}
