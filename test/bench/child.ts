/** A process of the benchmark: started with nothing of this machine's environment but where to find things, stopped for certain. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const LINES_KEPT = 25;
const READY_WITHIN_MS = 120_000;
const STOP_WITHIN_MS = 20_000;

export interface Child {
  name: string;
  pid: number;
  /** Resolves with how it ended. Never rejects. */
  ended: Promise<string>;
  send(message: object): void;
  /** Its last lines, for an error message. */
  lastLines(): string;
  /** SIGTERM, and SIGKILL when that takes too long. */
  stop(): Promise<void>;
}

export interface ChildOptions {
  name: string;
  entry: string;
  environment: Record<string, string>;
  /** Options of Node itself. */
  execArgs?: string[];
  /** Words of the log line that says that it is ready; without them, its first IPC message says so. */
  readyLine?: string;
  onMessage?: (message: unknown) => void;
  /** Called before it is ready, so that it can be stopped at any time. */
  onStarted?: (child: Child) => void;
}

/**
 * Starts the process and waits until it is ready. It has a group of its own: Ctrl-C in the terminal must reach the benchmark alone, which
 * stops everything in order. When the benchmark is killed, the closed IPC channel ends it.
 * @throws Error with its last lines when it ends before
 */
export async function startChild(options: ChildOptions): Promise<Child> {
  const { name, entry, environment, execArgs = [], readyLine, onMessage } = options;
  const started = spawn(process.execPath, [...execArgs, '--import', 'tsx', entry], {
    detached: true,
    env: { ...inherited(), ...environment },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const ended = once(started, 'exit').then(
    ([code, signal]) => (signal === null ? `exit code ${code}` : `signal ${signal}`),
    (error: Error) => error.message,
  );
  const lines: string[] = [];
  const child: Child = {
    name,
    pid: started.pid ?? 0,
    ended,
    send: (message) => void started.send(message),
    lastLines: () => lines.join('\n'),
    async stop() {
      if (started.exitCode === null && started.signalCode === null) started.kill('SIGTERM');
      const timer = setTimeout(() => started.kill('SIGKILL'), STOP_WITHIN_MS);
      await ended;
      clearTimeout(timer);
    },
  };
  options.onStarted?.(child);
  const ready = new Promise<void>((resolve) => {
    for (const stream of [started.stdout, started.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on('line', (line) => {
        lines.push(line);
        if (lines.length > LINES_KEPT) lines.shift();
        if (readyLine !== undefined && line.includes(readyLine)) resolve();
      });
    }
    started.on('message', (message: unknown) => {
      onMessage?.(message);
      if (readyLine === undefined) resolve();
    });
  });
  await untilReady(child, ready);
  return child;
}

async function untilReady(child: Child, ready: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`not ready after ${READY_WITHIN_MS / 1_000} s`), READY_WITHIN_MS);
  });
  const failure = await Promise.race([ready.then(() => undefined), child.ended, late]);
  clearTimeout(timer);
  if (failure !== undefined) throw new Error(`${child.name}: ${failure} before it was ready:\n${child.lastLines()}`);
}

/** Only what a process needs of this machine: a person's own keys and settings must not change the measurement. */
function inherited(): Record<string, string> {
  // biome-ignore lint/style/noProcessEnv: starts processes like a shell does
  const { PATH = '', HOME = '' } = process.env;
  return { PATH, HOME };
}
