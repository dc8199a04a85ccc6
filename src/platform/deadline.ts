/**
 * A timeout for one HTTP request. `AbortSignal.timeout` with `AbortSignal.any` does not work: on Node 20 a composed signal can
 * be garbage-collected before it fires, and the request hangs (seen in test/conversation.test.ts, "never answers").
 */

/** Runs `request` with a signal that aborts after `timeoutMs` or together with `outer`; releases both afterwards. */
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
