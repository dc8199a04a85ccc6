/** How a process ends: on SIGTERM, on SIGINT, or when the process that started it is gone. */
import { SettingsError } from './config';
import { createLogger, type Logger } from './logger';

/** Exit code when the settings are wrong: restarting will not help. */
export const EXIT_SETTINGS = 78;

/** Runs a process's `main`; what it throws is logged as the last line, and ends the process. */
export function runProcess(name: string, main: (environment: NodeJS.ProcessEnv) => Promise<void>, environment: NodeJS.ProcessEnv): void {
  main(environment).catch((error: unknown) => {
    const logger = createLogger(name, 'info');
    if (error instanceof SettingsError) logger.fatal({ problems: error.problems }, 'the settings are wrong');
    else logger.fatal({ error }, `the ${name} could not start`);
    process.exit(error instanceof SettingsError ? EXIT_SETTINGS : 1);
  });
}

/** Runs `stop` once, then exits 0; exits 1 when it fails or takes longer than `limitMs`. */
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
  process.once('disconnect', () => shutDown('the parent is gone'));
}

/** Longest pause between two attempts to reach a server at the start. */
const LONGEST_PAUSE_MS = 5_000;

/** Makes what calls an attempt until it succeeds, with growing pauses; it ends with the signal's reason when aborted. */
export function patiently(logger: Logger, signal: AbortSignal) {
  return async <T>(problem: string, attempt: () => Promise<T>): Promise<T> => {
    for (let pauseMs = 250; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      signal.throwIfAborted();
      try {
        return await attempt();
      } catch (error) {
        logger.warn({ error }, `${problem}; trying again`);
        await pause(pauseMs, signal);
      }
    }
  };
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
