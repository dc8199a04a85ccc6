/** Errors as answers: `application/problem+json` (RFC 9457), with an id that stands in the log and nothing of the inside. */
import { randomUUID } from 'node:crypto';
import type { ErrorRequestHandler, RequestHandler, Response } from 'express';
import type { Logger } from '../logger';

/** An answer that the caller may see in full. */
export class ApiError extends Error {
  override name = 'ApiError';
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

function sendProblem(response: Response, status: number, title: string, id?: string): void {
  response
    .status(status)
    .type('application/problem+json')
    .send(JSON.stringify({ title, status, ...(id ? { id } : {}) }));
}

export const notFound: RequestHandler = (_request, response) => sendProblem(response, 404, 'no such address');

/** The last handler: our own errors as they are, the body parser's by their status, everything else as a 500 with an id. */
export function errorHandler(logger: Logger): ErrorRequestHandler {
  return (error: unknown, _request, response, next) => {
    if (response.headersSent) return next(error);
    if (error instanceof ApiError) return sendProblem(response, error.status, error.message);
    const status = clientErrorStatus(error);
    if (status) return sendProblem(response, status, status === 413 ? 'the body is too large' : 'the request could not be read');
    const id = randomUUID();
    logger.error({ error, id }, 'request failed');
    return sendProblem(response, 500, 'something went wrong', id);
  };
}

/** Errors of express and its body parser carry the status they stand for. */
function clientErrorStatus(error: unknown): number | undefined {
  const status = (error as { status?: unknown } | undefined)?.status;
  return typeof status === 'number' && status >= 400 && status < 500 ? status : undefined;
}
