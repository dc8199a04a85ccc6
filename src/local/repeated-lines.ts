/** Keeps a problem that comes again and again from filling the terminal; the log file has every line. */

/** How long a line that was shown is not shown again. */
const SHOWN_AGAIN_AFTER_MS = 15 * 60_000;
/** More different lines than this within the time are not remembered. */
const MAX_LINES = 200;

/** Decides which lines are shown. */
export class RepeatedLines {
  readonly #shown = new Map<string, { atMs: number; hidden: number }>();

  /** The line as it is to be shown, with the number of times that it was not; undefined: not now. */
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
