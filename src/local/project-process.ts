/** Runs a process of this project under the supervisor, and prints the problems that it logs. */
import { EXIT_SETTINGS } from '../platform/exit-status';
import { logFile } from './embedded/instance';
import { startServer } from './embedded/process';
import { RepeatedLines } from './repeated-lines';
import type { Environment, StartContext } from './start-context';
import { say } from './terminal';

/** Longer than the shutdown limits of the API and the worker. */
const STOP_TIMEOUT_MS = 20_000;
const MAX_LINE_LENGTH = 200;

interface ProjectProcessOptions {
  name: string;
  entry: string;
  environment: Environment;
  /** `hasLogged`: whether the process has logged a message. */
  isReady(hasLogged: (message: string) => boolean): boolean | Promise<boolean>;
}

/** Starts the process and waits until it is ready. */
export async function runProcess(context: StartContext, { name, entry, environment, isReady }: ProjectProcessOptions): Promise<void> {
  const file = logFile(context.settings.DATA_DIR, name.toLowerCase());
  const problems = new RepeatedLines();
  await context.supervisor.run({
    name,
    marks: [entry],
    isFatal: (how) => how.includes(`exit code ${EXIT_SETTINGS}`),
    start: (onSpawn) => {
      const logged = new Set<string>();
      return startServer({
        name,
        command: process.execPath,
        args: ['--import', 'tsx', entry],
        environment,
        channel: true,
        isReady: () => isReady((message) => logged.has(message)),
        stopSignal: 'SIGTERM',
        stopGraceMs: STOP_TIMEOUT_MS,
        logFile: file,
        onSpawn,
        onLog: (line) => {
          const { message, isProblem, text } = readLogLine(line);
          logged.add(message);
          const shown = isProblem ? problems.show(text.slice(0, MAX_LINE_LENGTH)) : undefined;
          if (shown !== undefined) say(`${name}: ${shown}`);
        },
      });
    },
  });
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
