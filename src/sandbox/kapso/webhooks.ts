/** Webhooks in Kapso's format: signed, with its headers. Only a 200 is success; few retries. */
import { randomUUID } from 'node:crypto';
import { signBody, type Webhook, type WebhookTargets } from '../webhook-sender';

/** How to deliver Kapso's webhooks. */
export interface KapsoWebhookOptions {
  targets: WebhookTargets;
  secret: string;
  /** Delays before the second, third… attempt, in ms (default 10 s, 40 s). */
  retryDelaysMs?: number[] | undefined;
  /** Timeout of an attempt, in ms (default 10 s). */
  timeoutMs?: number | undefined;
}

/** An event to deliver. */
export interface KapsoEvent {
  event: string;
  body: string | Buffer;
  /** Events with the same order key are delivered one after the other. */
  order?: string | undefined;
  idempotencyKey?: string | undefined;
  batchSize?: number | undefined;
}

/** One of several receivers of an event. */
export interface KapsoReceiver {
  id: string;
  url: string;
  secret_key: string;
  /** False: undelivered events are dropped. */
  active: boolean;
}

/** An event for one receiver, signed with its secret. */
export function receiverWebhook(options: KapsoWebhookOptions, receiver: KapsoReceiver, event: KapsoEvent): Webhook {
  const { id, url, secret_key: secret } = receiver;
  const order = event.order === undefined ? undefined : `${id} ${event.order}`;
  const sent = kapsoWebhook({ ...options, targets: [url], secret }, { ...event, order });
  return { ...sent, retryDelayMs: (attempts, status) => (receiver.active ? sent.retryDelayMs(attempts, status) : undefined) };
}

/** An event with Kapso's signature and headers. Every attempt sends the same bytes with the same idempotency key. */
export function kapsoWebhook(options: KapsoWebhookOptions, event: KapsoEvent): Webhook {
  return webhook(options, event.body, headersOf(options.secret, event), event.order);
}

/** The given body unchanged. `headers` override those of a received event; an empty one removes the header. */
export function rawKapsoWebhook(options: KapsoWebhookOptions, body: string | Buffer, headers: Record<string, string>): Webhook {
  const usual = headersOf(options.secret, { event: 'whatsapp.message.received', body });
  return webhook(options, body, withoutEmpty({ ...lowerCase(usual), ...lowerCase(headers) }), undefined);
}

function webhook(options: KapsoWebhookOptions, body: string | Buffer, headers: Record<string, string>, order: string | undefined): Webhook {
  const { targets, retryDelaysMs = [10_000, 40_000], timeoutMs = 10_000 } = options;
  return {
    targets,
    write: () => ({ body, headers }),
    order,
    isAccepted: (status) => status === 200,
    retryDelayMs: (attempts) => retryDelaysMs[attempts - 1],
    timeoutMs,
  };
}

function headersOf(secret: string, event: KapsoEvent): Record<string, string> {
  return {
    'Content-Type': 'application/json',
    'X-Webhook-Event': event.event,
    'X-Webhook-Signature': signBody(secret, event.body),
    'X-Idempotency-Key': event.idempotencyKey ?? randomUUID(),
    'X-Webhook-Payload-Version': 'v2',
    ...(event.batchSize === undefined ? {} : { 'X-Webhook-Batch': 'true', 'X-Batch-Size': String(event.batchSize) }),
  };
}

function lowerCase(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

function withoutEmpty(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== ''));
}
