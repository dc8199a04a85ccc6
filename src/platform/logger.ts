/**
 * JSON lines on standard output. Ids yes; phone numbers masked; message text, names and keys never:
 * callers log ids and counts, and what slips into an error's text is masked here.
 */
import { type DestinationStream, type Logger as PinoLogger, pino } from 'pino';

export type Logger = PinoLogger;

/** Seven or more digits in a row (with a plus before them or not) can be a phone number; the last two stay, to compare by. */
const PHONE_NUMBER = /(?<![\w-])\+?\d{5,18}(\d{2})(?![\w-])/g;

/** Replaces what looks like a phone number. Ids keep their digits only where letters or hyphens adjoin them. */
export function maskPhoneNumbers(text: string): string {
  return text.replace(PHONE_NUMBER, '…$1');
}

/** An error as it may be logged: name, type, code and place; its text only with numbers masked and cut. */
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

/** A logger whose every line names the process it came from. */
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

/** Lines that nobody has read yet wait in memory, up to this many bytes; then they are dropped. */
const MAX_WAITING_BYTES = 1_048_576;
const TRY_AGAIN_MS = 1_000;

/**
 * Written at once, as long as somebody reads. A reader that stalls must not stop the process: pino by itself would try
 * again until it reads, and neither answer a request nor end on SIGTERM meanwhile.
 */
function standardOutput(): DestinationStream {
  const options = { fd: 1, sync: true, maxLength: MAX_WAITING_BYTES, periodicFlush: TRY_AGAIN_MS, retryEAGAIN: () => false };
  const stream = pino.destination(options);
  // The line stays in the buffer, and goes out with a later one; with nobody left to read, there is nobody to tell.
  stream.on('error', () => undefined);
  return stream;
}
