/**
 * Receives the webhooks of all sources: verifies each one first, then takes it, responds, and counts it. Webhooks are nearly all HTTP
 * traffic (four for each answered message), so they bypass the router of the REST API, which costs more than the rest of their handling
 * (docs/decisions/0005).
 *
 * A verified sender is never limited, because providers give up soon and pause the webhook. Unverified webhooks count against their
 * address. If the headers already fail, the body is not read; if the body decides, little of it is held (./webhook-body.ts).
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from '../platform/logger';
import type { ApiMetrics, WebhookResult, WebhookSource } from '../platform/metrics';
import { ApiError, sendError } from './errors';
import type { PathFinder } from './paths';
import type { RateLimits } from './rate-limits';
import { onceEnded } from './request-end';
import { type BodyReader, createBodyReader, discardBody } from './webhook-body';

/** What a source notes about a webhook, for the metrics. */
export interface WebhookNote {
  /** The kind of event, in the sender's words or ours; unknown ones count as `other`. */
  type?: string;
  result?: WebhookResult;
}

/** The workspace whose secret verified a webhook, unless it was the installation's. */
export interface Sender {
  workspaceId: string;
}

export interface ReceivedWebhook {
  headers: IncomingHttpHeaders;
  /** Undefined: a secret of the installation proved it. */
  sender: Sender | undefined;
  /** The decompressed bytes, which the signature covers. */
  rawBody: Buffer;
  /** Notes something for the metrics; later notes add to it. Without a result, the HTTP status decides. */
  note(note: WebhookNote): void;
}

/** The body of a 200; any other response is thrown as an ApiError. */
export interface WebhookResponse {
  contentType: string;
  body: string;
  /** Called after the response was sent, so that no sender waits for a log line. Must not throw. */
  afterwards?: () => void;
}

/** True: proven by a secret of the installation. A sender: by one of theirs. */
export type Verdict = boolean | Sender;

/**
 * True or a sender: the headers prove it. False: they fail, and the body is not read. A function: the body decides; it may throw an
 * ApiError if that cannot be told now.
 */
export type Proof = Verdict | ((rawBody: Buffer) => Verdict | Promise<Verdict>);

/** One source of webhooks. */
export interface Webhook {
  source: WebhookSource;
  paths: readonly string[];
  bodyLimitMib: number;
  /** The `detail` of the 401. */
  refusal: string;
  proofOf(headers: IncomingHttpHeaders): Proof;
  /** Handles a verified webhook. */
  take(webhook: ReceivedWebhook): Promise<WebhookResponse>;
}

/** A response with `body` as JSON. */
export function jsonResponse(body: object): WebhookResponse {
  return { contentType: 'application/json; charset=utf-8', body: JSON.stringify(body) };
}

export interface IngressDependencies {
  findPath: PathFinder;
  limits: Pick<RateLimits, 'unsignedWebhooks'>;
  metrics: ApiMetrics;
  logger: Logger;
  /** Maximum memory that unverified bodies may use, in bytes; has a default. */
  maxUnverifiedBytes?: number;
}

/** Returns false if the request is not a webhook, which is then untouched; true if the response will follow. */
export type WebhookIngress = (request: IncomingMessage, response: ServerResponse) => boolean;

/** The ingress for these sources. */
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

/** The request target may be an absolute URL (RFC 9112, section 3.2.2). */
function pathOf(target: string): string {
  const path = target.startsWith('/') ? target : target.replace(/^https?:\/\/[^/?#]*/i, '');
  const end = path.search(/[?#]/);
  return end < 0 ? path : path.slice(0, end);
}

type Receiver = (request: IncomingMessage, response: ServerResponse, path: string) => Promise<void>;

function receiver(webhook: Webhook, read: BodyReader, { limits, metrics, logger }: IngressDependencies): Receiver {
  const { source, bodyLimitMib, refusal, proofOf, take } = webhook;
  const limitBytes = bodyLimitMib * 1024 * 1024;
  // Counted per source.
  const secondsToWait = limits.unsignedWebhooks();
  const refuse = (request: IncomingMessage): ApiError => {
    const waitSeconds = secondsToWait(request);
    if (waitSeconds !== undefined)
      return new ApiError(429, 'too many webhooks without a valid signature or secret', { 'Retry-After': String(waitSeconds) });
    logger.warn({ source }, `webhook rejected: ${refusal}`);
    return new ApiError(401, refusal);
  };
  const readProven = async (request: IncomingMessage): Promise<{ rawBody: Buffer; sender: Sender | undefined }> => {
    const proof = proofOf(request.headers);
    if (proof === false) {
      discardBody(request);
      throw refuse(request);
    }
    const rawBody = await read(request, { limitBytes, isVerified: typeof proof !== 'function' });
    const verdict = typeof proof === 'function' ? await proof(rawBody) : proof;
    if (verdict === false) throw refuse(request);
    return { rawBody, sender: verdict === true ? undefined : verdict };
  };
  return async (request, response, route) => {
    const noted: WebhookNote = {};
    onceEnded(response, ({ isAnswered, status, seconds }) => {
      const result = isAnswered ? (noted.result ?? resultOf(status)) : 'aborted';
      metrics.webhookAnswered({ source, type: noted.type ?? 'other', result, seconds });
      metrics.requestAnswered({ method: 'POST', route, status, seconds });
    });
    try {
      const { rawBody, sender } = await readProven(request);
      const { contentType, body, afterwards } = await take({
        headers: request.headers,
        ...{ rawBody, sender },
        note: (note) => Object.assign(noted, note),
      });
      response.writeHead(200, { 'Content-Type': contentType, 'Content-Length': Buffer.byteLength(body) });
      response.end(body);
      afterwards?.();
    } catch (error) {
      sendError(response, error, logger);
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
