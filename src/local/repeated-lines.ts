/** Keeps a repeated problem from filling the terminal; the log file has every line. */

/** How long a line is not shown again, in ms. */
const SHOWN_AGAIN_AFTER_MS = 15 * 60_000;
/** Maximum number of different lines that are remembered. */
const MAX_LINES = 200;

/** Decides which lines are shown. */
export class RepeatedLines {
  readonly #shown = new Map<string, { atMs: number; hidden: number }>();

  /** The line to show, with how often it was left out; undefined if it is not to be shown now. */
  show(line: string, nowMs = Date.now()): string | undefined {
    const before = this.#shown.get(line);
    if (before !== undefined && nowMs - before.atMs < SHOWN_AGAIN_AFTER_MS) {
      before.hidden += 1;
      return undefined;
    }
    this.#shown.delete(line);
    this.#shown.set(line, { atMs: nowMs, hidden: 0 });
    if (this.#shown.size > MAX_LINES) this.#shown.delete(this.#shown.keys().next().value ?? '');
    return before === undefined || before.hidden === 0 ? line : `${line} (and ${before.hidden} times since it was last shown)`;
  }
}
