/**
 * Where webhooks of every source come in: verified first, then taken, answered and counted. They are nearly all that comes over HTTP
 * (four for each answered message), so they do not pass through the router of the REST API: that costs more than everything else
 * about them (docs/decisions/0005).
 *
 * A sender who proves who it is is never limited: its provider gives up soon, and pauses the webhook. Only what is not proven counts
 * against its address. Nothing of it is read where the headers decide, and little is held where the body does (./webhook-body.ts).
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from '../platform/logger';
import type { ApiMetrics, WebhookResult, WebhookSource } from '../platform/metrics';
import { ApiError, answerError } from './errors';
import type { PathFinder } from './paths';
import type { RateLimits } from './rate-limits';
import { onceEnded } from './request-end';
import { type BodyReader, createBodyReader, discardBody } from './webhook-body';

/** What a source says of a webhook, for the metrics. */
export interface WebhookNote {
  /** The sender's or our word for the kind of event; unknown ones count as `other`. */
  type?: string;
  result?: WebhookResult;
}

export interface ReceivedWebhook {
  headers: IncomingHttpHeaders;
  /** As it was sent, decompressed: what a signature is over. */
  rawBody: Buffer;
  /** Notes something for the metrics; a later note adds to it. Without a result, the status tells it. */
  note(note: WebhookNote): void;
}

/** The 200; every other answer is thrown as an ApiError. */
export interface WebhookAnswer {
  contentType: string;
  body: string;
  /** Called when the answer is on its way: no sender waits for a line of the log. Must not throw. */
  afterwards?: () => void;
}

/** What the headers prove: true, who sent it; false, nothing, so that the body is not read; or the body decides. */
export type Proof = boolean | ((rawBody: Buffer) => boolean);

/** One source of webhooks. */
export interface Webhook {
  source: WebhookSource;
  paths: readonly string[];
  bodyLimitMib: number;
  /** The `detail` of the 401 for what is not proven. */
  refusal: string;
  proofOf(headers: IncomingHttpHeaders): Proof;
  /** Takes a webhook whose sender is proven. */
  take(webhook: ReceivedWebhook): Promise<WebhookAnswer>;
}

/** `body` as JSON. */
export function jsonAnswer(body: object): WebhookAnswer {
  return { contentType: 'application/json; charset=utf-8', body: JSON.stringify(body) };
}

export interface IngressDependencies {
  findPath: PathFinder;
  limits: Pick<RateLimits, 'unsignedWebhooks'>;
  metrics: ApiMetrics;
  logger: Logger;
  /** Bound of what unverified bodies hold in memory; has a default. */
  maxUnverifiedBytes?: number;
}

/** False: not a webhook, and nothing was done with it. True: it is being answered. */
export type WebhookIngress = (request: IncomingMessage, response: ServerResponse) => boolean;

/** Takes the webhooks of these sources. */
export function webhookIngress(webhooks: readonly Webhook[], dependencies: IngressDependencies): WebhookIngress {
  const { findPath } = dependencies;
  const read = createBodyReader(dependencies.maxUnverifiedBytes);
  const receivers = new Map(
    webhooks.flatMap((webhook) => {
      const receive = receiver(webhook, read, dependencies);
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

function receiver(webhook: Webhook, read: BodyReader, { limits, metrics, logger }: IngressDependencies): Receiver {
  const { source, bodyLimitMib, refusal, proofOf, take } = webhook;
  const limitBytes = bodyLimitMib * 1024 * 1024;
  // Each source has a count of its own.
  const secondsToWait = limits.unsignedWebhooks();
  const refuse = (request: IncomingMessage): ApiError => {
    const waitSeconds = secondsToWait(request);
    if (waitSeconds !== undefined) return new ApiError(429, 'too many webhooks without proof', { 'Retry-After': String(waitSeconds) });
    logger.warn({ source }, `webhook refused: ${refusal}`);
    return new ApiError(401, refusal);
  };
  const readProven = async (request: IncomingMessage): Promise<Buffer> => {
    const proof = proofOf(request.headers);
    if (proof === false) {
      discardBody(request);
      throw refuse(request);
    }
    const rawBody = await read(request, { limitBytes, isVerified: proof === true });
    if (proof !== true && !proof(rawBody)) throw refuse(request);
    return rawBody;
  };
  return async (request, response, route) => {
    const noted: WebhookNote = {};
    onceEnded(response, ({ isAnswered, status, seconds }) => {
      const result = isAnswered ? (noted.result ?? resultOf(status)) : 'aborted';
      metrics.webhookAnswered({ source, type: noted.type ?? 'other', result, seconds });
      metrics.requestAnswered({ method: 'POST', route, status, seconds });
    });
    try {
      const rawBody = await readProven(request);
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

function resultOf(status: number): WebhookResult {
  if (status < 300) return 'taken';
  if (status === 401) return 'bad_signature';
  if (status === 413) return 'too_large';
  if (status === 429) return 'rate_limited';
  if (status === 503) return 'overloaded';
  return 'failed';
}
