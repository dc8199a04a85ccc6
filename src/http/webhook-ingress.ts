/**
 * The way in for webhooks: counted, limited, read, taken and answered here, for every source alike. They are nearly
 * all that comes over HTTP (four for each answered message), so they do not pass through the router of the REST API:
 * that costs more than everything else about them (docs/decisions/0005).
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import express, { type Request, type Response } from 'express';
import type { Logger } from '../platform/logger';
import type { ApiMetrics, WebhookResult, WebhookSource } from '../platform/metrics';
import { ApiError, answerError } from './errors';
import type { PathFinder } from './paths';
import type { RateLimits } from './rate-limits';
import { onceEnded } from './request-end';

/** What a source learns about its webhook. */
export interface WebhookNote {
  /** The sender's or our word for the kind of event; unknown ones are counted as `other`. */
  type?: string;
  result?: WebhookResult;
}

export interface ReceivedWebhook {
  headers: IncomingHttpHeaders;
  /** As it was sent, decompressed: what a signature is over. */
  rawBody: Buffer;
  /** Leaves a note for the count of this webhook; a later one adds to it. Without one the status tells the result. */
  note(note: WebhookNote): void;
}

/** The 200; every other answer is thrown as an ApiError. */
export interface WebhookAnswer {
  contentType: string;
  body: string;
  /** Done when the answer is on its way: no sender waits for a line of the log. Must not throw. */
  afterwards?: () => void;
}

/** One source of webhooks. */
export interface Webhook {
  source: WebhookSource;
  paths: readonly string[];
  bodyLimitMib: number;
  take(webhook: ReceivedWebhook): Promise<WebhookAnswer>;
}

/** `body` as JSON. */
export function jsonAnswer(body: object): WebhookAnswer {
  return { contentType: 'application/json; charset=utf-8', body: JSON.stringify(body) };
}

export interface IngressDependencies {
  findPath: PathFinder;
  limits: Pick<RateLimits, 'webhooks'>;
  metrics: ApiMetrics;
  logger: Logger;
}

/** False: not a webhook, and nothing was done with it. True: it is being answered. */
export type WebhookIngress = (request: IncomingMessage, response: ServerResponse) => boolean;

/** Takes the webhooks of these sources. */
export function webhookIngress(webhooks: readonly Webhook[], dependencies: IngressDependencies): WebhookIngress {
  const { findPath } = dependencies;
  const receivers = new Map(
    webhooks.flatMap((webhook) => {
      const receive = receiver(webhook, dependencies);
      return webhook.paths.map((path) => [path, receive] as const);
    }),
  );
  return (request, response) => {
    if (request.method !== 'POST') return false;
    const path = findPath(pathOf(request.url ?? ''))?.template;
    const receive = path === undefined ? undefined : receivers.get(path);
    if (path === undefined || receive === undefined) return false;
    void receive(request, response, path);
    return true;
  };
}

/** The target may be a whole address (RFC 9112, section 3.2.2). */
function pathOf(target: string): string {
  const path = target.startsWith('/') ? target : target.replace(/^https?:\/\/[^/?#]*/i, '');
  const end = path.search(/[?#]/);
  return end < 0 ? path : path.slice(0, end);
}

type Receiver = (request: IncomingMessage, response: ServerResponse, path: string) => Promise<void>;

function receiver({ source, bodyLimitMib, take }: Webhook, { limits, metrics, logger }: IngressDependencies): Receiver {
  const read = bodyReader(bodyLimitMib);
  // Each source has a count of its own: a burst of one takes nothing from another.
  const secondsToWait = limits.webhooks();
  return async (request, response, route) => {
    const noted: WebhookNote = {};
    onceEnded(response, ({ isAnswered, status, seconds }) => {
      const result = isAnswered ? (noted.result ?? resultOf(status)) : 'aborted';
      metrics.webhookAnswered({ source, type: noted.type ?? 'other', result, seconds });
      metrics.requestAnswered({ method: 'POST', route, status, seconds });
    });
    try {
      const waitSeconds = await secondsToWait(request);
      if (waitSeconds !== undefined) throw new ApiError(429, 'too many requests', { 'Retry-After': String(waitSeconds) });
      const rawBody = await read(request, response);
      const { contentType, body, afterwards } = await take({
        headers: request.headers,
        rawBody,
        note: (note) => Object.assign(noted, note),
      });
      response.writeHead(200, { 'Content-Type': contentType, 'Content-Length': Buffer.byteLength(body) });
      response.end(body);
      afterwards?.();
    } catch (error) {
      answerError(response, error, logger);
    }
  };
}

/** Express' own reader of bodies, which knows compressions and limits; it asks nothing else of Express. */
function bodyReader(limitMib: number): (request: IncomingMessage, response: ServerResponse) => Promise<Buffer> {
  const parse = express.raw({ type: () => true, limit: `${limitMib}mb` });
  return (request, response) =>
    new Promise((resolve, reject) => {
      parse(request as Request, response as Response, (error: unknown) => {
        const { body } = request as Request;
        if (error) reject(error);
        else resolve(Buffer.isBuffer(body) ? body : Buffer.alloc(0));
      });
    });
}

function resultOf(status: number): WebhookResult {
  if (status < 300) return 'taken';
  if (status === 401) return 'bad_signature';
  if (status === 413) return 'too_large';
  if (status === 429) return 'rate_limited';
  return 'failed';
}
