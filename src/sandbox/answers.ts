/** How the doubles answer a request, or do not. */
import type { Response } from 'express';

/** An answer as the provider gives it; a string is a page of HTML. */
export interface HttpAnswer {
  status: number;
  body: unknown;
  headers?: Record<string, string>;
}

/** Sends an answer. */
export function reply(response: Response, answer: HttpAnswer): void {
  response.status(answer.status).set(answer.headers ?? {});
  if (typeof answer.body === 'string') response.type('html').send(answer.body);
  else response.json(answer.body);
}

/** Leaves a request without an answer. A hanging one stays open until the client gives up or the sandbox closes. */
export function leave(how: 'hang' | 'cut', response: Response): void {
  if (how === 'cut') response.socket?.resetAndDestroy();
}

/** A refusal that says when to come again. */
export function withRetryAfter(answer: HttpAnswer, seconds: number | undefined): HttpAnswer {
  if (seconds === undefined) return answer;
  return { ...answer, headers: { ...answer.headers, 'Retry-After': String(seconds) } };
}
