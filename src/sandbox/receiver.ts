/** For tests: a webhook endpoint that records what it receives and responds as programmed. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Changes } from './waiting';

/** A received webhook. */
export interface ReceivedWebhook {
  event: string;
  headers: IncomingHttpHeaders;
  raw: string;
}

/** A running receiver. */
export interface Receiver {
  url: string;
  webhooks: ReceivedWebhook[];
  /** Statuses for the next responses; afterwards 200. 0 leaves the request open. */
  answers: number[];
  /** Resolves once at least `count` webhooks with this event have arrived. @throws Error after `timeoutMs` */
  waitFor(event: string, count: number, timeoutMs?: number): Promise<ReceivedWebhook[]>;
  close(): Promise<void>;
}

/** Starts a receiver on a free port. */
export async function startReceiver(): Promise<Receiver> {
  const webhooks: ReceivedWebhook[] = [];
  const answers: number[] = [];
  const changes = new Changes();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      webhooks.push({ event: String(request.headers['x-webhook-event']), headers: request.headers, raw: Buffer.concat(chunks).toString() });
      const status = answers.shift() ?? 200;
      if (status !== 0) response.writeHead(status).end();
      changes.notify('webhooks');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const waitFor = (event: string, count: number, timeoutMs = 3000) => {
    const matching = () => webhooks.filter((webhook) => webhook.event === event);
    const check = () => (matching().length >= count ? matching() : undefined);
    return changes.until('webhooks', check, timeoutMs, () => `received ${matching().length} of ${count} ${event}`);
  };
  const close = async () => {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, webhooks, answers, waitFor, close };
}
