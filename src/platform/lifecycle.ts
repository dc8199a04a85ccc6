/** How a process ends: on SIGTERM, on SIGINT, or when the process that started it is gone. */
import { SettingsError } from './config';
import { createLogger, type Logger } from './logger';

/** Exit code when the settings are wrong: restarting will not help. */
export const EXIT_SETTINGS = 78;

/** The process was told to stop before it was ready. */
class StoppedError extends Error {
  override name = 'StoppedError';
}

/** Runs a process's `main`; what it throws is logged as the last line, and ends the process. */
export function runProcess(name: string, main: (environment: NodeJS.ProcessEnv) => Promise<void>, environment: NodeJS.ProcessEnv): void {
  main(environment).catch((error: unknown) => {
    // `onShutdown` is ending it.
    if (error instanceof StoppedError) return;
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
  // It may have gone while this process was still loading; without a parent that wants to know it is undefined.
  if (process.connected === false) shutDown('the parent is gone');
}

/** Longest pause between two attempts to reach a server at the start. */
const LONGEST_PAUSE_MS = 5_000;

/** Makes what calls an attempt until it succeeds, with growing pauses. @throws StoppedError once the signal is aborted */
export function patiently(logger: Logger, signal: AbortSignal) {
  return async <T>(problem: string, attempt: () => Promise<T>): Promise<T> => {
    for (let pauseMs = 250; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      if (signal.aborted) throw new StoppedError('told to stop');
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
