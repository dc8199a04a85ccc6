/** Webhooks over real connections: who is let in, what is read of the others, and what they can make the process hold. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';

import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { createLogger } from '../platform/logger';
import { createApiMetrics } from '../platform/metrics';
import { jsonResponse, type Webhook, webhookIngress } from './webhook-ingress';

const MIB = 1024 * 1024;
const MAX_UNVERIFIED_BYTES = 2 * MIB;

let server: Server;
let url: string;
let port: number;
/** Bodies that were taken. */
let taken: Buffer[] = [];
const sockets: Socket[] = [];
const logLines: string[] = [];
const metrics = createApiMetrics();

/** `X-Proof: header` proves it, `X-Proof: body` leaves it to the body, which has to begin with "signed". */
const webhook: Webhook = {
  ...{ source: 'kapso', paths: ['/hook'], bodyLimitMib: 1, refusal: 'no proof' },
  proofOf(headers) {
    if (headers['x-proof'] === 'header') return true;
    return headers['x-proof'] === 'body' && ((rawBody) => rawBody.toString('latin1', 0, 6) === 'signed');
  },
  async take({ rawBody }) {
    taken.push(rawBody);
    return jsonResponse({});
  },
};

beforeAll(async () => {
  const logger = createLogger('test', 'warn', { write: (line) => logLines.push(line) });
  const findPath = (template: string) => ({ template, methods: new Set(['POST']), allow: 'POST', permissions: new Map() });
  // Its own test has the counting (./rate-limits.test.ts).
  const limits = { unsignedWebhooks: () => () => undefined };
  const take = webhookIngress([webhook], { findPath, limits, metrics, logger, maxUnverifiedBytes: MAX_UNVERIFIED_BYTES });
  server = createServer(take).listen(0, '127.0.0.1');
  await once(server, 'listening');
  ({ port } = server.address() as AddressInfo);
  url = `http://127.0.0.1:${port}/hook`;
});

beforeEach(() => {
  taken = [];
});

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const post = (body: string | Buffer, headers: Record<string, string>) => fetch(url, { method: 'POST', body, headers });

/** A request whose body has only begun. */
async function begin(headers: string[], sent: string | Buffer = ''): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(`POST /hook HTTP/1.1\r\nHost: test\r\n${headers.join('\r\n')}\r\n\r\n`);
  await new Promise((resolve) => socket.write(sent, resolve));
  return socket;
}

/** Ends the connection, and resolves once the server knows. */
async function disconnect(socket: Socket): Promise<void> {
  const before = await abortedWebhooks();
  socket.destroy();
  while ((await abortedWebhooks()) === before) await new Promise(setImmediate);
}

async function abortedWebhooks(): Promise<number> {
  const count = /parley_webhooks_total\{source="kapso",type="other",result="aborted"\} (\d+)/.exec(await metrics.text())?.[1];
  return Number(count ?? 0);
}

/** The status of the next answer on the connection. */
async function statusOn(socket: Socket): Promise<number> {
  const [head] = (await once(socket, 'data')) as [Buffer];
  return Number(/^HTTP\/1\.1 (\d{3})/.exec(head.toString())?.[1]);
}

