/** An HTTP forward proxy as companies run them: tunnels (CONNECT), and requests for http URLs without one. Records the requests. */
import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';

/** A running forward proxy. */
export interface ForwardProxy {
  readonly url: string;
  /** The targets (`host:port`) in order; tunnels begin with `CONNECT `. */
  readonly asked: string[];
  /** The headers of each request to the proxy. */
  readonly headers: IncomingHttpHeaders[];
  /** Responds to every request with this status instead (0: none). */
  refuseWith: number | undefined;
  close(): Promise<void>;
}

/** Starts a proxy on a free loopback port that knows only these targets: `host:port` → the port of a server on this machine. */
export async function startForwardProxy(targets: Record<string, number>): Promise<ForwardProxy> {
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '', 'http://unknown');
    const port = find(`${url.hostname}:${url.port || 80}`, '', request.headers);
    if (proxy.refuseWith === 0) return;
    if (proxy.refuseWith !== undefined || port === undefined) return void response.writeHead(proxy.refuseWith ?? 502).end();
    const { method, headers } = request;
    const onward = httpRequest({ host: '127.0.0.1', port, path: `${url.pathname}${url.search}`, method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  server.on('connection', (socket: Socket) => track(socket));
  server.on('connect', (request, socket: Socket, head: Buffer) => {
    const port = find(request.url ?? '', 'CONNECT ', request.headers);
    if (proxy.refuseWith === 0) return;
    if (proxy.refuseWith !== undefined || port === undefined) {
      socket.end(`HTTP/1.1 ${proxy.refuseWith ?? 502} Refused\r\n\r\n`);
      return;
    }
    const onward = track(connect(port, '127.0.0.1'));
    onward.once('connect', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      onward.write(head);
      socket.pipe(onward).pipe(socket);
    });
    onward.once('close', () => socket.destroy());
    socket.once('close', () => onward.destroy());
  });
  const find = (target: string, prefix: string, headers: IncomingHttpHeaders): number | undefined => {
    proxy.asked.push(`${prefix}${target}`);
    proxy.headers.push(headers);
    return targets[target];
  };
  const track = (socket: Socket): Socket => {
    sockets.add(socket.on('error', () => undefined));
    return socket;
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy: ForwardProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: [],
    headers: [],
    refuseWith: undefined,
    async close() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
  return proxy;
}
