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

/** Classifies what `sendRequest` rejected with. */
export function connectionFailure(error: unknown): ConnectionFailure {
  if (!(error instanceof Error)) return { kind: 'unknown', reason: 'connection failed' };
  // A host with several addresses fails with one error for each.
  const errors: NodeJS.ErrnoException[] = [error, ...(error instanceof AggregateError ? error.errors : [])];
  const code = errors.map((each) => each.code).find((each) => each !== undefined && NEVER_LEFT.has(each));
  if (code) return { kind: 'not_sent', code };
  // An aborted request has a number for a code.
  const ownCode: unknown = errors[0]?.code;
  return { kind: 'unknown', reason: typeof ownCode === 'string' ? ownCode : error.name };
}
