/** Lets one loop sleep until something has happened. Cheaper than `condition`, which creates more promises (docs/decisions/0005). */
export class Bell {
  #resolve: () => void = () => undefined;

  /** Resolves at the next ring. What rang before is not remembered: look at the state, then wait, with nothing awaited in between. */
  rung(): Promise<void> {
    return new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** Wakes whoever waits. */
  ring(): void {
    this.#resolve();
  }
}
