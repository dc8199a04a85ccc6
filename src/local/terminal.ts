/** What `npm start` and the terminal commands print. */
import { relative } from 'node:path';
import { messageOf } from './instance-file';

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function step(name: string, value: string): void {
  say(`  ${name.padEnd(12)} ${value}`);
}

export function complain(error: unknown): void {
  process.stderr.write(`${messageOf(error)}\n`);
}

export function shortPath(path: string): string {
  const short = relative(process.cwd(), path);
  return short.startsWith('..') ? path : short;
}
