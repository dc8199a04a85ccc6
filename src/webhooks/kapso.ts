/**
 * The WhatsApp webhook: verify, read, hand over, respond. A signed body never gets a 4xx, because Kapso pauses a webhook that fails too
 * often and never resumes it by itself (Kapso's webhook delivery rules). Whatever cannot be read becomes a dead letter, because Kapso
 * does not send it again after a 200.
 */
import { type Request, type RequestHandler, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { ApiError, guardedProblems, logged, problems, RETRY_AFTER, tooManyRequests, webhookProblems } from '../http/errors';
import { jsonResponse, type Proof, type ReceivedWebhook, type Webhook, type WebhookResponse } from '../http/webhook-ingress';
import type { Logger } from '../platform/logger';
import type { WebhookResult } from '../platform/metrics';
import {
  type KapsoEvent,
  type MessageEvent,
  readKapsoBody,
  type SkippedEvent,
  type StatusEvent,
  type UnreadableEvent,
} from '../providers/kapso/events';
import { signaturesIn } from '../providers/kapso/signature';
import { KAPSO_WEBHOOK_PATHS } from '../providers/kapso/webhook-paths';
import { lettersOf } from './dead-letters';
import { type Events, type HandedOver, type HandOverDependencies, handOver, levelOf, NotStartedError, unstoredResult } from './hand-over';
import { ownEvents, type SenderOptions, senderOf } from './kapso-senders';

/** Meta's largest webhook (Meta's webhook reference). */
const BODY_LIMIT_MIB = 3;

/** Defined in the provider's folder, so that `npm run doctor` can use them. */
export const WEBHOOK_PATHS: string[] = [...KAPSO_WEBHOOK_PATHS];

const receivedSchema = z.object({ received: z.literal(true) }).meta({ id: 'Received' });
const handshakeSchema = z.object({
  'hub.mode': z.literal('subscribe'),
  'hub.verify_token': z.string().meta({ description: '`KAPSO_WEBHOOK_TOKEN`.' }),
  'hub.challenge': z.string().meta({ description: 'Returned as the response.', example: '1158201444' }),
});
const signatureHeaders = z.object({
  'X-Webhook-Signature': z.string().optional().meta({ description: "HMAC-SHA256 of the body in hex, by Kapso's scheme." }),
  'X-Hub-Signature-256': z.string().optional().meta({ description: "The same after `sha256=`, by Meta's scheme." }),
  'X-Idempotency-Key': z.string().optional().meta({ description: "The delivery's id; written to the log." }),
});

/** The webhook in the OpenAPI document: each path, with its handshake. */
export const kapsoPaths: ZodOpenApiPathsObject = Object.fromEntries(WEBHOOK_PATHS.map((path, index) => [path, kapsoPath(index)]));

function kapsoPath(index: number): ZodOpenApiPathsObject[string] {
  const suffix = index === 0 ? '' : String(index + 1);
  return {
    get: {
      tags: ['Webhooks'],
      summary: "Meta's handshake",
      operationId: `shakeHandsWithMeta${suffix}`,
      requestParams: { query: handshakeSchema },
      responses: {
        200: { description: 'The challenge.', content: { 'text/plain': { schema: z.string() } } },
        ...problems({ 403: 'Not a handshake, or a wrong token.' }),
        429: tooManyRequests,
        500: guardedProblems[500],
      },
    },
    post: {
      tags: ['Webhooks'],
      summary: "Kapso's or Meta's webhook",
      operationId: `takeKapsoWebhook${suffix}`,
      requestParams: { header: signatureHeaders },
      requestBody: {
        description: 'Any body from Kapso or Meta: an event or a batch. A signed body is never rejected for its content.',
        content: { 'application/json': { schema: z.looseObject({}) } },
      },
      responses: {
        200: { description: 'Stored, or ignored as irrelevant.', content: { 'application/json': { schema: receivedSchema } } },
        ...webhookProblems('Missing or invalid signature.', BODY_LIMIT_MIB),
      },
    },
  };
}

export interface KapsoWebhookOptions extends SenderOptions {
  logShapes: boolean;
  /** Undefined until startup is complete. */
  handOverDependencies(): HandOverDependencies | undefined;
}

/** The WhatsApp webhook. */
export function kapsoWebhook(options: KapsoWebhookOptions): Webhook {
  return {
    ...{ source: 'kapso', paths: WEBHOOK_PATHS, bodyLimitMib: BODY_LIMIT_MIB, refusal: refusalOf(options) },
    proofOf: (headers) => proofOf(headers, options),
    take: (webhook) => takeWebhook(webhook, options),
  };
}

function refusalOf({ secrets }: KapsoWebhookOptions): string {
  return secrets.length > 0 ? 'bad or missing signature' : 'bad or missing signature (KAPSO_WEBHOOK_SECRET is not set)';
}

function proofOf(headers: ReceivedWebhook['headers'], options: KapsoWebhookOptions): Proof {
  const signatures = signaturesIn(headers);
  return signatures.length > 0 && ((rawBody) => senderOf(rawBody, signatures, options));
}

/** Meta's handshake, which verifies that the URL is ours. */
export function handshakeRoutes(verifyToken: string | undefined, limit: RequestHandler): Router {
  const router = Router();
  router.get(WEBHOOK_PATHS, limit, (request, response) => answerHandshake(request, response, verifyToken));
  return router;
}

function answerHandshake(request: Request, response: Response, verifyToken: string | undefined): void {
  const handshake = handshakeSchema.safeParse(request.query);
  if (!handshake.success || !verifyToken || handshake.data['hub.verify_token'] !== verifyToken)
    throw new ApiError(403, 'wrong verify token');
  response.type('text/plain').send(handshake.data['hub.challenge']);
}

const RECEIVED: WebhookResponse = jsonResponse({ received: true } satisfies z.input<typeof receivedSchema>);

async function takeWebhook({ headers, rawBody, sender, note }: ReceivedWebhook, options: KapsoWebhookOptions): Promise<WebhookResponse> {
  const logger = options.logger.child({ idempotencyKey: headers['x-idempotency-key'] ?? null });
  const eventName = eventNameIn(headers);
  const read = sorted(ownEvents(readKapsoBody(rawBody, eventName), sender, options));
  note({ type: typeOf(read), result: resultOf(read) });
  try {
    report(read, options.logShapes, logger);
    const { messages, statuses } = read;
    const letters = lettersOf(read.unreadable, { rawBody, eventName, sender });
    const conversations = await keep({ messages, statuses, letters }, options.handOverDependencies(), logger);
    if (conversations.length === 0) return RECEIVED;
    return { ...RECEIVED, afterwards: () => logger.info({ conversations }, 'messages handed over') };
  } catch (error) {
    note({ result: unstoredResult(error) });
    const id = logged(logger, error, 'webhook not stored; asking the sender to send it again', levelOf(error));
    throw new ApiError(503, 'not stored; please send it again', RETRY_AFTER, id);
  }
}

/** Kapso's name for the event; undefined if it does not look like a name. */
function eventNameIn(headers: ReceivedWebhook['headers']): string | undefined {
  const name = headers['x-webhook-event'];
  return typeof name === 'string' && /^[\w.-]{1,100}$/.test(name) ? name : undefined;
}

async function keep(events: Events, dependencies: HandOverDependencies | undefined, logger: Logger): Promise<HandedOver[]> {
  if (events.messages.length + events.statuses.length + events.letters.length === 0) return [];
  if (!dependencies) throw new NotStartedError();
  return await handOver(events, { ...dependencies, logger });
}

/** The events of a body by what they are. */
export interface Sorted {
  messages: MessageEvent[];
  statuses: StatusEvent[];
  skipped: SkippedEvent[];
  unreadable: UnreadableEvent[];
}

/** Sorts events by what they are. */
export function sorted(events: readonly KapsoEvent[]): Sorted {
  const read: Sorted = { messages: [], statuses: [], skipped: [], unreadable: [] };
  for (const event of events) {
    switch (event.type) {
      case 'message':
        read.messages.push(event);
        break;
      case 'status':
        read.statuses.push(event);
        break;
      case 'skipped':
        read.skipped.push(event);
        break;
      case 'unreadable':
        read.unreadable.push(event);
        break;
    }
  }
  return read;
}

/** What the webhook carries, for the metrics. */
function typeOf({ messages, statuses }: Sorted): string {
  if (messages.length > 0) return statuses.length > 0 ? 'message_and_status' : 'message';
  return statuses.length > 0 ? 'status' : 'other';
}

function resultOf({ messages, statuses, unreadable }: Sorted): WebhookResult {
  if (unreadable.length > 0) return 'unreadable';
  return messages.length + statuses.length > 0 ? 'taken' : 'skipped';
}

/** Shapes of unreadable items per log line. */
const MOST_SHAPES = 10;

function report({ skipped, unreadable }: Sorted, logShapes: boolean, logger: Logger): void {
  for (const { shape } of skipped) logger.debug(logShapes ? { shape } : {}, 'webhook is not for us');
  if (unreadable.length === 0) return;
  const reasons = [...new Set(unreadable.map(({ reason }) => reason))];
  const shapes = unreadable.slice(0, MOST_SHAPES).map(({ shape }) => shape);
  logger.error({ items: unreadable.length, reasons, ...(logShapes ? { shapes } : {}) }, 'authentic Kapso webhook could not be read');
}
