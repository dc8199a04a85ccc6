/**
 * Starts a server process in its own process group, so that Ctrl-C in the terminal does not bypass the ordered shutdown, and waits until it
 * is ready. Remembers its last output lines for error messages.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs';
import { dirname } from 'node:path';
import { StringDecoder } from 'node:string_decoder';
import { setTimeout as sleep } from 'node:timers/promises';

const RECENT_LINES = 15;
const READ_INTERVAL_MS = 50;
const READ_BYTES = 64 * 1024;
/** Long enough for PostgreSQL's crash recovery, whose duration max_wal_size limits. */
const READY_TIMEOUT_MS = 60_000;
const READY_POLL_MS = 50;

/** A server process that is ready. */
export interface RunningServer {
  readonly pid: number;
  /** Resolves with how it exited ("exit code 1", "signal SIGKILL"). Never rejects. */
  readonly ended: Promise<string>;
  /** Sends its stop signal and waits for the exit; sends SIGKILL after its grace period. */
  stop(): Promise<void>;
}

/** The command of a server process. */
export interface ServerCommand {
  /** For error messages. */
  name: string;
  command: string;
  args: string[];
  environment: Record<string, string | undefined>;
  /** Polled until it holds. Must not throw. */
  isReady(): boolean | Promise<boolean>;
  stopSignal: NodeJS.Signals;
  stopGraceMs: number;
  /** For a Node process: opens an IPC channel, whose end tells the child that this process exited. */
  channel?: boolean;
  cwd?: string;
  uid?: number;
  gid?: number;
  /** Called with the pid as soon as the process exists, even before it is ready, so that no process goes unrecorded. */
  onSpawn?: ((pid: number) => void) | undefined;
  onLog?: ((line: string) => void) | undefined;
  /**
   * The process itself appends its output to this file, so it can go on if we are killed. With a pipe, its next write would fail, and a
   * logger that keeps retrying would prevent it from exiting.
   */
  logFile: string;
}

/** Starts the server. @throws Error with its last output lines if it cannot be executed, exits early, or is not ready within 60 s */
export async function startServer(options: ServerCommand): Promise<RunningServer> {
  const { command, args, environment, channel, cwd, uid, gid, stopSignal, stopGraceMs, logFile } = options;
  mkdirSync(dirname(logFile), { recursive: true });
  const output = openSync(logFile, 'a');
  const from = fstatSync(output).size;
  const child = spawn(command, args, {
    detached: true,
    stdio: ['ignore', output, output, ...(channel === true ? (['ipc'] as const) : [])],
    env: environment,
    ...(cwd !== undefined && { cwd }),
    ...(uid !== undefined && { uid }),
    ...(gid !== undefined && { gid }),
  });
  closeSync(output);
  const recentLines: string[] = [];
  const follower = followFile(logFile, from, (line) => {
    recentLines.push(line);
    if (recentLines.length > RECENT_LINES) recentLines.shift();
    options.onLog?.(line);
  });
  const ended = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
    child.once('error', (error) => resolve(error.message));
  });
  void ended.then(follower.end);
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  const pid = child.pid ?? 0;
  options.onSpawn?.(pid);
  const stop = () => stopChild(child, ended, stopSignal, stopGraceMs);
  try {
    await waitUntilReady(options, ended);
  } catch (error) {
    await stop();
    throw new Error(`${(error as Error).message}; last log lines (all in ${logFile}):\n${recentLines.join('\n')}`);
  }
  return { pid, ended, stop };
}

async function waitUntilReady({ name, isReady }: ServerCommand, ended: Promise<string>): Promise<void> {
  let endedHow: string | undefined;
  void ended.then((how) => {
    endedHow = how;
  });
  const deadlineMs = Date.now() + READY_TIMEOUT_MS;
  while (!(await isReady())) {
    if (endedHow !== undefined) throw new Error(`${name} exited before it was ready (${endedHow})`);
    if (Date.now() > deadlineMs) throw new Error(`${name} was not ready within ${READY_TIMEOUT_MS / 1_000} s`);
    await sleep(READY_POLL_MS);
  }
}

function followFile(path: string, from: number, onLine: (line: string) => void): { end(): void } {
  const file = openSync(path, 'r');
  const buffer = Buffer.alloc(READ_BYTES);
  const decoder = new StringDecoder('utf8');
  let position = from;
  let unfinished = '';
  let open = true;
  const read = () => {
    // Rotated (src/local/embedded/instance.ts): read from the beginning.
    if (open && fstatSync(file).size < position) position = 0;
    for (let size = 1; open && size > 0; ) {
      size = readSync(file, buffer, 0, READ_BYTES, position);
      position += size;
      const lines = (unfinished + decoder.write(buffer.subarray(0, size))).split('\n');
      unfinished = lines.pop() ?? '';
      lines.forEach(onLine);
    }
  };
  const timer = setInterval(read, READ_INTERVAL_MS).unref();
  const end = () => {
    read();
    open = false;
    clearInterval(timer);
    closeSync(file);
  };
  return { end };
}

async function stopChild(child: ChildProcess, ended: Promise<string>, signal: NodeJS.Signals, graceMs: number): Promise<void> {
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
  await ended;
  clearTimeout(timer);
}
