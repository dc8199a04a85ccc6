/** Requests to providers and the classification of their failures: only a request that was certainly not sent may be retried. */
import { once } from 'node:events';
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { ClaimExpiredError } from './claim-fence';
import { connectionFailure } from './connection-failure';
import { withDeadline } from './deadline';
import { ResponseTooLongError, sendRequest } from './http-request';

const servers: Server[] = [];
const sockets = new Set<Socket>();

afterAll(() => {
  for (const server of servers) server.close();
  for (const socket of sockets) socket.destroy();
});

async function listen(server: Server, host = '127.0.0.1'): Promise<number> {
  servers.push(server);
  server.on('connection', (socket) => sockets.add(socket));
  server.listen(0, host);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

const serve = async (listener: RequestListener) => `http://127.0.0.1:${await listen(createHttpServer(listener))}`;

/** A port on which nothing listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listen(server);
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
  test('when the response is longer than it may be, then its rest is not read, and the request may have had an effect', async () => {
    let hasClosed: (value: unknown) => void;
    const closed = new Promise((resolve) => {
      hasClosed = resolve;
    });
    const url = await serve((_request, response) => {
      response.on('close', () => hasClosed(undefined));
      const write = () => {
        while (response.write('é'.repeat(10_000)));
        response.once('drain', write);
      };
      write();
    });
    const send = (maxBytes: number) =>
      withDeadline(5_000, (signal) => sendRequest(url, { method: 'POST', headers: {}, body: '{}', signal, maxBytes }));
    const failure = await send(100_000).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(ResponseTooLongError);
    expect(connectionFailure(failure)).toEqual({ kind: 'unknown', reason: 'ResponseTooLongError' });
    await closed;
  });

  test('when it is answered, then the response is returned as is; the request has a user agent and accepts no compression', async () => {
    let requestHeaders: object = {};
    const url = await serve((request, response) => {
      requestHeaders = request.headers;
      response.writeHead(429, { 'Retry-After': '7' }).end('later');
    });
    const { status, headers, text } = await post(url);
    expect([status, headers.get('retry-after'), text]).toEqual([429, '7', 'later']);
    expect(requestHeaders).toMatchObject({ 'user-agent': 'parley', 'accept-encoding': 'identity' });
  });

  test.each([301, 307, 308])('when it is redirected with a %i, then the redirect is not followed', async (status) => {
    let requestCount = 0;
    const target = await serve((_request, response) => {
      requestCount += 1;
      response.end();
    });
    const url = await serve((_request, response) => {
      response.writeHead(status, { Location: target }).end();
    });
    expect([(await post(url)).status, requestCount]).toEqual([status, 0]);
  });

  test('when it times out while connecting, then it fails, and nothing is sent afterwards', async () => {
    const received: Buffer[] = [];
    const port = await listen(createServer((socket) => socket.on('data', (bytes) => received.push(bytes))));
    const startedAtMs = Date.now();
    expect(await failureOf(`https://127.0.0.1:${port}`, 300)).toEqual({ kind: 'unknown', reason: 'AbortError' });
    expect(Date.now() - startedAtMs).toBeLessThan(3_000);
    // The TLS handshake has begun, but no request was sent.
    expect(Buffer.concat(received).toString('latin1')).not.toContain('POST');
  });
});

describe('the last check before a request leaves', () => {
  const checked = (url: string, beforeSending: () => void) =>
    withDeadline(5_000, (signal) => sendRequest(url, { method: 'POST', headers: {}, body: '{"a":1}', signal, beforeSending }));

  test('when it passes, then it was made on a connection that stood, and the request is sent whole', async () => {
    const seen: string[] = [];
    const server = createHttpServer(async (request, response) => {
      seen.push(await text(request));
      response.writeHead(201, { 'X-Test': 'yes' }).end('made');
    });
    server.on('connection', () => seen.push('connected'));
    const url = `http://127.0.0.1:${await listen(server)}`;
    const { status, headers, text: body } = await checked(url, () => seen.push('checked'));
    expect([status, headers.get('x-test'), body]).toEqual([201, 'yes', 'made']);
    expect(seen.toSorted()).toEqual(['checked', 'connected', '{"a":1}']);
  });

  test('when it fails while a connection is being made, then nothing is sent, and the connection serves the next request', async () => {
    let isTooLate = false;
    let connections = 0;
    const seen: string[] = [];
    const server = createHttpServer((request, response) => {
      seen.push(request.url ?? '');
      response.end('ok');
    });
    server.on('connection', () => {
      connections += 1;
    });
    const url = `http://127.0.0.1:${await listen(server)}`;
    const expired = new ClaimExpiredError('the claim was too old');
    const refused = checked(`${url}/late`, () => {
      if (isTooLate) throw expired;
    });
    // Begun in time: what is checked is the moment at which it would leave.
    isTooLate = true;
    await expect(refused).rejects.toBe(expired);
    expect((await checked(`${url}/next`, () => undefined)).status).toBe(200);
    expect([seen, connections]).toEqual([['/next'], 1]);
  });
});

describe('a failure', () => {
  test('when nothing listens on the port, then the request was not sent, even if the host has several addresses', async () => {
    const port = await freePort();
    expect(await failureOf(`http://127.0.0.1:${port}`)).toEqual({ kind: 'not_sent', code: 'ECONNREFUSED' });
    expect(await failureOf(`http://localhost:${port}`)).toEqual({ kind: 'not_sent', code: 'ECONNREFUSED' });
  });

  test('when the host does not resolve, then the request was not sent', async () => {
    expect(await failureOf('http://nowhere.invalid')).toMatchObject({ kind: 'not_sent' });
  });

  test.each([
    ['before its headers', (socket: Socket) => socket.destroy()],
    ['by a reset', (socket: Socket) => socket.resetAndDestroy()],
    ['in the middle of its body', (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')],
    ['by bytes that are not HTTP', (socket: Socket) => socket.end('hello\r\n\r\n')],
  ])('when the response is cut off %s, then the outcome is unknown', async (_where, cut) => {
    const port = await listen(createServer((socket) => socket.once('data', () => cut(socket)).on('error', () => undefined)));
    expect(await failureOf(`http://127.0.0.1:${port}`)).toMatchObject({ kind: 'unknown' });
  });

  const failed = (code: string, syscall?: string) => Object.assign(new Error('failed'), { code, ...(syscall ? { syscall } : {}) });

  test.each(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH'])(
    'when an open connection fails with %s, as Linux reports a vanished host, then the outcome is unknown',
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
  ])('when it happens before anything is sent (%s), then the request was not sent', (error, code) => {
    expect(connectionFailure(error)).toEqual({ kind: 'not_sent', code });
  });

  test.each([failed('UND_ERR_SOCKET'), failed('ECONNRESET', 'read'), failed('EPIPE', 'write'), failed('UND_ERR_BODY_TIMEOUT')])(
    'when it is %s, then the outcome is unknown',
    (error) => {
      expect(connectionFailure(error)).toMatchObject({ kind: 'unknown' });
    },
  );
});
