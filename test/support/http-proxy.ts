/** An HTTP proxy in front of a vendor's double that can change the responses, to ones that the double itself would never send. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A response that passes through the proxy. */
export interface ProxiedAnswer {
  status: number;
  body: string;
}

/** A running proxy. */
export interface HttpProxy {
  url: string;
  /** Base URL of the double; must be set before the first request. */
  target: string;
  /** Returns the response to send instead; unset: responses pass unchanged. */
  change: ((request: { method: string; path: string }, answer: ProxiedAnswer) => ProxiedAnswer) | undefined;
  close(): Promise<void>;
}

/** Starts a proxy on a free loopback port. */
export async function startHttpProxy(): Promise<HttpProxy> {
  const proxy: HttpProxy = { url: '', target: '', change: undefined, close: async () => undefined };
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const method = request.method ?? 'GET';
    const path = request.url ?? '/';
    const headers = { 'content-type': 'application/json', 'x-api-key': String(request.headers['x-api-key'] ?? '') };
    const body = chunks.length > 0 ? { body: Buffer.concat(chunks) } : {};
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    try {
      const answered = await fetch(`${proxy.target}${path}`, { method, headers, signal: gone.signal, ...body });
      const answer = { status: answered.status, body: await answered.text() };
      const changed = proxy.change?.({ method, path }, answer) ?? answer;
      response.writeHead(changed.status, { 'Content-Type': 'application/json' }).end(changed.body);
    } catch {
      response.destroy();
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  proxy.close = async () => {
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  };
  return proxy;
}
