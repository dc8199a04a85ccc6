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

/** As Node and undici make them; a host with several addresses fails with one error for each. */
interface ConnectionError {
  name?: unknown;
  code?: unknown;
  syscall?: unknown;
  errors?: unknown;
}

/** Classifies what `sendRequest` rejected with. */
export function connectionFailure(error: unknown): ConnectionFailure {
  const { name, code, errors } = (error ?? {}) as ConnectionError;
  const all: ConnectionError[] = [error ?? {}, ...(Array.isArray(errors) ? errors : [])];
  const before = all.find((each) => typeof each.code === 'string' && NEVER_LEFT.has(each.code) && isBeforeSending(each));
  if (before) return { kind: 'not_sent', code: String(before.code) };
  // An aborted request has a number for a code.
  return { kind: 'unknown', reason: typeof code === 'string' ? code : typeof name === 'string' ? name : 'connection failed' };
}

/** A connection that stands can fail with the same codes, when Linux hears that its host has gone: then the request may have arrived. */
function isBeforeSending({ syscall }: ConnectionError): boolean {
  return syscall === undefined || syscall === 'connect' || syscall === 'getaddrinfo';
}
