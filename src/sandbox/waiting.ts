/** Waiting without polling: states that change, timers that end with the sandbox, work that goes on in the background. */

interface Watcher {
  look: () => void;
  end: (error: Error) => void;
}

/** Lets callers await a state: whoever changes the state calls `notify` with the same key. */
export class Changes {
  readonly #watchers = new Map<string, Set<Watcher>>();

  /** Has everybody who waits for `key` look again. */
  notify(key: string): void {
    for (const watcher of [...(this.#watchers.get(key) ?? [])]) watcher.look();
  }

  /** Resolves with the first defined result of `look`. @throws Error with `describe()` after `timeoutMs` milliseconds, or when closed */
  until<T>(key: string, look: () => T | undefined, timeoutMs: number, describe: () => string): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const finish = (settle: () => void) => {
        clearTimeout(timer);
        this.#remove(key, watcher);
        settle();
      };
      const watcher: Watcher = {
        look: () => {
          const found = look();
          if (found !== undefined) finish(() => resolve(found));
        },
        end: (error) => finish(() => reject(error)),
      };
      const timer = setTimeout(() => watcher.end(new Error(`after ${timeoutMs} ms: ${describe()}`)), timeoutMs);
      this.#add(key, watcher);
      watcher.look();
    });
  }

  /** Ends every wait with an error. */
  close(): void {
    for (const watchers of [...this.#watchers.values()]) {
      for (const watcher of [...watchers]) watcher.end(new Error('the sandbox was closed'));
    }
  }

  #add(key: string, watcher: Watcher): void {
    const watchers = this.#watchers.get(key) ?? new Set();
    watchers.add(watcher);
    this.#watchers.set(key, watchers);
  }

  #remove(key: string, watcher: Watcher): void {
    const watchers = this.#watchers.get(key);
    watchers?.delete(watcher);
    if (watchers?.size === 0) this.#watchers.delete(key);
  }
}

/** Timers that all end when they are closed, so that no process or test is held up by a late one. */
export class Timers {
  readonly #pending = new Map<NodeJS.Timeout, (elapsed: boolean) => void>();
  #closed = false;

  /** Resolves with true after `ms` milliseconds, with false at once when closed. */
  sleep(ms: number): Promise<boolean> {
    if (this.#closed) return Promise.resolve(false);
    if (ms <= 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#pending.delete(timer);
        resolve(true);
      }, ms);
      this.#pending.set(timer, resolve);
    });
  }

  /** Ends all sleeps. */
  close(): void {
    this.#closed = true;
    for (const [timer, resolve] of this.#pending) {
      clearTimeout(timer);
      resolve(false);
    }
    this.#pending.clear();
  }
}

/** Promises that nobody awaits at once: none is lost, and their end can be awaited. */
export class Background {
  readonly #running = new Set<Promise<void>>();
  readonly #failed: (error: unknown) => void;

  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  /** Takes over `work`; its failure goes to the handler. */
  run(work: Promise<unknown>): void {
    const tracked = work.then(
      () => undefined,
      (error: unknown) => this.#failed(error),
    );
    this.#running.add(tracked);
    tracked.finally(() => this.#running.delete(tracked)).catch(this.#failed);
  }

  /** Resolves when nothing runs any more, including what was started meanwhile. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}
