/** Error responses: `application/problem+json` (RFC 9457), with an id that is also in the log, and no internal details. */
import { randomUUID } from 'node:crypto';
import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import type { ErrorRequestHandler, RequestHandler } from 'express';
import { z } from 'zod';
import type { ZodOpenApiResponseObject } from 'zod-openapi';
import { isDatabaseAway } from '../platform/database-errors';
import type { Logger } from '../platform/logger';

/** An error response. The client sees `message` as its `detail`. `id`: set if the cause is already in the log under this id. */
export class ApiError extends Error {
  override name = 'ApiError';
  constructor(
    readonly status: number,
    message: string,
    readonly headers: Readonly<Record<string, string>> = {},
    readonly id?: string,
  ) {
    super(message);
  }
}

/** Body of every error response. */
export const problemSchema = z
  .object({
    type: z.literal('about:blank').meta({ description: 'No more specific than the status (RFC 9457, section 4.2.1).' }),
    title: z.string().meta({ description: 'The name of the status code.' }),
    status: z.int().min(400).max(599).meta({ description: 'The HTTP status code.' }),
    detail: z.string().optional().meta({ description: 'What is wrong, in words.' }),
    id: z.uuid().optional().meta({ description: 'With a 5xx status: also in the log, with the cause.' }),
  })
  .meta({ id: 'Problem', description: 'What went wrong (RFC 9457).' });

/** An error response of the OpenAPI document, with an example. */
export function problem(status: number, description: string): ZodOpenApiResponseObject {
  const example: unknown = JSON.parse(problemText(status, description, status < 500 ? undefined : EXAMPLE_ID));
  return { description, content: { 'application/problem+json': { schema: problemSchema, example } } };
}

const EXAMPLE_ID = '0f8b1a52-6c1e-4a57-9d3e-2b7c1f0e4d5a';

/** Error responses of the OpenAPI document, by status. */
export function problems(reasons: Readonly<Record<number, string>>): Record<`${4 | 5}${string}`, ZodOpenApiResponseObject> {
  return Object.fromEntries(Object.entries(reasons).map(([status, reason]) => [status, problem(Number(status), reason)]));
}

const RETRY_AFTER_SECONDS = {
  required: true,
  schema: { type: 'string', pattern: '^\\d+$' },
  description: 'Seconds to wait before the next request.',
} as const;

/** The 429 of an operation with a rate limit. */
export const tooManyRequests: ZodOpenApiResponseObject = {
  ...problem(429, 'Too many requests. `Retry-After` and `RateLimit` say when to retry.'),
  id: 'TooManyRequests',
  headers: {
    'Retry-After': RETRY_AFTER_SECONDS,
    RateLimit: {
      required: true,
      schema: { type: 'string' },
      description: 'The remaining quota (draft-ietf-httpapi-ratelimit-headers-08).',
    },
    'RateLimit-Policy': { required: true, schema: { type: 'string' }, description: 'The limit (the same draft).' },
  },
};

/** The 429 of a webhook: senders read no other header. */
const tooManyWebhooks: ZodOpenApiResponseObject = {
  ...problem(429, 'Too many unsigned webhooks from this IP address. `Retry-After` says when to retry.'),
  id: 'TooManyWebhooks',
  headers: { 'Retry-After': RETRY_AFTER_SECONDS },
};

/** The header of a 503, in seconds (RFC 9110). */
export const RETRY_AFTER = { 'Retry-After': '5' } as const;

/** The error responses of every operation that requires a bearer key. Each of them reads the database. */
export const guardedProblems = {
  400: { ...problem(400, 'The request could not be parsed, or a value is invalid; `detail` says which.'), id: 'BadRequest' },
  401: {
    ...problem(401, 'No valid bearer key.'),
    id: 'Unauthorized',
    headers: { 'WWW-Authenticate': { required: true, schema: { type: 'string', enum: ['Bearer'] } } },
  },
  403: { ...problem(403, "The role of the key lacks the operation's permission."), id: 'Forbidden' },
  429: tooManyRequests,
  500: { ...problem(500, 'Internal error. The `id` is also in the log.'), id: 'InternalError' },
  503: {
    ...problem(503, 'The database or Temporal is unavailable. Send the same request again; `Retry-After` says when.'),
    id: 'Unavailable',
    headers: { 'Retry-After': { required: true, schema: { type: 'string', enum: [RETRY_AFTER['Retry-After']] } } },
  },
} satisfies Record<number, ZodOpenApiResponseObject>;

