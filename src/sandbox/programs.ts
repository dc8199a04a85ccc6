/** Programmed behaviour for the next requests: programs with a count apply in order, then the latest one without a count. */

/** How often a program applies. */
export interface Counted {
  /** Number of matching requests that it applies to (default: all, until it is removed). */
  times?: number | undefined;
  /** Number of matching requests to skip first (default 0). */
  skip?: number | undefined;
}

interface Entry<P> {
  program: P;
  skip: number;
  left: number;
}

/** A list of programs; at most one applies to each request. */
export class Programs<P extends Counted> {
  #entries: Entry<P>[] = [];

  /** Adds a program; the returned function removes it. */
  add(program: P): () => void {
    const entry = { program, skip: program.skip ?? 0, left: program.times ?? Number.POSITIVE_INFINITY };
    this.#entries.push(entry);
    return () => {
      this.#entries = this.#entries.filter((other) => other !== entry);
    };
  }

  /** Returns the program for a request and counts the use. */
  take(matches: (program: P) => boolean): P | undefined {
    if (this.#entries.length === 0) return undefined;
    const ready = this.#entries.filter((entry) => matches(entry.program)).filter((entry) => entry.skip-- <= 0);
    const chosen = ready.find((entry) => Number.isFinite(entry.left)) ?? ready.at(-1);
    if (chosen === undefined) return undefined;
    chosen.left -= 1;
    if (chosen.left <= 0) this.#entries = this.#entries.filter((entry) => entry !== chosen);
    return chosen.program;
  }

  /** Removes the programs that `which` selects (default: all). */
  clear(which: (program: P) => boolean = () => true): void {
    this.#entries = this.#entries.filter((entry) => !which(entry.program));
  }

  /** The programs that are still active. */
  list(): P[] {
    return this.#entries.map((entry) => entry.program);
  }
}
