/** Errors as answers: `application/problem+json` (RFC 9457), with an id that stands in the log and nothing of the inside. */
import { randomUUID } from 'node:crypto';
import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import type { ErrorRequestHandler, RequestHandler } from 'express';
import { z } from 'zod';
import type { ZodOpenApiResponseObject } from 'zod-openapi';
import { isDatabaseAway } from '../platform/database-errors';
import type { Logger } from '../platform/logger';

/** An answer that the caller may see in full: `message` becomes its `detail`. `id`: under which its cause stands in the log already. */
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

/** Body of every answer from 400 on. */
export const problemSchema = z
  .object({
    type: z.literal('about:blank').meta({ description: 'The status says it all (RFC 9457, section 4.2.1).' }),
    title: z.string().meta({ description: 'The name of the status.' }),
    status: z.int().min(400).max(599).meta({ description: 'The status of the answer.' }),
    detail: z.string().optional().meta({ description: 'What is wrong, for a person.' }),
    id: z.uuid().optional().meta({ description: 'From 500 on: stands in the log beside the cause.' }),
  })
  .meta({ id: 'Problem', description: 'What went wrong (RFC 9457).' });

/** One answer of the OpenAPI document that is a problem; its example shows the status and the reason. */
export function problem(status: number, description: string): ZodOpenApiResponseObject {
  const example: unknown = JSON.parse(problemText(status, description, status < 500 ? undefined : EXAMPLE_ID));
  return { description, content: { 'application/problem+json': { schema: problemSchema, example } } };
}

const EXAMPLE_ID = '0f8b1a52-6c1e-4a57-9d3e-2b7c1f0e4d5a';

/** The answers of `statuses` in the OpenAPI document, each as a problem with its reason. */
export function problems(reasons: Readonly<Record<number, string>>): Record<`${4 | 5}${string}`, ZodOpenApiResponseObject> {
  return Object.fromEntries(Object.entries(reasons).map(([status, reason]) => [status, problem(Number(status), reason)]));
}

const RETRY_AFTER_SECONDS = {
  required: true,
  schema: { type: 'string', pattern: '^\\d+$' },
  description: 'Seconds until the next request.',
} as const;

/** Of a limited operation. */
export const tooManyRequests: ZodOpenApiResponseObject = {
  ...problem(429, 'Too many requests. `Retry-After` and `RateLimit` say when to come again.'),
  id: 'TooManyRequests',
  headers: {
    'Retry-After': RETRY_AFTER_SECONDS,
    RateLimit: { required: true, schema: { type: 'string' }, description: 'What is left (draft-ietf-httpapi-ratelimit-headers-08).' },
    'RateLimit-Policy': { required: true, schema: { type: 'string' }, description: 'The limit (the same draft).' },
  },
};

/** Of a webhook: its senders read no more than this. */
const tooManyWebhooks: ZodOpenApiResponseObject = {
  ...problem(429, 'Too many webhooks from this address. `Retry-After` says when to come again.'),
  id: 'TooManyWebhooks',
  headers: { 'Retry-After': RETRY_AFTER_SECONDS },
};

/** What a sender reads that has to come again: seconds, as RFC 9110 writes them. */
export const RETRY_AFTER = { 'Retry-After': '5' } as const;

/** What every operation behind a bearer key may answer besides its own. Each reads the record. */
export const guardedProblems = {
  400: { ...problem(400, 'The request could not be read, or a value in it is wrong; `detail` says which.'), id: 'BadRequest' },
  401: {
    ...problem(401, 'No valid bearer key.'),
    id: 'Unauthorized',
    headers: { 'WWW-Authenticate': { required: true, schema: { type: 'string', enum: ['Bearer'] } } },
  },
  429: tooManyRequests,
  500: { ...problem(500, 'Something went wrong here. The `id` stands in the log.'), id: 'InternalError' },
  503: {
    ...problem(503, 'The record or Temporal is away. Please send the same request again; `Retry-After` says when.'),
    id: 'Unavailable',
    headers: { 'Retry-After': { required: true, schema: { type: 'string', enum: [RETRY_AFTER['Retry-After']] } } },
  },
} satisfies Record<number, ZodOpenApiResponseObject>;

/** What every webhook may answer besides its 200. `limitMiB`: the longest body. */
export function webhookProblems(unauthorized: string, limitMiB: number): Record<`${4 | 5}${string}`, ZodOpenApiResponseObject> {
  return {
    ...problems({
      400: 'The body could not be read from the connection.',
      401: unauthorized,
      413: `Longer than ${limitMiB} MiB.`,
      415: 'A compression that is not known.',
    }),
    429: tooManyWebhooks,
    500: guardedProblems[500],
    503: {
      ...problem(503, 'Not stored: please send again.'),
      headers: { 'Retry-After': { required: true, schema: { type: 'string', enum: [RETRY_AFTER['Retry-After']] } } },
    },
  };
}

/** Answers with a problem; the one place that writes one. */
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

export const notFound: RequestHandler = (_request, response) => sendProblem(response, 404, 'no such address');

/** The last handler. */
export function errorHandler(logger: Logger): ErrorRequestHandler {
  return (error: unknown, _request, response, _next) => answerError(response, error, logger);
}

/**
 * Answers what was thrown: our own errors as they are, the body parser's by their status, a record that is away as a
 * 503, everything else as a 500 with an id. An answer that has begun is cut: its caller must not take it for whole.
 */
export function answerError(response: ServerResponse, error: unknown, logger: Logger): void {
  if (response.headersSent) {
    logged(logger, error, 'request failed after its answer had begun');
    response.destroy();
    return;
  }
  const status = clientErrorStatus(error);
  if (error instanceof ApiError) {
    for (const [name, value] of Object.entries(error.headers)) response.setHeader(name, value);
    const id = error.status < 500 ? undefined : (error.id ?? logged(logger, error));
    sendProblem(response, error.status, error.message, id);
  } else if (status) {
    sendProblem(response, status, CLIENT_ERRORS[status] ?? 'the request could not be read');
  } else if (isDatabaseAway(error)) {
    response.setHeader('Retry-After', RETRY_AFTER['Retry-After']);
    sendProblem(response, 503, 'the record is away; please come again', logged(logger, error, 'the record is away'));
  } else {
    sendProblem(response, 500, 'something went wrong; the id stands in the log', logged(logger, error));
  }
}

/** Logs the error and returns the id under which it stands in the log. */
export function logged(logger: Logger, error: unknown, message = 'request failed'): string {
  const id = randomUUID();
  logger.error({ error, id }, message);
  return id;
}

/** Our words for what express and its body parser refuse: theirs quote the request. */
const CLIENT_ERRORS: Readonly<Record<number, string>> = {
  400: 'the request could not be read',
  413: 'the body is too large',
  415: 'the form or encoding of the body is not supported',
};

/** Errors of express and its body parser carry the status they stand for; so do ours, which are asked first. */
function clientErrorStatus(error: unknown): number | undefined {
  const status = (error as { status?: unknown } | undefined)?.status;
  return typeof status === 'number' && status >= 400 && status < 500 ? status : undefined;
}

/** Node's codes of requests that never become one (`clientError`); every other code is a request that is no HTTP. */
const UNREAD_STATUS: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

/** For the server's `clientError`: what no handler ever sees (too long an address, no HTTP at all) is answered as a problem too. */
export function refuseUnread(error: Error & { code?: string }, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const { _httpMessage: answering } = socket as Duplex & { _httpMessage?: { headersSent: boolean } };
  // An answer is under way on this connection: a second head in it would be garbage.
  if (answering?.headersSent) {
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
