/** What a request says when it fails, and what it does on the way: only what has certainly not left may be sent again. */
import { once } from 'node:events';
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { connectionFailure } from './connection-failure';
import { withDeadline } from './deadline';
import { sendRequest } from './http-request';

const servers: Server[] = [];
const sockets = new Set<Socket>();

afterAll(() => {
  for (const server of servers) server.close();
  for (const socket of sockets) socket.destroy();
});

async function listening(server: Server, host = '127.0.0.1'): Promise<number> {
  servers.push(server);
  server.on('connection', (socket) => sockets.add(socket));
  server.listen(0, host);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

const serving = async (listener: RequestListener) => `http://127.0.0.1:${await listening(createHttpServer(listener))}`;

/** A port on which nobody listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listening(server);
  server.close();
  await once(server, 'close');
  return port;
}

const post = (url: string, timeoutMs = 5_000) =>
  withDeadline(timeoutMs, (signal) => sendRequest(url, { method: 'POST', headers: {}, body: '{}', signal }));

async function failureOf(url: string, timeoutMs?: number) {
  return connectionFailure(
    await post(url, timeoutMs).then(
      () => undefined,
      (error: unknown) => error,
    ),
  );
}

describe('a request', () => {
  test('when it is answered, then the answer comes as it is, and it was asked by name and for no compression', async () => {
    let asked: object = {};
    const url = await serving((request, response) => {
      asked = request.headers;
      response.writeHead(429, { 'Retry-After': '7' }).end('later');
    });
    const { status, headers, text } = await post(url);
    expect([status, headers.get('retry-after'), text]).toEqual([429, '7', 'later']);
    expect(asked).toMatchObject({ 'user-agent': 'parley', 'accept-encoding': 'identity' });
  });

  test.each([301, 307, 308])('when it is sent on by a %i, then it is not followed', async (status) => {
    let seen = 0;
    const target = await serving((_request, response) => {
      seen += 1;
      response.end();
    });
    const url = await serving((_request, response) => {
      response.writeHead(status, { Location: target }).end();
    });
    expect([(await post(url)).status, seen]).toEqual([status, 0]);
  });

  test('when its time is over while it is still connecting, then it ends, and nothing is sent afterwards', async () => {
    const greetings: Buffer[] = [];
    const port = await listening(createServer((socket) => socket.on('data', (bytes) => greetings.push(bytes))));
    const startedAtMs = Date.now();
    expect(await failureOf(`https://127.0.0.1:${port}`, 300)).toEqual({ kind: 'unknown', reason: 'AbortError' });
    expect(Date.now() - startedAtMs).toBeLessThan(3_000);
    // The beginning of TLS, and no request.
    expect(Buffer.concat(greetings).toString('latin1')).not.toContain('POST');
  });
});

describe('a failure', () => {
  test('when nobody listens, then the request never left, also where a host has several addresses', async () => {
    const port = await freePort();
    expect(await failureOf(`http://127.0.0.1:${port}`)).toEqual({ kind: 'not_sent', code: 'ECONNREFUSED' });
    expect(await failureOf(`http://localhost:${port}`)).toEqual({ kind: 'not_sent', code: 'ECONNREFUSED' });
  });

  test('when a name leads nowhere, then the request never left', async () => {
    expect(await failureOf('http://nowhere.invalid')).toMatchObject({ kind: 'not_sent' });
  });

  test.each([
    ['before its head', (socket: Socket) => socket.destroy()],
    ['by a reset', (socket: Socket) => socket.resetAndDestroy()],
    ['in the middle of its body', (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')],
    ['by something that is no HTTP', (socket: Socket) => socket.end('hello\r\n\r\n')],
  ])('when the answer is cut %s, then nobody knows what became of the request', async (_where, cut) => {
    const port = await listening(createServer((socket) => socket.once('data', () => cut(socket)).on('error', () => undefined)));
    expect(await failureOf(`http://127.0.0.1:${port}`)).toMatchObject({ kind: 'unknown' });
  });

  const failed = (code: string, syscall?: string) => Object.assign(new Error('failed'), { code, ...(syscall ? { syscall } : {}) });

  test.each(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH'])(
    'when an open connection ends with %s, as Linux reports a host that has gone, then the request may have arrived',
    (code) => {
      expect(connectionFailure(failed(code, 'read'))).toEqual({ kind: 'unknown', reason: code });
      expect(connectionFailure(failed(code, 'connect'))).toEqual({ kind: 'not_sent', code });
    },
  );

  test.each([
    [failed('ENOTFOUND', 'getaddrinfo'), 'ENOTFOUND'],
    [failed('EAI_AGAIN', 'getaddrinfo'), 'EAI_AGAIN'],
    [failed('UND_ERR_CONNECT_TIMEOUT'), 'UND_ERR_CONNECT_TIMEOUT'],
    [failed('CERT_HAS_EXPIRED'), 'CERT_HAS_EXPIRED'],
    [failed('DEPTH_ZERO_SELF_SIGNED_CERT'), 'DEPTH_ZERO_SELF_SIGNED_CERT'],
    [failed('SELF_SIGNED_CERT_IN_CHAIN'), 'SELF_SIGNED_CERT_IN_CHAIN'],
    [failed('UNABLE_TO_VERIFY_LEAF_SIGNATURE'), 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
    [failed('ERR_TLS_CERT_ALTNAME_INVALID'), 'ERR_TLS_CERT_ALTNAME_INVALID'],
    [new AggregateError([failed('ENETUNREACH', 'connect'), failed('ECONNREFUSED', 'connect')]), 'ENETUNREACH'],
  ])('when it comes before anything is sent (%s), then the request never left', (error, code) => {
    expect(connectionFailure(error)).toEqual({ kind: 'not_sent', code });
  });

  test.each([failed('UND_ERR_SOCKET'), failed('ECONNRESET', 'read'), failed('EPIPE', 'write'), failed('UND_ERR_BODY_TIMEOUT')])(
    'when it is %s, then nobody knows what became of the request',
    (error) => {
      expect(connectionFailure(error)).toMatchObject({ kind: 'unknown' });
    },
  );
});
