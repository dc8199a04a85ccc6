/** Delivers signed webhooks as Kapso does: 200 alone is success, a time limit, few retries, order within a conversation. */
import { createHmac, randomUUID } from 'node:crypto';
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

export interface WebhookSenderOptions {
  targets: WebhookTargets;
  secret: string;
  /** Waits before the second, third… attempt, in ms (default 10 s, 40 s). */
  retryDelaysMs?: number[] | undefined;
  /** How long an attempt may take, in ms (default 10 s). */
  timeoutMs?: number | undefined;
  /** How long an event waits for the earlier one of its conversation, in ms (default 30 s). */
  holdMs?: number | undefined;
}

export interface WebhookEvent {
  event: string;
  body: string | Buffer;
  /** Events with the same order key are delivered one after the other. */
  order?: string | undefined;
  idempotencyKey?: string | undefined;
  batchSize?: number | undefined;
}

/** Deliveries since the start: `open` are under way, `lost` were given up after the last attempt. */
export interface WebhookCounts {
  delivered: number;
  lost: number;
  open: number;
  attempts: number;
}

/** The signature as Kapso writes it: bare lower-case hex HMAC-SHA256 of the raw bytes. */
export function signBody(secret: string, body: string | Buffer): string {
  return createHmac('sha256', secret).update(body).digest('hex');
}

/** Sends webhooks; no method throws because of the receiver. */
export class WebhookSender {
  readonly counts: WebhookCounts = { delivered: 0, lost: 0, open: 0, attempts: 0 };
  readonly #options: WebhookSenderOptions;
  readonly #timers = new Timers();
  readonly #background: Background;
  readonly #ahead = new Map<string, Promise<unknown>>();
  readonly #httpAgent = new HttpAgent({ keepAlive: true });
  readonly #httpsAgent = new HttpsAgent({ keepAlive: true });
  #closed = false;

  constructor(options: WebhookSenderOptions, failed: (error: unknown) => void) {
    this.#options = options;
    this.#background = new Background(failed);
  }

  /** Signs and delivers an event, to each listed address. */
  send(event: WebhookEvent): Delivery {
    return this.#start(event.body, this.#headers(event), event.order);
  }

  /** Delivers these very bytes; headers given win over the ones that a received event would have. */
  sendRaw(body: string | Buffer, headers: Record<string, string>): Delivery {
    const event = { event: 'whatsapp.message.received', body };
    return this.#start(body, withoutEmpty({ ...lowerCase(this.#headers(event)), ...lowerCase(headers) }), undefined);
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

  #headers(event: WebhookEvent): Record<string, string> {
    return {
      'Content-Type': 'application/json',
      'X-Webhook-Event': event.event,
      'X-Webhook-Signature': signBody(this.#options.secret, event.body),
      'X-Idempotency-Key': event.idempotencyKey ?? randomUUID(),
      'X-Webhook-Payload-Version': 'v2',
      ...(event.batchSize === undefined ? {} : { 'X-Webhook-Batch': 'true', 'X-Batch-Size': String(event.batchSize) }),
    };
  }

  #start(body: string | Buffer, headers: Record<string, string>, order: string | undefined): Delivery {
    const { targets } = this.#options;
    const addresses = typeof targets === 'function' ? [targets] : targets.map((url) => () => url);
    const ahead = order === undefined ? undefined : this.#ahead.get(order);
    const deliveries = addresses.map((address) => this.#deliver(address, body, headers, ahead));
    const delivery = { first: joinFirst(deliveries), done: joinDone(deliveries) };
    if (order !== undefined) this.#lead(order, delivery.done);
    this.#background.run(delivery.done);
    return delivery;
  }

  #lead(order: string, done: Promise<unknown>): void {
    this.#ahead.set(order, done);
    const forget = done.then(() => {
      if (this.#ahead.get(order) === done) this.#ahead.delete(order);
    });
    this.#background.run(forget);
  }

  #deliver(address: () => string, body: string | Buffer, headers: Record<string, string>, ahead: Promise<unknown> | undefined): Delivery {
    let tellFirst: (status: number) => void = () => undefined;
    const first = new Promise<number>((resolve) => {
      tellFirst = resolve;
    });
    return { first, done: this.#attempts(address, body, headers, ahead, tellFirst) };
  }

  async #attempts(
    address: () => string,
    body: string | Buffer,
    headers: Record<string, string>,
    ahead: Promise<unknown> | undefined,
    tellFirst: (status: number) => void,
  ): Promise<DeliveryResult> {
    this.counts.open += 1;
    if (ahead !== undefined) await this.#hold(ahead);
    const result = { status: 0, attempts: 0 };
    for (const delayMs of [0, ...(this.#options.retryDelaysMs ?? [10_000, 40_000])]) {
      if (!(await this.#timers.sleep(delayMs))) break;
      result.attempts += 1;
      result.status = await this.#attempt(address, body, headers);
      tellFirst(result.status);
      if (result.status === 200) break;
    }
    tellFirst(result.status);
    this.counts.open -= 1;
    this.counts[result.status === 200 ? 'delivered' : 'lost'] += 1;
    return result;
  }

  async #hold(ahead: Promise<unknown>): Promise<void> {
    const limit = new Timers();
    await Promise.race([ahead, limit.sleep(this.#options.holdMs ?? 30_000)]);
    limit.close();
  }

  async #attempt(address: () => string, body: string | Buffer, headers: Record<string, string>): Promise<number> {
    if (this.#closed) return 0;
    this.counts.attempts += 1;
    try {
      return await this.#post(new URL(address()), body, headers);
    } catch {
      return 0;
    }
  }

  #post(url: URL, body: string | Buffer, headers: Record<string, string>): Promise<number> {
    const secure = url.protocol === 'https:';
    const options = {
      method: 'POST',
      agent: secure ? this.#httpsAgent : this.#httpAgent,
      headers: { ...headers, 'Content-Length': String(Buffer.byteLength(body)) },
    };
    return new Promise((resolve, reject) => {
      const request = secure ? httpsRequest(url, options) : httpRequest(url, options);
      const limit = setTimeout(() => request.destroy(new Error('no answer in time')), this.#options.timeoutMs ?? 10_000);
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

async function joinFirst(deliveries: Delivery[]): Promise<number> {
  return worst(await Promise.all(deliveries.map((delivery) => delivery.first)));
}

async function joinDone(deliveries: Delivery[]): Promise<DeliveryResult> {
  const results = await Promise.all(deliveries.map((delivery) => delivery.done));
  return { status: worst(results.map((result) => result.status)), attempts: Math.max(0, ...results.map((result) => result.attempts)) };
}

/** An event counts as taken only when every webhook took it. */
function worst(statuses: number[]): number {
  return statuses.find((status) => status !== 200) ?? (statuses.length === 0 ? 0 : 200);
}

function lowerCase(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

/** An empty value takes a header away, so that a missing one can be tested. */
function withoutEmpty(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== ''));
}
