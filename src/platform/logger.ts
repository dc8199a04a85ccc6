/**
 * Logs JSON lines to standard output. Callers log ids and counts only, never message text, names or keys; phone numbers that
 * slip into an error's text are masked here.
 */
import { type DestinationStream, type Logger as PinoLogger, pino } from 'pino';

export type Logger = PinoLogger;

/** Seven or more consecutive digits, with or without a plus, may be a phone number. The last two digits stay, for comparison. */
const PHONE_NUMBER = /(?<![\w-])\+?\d{5,18}(\d{2})(?![\w-])/g;

/** Masks what looks like a phone number. An id is masked too unless letters or hyphens adjoin its digits. */
export function maskPhoneNumbers(text: string): string {
  return text.replace(PHONE_NUMBER, '…$1');
}

/** The loggable part of an error: name, type, code, stack, and its text with phone numbers masked, cut to 500 characters. */
export function describeError(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { name: typeof error };
  const { code, type } = error as Error & { code?: unknown; type?: unknown };
  return {
    name: error.name,
    message: maskPhoneNumbers(error.message).slice(0, 500),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(typeof type === 'string' ? { type } : {}),
    ...(error.cause instanceof Error ? { cause: describeError(error.cause) } : {}),
    stack: error.stack?.split('\n').slice(1, 6).join('\n'),
  };
}

/** A logger that adds `component`, the process's name, to every line. */
export function createLogger(component: string, level: string, destination?: { write(line: string): void }): Logger {
  const options = {
    level,
    base: { component },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { err: describeError, error: describeError },
  };
  return pino(options, destination ?? standardOutput());
}

/** Unread lines are buffered up to this many bytes; further lines are dropped. */
const MAX_BUFFERED_BYTES = 1_048_576;
const FLUSH_INTERVAL_MS = 1_000;

/**
 * Writes synchronously, but never blocks on a reader that has stalled: by default pino would retry in a loop, and the process
 * would neither serve requests nor react to SIGTERM.
 */
function standardOutput(): DestinationStream {
  const options = { fd: 1, sync: true, maxLength: MAX_BUFFERED_BYTES, periodicFlush: FLUSH_INTERVAL_MS, retryEAGAIN: () => false };
  const stream = pino.destination(options);
  // The line stays buffered and is written with a later one. If the reader is gone, there is nowhere to report the error.
  stream.on('error', () => undefined);
  return stream;
}
