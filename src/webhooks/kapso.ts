/**
 * The WhatsApp webhook: verify, project, hand over, answer. A well-signed body never gets a 4xx, because Kapso
 * pauses a webhook that fails too often and never resumes it by itself (Kapso's webhook delivery rules).
 */
import { type Request, type RequestHandler, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { ApiError, guardedProblems, logged, problems, RETRY_AFTER, tooManyRequests, webhookProblems } from '../http/errors';
import { jsonAnswer, type ReceivedWebhook, type Webhook, type WebhookAnswer } from '../http/webhook-ingress';
import type { Logger } from '../platform/logger';
import type { WebhookResult } from '../platform/metrics';
import { type KapsoEvent, type MessageEvent, readKapsoBody, type SkippedEvent, type StatusEvent } from '../providers/kapso/events';
import { isSigned } from '../providers/kapso/signature';
import { type HandedOver, type HandOverDependencies, handOver } from './hand-over';

/** Meta's largest webhook (Meta's webhook reference). */
const BODY_LIMIT_MIB = 3;

/** Three addresses that existing senders use, and one handler. */
export const WEBHOOK_PATHS = ['/webhook/kapso', '/api/webhook/kapso', '/api/whatsapp/webhook'];

const receivedSchema = z.object({ received: z.literal(true) }).meta({ id: 'Received' });
const handshakeSchema = z.object({
  'hub.mode': z.literal('subscribe'),
  'hub.verify_token': z.string().meta({ description: '`KAPSO_WEBHOOK_TOKEN`.' }),
  'hub.challenge': z.string().meta({ description: 'Comes back as the answer.', example: '1158201444' }),
});
const signatureHeaders = z.object({
  'X-Webhook-Signature': z.string().optional().meta({ description: "HMAC-SHA256 of the body in hex, by Kapso's scheme." }),
  'X-Hub-Signature-256': z.string().optional().meta({ description: "The same after `sha256=`, by Meta's scheme." }),
  'X-Idempotency-Key': z.string().optional().meta({ description: "The delivery's id; stands in the log." }),
});

/** The webhook in the OpenAPI document: each address with its handshake. */
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
        ...problems({ 403: 'Not a handshake, or another token.' }),
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
        description: "Any body of Kapso's or Meta's: one event or a batch. A signed body is never refused for what it says.",
        content: { 'application/json': { schema: z.looseObject({}) } },
      },
      responses: {
        200: { description: 'Stored, or not for us.', content: { 'application/json': { schema: receivedSchema } } },
        ...webhookProblems('No signature, or a wrong one.', BODY_LIMIT_MIB),
      },
    },
  };
}

export interface KapsoWebhookOptions {
  secrets: readonly string[];
  logShapes: boolean;
  logger: Logger;
  /** Undefined until the engine and the record have been reached once. */
  handOverDependencies(): HandOverDependencies | undefined;
}

/** The WhatsApp webhook. */
export function kapsoWebhook(options: KapsoWebhookOptions): Webhook {
  return { source: 'kapso', paths: WEBHOOK_PATHS, bodyLimitMib: BODY_LIMIT_MIB, take: (webhook) => takeWebhook(webhook, options) };
}

/** The handshake by which Meta learns that an address is ours. */
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

const RECEIVED: WebhookAnswer = jsonAnswer({ received: true } satisfies z.input<typeof receivedSchema>);

async function takeWebhook({ headers, rawBody, note }: ReceivedWebhook, options: KapsoWebhookOptions): Promise<WebhookAnswer> {
  const signature = headers['x-webhook-signature'] ?? headers['x-hub-signature-256'];
  if (!isSigned(rawBody, String(signature ?? ''), options.secrets)) {
    options.logger.warn({ signed: signature !== undefined }, 'webhook refused: bad or missing signature');
    note({ result: 'bad_signature' });
    throw new ApiError(401, 'bad or missing signature');
  }
  const logger = options.logger.child({ idempotencyKey: headers['x-idempotency-key'] ?? null });
  const events = readEvents(rawBody, logger);
  note({ type: typeOf(events ?? []), result: resultOf(events) });
  try {
    reportSkipped(events ?? [], options.logShapes, logger);
    const conversations = await keep(events ?? [], options.handOverDependencies(), logger);
    if (conversations.length === 0) return RECEIVED;
    return { ...RECEIVED, afterwards: () => logger.info({ conversations }, 'messages handed over') };
  } catch (error) {
    note({ result: error instanceof NotStartedError ? 'not_started' : 'not_stored' });
    const id = logged(logger, error, 'webhook not stored; the sender is asked to come again');
    throw new ApiError(503, 'not stored, please send again', RETRY_AFTER, id);
  }
}

async function keep(events: KapsoEvent[], dependencies: HandOverDependencies | undefined, logger: Logger): Promise<HandedOver[]> {
  const taken = { messages: events.filter(isMessage), statuses: events.filter(isStatus) };
  if (taken.messages.length + taken.statuses.length === 0) return [];
  if (!dependencies) throw new NotStartedError('not started yet');
  return await handOver(taken, { ...dependencies, logger });
}

/** The process has not reached the engine and the record yet. */
class NotStartedError extends Error {
  override name = 'NotStartedError';
}

/** Undefined when the body cannot be read: it would be no better the next time, so it is taken and logged. */
function readEvents(rawBody: Buffer, logger: Logger): KapsoEvent[] | undefined {
  try {
    return readKapsoBody(rawBody);
  } catch (error) {
    logger.error(
      { bytes: rawBody.length, errorName: error instanceof Error ? error.name : 'unknown' },
      'webhook with a good signature is not readable; dropped',
    );
    return undefined;
  }
}

/** What the webhook carries, for the count. */
function typeOf(events: KapsoEvent[]): string {
  const kinds = [events.some(isMessage) ? 'message' : '', events.some(isStatus) ? 'status' : ''].filter((kind) => kind !== '');
  return kinds.length > 0 ? kinds.join('_and_') : 'other';
}

function resultOf(events: KapsoEvent[] | undefined): WebhookResult {
  if (!events || events.some((event) => event.type === 'skipped' && event.reason === 'unreadable')) return 'unreadable';
  return events.some((event) => event.type !== 'skipped') ? 'taken' : 'skipped';
}

function reportSkipped(events: KapsoEvent[], logShapes: boolean, logger: Logger): void {
  for (const { reason, shape } of events.filter((event): event is SkippedEvent => event.type === 'skipped')) {
    const details = { reason, ...(logShapes ? { shape } : {}) };
    if (reason === 'unreadable') logger.error(details, 'an item of the webhook is not readable; dropped');
    else logger.debug(details, 'webhook is not for us');
  }
}

function isMessage(event: KapsoEvent): event is MessageEvent {
  return event.type === 'message';
}

function isStatus(event: KapsoEvent): event is StatusEvent {
  return event.type === 'status';
}
