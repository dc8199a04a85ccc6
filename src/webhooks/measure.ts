/** Counts the webhooks of one source, however they end. */
import type { RequestHandler, Response } from 'express';
import type { ApiMetrics, WebhookResult, WebhookSource } from '../metrics';

/** What a handler knows about its webhook. */
export interface WebhookNote {
  /** The sender's or our word for the kind of event; unknown ones are counted as `other`. */
  type?: string;
  result?: WebhookResult;
}

/** Leaves a note for the count of this webhook; a later one adds to it. */
export function noteWebhook(response: Response, note: WebhookNote): void {
  const locals = response.locals as { webhook?: WebhookNote };
  locals.webhook = { ...locals.webhook, ...note };
}

/** Stands in front of a webhook's route. Without a note the status tells the result. */
export function measureWebhooks(source: WebhookSource, metrics: ApiMetrics): RequestHandler {
  return (request, response, next) => {
    if (request.method !== 'POST') return next();
    const startedAt = performance.now();
    response.once('close', () => {
      const note = (response.locals as { webhook?: WebhookNote }).webhook;
      const result = response.writableFinished ? (note?.result ?? resultOf(response.statusCode)) : 'aborted';
      metrics.webhookAnswered({ source, type: note?.type ?? 'other', result, seconds: (performance.now() - startedAt) / 1_000 });
    });
    next();
  };
}

function resultOf(status: number): WebhookResult {
  if (status < 300) return 'taken';
  if (status === 401) return 'bad_signature';
  if (status === 413) return 'too_large';
  if (status === 429) return 'rate_limited';
  return 'failed';
}
