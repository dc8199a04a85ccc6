/**
 * Sends customer messages as Kapso does, over keep-alive connections. The request is built and signed before the clock starts, and the
 * clock stops at the last byte of the response, so that the HTTP client's own work is not measured.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { receivedEvent, type StoredConversation, type StoredMessage } from '../../src/sandbox/kapso/bodies';
import { freshWamid } from '../../src/sandbox/kapso/store';
import { signBody } from '../../src/sandbox/webhook-sender';
import type { Acknowledged, BenchMessage } from './load';
import { nowMs } from './protocol';

/** Longer than any response takes, and shorter than the API's keep-alive timeout (65 s). */
const RESPONSE_TIMEOUT_MS = 30_000;

/** Where to send webhooks, and how to sign them. */
export interface WebhookTarget {
  url: string;
  secret: string;
  phoneNumberId: string;
}

/** Sends webhooks; `close` ends its connections. */
export class WebhookClient {
  readonly #target: WebhookTarget;
  readonly #connections = new Set<Socket>();
  readonly #idle = new Set<Socket>();

  constructor(target: WebhookTarget) {
    this.#target = target;
  }

  /** Resolves with the request's times. @throws Error for any response other than a 200 */
  async send(message: BenchMessage): Promise<Acknowledged> {
    const request = this.#requestOf(message);
    const connection = this.#takeIdle() ?? (await this.#connect());
    const startedAtMs = nowMs();
    const status = await exchange(connection, request);
    const endedAtMs = nowMs();
    this.#idle.add(connection);
    if (status !== 200) throw new Error(`the webhook got the response ${status}`);
    return { startedAtMs, endedAtMs };
  }

  #requestOf(message: BenchMessage): Buffer {
    const body = Buffer.from(JSON.stringify(webhookBody(message, this.#target.phoneNumberId)));
    const { host, pathname } = new URL(this.#target.url);
    const head = [
      `POST ${pathname} HTTP/1.1`,
      `Host: ${host}`,
      'Content-Type: application/json',
      `Content-Length: ${body.length}`,
      'X-Webhook-Event: whatsapp.message.received',
      `X-Webhook-Signature: ${signBody(this.#target.secret, body)}`,
      `X-Idempotency-Key: ${randomUUID()}`,
      'X-Webhook-Payload-Version: v2',
    ];
    return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), body]);
  }

  /** Takes the most recently used connection, so that surplus ones time out. */
  #takeIdle(): Socket | undefined {
    const connection = [...this.#idle].at(-1);
    if (connection) this.#idle.delete(connection);
    return connection;
  }

  async #connect(): Promise<Socket> {
    const { hostname, port } = new URL(this.#target.url);
    const connection = connect({ host: hostname, port: Number(port), noDelay: true });
    this.#connections.add(connection);
    // Also closes idle connections while the bare side has its turn, before the API would close them.
    const problem = `the webhook got no response within ${RESPONSE_TIMEOUT_MS / 1_000} s`;
    connection.setTimeout(RESPONSE_TIMEOUT_MS, () => connection.destroy(new Error(problem)));
    connection.on('close', () => {
      this.#connections.delete(connection);
      this.#idle.delete(connection);
    });
    connection.on('error', () => undefined);
    await once(connection, 'connect');
    return connection;
  }

  close(): void {
    for (const connection of this.#connections) connection.destroy();
  }
}

/** Sends a request and waits for the whole response. @returns its status. @throws Error if the connection closes first */
function exchange(connection: Socket, request: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const settle = (finish: () => void) => {
      connection.off('data', read).off('error', fail).off('close', fail);
      finish();
    };
    const read = (bytes: Buffer) => {
      answer += bytes.toString('latin1');
      const headEnd = answer.indexOf('\r\n\r\n');
      if (headEnd < 0) return;
      const head = answer.slice(0, headEnd);
      const length = Number(/^content-length: (\d+)/im.exec(head)?.[1]);
      if (answer.length >= headEnd + 4 + length) settle(() => resolve(Number(head.split(' ')[1])));
    };
    const fail = (error?: unknown) => settle(() => reject(error instanceof Error ? error : new Error('the webhook got no response')));
    connection.on('data', read).on('error', fail).on('close', fail);
    connection.write(request);
  });
}

function webhookBody({ mark, customer }: BenchMessage, phoneNumberId: string): object {
  const createdAtMs = Date.now();
  const message: StoredMessage = {
    ...{ sequence: 0, wamid: freshWamid(), direction: 'inbound', customer, phoneNumberId, createdAtMs },
    ...{ type: 'text', content: { text: { body: mark } }, text: mark, origin: 'cloud_api', statuses: [], listed: true, visible: true },
  };
  const conversation: StoredConversation = {
    ...{ id: `bench-conversation-${customer}`, customer, phoneNumberId, contactName: 'Bench Customer' },
    ...{ createdAtMs, lastActiveAtMs: createdAtMs, messagesCount: 1, last: message, lastInboundAtMs: createdAtMs },
  };
  return receivedEvent(message, conversation, false);
}
