/** Classifies requests that failed without a response: was the request never sent, or may the server have processed it? */

/** `not_sent`: the request never left this process. `unknown`: the server may have processed it; a retry could do it twice. */
export type ConnectionFailure = { kind: 'not_sent'; code: string } | { kind: 'unknown'; reason: string };

/** Node and undici error codes for failures before the first byte of the request is sent. */
const CONNECT_ERROR_CODES = new Set([
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
  // src/platform/claim-fence.ts
  'CLAIM_EXPIRED',
  'PROXY_FAILED',
]);

/** The proxy did not connect: it refused or did not respond. Nothing was sent to the server. */
export class ProxyError extends Error {
  override name = 'ProxyError';
  readonly code = 'PROXY_FAILED';
  constructor(cause: unknown) {
    super(`the proxy did not connect: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/** The shape of Node's and undici's errors. A host with several addresses fails with one error per address. */
interface ConnectionError {
  name?: unknown;
  code?: unknown;
  syscall?: unknown;
  errors?: unknown;
}

/** Classifies the error of a rejected `sendRequest`. */
export function connectionFailure(error: unknown): ConnectionFailure {
  const { name, code, errors } = (error ?? {}) as ConnectionError;
  const all: ConnectionError[] = [error ?? {}, ...(Array.isArray(errors) ? errors : [])];
  const connectError = all.find((each) => typeof each.code === 'string' && CONNECT_ERROR_CODES.has(each.code) && isConnecting(each));
  if (connectError) return { kind: 'not_sent', code: String(connectError.code) };
  // The code of an aborted request is a number.
  return { kind: 'unknown', reason: typeof code === 'string' ? code : typeof name === 'string' ? name : 'connection failed' };
}

/** Linux reports a vanished host with the same codes on an open connection; the request may then have arrived. */
function isConnecting({ syscall }: ConnectionError): boolean {
  return syscall === undefined || syscall === 'connect' || syscall === 'getaddrinfo';
}
