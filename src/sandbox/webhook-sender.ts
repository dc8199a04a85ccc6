/** Delivers webhooks as a provider does: with a timeout, the provider's retries, and ordering within a conversation. */
import { createHmac } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { withDeadline } from '../platform/deadline';
import { sendRequest } from '../platform/http-request';
import { Background, Timers } from './waiting';

/** Where webhooks go: to every URL in the list, or to the URL that the function returns; it is called before each attempt. */
export type WebhookTargets = string[] | (() => string);

/** How a delivery ended: the last HTTP status (0: no response) and the number of attempts. */
export interface DeliveryResult {
  status: number;
  attempts: number;
}

/** A delivery in progress. */
export interface Delivery {
  /** Resolves after the first attempt with its HTTP status (0: no response). */
  first: Promise<number>;
  /** Resolves when the webhook has been accepted or abandoned. */
  done: Promise<DeliveryResult>;
}

/** The request of one attempt. */
export interface WrittenWebhook {
  body: string | Buffer;
  headers: Record<string, string>;
}

/** One event to deliver, with the provider's delivery rules. */
export interface Webhook {
  targets: WebhookTargets;
  /** Called before each attempt, because some providers rewrite the event each time. */
  write(): WrittenWebhook;
  /** Events with the same order key are delivered one after the other. */
  order?: string | undefined;
  /** Whether an HTTP status means that the webhook was accepted. */
  isAccepted(status: number): boolean;
  /** The delay before the next attempt, in ms, after `attempts` attempts of which the last ended with `status`; undefined to stop. */
  retryDelayMs(attempts: number, status: number): number | undefined;
  /** Timeout of an attempt, in ms. */
  timeoutMs: number;
}

/** Delivery counts since the start: `open` are in progress, `lost` were abandoned after the last attempt. */
export interface WebhookCounts {
  delivered: number;
  lost: number;
  open: number;
  attempts: number;
}

/** Kapso's signature: HMAC-SHA256 of the raw bytes in lower-case hex, without a prefix. */
export function signBody(secret: string, body: string | Buffer): string {
  return createHmac('sha256', secret).update(body).digest('hex');
}

/** How long an event waits for the previous one with the same order key. */
const HOLD_MS = 30_000;

/** Sends webhooks. Never throws because of the receiver's response. */
export class WebhookSender {
  readonly counts: WebhookCounts = { delivered: 0, lost: 0, open: 0, attempts: 0 };
  readonly #timers = new Timers();
  readonly #background: Background;
  readonly #previous = new Map<string, Promise<unknown>>();
  readonly #closing = new AbortController();

  constructor(failed: (error: unknown) => void) {
    this.#background = new Background(failed);
    // Each request in progress adds a listener; Node warns of a leak beyond ten.
    setMaxListeners(0, this.#closing.signal);
  }

  /** Delivers an event to each target. */
  send(webhook: Webhook): Delivery {
    const { targets, order } = webhook;
    const addresses = typeof targets === 'function' ? [targets] : targets.map((url) => () => url);
    const previous = order === undefined ? undefined : this.#previous.get(order);
    const deliveries = addresses.map((address) => this.#deliver(webhook, address, previous));
    const delivery = { first: joinFirst(deliveries, webhook), done: joinDone(deliveries, webhook) };
    if (order !== undefined) this.#lead(order, delivery.done);
    this.#background.run(delivery.done);
    return delivery;
  }

  /** Resolves when no delivery is in progress. */
  settled(): Promise<void> {
    return this.#background.settled();
  }

  /** Abandons all deliveries in progress. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#timers.close();
    await this.#background.settled();
  }

  #lead(order: string, done: Promise<unknown>): void {
    this.#previous.set(order, done);
    const forget = done.then(() => {
      if (this.#previous.get(order) === done) this.#previous.delete(order);
    });
    this.#background.run(forget);
  }

  #deliver(webhook: Webhook, address: () => string, previous: Promise<unknown> | undefined): Delivery {
    let resolveFirst: (status: number) => void = () => undefined;
    const first = new Promise<number>((resolve) => {
      resolveFirst = resolve;
    });
    return { first, done: this.#attempts(webhook, address, previous, resolveFirst) };
  }

  async #attempts(
    webhook: Webhook,
    address: () => string,
    previous: Promise<unknown> | undefined,
    resolveFirst: (status: number) => void,
  ): Promise<DeliveryResult> {
    this.counts.open += 1;
    if (previous !== undefined) await this.#hold(previous);
    const result = { status: 0, attempts: 0 };
    let delayMs: number | undefined = 0;
    while (delayMs !== undefined && (await this.#timers.sleep(delayMs))) {
      result.attempts += 1;
      result.status = await this.#attempt(webhook, address);
      resolveFirst(result.status);
      delayMs = webhook.isAccepted(result.status) ? undefined : webhook.retryDelayMs(result.attempts, result.status);
    }
    resolveFirst(result.status);
    this.counts.open -= 1;
    this.counts[webhook.isAccepted(result.status) ? 'delivered' : 'lost'] += 1;
    return result;
  }

  async #hold(previous: Promise<unknown>): Promise<void> {
    const limit = new Timers();
    await Promise.race([previous, limit.sleep(HOLD_MS)]);
    limit.close();
  }

  async #attempt(webhook: Webhook, address: () => string): Promise<number> {
    if (this.#closing.signal.aborted) return 0;
    this.counts.attempts += 1;
    try {
      return await this.#post(address(), webhook.write(), webhook.timeoutMs);
    } catch {
      return 0;
    }
  }

  async #post(url: string, { body, headers }: WrittenWebhook, timeoutMs: number): Promise<number> {
    const post = (signal: AbortSignal) => sendRequest(url, { method: 'POST', headers, body, signal });
    return (await withDeadline(timeoutMs, post, this.#closing.signal)).status;
  }
}

async function joinFirst(deliveries: Delivery[], webhook: Webhook): Promise<number> {
  return worst(await Promise.all(deliveries.map((delivery) => delivery.first)), webhook);
}

async function joinDone(deliveries: Delivery[], webhook: Webhook): Promise<DeliveryResult> {
  const results = await Promise.all(deliveries.map((delivery) => delivery.done));
  const status = worst(
    results.map((result) => result.status),
    webhook,
  );
  return { status, attempts: Math.max(0, ...results.map((result) => result.attempts)) };
}

/** An event counts as accepted only if every target accepted it. */
function worst(statuses: number[], { isAccepted }: Webhook): number {
  return statuses.find((status) => !isAccepted(status)) ?? statuses[0] ?? 0;
}
