/** Terminal output of `npm start` and the other commands. */
import { relative } from 'node:path';
import { messageOf } from './instance-file';

/** Prints a line to standard output. */
export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** One Ctrl-C reaches a command up to three times: from the terminal, npm and the bootstrap. */
const SAME_KEYPRESS_MS = 700;

/** Calls `first` at the first of these signals, and `second` at each one that comes from another key press. */
export function onSignals(names: readonly NodeJS.Signals[], first: () => void, second: () => void): void {
  let firstAtMs: number | undefined;
  const onSignal = () => {
    if (firstAtMs === undefined) {
      firstAtMs = Date.now();
      first();
    } else if (Date.now() - firstAtMs > SAME_KEYPRESS_MS) second();
  };
  for (const name of names) process.on(name, onSignal);
}

/** Prints a name and a value in two columns. */
export function sayRow(name: string, value: string): void {
  say(`  ${name.padEnd(12)} ${value}`);
}

/** Prints an error's message to standard error. */
export function sayError(error: unknown): void {
  process.stderr.write(`${messageOf(error)}\n`);
}

/** The path relative to the working directory, unless it is outside of it. */
export function shortPath(path: string): string {
  const short = relative(process.cwd(), path);
  return short.startsWith('..') ? path : short;
}
