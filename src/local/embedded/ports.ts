/** Ports of this machine's loopback. */
import { createServer } from 'node:net';

const LAST_PORT = 65_535;

/**
 * `preferred` when nothing listens there, otherwise the next free port above it; 0 asks the system for any.
 * Free now, not reserved: whoever listens next may still lose a race, and has to say so.
 * @param taken ports that the caller has promised already
 * @throws Error when there is none
 */
export async function freePort(preferred: number, taken: readonly number[] = []): Promise<number> {
  if (preferred === 0) return anyPort(taken);
  for (let port = preferred; port <= LAST_PORT; port++) {
    if (!taken.includes(port) && (await isFree(port))) return port;
  }
  throw new Error(`no port is free from ${preferred} upwards`);
}

/** Whether a server could listen on `port`, on the loopback and on every address. */
export async function isFree(port: number): Promise<boolean> {
  // Both: a listener on one address alone is invisible to the other question.
  return (await canListen(port, '127.0.0.1')) !== undefined && (await canListen(port)) !== undefined;
}

async function anyPort(taken: readonly number[]): Promise<number> {
  for (;;) {
    const port = await canListen(0, '127.0.0.1');
    if (port === undefined) throw new Error('no port is free');
    if (!taken.includes(port)) return port;
  }
}

function canListen(port: number, host?: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen({ port, host, exclusive: true }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : undefined));
    });
  });
}
