/** What a request that failed without an answer says about itself: did it leave, or may it have been carried out? */

/** `not_sent`: the request never left. `unknown`: it may have been carried out, so that repeating it could do the thing twice. */
export type ConnectionFailure = { kind: 'not_sent'; code: string } | { kind: 'unknown'; reason: string };

/** Errors of the connection that come before a byte of the request has left (Node and undici error codes). */
const NEVER_LEFT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
  'CERT_HAS_EXPIRED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'ERR_TLS_CERT_ALTNAME_INVALID',
]);

/** Classifies what `fetch` rejected with. */
export function connectionFailure(error: unknown): ConnectionFailure {
  const cause = error instanceof Error && error.cause instanceof Error ? (error.cause as NodeJS.ErrnoException) : undefined;
  const codes = [cause?.code, ...(cause instanceof AggregateError ? cause.errors.map((inner: NodeJS.ErrnoException) => inner.code) : [])];
  const code = codes.find((candidate) => candidate !== undefined && NEVER_LEFT.has(candidate));
  if (code) return { kind: 'not_sent', code };
  return { kind: 'unknown', reason: error instanceof Error ? (cause?.code ?? error.name) : 'connection failed' };
}
