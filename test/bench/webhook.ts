/** Customer messages as Kapso delivers them: built and signed before the clock starts, over connections that stay open. */
import { randomUUID } from 'node:crypto';
import { Agent, request } from 'node:http';
import { receivedEvent, type StoredConversation, type StoredMessage } from '../../src/sandbox/kapso-bodies';
import { freshWamid } from '../../src/sandbox/kapso-store';
import { signBody } from '../../src/sandbox/webhook-sender';
import type { Acknowledged, BenchMessage } from './load';
import { nowMs } from './protocol';

export interface WebhookTarget {
  url: string;
  secret: string;
  phoneNumberId: string;
}

/** Sends webhooks; `close` ends its connections. */
export class WebhookClient {
  readonly #target: WebhookTarget;
  readonly #agent = new Agent({ keepAlive: true });

  constructor(target: WebhookTarget) {
    this.#target = target;
  }

  /** Resolves with the times of a 200. @throws Error for any other answer */
  send(message: BenchMessage): Promise<Acknowledged> {
    const body = Buffer.from(JSON.stringify(webhookBody(message, this.#target.phoneNumberId)));
    const headers = {
      'Content-Type': 'application/json',
      'Content-Length': String(body.length),
      'X-Webhook-Event': 'whatsapp.message.received',
      'X-Webhook-Signature': signBody(this.#target.secret, body),
      'X-Idempotency-Key': randomUUID(),
      'X-Webhook-Payload-Version': 'v2',
    };
    return this.#post(body, headers, nowMs());
  }

  #post(body: Buffer, headers: Record<string, string>, startedAtMs: number): Promise<Acknowledged> {
    return new Promise((resolve, reject) => {
      const post = request(this.#target.url, { method: 'POST', agent: this.#agent, headers });
      post.once('error', reject);
      post.once('response', (response) => {
        response.resume();
        response.once('error', reject);
        response.once('end', () => {
          if (response.statusCode === 200) resolve({ startedAtMs, endedAtMs: nowMs() });
          else reject(new Error(`the webhook was answered ${response.statusCode}`));
        });
      });
      post.end(body);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
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