describe('verification', () => {
  test.each([
    ['the headers prove the sender', 'header', 'anything', 200],
    ['the body proves the sender', 'body', 'signed: anything', 200],
    ['the body proves nothing', 'body', 'anything', 401],
    ['nothing proves the sender', 'none', 'signed: anything', 401],
  ])('when %s, then it is let in or not, and what is not let in is not taken', async (_what, proof, body, status) => {
    const answer = await post(body, { 'X-Proof': proof });
    expect([answer.status, taken.map(String)]).toEqual([status, status === 200 ? [body] : []]);
    if (status === 401) expect(await answer.json()).toMatchObject({ detail: 'no proof' });
  });

  test('when the headers prove nothing, then the response does not wait for the body, and the connection can be reused', async () => {
    const socket = await begin(['Content-Length: 300000'], 'x'.repeat(1_000));
    expect(await statusOn(socket)).toBe(401);
    socket.write('x'.repeat(299_000));
    socket.write('POST /hook HTTP/1.1\r\nHost: test\r\nX-Proof: header\r\nContent-Length: 2\r\n\r\nok');
    expect(await statusOn(socket)).toBe(200);
    expect(taken.map(String)).toEqual(['ok']);
  });

  test('when a rejected body does not end, then the connection is closed', async () => {
    const socket = await begin(['Transfer-Encoding: chunked']);
    expect(await statusOn(socket)).toBe(401);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`;
    const send = () => {
      while (!socket.destroyed && socket.write(chunk));
    };
    socket.on('drain', send);
    send();
    await closed;
  });
});

describe('bodies', () => {
  const proof = { 'X-Proof': 'body' };
  const body = `signed ${'x'.repeat(5_000)}`;

  test.each([
    ['gzip', gzipSync(body)],
    ['x-gzip', gzipSync(body)],
    ['deflate', deflateSync(body)],
    ['identity', Buffer.from(body)],
  ])('when a body comes as %s, then what was signed is the text in it', async (encoding, sent) => {
    expect((await post(sent, { ...proof, 'Content-Encoding': encoding })).status).toBe(200);
    expect(taken.map(String)).toEqual([body]);
  });

  test.each([
    ['longer than its limit', 'x'.repeat(MIB + 1), {}, 413],
    ['longer than its limit once it is decompressed', gzipSync('x'.repeat(100 * MIB)), { 'Content-Encoding': 'gzip' }, 413],
    ['in an unknown encoding', brotliCompressSync(body), { 'Content-Encoding': 'br' }, 415],
    ['not what its encoding says', body, { 'Content-Encoding': 'gzip' }, 400],
    ['cut off inside its encoding', gzipSync(body).subarray(0, 20), { 'Content-Encoding': 'gzip' }, 400],
  ] as [string, string | Buffer, Record<string, string>, number][])(
    'when a body is %s, then it is refused',
    async (_what, sent, headers, status) => {
      const answer = await post(sent, { ...proof, ...headers });
      expect([answer.status, answer.headers.get('content-type')]).toEqual([status, 'application/problem+json; charset=utf-8']);
      expect(taken).toEqual([]);
    },
  );

  test('when a body of unknown length becomes too long, then it is rejected before its end', async () => {
    const socket = await begin(['X-Proof: body', 'Transfer-Encoding: chunked'], `200000\r\n${'x'.repeat(0x1_80_000)}`);
    expect(await statusOn(socket)).toBe(413);
  });

  test('when there is no body, then it is an empty one', async () => {
    expect((await fetch(url, { method: 'POST', headers: { 'X-Proof': 'header' } })).status).toBe(200);
    expect(taken).toEqual([Buffer.alloc(0)]);
  });

  test('when a sender disconnects in the middle of its body, then nothing is left', async () => {
    const socket = await begin(['X-Proof: body', 'Content-Length: 1000'], 'signed');
    await disconnect(socket);
    expect((await post(body, proof)).status).toBe(200);
  });
});

describe('memory', () => {
  const HALF = 'x'.repeat(MIB / 2);
  const headers = ['X-Proof: body', `Content-Length: ${MIB}`];

  test('when unverified bodies hold too much, then the oldest are given up with a 503, and who sends its body at once gets in', async () => {
    const senders: Socket[] = [];
    // The bound has room for three halves with their overhead, not for four.
    for (let count = 0; count < 6; count += 1) senders.push(await begin(headers, HALF));
    const given = await Promise.all(senders.slice(0, 3).map(text503));
    expect(given).toEqual([503, 503, 503]);
    expect((await post('signed', { 'X-Proof': 'body' })).status).toBe(200);
    // The youngest may still finish.
    const youngest = senders.at(-1);
    youngest?.write(HALF);
    expect(youngest && (await statusOn(youngest))).toBe(401);
  });

  async function text503(socket: Socket): Promise<number> {
    const [head] = (await once(socket, 'data')) as [Buffer];
    expect(head.toString()).toContain('Retry-After: ');
    return Number(/^HTTP\/1\.1 (\d{3})/.exec(head.toString())?.[1]);
  }

  test('when very many requests have begun and sent nothing, then they are bounded as well', async () => {
    const first = await begin(headers);
    const answered = statusOn(first);
    // Each counts for 16 KiB.
    for (let count = 0; count < MAX_UNVERIFIED_BYTES / (16 * 1024); count += 1) await begin(headers);
    expect(await answered).toBe(503);
  });

  test('when the headers prove the sender, then its body does not count', async () => {
    const senders = await Promise.all(Array.from({ length: 8 }, () => begin(['X-Proof: header', `Content-Length: ${MIB}`], HALF)));
    const statuses = senders.map(statusOn);
    // The server must have read all halves before the first body is whole: it reads them between these requests.
    for (let count = 0; count < 20; count += 1) expect((await post('', { 'X-Proof': 'header' })).status).toBe(200);
    for (const socket of senders) socket.write(HALF);
    expect(await Promise.all(statuses)).toEqual(senders.map(() => 200));
  });

  test('when bodies have been read, then they no longer count', async () => {
    for (let count = 0; count < 8; count += 1) {
      expect((await post('x'.repeat(MIB), { 'X-Proof': 'body' })).status).toBe(401);
      expect((await post('x'.repeat(MIB + 1), { 'X-Proof': 'body' })).status).toBe(413);
      await disconnect(await begin(headers, HALF));
    }
    const kept = await Promise.all([1, 2, 3].map(() => begin(headers, HALF)));
    // One after the other: all three whole ones together would be too much.
    for (const socket of kept) {
      const status = statusOn(socket);
      socket.write(HALF);
      expect(await status).toBe(401);
    }
  });
});