/** The error responses of an operation with a JSON body, besides `guardedProblems`. */
export const bodyProblems = problems({ 413: 'The body is too large.', 415: 'Unsupported content encoding or charset.' });

/** The error responses of every webhook. `limitMiB`: the maximum length of a body. */
export function webhookProblems(unauthorized: string, limitMiB: number): Record<`${4 | 5}${string}`, ZodOpenApiResponseObject> {
  return {
    ...problems({
      400: 'The body was cut off, or does not match its encoding.',
      401: unauthorized,
      413: `The body is larger than ${limitMiB} MiB.`,
      415: 'Unsupported content encoding.',
    }),
    429: tooManyWebhooks,
    500: guardedProblems[500],
    503: {
      ...problem(503, 'Not stored, or too many unverified bodies in flight; send it again.'),
      headers: { 'Retry-After': { required: true, schema: { type: 'string', enum: [RETRY_AFTER['Retry-After']] } } },
    },
  };
}

/** Sends an error response. */
export function sendProblem(response: ServerResponse, status: number, detail?: string, id?: string): void {
  response.statusCode = status;
  response.setHeader('Content-Type', 'application/problem+json; charset=utf-8');
  response.end(problemText(status, detail, id));
}

function problemText(status: number, detail?: string, id?: string): string {
  const title = STATUS_CODES[status] ?? 'Error';
  return JSON.stringify({ type: 'about:blank', title, status, ...(detail ? { detail } : {}), ...(id ? { id } : {}) } satisfies z.input<
    typeof problemSchema
  >);
}

export const notFound: RequestHandler = (_request, response) => sendProblem(response, 404, 'no such path');

/** The last handler of the REST API: sends what was thrown. */
export function errorHandler(logger: Logger): ErrorRequestHandler {
  return (error: unknown, _request, response, _next) => sendError(response, error, logger);
}

/**
 * Sends what was thrown: our own errors as they are, the body parser's by their status, a database outage as a 503, anything else as a
 * 500 with an id. If a response has already begun, the connection is closed, so that the client does not take it as complete.
 */
export function sendError(response: ServerResponse, error: unknown, logger: Logger): void {
  if (response.headersSent) {
    logged(logger, error, 'request failed after its response had begun');
    response.destroy();
    return;
  }
  const status = clientErrorStatus(error);
  if (error instanceof ApiError) {
    for (const [name, value] of Object.entries(error.headers)) response.setHeader(name, value);
    const id = error.status < 500 ? undefined : (error.id ?? logged(logger, error));
    sendProblem(response, error.status, error.message, id);
  } else if (status) {
    sendProblem(response, status, CLIENT_ERRORS[status] ?? 'the request could not be parsed');
  } else if (isDatabaseAway(error)) {
    response.setHeader('Retry-After', RETRY_AFTER['Retry-After']);
    sendProblem(response, 503, 'the database is unavailable; please retry', logged(logger, error, 'the database is unavailable'));
  } else {
    sendProblem(response, 500, 'internal error; the id is also in the log', logged(logger, error));
  }
}

/** Logs the error and returns the id of its log line. `level`: info if nobody needs to act. */
export function logged(logger: Logger, error: unknown, message = 'request failed', level: 'info' | 'error' = 'error'): string {
  const id = randomUUID();
  logger[level]({ error, id }, message);
  return id;
}

/** Our texts for the errors of Express and its body parser, which quote the request in theirs. */
const CLIENT_ERRORS: Readonly<Record<number, string>> = {
  400: 'the request could not be parsed',
  413: 'the body is too large',
  415: 'the charset or encoding of the body is not supported',
};

/** The 4xx status that Express and its body parser attach to their errors. */
function clientErrorStatus(error: unknown): number | undefined {
  const status = (error as { status?: unknown } | undefined)?.status;
  return typeof status === 'number' && status >= 400 && status < 500 ? status : undefined;
}

/** Statuses for Node's `clientError` codes; any other code means that the request is not valid HTTP. */
const UNREAD_STATUS: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

/** Handles the server's `clientError`: requests that reach no handler (headers too long, not HTTP) also get an error response. */
export function refuseUnread(error: Error & { code?: string }, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const { _httpMessage: current } = socket as Duplex & { _httpMessage?: { headersSent: boolean } };
  // A response is in progress on this connection: a second one would corrupt it.
  if (current?.headersSent) {
    socket.destroy();
    return;
  }
  const status = UNREAD_STATUS[error.code ?? ''] ?? 400;
  const body = problemText(status);
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Type: application/problem+json; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
