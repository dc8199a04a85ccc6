/** A proxy in front of the Vapi double that lets a test respond to some requests itself, in ways that the double need not support. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

/** A request to the proxy. */
export interface ForwardedRequest {
  method: string;
  /** Path and query, relative to the base URL. */
  path: string;
  body: string;
}

/** A response given by a test or the double. */
export interface GivenAnswer {
  status: number;
  body: string;
  headers?: Record<string, string>;
}

/** Responds to a request, or returns undefined to let the Vapi double respond. `forward` sends the request to the double. */
export type Answering = (request: ForwardedRequest, forward: () => Promise<GivenAnswer>) => Promise<GivenAnswer | undefined>;

/** A running proxy. */
export interface VapiInBetween {
  url: string;
  /** Adds a responder for all requests; the returned function removes it. */
  answer(answering: Answering): () => void;
  close(): Promise<void>;
}

/** Starts the proxy. `target` returns the base URL of the Vapi double; called for each forwarded request. */
export async function startVapiInBetween(target: () => string): Promise<VapiInBetween> {
  const answerings = new Set<Answering>();
  const server = createServer((request, response) => {
    void (async () => {
      const body = await text(request);
      const asked = { method: request.method ?? '', path: request.url ?? '', body };
      const forward = async (): Promise<GivenAnswer> => {
        const { authorization = '', 'content-type': type = '' } = request.headers;
        const answer = await fetch(`${target()}${asked.path}`, {
          method: asked.method,
          headers: { Authorization: authorization, 'Content-Type': type },
          redirect: 'manual',
          ...(asked.method === 'POST' ? { body } : {}),
        });
        return { status: answer.status, body: await answer.text() };
      };
      for (const answering of answerings) {
        const given = await answering(asked, forward);
        if (given !== undefined) return void response.writeHead(given.status, given.headers).end(given.body);
      }
      const { status, body: passed } = await forward();
      response.writeHead(status, { 'Content-Type': 'application/json' }).end(passed);
    })().catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    answer(answering) {
      answerings.add(answering);
      return () => void answerings.delete(answering);
    },
    async close() {
      server.closeAllConnections();
      await once(server.close(), 'close');
    },
  };
}
