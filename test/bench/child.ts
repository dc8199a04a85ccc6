/** A child process of the benchmark, isolated from this machine's environment, and reliably stopped. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const RECENT_LINES = 25;
const READY_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 20_000;

/** A running child process. */
export interface Child {
  name: string;
  pid: number;
  /** Resolves with how it exited. Never rejects. */
  ended: Promise<string>;
  send(message: object): void;
  /** Its last output lines, for error messages. */
  lastLines(): string;
  /** Sends SIGTERM, then SIGKILL after a timeout. */
  stop(): Promise<void>;
}

/** How to start a child process. */
export interface ChildOptions {
  name: string;
  entry: string;
  environment: Record<string, string>;
  /** Options for Node. */
  execArgs?: string[];
  /** Text of the log line that means that it is ready (default: its first IPC message means that). */
  readyLine?: string;
  onMessage?: (message: unknown) => void;
  /** Called before it is ready, so that it can be stopped at any time. */
  onStarted?: (child: Child) => void;
}

/** Starts a child process that its owner stops and watches. */
export type Launch = (name: string, options: Omit<ChildOptions, 'name' | 'onStarted'>) => Promise<Child>;

/**
 * Starts the process and waits until it is ready. It has its own process group, so that Ctrl-C in the terminal only reaches the
 * benchmark, which stops everything in order. If the benchmark is killed, the closed IPC channel ends the child.
 * @throws Error with its last output lines if it exits before it is ready, or is not ready in time
 */
export async function startChild(options: ChildOptions): Promise<Child> {
  const { name, entry, environment, execArgs = [], readyLine, onMessage } = options;
  const started = spawn(process.execPath, [...execArgs, '--import', 'tsx', entry], {
    detached: true,
    env: { ...inheritedEnvironment(), ...environment },
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
      const timer = setTimeout(() => started.kill('SIGKILL'), STOP_TIMEOUT_MS);
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
        if (lines.length > RECENT_LINES) lines.shift();
        if (readyLine !== undefined && line.includes(readyLine)) resolve();
      });
    }
    started.on('message', (message: unknown) => {
      onMessage?.(message);
      if (readyLine === undefined) resolve();
    });
  });
  await waitUntilReady(child, ready);
  return child;
}

async function waitUntilReady(child: Child, ready: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timedOut = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`not ready after ${READY_TIMEOUT_MS / 1_000} s`), READY_TIMEOUT_MS);
  });
  const failure = await Promise.race([ready.then(() => undefined), child.ended, timedOut]);
  clearTimeout(timer);
  if (failure !== undefined) throw new Error(`${child.name}: ${failure} before it was ready:\n${child.lastLines()}`);
}

/** The variables that a process needs; the user's keys and settings must not affect the measurement. */
function inheritedEnvironment(): Record<string, string> {
  // biome-ignore lint/style/noProcessEnv: starts processes as a shell does
  const { PATH = '', HOME = '' } = process.env;
  return { PATH, HOME };
}
