/**
 * Spawns a server process in its own process group, so that Ctrl-C in the terminal does not bypass the ordered shutdown. Remembers
 * its last output lines for error messages.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { StringDecoder } from 'node:string_decoder';

const RECENT_LINES = 15;
const READ_INTERVAL_MS = 50;
const READ_BYTES = 64 * 1024;

/** A running server process. */
export interface ServerProcess {
  readonly pid: number;
  /** Resolves with how it exited ("exit code 1", "signal SIGKILL"). Never rejects. */
  readonly ended: Promise<string>;
  /** Its last output lines. */
  lastLines(): string;
  /** Sends `signal` and waits for the exit; sends SIGKILL after `graceMs`. */
  stop(signal: NodeJS.Signals, graceMs: number): Promise<void>;
}

/** The command of a server process. */
export interface ServerCommand {
  command: string;
  args: string[];
  environment: Record<string, string | undefined>;
  /** For a Node process: opens an IPC channel, whose end tells the child that this process exited. */
  channel?: boolean;
  cwd?: string;
  uid?: number;
  gid?: number;
  onSpawn?: ((pid: number) => void) | undefined;
  onLog?: ((line: string) => void) | undefined;
  /** Its output is appended to this file. */
  logFile?: string | undefined;
}

/** Starts the command. @throws Error if it cannot be executed */
export async function spawnServer(options: ServerCommand): Promise<ServerProcess> {
  const { command, args, environment, channel, cwd, uid, gid } = options;
  const output = openOutput(options.logFile);
  const child = spawn(command, args, {
    detached: true,
    stdio: ['ignore', output.target, output.target, ...(channel === true ? (['ipc'] as const) : [])],
    env: environment,
    ...(cwd !== undefined && { cwd }),
    ...(uid !== undefined && { uid }),
    ...(gid !== undefined && { gid }),
  });
  const recentLines: string[] = [];
  const follow = output.follow(child, (line) => {
    recentLines.push(line);
    if (recentLines.length > RECENT_LINES) recentLines.shift();
    options.onLog?.(line);
  });
  const ended = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
    child.once('error', (error) => resolve(error.message));
  });
  void ended.then(follow.end);
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  const pid = child.pid ?? 0;
  options.onSpawn?.(pid);
  const lastLines = () => {
    follow.read();
    return recentLines.join('\n');
  };
  return { pid, ended, lastLines, stop: (signal, graceMs) => stopChild(child, ended, signal, graceMs) };
}

interface Follower {
  /** Reads the output written so far. */
  read(): void;
  end(): void;
}

interface Output {
  target: number | 'pipe';
  follow(child: ChildProcess, onLine: (line: string) => void): Follower;
}

/**
 * With a log file, the child writes to it directly and we read along, so the child can keep writing if we are killed. With a pipe its
 * next write would fail, and a logger that keeps retrying would prevent the child from exiting.
 */
function openOutput(logFile: string | undefined): Output {
  if (logFile === undefined) return { target: 'pipe', follow: followPipes };
  mkdirSync(dirname(logFile), { recursive: true });
  const target = openSync(logFile, 'a');
  const from = fstatSync(target).size;
  return {
    target,
    follow(_child, onLine) {
      closeSync(target);
      return followFile(logFile, from, onLine);
    },
  };
}

function followPipes(child: ChildProcess, onLine: (line: string) => void): Follower {
  for (const stream of [child.stdout, child.stderr]) {
    if (stream !== null) createInterface({ input: stream }).on('line', onLine);
  }
  const nothing = () => undefined;
  return { read: nothing, end: nothing };
}

function followFile(path: string, from: number, onLine: (line: string) => void): Follower {
  const file = openSync(path, 'r');
  const buffer = Buffer.alloc(READ_BYTES);
  const decoder = new StringDecoder('utf8');
  let position = from;
  let unfinished = '';
  let open = true;
  const read = () => {
    // Rotated (src/local/embedded/instance.ts): it begins anew.
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
  return { read, end };
}

async function stopChild(child: ChildProcess, ended: Promise<string>, signal: NodeJS.Signals, graceMs: number): Promise<void> {
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
  await ended;
  clearTimeout(timer);
}
