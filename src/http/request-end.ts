/** How requests end, for the metrics of the REST API and of webhooks. */
import type { ServerResponse } from 'node:http';

/** How a request ended. */
export interface RequestEnd {
  /** The whole response was sent; otherwise the client disconnected first. */
  isAnswered: boolean;
  /** 499 without a response, as in nginx. */
  status: number;
  /** Since `onceEnded` was called. */
  seconds: number;
}

/** Calls `tell` once the request has ended. */
export function onceEnded(response: ServerResponse, tell: (end: RequestEnd) => void): void {
  const startedAt = performance.now();
  response.once('close', () => {
    const isAnswered = response.writableFinished;
    tell({ isAnswered, status: isAnswered ? response.statusCode : 499, seconds: (performance.now() - startedAt) / 1_000 });
  });
}
