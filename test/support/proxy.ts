/** A TCP proxy in front of a shared server, so that a test can cut off one system without stopping the server. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A running proxy. */
export interface TcpProxy {
  readonly port: number;
  /** Closes all connections and refuses new ones, as if the server were down. */
  down(): Promise<void>;
  /** Stops forwarding in both directions without closing connections, as if the network were gone. */
  hang(): void;
  /** Accepts new connections again. Connections that hung stay dead, as after a routing change. */
  up(): Promise<void>;
  close(): Promise<void>;
}

/** Listens on a free loopback port and forwards to `target` (host:port). */
export async function startProxy(target: string): Promise<TcpProxy> {
  const { hostname, port: targetPort } = new URL(`tcp://${target}`);
  const pairs = new Set<[Socket, Socket]>();
  let hangs = false;
  const server = createServer((from) => {
    const to = connect(Number(targetPort), hostname);
    const pair: [Socket, Socket] = [from, to];
    pairs.add(pair);
    for (const socket of pair) socket.on('error', () => undefined);
    for (const [one, other] of [pair, [to, from] as const]) {
      one.on('close', () => {
        pairs.delete(pair);
        other.destroy();
      });
    }
    if (hangs) return;
    from.pipe(to);
    to.pipe(from);
  });
  const listen = async (port: number) => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  const closeAll = () => {
    for (const socket of [...pairs].flat()) socket.destroy();
  };
  const stopListening = async () => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    closeAll();
    await closed;
  };
  const port = await listen(0);
  return {
    port,
    down: stopListening,
    hang() {
      hangs = true;
      for (const [from, to] of pairs) {
        from.unpipe(to);
        to.unpipe(from);
        from.pause();
        to.pause();
      }
    },
    async up() {
      hangs = false;
      if (!server.listening) await listen(port);
    },
    close: stopListening,
  };
}
