/** Waiting without polling: change notifications, timers that end with the sandbox, and background work. */

interface Watcher {
  check: () => void;
  fail: (error: Error) => void;
}

/** Lets callers wait for a state. Code that changes the state must call `notify` with the same key. */
export class Changes {
  readonly #watchers = new Map<string, Set<Watcher>>();

  /** Makes all waits for `key` check their state again. */
  notify(key: string): void {
    for (const watcher of [...(this.#watchers.get(key) ?? [])]) watcher.check();
  }

  /** Resolves with the first defined result of `check`. @throws Error with `describe()` after `timeoutMs` ms, or when closed */
  until<T>(key: string, check: () => T | undefined, timeoutMs: number, describe: () => string): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const finish = (settle: () => void) => {
        clearTimeout(timer);
        this.#remove(key, watcher);
        settle();
      };
      const watcher: Watcher = {
        check: () => {
          const found = check();
          if (found !== undefined) finish(() => resolve(found));
        },
        fail: (error) => finish(() => reject(error)),
      };
      const timer = setTimeout(() => watcher.fail(new Error(`after ${timeoutMs} ms: ${describe()}`)), timeoutMs);
      this.#add(key, watcher);
      watcher.check();
    });
  }

  /** Rejects all pending waits. */
  close(): void {
    for (const watchers of [...this.#watchers.values()]) {
      for (const watcher of [...watchers]) watcher.fail(new Error('the sandbox was closed'));
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

/** A group of timers that end together when closed, so that none keeps a process or test waiting. */
export class Timers {
  readonly #pending = new Map<NodeJS.Timeout, (elapsed: boolean) => void>();
  #closed = false;

  /** Resolves with true after `ms` milliseconds, or with false as soon as the group is closed. */
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

  /** Ends all sleeps; later ones end at once. */
  close(): void {
    this.#closed = true;
    for (const [timer, resolve] of this.#pending) {
      clearTimeout(timer);
      resolve(false);
    }
    this.#pending.clear();
  }
}

/** Tracks promises that are not awaited directly, so that failures are reported and their completion can be awaited. */
export class Background {
  readonly #running = new Set<Promise<void>>();
  readonly #failed: (error: unknown) => void;

  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  /** Tracks `work`; passes its failure to the handler. */
  run(work: Promise<unknown>): void {
    const tracked = work.then(
      () => undefined,
      (error: unknown) => this.#failed(error),
    );
    this.#running.add(tracked);
    tracked.finally(() => this.#running.delete(tracked)).catch(this.#failed);
  }

  /** Resolves when nothing is running, including work that was added meanwhile. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}
