/**
 * Keeps rows in a file across restarts: one line of JSON per version of a row, appended as it changes, so that a killed process loses
 * nothing that it has acknowledged. When the file is opened, and when it has grown enough, the newest rows replace it.
 */
import { appendFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

const ONLY_OWNER = 0o600;

interface Line<T> {
  key: string;
  row: T;
}

export class Journal<T> {
  readonly #file: string;
  readonly #keep: number;
  #lines = 0;

  /** `keep`: the number of rows that are kept; the oldest are dropped first. */
  constructor(file: string, keep: number) {
    this.#file = file;
    this.#keep = keep;
    mkdirSync(dirname(file), { recursive: true });
    this.#compact();
  }

  /** The newest version of each row, in the order in which they first appeared. */
  rows(): T[] {
    return [...this.#read().values()];
  }

  /** Appends a version of a row. */
  write(key: string, row: T): void {
    if (this.#lines >= 4 * this.#keep) this.#compact();
    appendFileSync(this.#file, lineOf(key, row), { mode: ONLY_OWNER });
    this.#lines += 1;
  }

  #compact(): void {
    const newest = [...this.#read()].slice(-this.#keep);
    const fresh = `${this.#file}.new`;
    writeFileSync(fresh, newest.map(([key, row]) => lineOf(key, row)).join(''), { mode: ONLY_OWNER });
    renameSync(fresh, this.#file);
    this.#lines = newest.length;
  }

  #read(): Map<string, T> {
    const rows = new Map<string, T>();
    for (const line of readOr(this.#file, '').split('\n')) {
      const parsed = parse<T>(line);
      if (parsed !== undefined) rows.set(parsed.key, parsed.row);
    }
    return rows;
  }
}

function lineOf<T>(key: string, row: T): string {
  return `${JSON.stringify({ key, row } satisfies Line<T>)}\n`;
}

/** Undefined for the torn last line of a killed process. */
function parse<T>(line: string): Line<T> | undefined {
  try {
    const parsed = JSON.parse(line) as Partial<Line<T>> | null;
    return typeof parsed?.key === 'string' && typeof parsed.row === 'object' ? (parsed as Line<T>) : undefined;
  } catch {
    return undefined;
  }
}

function readOr(path: string, fallback: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return fallback;
  }
}
