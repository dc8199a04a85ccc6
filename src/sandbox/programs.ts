/** What a double shall do with the next requests: counted programs in their order, then the latest lasting one. */

/** How often a program applies. */
export interface Counted {
  /** How many matching requests it applies to; not set: all, until removed. */
  times?: number | undefined;
  /** How many matching requests pass by before it applies (default 0). */
  skip?: number | undefined;
}

interface Entry<P> {
  program: P;
  skip: number;
  left: number;
}

/** A list of programs, of which each request takes at most one. */
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

  /** The program for a request, and counts it as used. */
  take(matches: (program: P) => boolean): P | undefined {
    if (this.#entries.length === 0) return undefined;
    const ready = this.#entries.filter((entry) => matches(entry.program)).filter((entry) => entry.skip-- <= 0);
    const chosen = ready.find((entry) => Number.isFinite(entry.left)) ?? ready.at(-1);
    if (chosen === undefined) return undefined;
    chosen.left -= 1;
    if (chosen.left <= 0) this.#entries = this.#entries.filter((entry) => entry !== chosen);
    return chosen.program;
  }

  /** Removes those that `which` names, all by default. */
  clear(which: (program: P) => boolean = () => true): void {
    this.#entries = this.#entries.filter((entry) => !which(entry.program));
  }

  /** The programs that still wait for requests. */
  list(): P[] {
    return this.#entries.map((entry) => entry.program);
  }
}
