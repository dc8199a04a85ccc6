/**
 * The WhatsApp webhook: verify, project, hand over, answer. A well-signed body never gets a 4xx, because Kapso
 * pauses a webhook that fails too often and never resumes it by itself (Kapso's webhook delivery rules).
 */
import express, { type Request, type Response, Router } from 'express';
import type { Logger } from '../logger';
import { type HandedOver, type HandOverDependencies, handOver } from './hand-over';
import { type KapsoEvent, type MessageEvent, readKapsoBody, type SkippedEvent, type StatusEvent } from './kapso-events';
import { isSigned } from './signature';

/** Meta's largest webhook (Meta's webhook reference). */
const BODY_LIMIT_BYTES = 3 * 1024 * 1024;

/** Three addresses that existing senders use, and one handler. */
export const WEBHOOK_PATHS = ['/webhook/kapso', '/api/webhook/kapso', '/api/whatsapp/webhook'];

const RETRY_AFTER_SECONDS = '5';

export interface KapsoWebhookOptions {
  secrets: readonly string[];
  verifyToken: string | undefined;
  logShapes: boolean;
  logger: Logger;
  /** Undefined until the engine and the record have been reached once. */
  handOverDependencies(): HandOverDependencies | undefined;
}

/** Routes of the WhatsApp webhook. */
export function kapsoWebhook(options: KapsoWebhookOptions): Router {
  const router = Router();
  router.get(WEBHOOK_PATHS, (request, response) => answerHandshake(request, response, options.verifyToken));
  router.post(WEBHOOK_PATHS, express.raw({ type: () => true, limit: BODY_LIMIT_BYTES }), (request, response) =>
    takeWebhook(request, response, options),
  );
  return router;
}

function answerHandshake(request: Request, response: Response, verifyToken: string | undefined): void {
  const { 'hub.mode': mode, 'hub.verify_token': token, 'hub.challenge': challenge } = request.query;
  if (mode !== 'subscribe' || !verifyToken || token !== verifyToken || typeof challenge !== 'string') {
    response.status(403).type('text/plain').send('wrong verify token');
    return;
  }
  response.type('text/plain').send(challenge);
}

async function takeWebhook(request: Request, response: Response, options: KapsoWebhookOptions): Promise<void> {
  const rawBody: Buffer = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
  const signature = request.get('x-webhook-signature') ?? request.get('x-hub-signature-256');
  if (!isSigned(rawBody, signature, options.secrets)) {
    options.logger.warn({ signed: signature !== undefined }, 'webhook refused: bad or missing signature');
    response.status(401).json({ error: 'bad or missing signature' });
    return;
  }
  const logger = options.logger.child({ idempotencyKey: request.get('x-idempotency-key') ?? null });
  const events = readEvents(rawBody, logger);
  const dependencies = options.handOverDependencies();
  try {
    reportSkipped(events, options.logShapes, logger);
    const taken = { messages: events.filter(isMessage), statuses: events.filter(isStatus) };
    let conversations: HandedOver[] = [];
    if (taken.messages.length + taken.statuses.length > 0) {
      if (!dependencies) throw new Error('not started yet');
      conversations = await handOver(taken, { ...dependencies, logger });
    }
    response.json({ received: true });
    if (conversations.length > 0) logger.info({ conversations }, 'messages handed over');
  } catch (error) {
    logger.error({ error }, 'webhook not stored; the sender is asked to come again');
    response.status(503).set('Retry-After', RETRY_AFTER_SECONDS).json({ error: 'not stored, please send again' });
  }
}

/** Empty when the body cannot be read: it would be no better the next time, so it is taken and logged. */
function readEvents(rawBody: Buffer, logger: Logger): KapsoEvent[] {
  try {
    return readKapsoBody(rawBody);
  } catch (error) {
    logger.error(
      { bytes: rawBody.length, errorName: error instanceof Error ? error.name : 'unknown' },
      'webhook with a good signature is not readable; dropped',
    );
    return [];
  }
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
