/** Processes that an earlier run recorded and, killed itself, could not stop. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ASK_EVERY_MS = 50;

/** A process as its starter wrote it down. */
export interface RecordedProcess {
  name: string;
  pid: number;
  /** Texts that all stand in its command line: a number alone may belong to another process by now. */
  marks: string[];
}

/** Whether process `pid` runs and every text of `marks` stands in its command line. */
export async function isRunning(pid: number, marks: readonly string[]): Promise<boolean> {
  if (!Number.isInteger(pid) || pid <= 1) return false;
  const line = await commandLine(pid);
  return line !== undefined && line !== '' && marks.every((mark) => line.includes(mark));
}

/** Stops those that still run, all at once, each with SIGINT and after `graceMs` with SIGKILL. Resolves to the names of the stopped. */
export async function stopLeftovers(recorded: readonly RecordedProcess[], graceMs = 10_000): Promise<string[]> {
  const stopped = await Promise.all(recorded.map((process) => stopLeftover(process, graceMs)));
  return recorded.filter((_, index) => stopped[index]).map(({ name }) => name);
}

async function stopLeftover({ pid, marks }: RecordedProcess, graceMs: number): Promise<boolean> {
  if (!(await isRunning(pid, marks))) return false;
  signal(pid, 'SIGINT');
  if (await endsWithin(pid, marks, graceMs)) return true;
  signal(pid, 'SIGKILL');
  await endsWithin(pid, marks, graceMs);
  return true;
}

/** Not our child, so there is no event to wait for: it is asked for. */
async function endsWithin(pid: number, marks: readonly string[], limitMs: number): Promise<boolean> {
  const deadline = Date.now() + limitMs;
  while (await isRunning(pid, marks)) {
    if (Date.now() > deadline) return false;
    await sleep(ASK_EVERY_MS);
  }
  return true;
}

/** Sends `name` to process `pid`; one that has ended already is no error. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Ended in the meantime.
  }
}

/** Undefined when there is no such process; empty for one that has ended and waits for its parent. */
async function commandLine(pid: number): Promise<string | undefined> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ').trim();
  } catch {
    // Systems without /proc.
  }
  return run('ps', ['-o', 'args=', '-p', String(pid)]).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  );
}
