/** A server in front of the played Vapi: a test answers some requests itself, with what no double should have to play. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

export interface ForwardedRequest {
  method: string;
  /** With the query, below the base address. */
  path: string;
  body: string;
}

export interface GivenAnswer {
  status: number;
  body: string;
  headers?: Record<string, string>;
}

/** `forward` asks the played Vapi; undefined passes its answer on. */
export type Answering = (request: ForwardedRequest, forward: () => Promise<GivenAnswer>) => Promise<GivenAnswer | undefined>;

export interface VapiInBetween {
  url: string;
  /** Asked for every request until the returned function is called. */
  answer(answering: Answering): () => void;
  close(): Promise<void>;
}

/** `target`: the base address of the played Vapi, known when the first request comes. */
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
