/**
 * JSON lines on standard output. Ids yes; phone numbers masked; message text, names and keys never:
 * callers log ids and counts, and what slips into an error's text is masked here.
 */
import { type Logger as PinoLogger, pino } from 'pino';

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
  return destination ? pino(options, destination) : pino(options);
}
