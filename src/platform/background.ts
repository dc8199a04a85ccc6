/** Work that goes on after whoever began it has been answered. A process that stops waits for it. */

export interface BackgroundWork {
  /** Keeps count of `work`, which must not reject. */
  track(work: Promise<void>): void;
  /** Resolves when nothing goes on any more. */
  settled(): Promise<void>;
}

export function createBackgroundWork(): BackgroundWork {
  const running = new Set<Promise<void>>();
  return {
    track(work) {
      running.add(work);
      void work.finally(() => running.delete(work));
    },
    async settled() {
      while (running.size > 0) await Promise.all(running);
    },
  };
}
