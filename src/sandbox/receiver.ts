/** For tests: a stand-in for Parley's webhook endpoint, which keeps what it got and answers what it is told. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Changes } from './waiting';

/** A webhook as it came in. */
export interface ReceivedWebhook {
  event: string;
  headers: IncomingHttpHeaders;
  raw: string;
}

export interface Receiver {
  url: string;
  webhooks: ReceivedWebhook[];
  /** Statuses for the next webhooks, then 200; 0 holds the request open. */
  answers: number[];
  /** Resolves when at least `count` webhooks with this event came. @throws Error after `timeoutMs` */
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
    const got = () => webhooks.filter((webhook) => webhook.event === event);
    const look = () => (got().length >= count ? got() : undefined);
    return changes.until('webhooks', look, timeoutMs, () => `${got().length} of ${count} ${event} came`);
  };
  const close = async () => {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, webhooks, answers, waitFor, close };
}
