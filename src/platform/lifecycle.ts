/** Start and shutdown of a process. It stops on SIGTERM, on SIGINT, or when its parent process exits. */
import { readArguments, UsageError } from './command-line';
import { SettingsError } from './config';
import { EXIT_SETTINGS, EXIT_USAGE } from './exit-status';
import { createLogger, type Logger } from './logger';

/** Shutdown was requested before the process was ready. */
class StoppedError extends Error {
  override name = 'StoppedError';
}

/** Runs the `main` of a process, which takes no arguments. An error is logged as the last line and exits the process. */
export function runProcess(name: string, main: (environment: NodeJS.ProcessEnv) => Promise<void>, environment: NodeJS.ProcessEnv): void {
  if (wantsHelp(name)) return;
  main(environment).catch((error: unknown) => {
    // `onShutdown` is already exiting.
    if (error instanceof StoppedError) return;
    const logger = createLogger(name, 'info');
    if (error instanceof SettingsError) logger.fatal({ problems: error.problems }, 'invalid settings');
    else logger.fatal({ error }, `the ${name} could not start`);
    process.exit(error instanceof SettingsError ? EXIT_SETTINGS : 1);
  });
}

/** Returns whether help is requested. Exits if there are other arguments, because ignoring, say, --port would mislead. */
function wantsHelp(name: string): boolean {
  const help = `Runs Parley's ${name} process until it gets SIGTERM or SIGINT. It has no options: its settings come from the environment or .env, and .env.example documents them.`;
  try {
    return readArguments(process.argv.slice(2), { help, options: {} }) === undefined;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    createLogger(name, 'info').fatal({ problem: error.message }, 'invalid arguments; settings come from the environment');
    process.exit(EXIT_USAGE);
  }
}

/** On the first stop signal, runs `stop` and exits 0; exits 1 if it fails or takes longer than `limitMs`. */
export function onShutdown(logger: Logger, limitMs: number, stop: () => Promise<void>): void {
  let stopping = false;
  const shutDown = (reason: string) => {
    if (stopping) return;
    stopping = true;
    logger.info({ reason }, 'stopping');
    setTimeout(() => {
      logger.error({ limitMs }, 'stopping took too long');
      process.exit(1);
    }, limitMs).unref();
    stop().then(
      () => {
        logger.info('stopped');
        process.exit(0);
      },
      (error: unknown) => {
        logger.error({ error }, 'could not stop cleanly');
        process.exit(1);
      },
    );
  };
  process.once('SIGTERM', () => shutDown('SIGTERM'));
  process.once('SIGINT', () => shutDown('SIGINT'));
  process.once('disconnect', () => shutDown('the parent process exited'));
  // The parent may have exited while this process was loading. Without an IPC channel, `connected` is undefined.
  if (process.connected === false) shutDown('the parent process exited');
}

/** Longest pause between two attempts to reach a server at startup. */
const MAX_PAUSE_MS = 5_000;

/** Returns a function that repeats an attempt, with growing pauses, until it succeeds. @throws StoppedError once `signal` aborts */
export function createStartupRetry(logger: Logger, signal: AbortSignal) {
  return async <T>(problem: string, attempt: () => Promise<T>): Promise<T> => {
    for (let pauseMs = 250; ; pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS)) {
      if (signal.aborted) throw new StoppedError('shutdown requested');
      try {
        return await attempt();
      } catch (error) {
        logger.warn({ error }, `${problem}; trying again`);
        await pause(pauseMs, signal);
      }
    }
  };
}

/** Resolves after `ms` milliseconds, or once `signal` aborts. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
  });
}
