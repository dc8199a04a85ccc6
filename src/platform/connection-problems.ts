/** Explains why PostgreSQL or Temporal cannot be reached, in a sentence that begins with the setting to change. */
import { isGrpcServiceError } from '@temporalio/client';

/** A server does not respond, or refuses access. The message names the setting to change. */
export class ConnectionProblem extends Error {
  override name = 'ConnectionProblem';
}

/** Node's codes for a certificate whose authority is unknown. */
const UNKNOWN_AUTHORITY = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
]);

interface DatabaseError {
  code?: string;
  message?: string;
  path?: string;
}

/** The problem behind an error when connecting to `databaseUrl`; the error itself if it is not about the connection. */
export function databaseProblem(error: unknown, databaseUrl: string): unknown {
  const { hostname, port, pathname, username, searchParams } = new URL(databaseUrl);
  const server = `${searchParams.get('host') ?? hostname}:${searchParams.get('port') ?? (port || '5432')}`;
  const { code = '', message = '', path = '' } = rootOf(error);
  const problem = (text: string) => new ConnectionProblem(`DATABASE_URL: ${text}`, { cause: error });
  if (UNKNOWN_AUTHORITY.has(code))
    return problem(
      `the authority of the certificate of ${server} is unknown (${code}); add sslmode=verify-full&sslrootcert=<file with the authority's certificate>, or, to connect without checking, sslmode=require&uselibpqcompat=true`,
    );
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return problem(
      `the certificate of ${server} is for another host; use the host that it names, or, to check its authority only, sslmode=verify-ca&sslrootcert=<file>&uselibpqcompat=true`,
    );
  if (code === 'CERT_HAS_EXPIRED') return problem(`the certificate of ${server} has expired`);
  // The driver has no codes for these two.
  if (message.includes('does not support SSL')) return problem(`${server} does not speak TLS; use sslmode=disable`);
  if (message.includes('requires specifying a CA')) return problem('sslmode=verify-ca needs sslrootcert=<file with the certificate>');
  if (path !== '') return problem(`the file ${path} cannot be read (${code}); check sslrootcert, sslcert and sslkey`);
  switch (code) {
    case '28000':
      return problem(`${server} refuses the connection (${message}); if it wants TLS, add sslmode=verify-full`);
    case '28P01':
      return problem(`${server} refuses the password of the user ${decodeURIComponent(username)}`);
    case '3D000':
      return problem(`${server} has no database ${decodeURIComponent(pathname.slice(1))}; npm run migrate creates it`);
    case '42501':
      return problem(`the user ${decodeURIComponent(username)} lacks a privilege at ${server}: ${message}`);
    default:
      return isAway(code, message) ? problem(`no PostgreSQL answers at ${server} (${code || message})`) : error;
  }
}

/** Codes of Node's network functions, or the driver's timeouts, which have none. */
function isAway(code: string, message: string): boolean {
  return /^E[A-Z_]+$/.test(code) || (code === '' && /timeout|terminated/i.test(message));
}

/** The first error with a code: Prisma wraps the driver's, and a host with several addresses has one per address. */
function rootOf(error: unknown): DatabaseError {
  const { cause, errors } = (error ?? {}) as { cause?: unknown; errors?: unknown };
  const candidates = [error, ...(Array.isArray(errors) ? errors : []), cause] as (DatabaseError | null | undefined)[];
  return candidates.find((each) => typeof each?.code === 'string') ?? (error as DatabaseError | null) ?? {};
}

/** gRPC status codes. */
const DEADLINE_EXCEEDED = 4;
const NOT_FOUND = 5;
const PERMISSION_DENIED = 7;
const UNIMPLEMENTED = 12;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

/** The problem behind an error of a request to Temporal; the error itself if it is not about the connection. */
export function temporalProblem(error: unknown, { address, namespace }: { address: string; namespace: string }): unknown {
  const grpc = error instanceof Error && isGrpcServiceError(error.cause) ? error.cause : error;
  if (!isGrpcServiceError(grpc)) return error;
  const problem = (text: string) => new ConnectionProblem(text, { cause: error });
  switch (grpc.code) {
    case DEADLINE_EXCEEDED:
    case UNAVAILABLE:
      return problem(`TEMPORAL_ADDRESS: no Temporal server answers at ${address}${whyAway(grpc.details || grpc.message, address)}`);
    case UNIMPLEMENTED:
      return problem(`TEMPORAL_ADDRESS: what answers at ${address} is not a Temporal server`);
    case NOT_FOUND:
      return problem(`TEMPORAL_NAMESPACE: the Temporal server at ${address} has no namespace ${namespace}`);
    case PERMISSION_DENIED:
    case UNAUTHENTICATED:
      return problem(
        `TEMPORAL_API_KEY: the Temporal server at ${address} refuses access to the namespace ${namespace} (${grpc.details || grpc.message}); check the key or the client certificate`,
      );
    default:
      return error;
  }
}

/** What gRPC's words say about the cause, without its internals. A deadline may also pass while it looks up the name. */
function whyAway(details: string, address: string): string {
  if (/name resolution failed|ENOTFOUND/i.test(details)) return ': the name does not resolve';
  const isName = /[a-z]/i.test(address) && !address.startsWith('[');
  if (/deadline exceeded/i.test(details)) return isName ? ': the name does not resolve, or nothing answers there' : ' (no response)';
  const [, lastError = details] = /Last error: (.*?)(?:\. Resolution note:.*)?$/s.exec(details) ?? [];
  return ` (${lastError})`;
}
