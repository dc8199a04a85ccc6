/**
 * A bound for one HTTP request. Not `AbortSignal.timeout` and `AbortSignal.any`: on Node 20 a composed signal can be
 * collected before it fires, and the request then hangs: the test "never answers" of test/conversation.test.ts saw it.
 */

/** Runs `request` with a signal that fires after `timeoutMs` or when `outer` does, and lets go of both afterwards. */
export async function withDeadline<T>(timeoutMs: number, request: (signal: AbortSignal) => Promise<T>, outer?: AbortSignal): Promise<T> {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const timer = setTimeout(abort, timeoutMs);
  outer?.addEventListener('abort', abort, { once: true });
  if (outer?.aborted) abort();
  try {
    return await request(controller.signal);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener('abort', abort);
  }
}
