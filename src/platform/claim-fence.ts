/**
 * A fence between claiming something and acting on it. A process can be paused in between (SIGSTOP, a sleeping machine, a database
 * that answers late), and others have long decided what became of the claim when it goes on.
 */

/** The claim must not be acted on any more. Has the `code` of an error of the connection, so that it counts as "nothing was sent". */
export class ClaimExpiredError extends Error {
  override name = 'ClaimExpiredError';
  readonly code = 'CLAIM_EXPIRED';
}

export interface ClaimFence {
  /** To be called right before acting. @throws ClaimExpiredError when the claim is too old, or its activity was cancelled */
  check(): void;
}

/**
 * Starts to measure the age of a claim; call it before claiming, because a claim can be in effect before its answer comes. Age is the
 * greater of monotonic and wall-clock time: the monotonic clock stands still while a machine sleeps, and the wall clock can be set back.
 */
export function startFence({ maxAgeMs, signal }: { maxAgeMs: number; signal: AbortSignal }): ClaimFence {
  const wallStartMs = Date.now();
  const monotonicStartMs = performance.now();
  return {
    check() {
      if (signal.aborted) throw new ClaimExpiredError('the claim was cancelled');
      const ageMs = Math.max(Date.now() - wallStartMs, performance.now() - monotonicStartMs);
      if (ageMs > maxAgeMs) throw new ClaimExpiredError('the claim was too old');
    },
  };
}
