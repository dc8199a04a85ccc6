/** A TCP proxy in front of a server that others share: a test takes the server away from one system without stopping it. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface TcpProxy {
  readonly port: number;
  /** Cuts every connection and refuses new ones: the server is down. */
  down(): Promise<void>;
  /** Passes nothing on any more, neither way, and cuts nothing: the network is gone. */
  hang(): void;
  /**
   * Passes requests on and holds the server's responses until `releaseAnswers`. Also on new connections, after a greeting that ends
   * with these bytes; without them, new connections are not held.
   */
  holdAnswers(greetingEnd?: Buffer): void;
  releaseAnswers(): void;
  /** Takes new connections again. Those that hung stay dead, as after a change of route. */
  up(): Promise<void>;
  close(): Promise<void>;
}

/** PostgreSQL's ReadyForQuery message, without its last byte. */
export const POSTGRES_GREETING_END = Buffer.from([0x5a, 0, 0, 0, 5]);

/** Listens on a free port of the loopback, and passes on to `target` (host:port). */
export async function startProxy(target: string): Promise<TcpProxy> {
  const { hostname, port: targetPort } = new URL(`tcp://${target}`);
  const pairs = new Set<[Socket, Socket]>();
  let hangs = false;
  let heldAfter: Buffer | undefined;
  const hold = ([from, to]: [Socket, Socket]) => {
    to.unpipe(from);
    to.pause();
  };
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
    const holdWhenGreeted = (answer: Buffer) => {
      if (heldAfter === undefined || !answer.includes(heldAfter)) return;
      to.off('data', holdWhenGreeted);
      hold(pair);
    };
    if (heldAfter !== undefined) to.on('data', holdWhenGreeted);
  });
  const listen = async (port: number) => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  const cut = () => {
    for (const socket of [...pairs].flat()) socket.destroy();
  };
  const stopListening = async () => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    cut();
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
    holdAnswers(greetingEnd) {
      heldAfter = greetingEnd;
      for (const pair of pairs) hold(pair);
    },
    releaseAnswers() {
      heldAfter = undefined;
      for (const [from, to] of pairs) to.pipe(from);
    },
    async up() {
      hangs = false;
      if (!server.listening) await listen(port);
    },
    close: stopListening,
  };
}
