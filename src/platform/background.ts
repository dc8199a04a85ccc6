/** Work that continues after its caller has received a response. A process waits for it at shutdown. */

/** The background work of a process. */
export interface BackgroundWork {
  /** Tracks `work`, which must not reject. */
  track(work: Promise<void>): void;
  /** Resolves when no work is left. */
  settled(): Promise<void>;
}

/** Creates an empty set of background work. */
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
