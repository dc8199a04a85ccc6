/** How the doubles respond to a request, or do not. */
import type { Response } from 'express';

/** A provider's response; a string body is an HTML page. */
export interface SimulatedResponse {
  status: number;
  body: unknown;
  headers?: Record<string, string>;
}

/** Sends a response. */
export function sendResponse(response: Response, simulated: SimulatedResponse): void {
  response.status(simulated.status).set(simulated.headers ?? {});
  if (typeof simulated.body === 'string') response.type('html').send(simulated.body);
  else response.json(simulated.body);
}

/** Sends no response: `cut` resets the connection, `hang` keeps it open until the client gives up or the sandbox closes. */
export function withholdResponse(how: 'hang' | 'cut', response: Response): void {
  if (how === 'cut') response.socket?.resetAndDestroy();
}

/** The response with a Retry-After header, if `seconds` is set. */
export function withRetryAfter(simulated: SimulatedResponse, seconds: number | undefined): SimulatedResponse {
  if (seconds === undefined) return simulated;
  return { ...simulated, headers: { ...simulated.headers, 'Retry-After': String(seconds) } };
}
