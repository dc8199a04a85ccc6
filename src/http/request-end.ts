/** How requests end, for what is counted of them: the same for the REST API and for webhooks. */
import type { ServerResponse } from 'node:http';

/** How a request ended. */
export interface RequestEnd {
  /** The whole answer went out; otherwise the caller went away before. */
  isAnswered: boolean;
  /** 499 without an answer, as nginx writes it. */
  status: number;
  /** Since `onceEnded` was called. */
  seconds: number;
}

/** Tells how a request ended, once it has. */
export function onceEnded(response: ServerResponse, tell: (end: RequestEnd) => void): void {
  const startedAt = performance.now();
  response.once('close', () => {
    const isAnswered = response.writableFinished;
    tell({ isAnswered, status: isAnswered ? response.statusCode : 499, seconds: (performance.now() - startedAt) / 1_000 });
  });
}
