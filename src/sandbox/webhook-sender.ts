/** Delivers webhooks as a provider does: a time limit, the provider's own retries, order within a conversation. */
import { createHmac } from 'node:crypto';
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { Background, Timers } from './waiting';

/** Where webhooks go: each listed address gets every event; a function is asked anew before each attempt and may name another one each time. */
export type WebhookTargets = string[] | (() => string);

/** How a delivery ended: the last HTTP status (0 = no answer) and the number of attempts. */
export interface DeliveryResult {
  status: number;
  attempts: number;
}

/** A delivery under way. */
export interface Delivery {
  /** Resolves after the first attempt with its HTTP status (0 = no answer). */
  first: Promise<number>;
  /** Resolves when it was taken or given up. */
  done: Promise<DeliveryResult>;
}

/** What one attempt sends. */
export interface WrittenWebhook {
  body: string | Buffer;
  headers: Record<string, string>;
}

/** One event on its way, with the provider's rules for it. */
export interface Webhook {
  targets: WebhookTargets;
  /** Asked before each attempt: some providers write an event anew each time. */
  write(): WrittenWebhook;
  /** Events with the same order key are delivered one after the other. */
  order?: string | undefined;
  /** Which HTTP statuses count as taken. */
  isTaken(status: number): boolean;
  /** The wait before the next attempt, in ms, after `attempts` that ended with `status`; undefined: given up. */
  retryDelayMs(attempts: number, status: number): number | undefined;
  /** How long an attempt may take, in ms. */
  timeoutMs: number;
}

/** Deliveries since the start: `open` are under way, `lost` were given up after the last attempt. */
export interface WebhookCounts {
  delivered: number;
  lost: number;
  open: number;
  attempts: number;
}

/** A bare lower-case hex HMAC-SHA256 of the raw bytes, as Kapso signs. */
export function signBody(secret: string, body: string | Buffer): string {
  return createHmac('sha256', secret).update(body).digest('hex');
}

/** How long an event waits for the earlier one of its conversation. */
const HOLD_MS = 30_000;

/** Sends webhooks; no method throws because of the receiver. */
export class WebhookSender {
  readonly counts: WebhookCounts = { delivered: 0, lost: 0, open: 0, attempts: 0 };
  readonly #timers = new Timers();
  readonly #background: Background;
  readonly #ahead = new Map<string, Promise<unknown>>();
  readonly #httpAgent = new HttpAgent({ keepAlive: true });
  readonly #httpsAgent = new HttpsAgent({ keepAlive: true });
  #closed = false;

  constructor(failed: (error: unknown) => void) {
    this.#background = new Background(failed);
  }

  /** Delivers an event, to each listed address. */
  send(webhook: Webhook): Delivery {
    const { targets, order } = webhook;
    const addresses = typeof targets === 'function' ? [targets] : targets.map((url) => () => url);
    const ahead = order === undefined ? undefined : this.#ahead.get(order);
    const deliveries = addresses.map((address) => this.#deliver(webhook, address, ahead));
    const delivery = { first: joinFirst(deliveries, webhook), done: joinDone(deliveries, webhook) };
    if (order !== undefined) this.#lead(order, delivery.done);
    this.#background.run(delivery.done);
    return delivery;
  }

  /** Resolves when no delivery is under way. */
  settled(): Promise<void> {
    return this.#background.settled();
  }

  /** Gives up what is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timers.close();
    this.#httpAgent.destroy();
    this.#httpsAgent.destroy();
    await this.#background.settled();
  }

  #lead(order: string, done: Promise<unknown>): void {
    this.#ahead.set(order, done);
    const forget = done.then(() => {
      if (this.#ahead.get(order) === done) this.#ahead.delete(order);
    });
    this.#background.run(forget);
  }

  #deliver(webhook: Webhook, address: () => string, ahead: Promise<unknown> | undefined): Delivery {
    let tellFirst: (status: number) => void = () => undefined;
    const first = new Promise<number>((resolve) => {
      tellFirst = resolve;
    });
    return { first, done: this.#attempts(webhook, address, ahead, tellFirst) };
  }

  async #attempts(
    webhook: Webhook,
    address: () => string,
    ahead: Promise<unknown> | undefined,
    tellFirst: (status: number) => void,
  ): Promise<DeliveryResult> {
    this.counts.open += 1;
    if (ahead !== undefined) await this.#hold(ahead);
    const result = { status: 0, attempts: 0 };
    let delayMs: number | undefined = 0;
    while (delayMs !== undefined && (await this.#timers.sleep(delayMs))) {
      result.attempts += 1;
      result.status = await this.#attempt(webhook, address);
      tellFirst(result.status);
      delayMs = webhook.isTaken(result.status) ? undefined : webhook.retryDelayMs(result.attempts, result.status);
    }
    tellFirst(result.status);
    this.counts.open -= 1;
    this.counts[webhook.isTaken(result.status) ? 'delivered' : 'lost'] += 1;
    return result;
  }

  async #hold(ahead: Promise<unknown>): Promise<void> {
    const limit = new Timers();
    await Promise.race([ahead, limit.sleep(HOLD_MS)]);
    limit.close();
  }

  async #attempt(webhook: Webhook, address: () => string): Promise<number> {
    if (this.#closed) return 0;
    this.counts.attempts += 1;
    try {
      return await this.#post(new URL(address()), webhook.write(), webhook.timeoutMs);
    } catch {
      return 0;
    }
  }

  #post(url: URL, { body, headers }: WrittenWebhook, timeoutMs: number): Promise<number> {
    const secure = url.protocol === 'https:';
    const options = {
      method: 'POST',
      agent: secure ? this.#httpsAgent : this.#httpAgent,
      headers: { ...headers, 'Content-Length': String(Buffer.byteLength(body)) },
    };
    return new Promise((resolve, reject) => {
      const request = secure ? httpsRequest(url, options) : httpRequest(url, options);
      const limit = setTimeout(() => request.destroy(new Error('no answer in time')), timeoutMs);
      request.once('close', () => clearTimeout(limit));
      request.once('error', reject);
      request.once('response', (response) => {
        response.resume();
        response.once('error', reject);
        response.once('end', () => resolve(response.statusCode ?? 0));
      });
      request.end(body);
    });
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

/** An event counts as taken only when every address took it. */
function worst(statuses: number[], { isTaken }: Webhook): number {
  return statuses.find((status) => !isTaken(status)) ?? statuses[0] ?? 0;
}
