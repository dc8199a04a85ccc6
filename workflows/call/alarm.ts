/** Waits with as few timers as possible, because each one costs an action. */
import { CancellationScope, condition, isCancellation, sleep } from '@temporalio/workflow';

/** One timer for consecutive waits. A wait that ends later than the running timer uses it too, so it may resolve early. */
export class Alarm {
  #ringsAtMs = Number.POSITIVE_INFINITY;
  #timer: CancellationScope | undefined;

  /** Resolves when `hasNews` is true, at `untilMs` (milliseconds since 1970), or earlier: the caller must check the time. */
  async wait(hasNews: () => boolean, untilMs: number, summary: string): Promise<void> {
    if (this.#timer === undefined || this.#ringsAtMs > untilMs) this.#start(untilMs, summary);
    const timer = this.#timer;
    await condition(() => hasNews() || this.#timer !== timer);
  }

  #start(atMs: number, summary: string): void {
    this.#timer?.cancel();
    const timer = new CancellationScope();
    this.#timer = timer;
    this.#ringsAtMs = atMs;
    void timer
      .run(() => sleep(Math.max(1, atMs - Date.now()), { summary }))
      .then(
        () => {
          if (this.#timer === timer) this.#timer = undefined;
        },
        (error: unknown) => {
          if (!isCancellation(error)) throw error;
        },
      );
  }
}
