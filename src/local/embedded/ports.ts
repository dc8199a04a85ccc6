/** Finds free ports on this machine. */
import { createServer } from 'node:net';

const LAST_PORT = 65_535;

/**
 * `preferred` if nothing listens there, otherwise the next free port above it; 0 picks any port.
 * The port is not reserved: another process may take it first, so listening on it can still fail.
 * @param taken ports that the caller has already assigned
 * @throws Error if no port is free
 */
export async function freePort(preferred: number, taken: readonly number[] = []): Promise<number> {
  if (preferred === 0) return anyPort(taken);
  for (let port = preferred; port <= LAST_PORT; port++) {
    if (!taken.includes(port) && (await isFree(port))) return port;
  }
  throw new Error(`no port is free from ${preferred} upwards`);
}

/** Whether a server could listen on `port`, on loopback and on all addresses. */
export async function isFree(port: number): Promise<boolean> {
  // Check both: neither check sees every listener.
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
