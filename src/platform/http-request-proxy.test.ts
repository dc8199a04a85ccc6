/** Requests to providers through a proxy, set as a process has it: in its environment. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { type ForwardProxy, startForwardProxy } from '../../test/support/forward-proxy';
import { ClaimExpiredError } from './claim-fence';
import { connectionFailure } from './connection-failure';
import { withDeadline } from './deadline';
import { fetchStream, sendRequest } from './http-request';

let server: Server;
let port: number;
let proxy: ForwardProxy;
let received: { request: IncomingMessage; body: string }[] = [];

beforeAll(async () => {
  server = createServer(async (request, response) => {
    received.push({ request, body: await text(request) });
    response.writeHead(201, { 'X-Test': 'yes' }).end('made');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  port = (server.address() as AddressInfo).port;
  proxy = await startForwardProxy({ 'vendor.test:80': port, 'vendor.test:443': port });
  const url = new URL(proxy.url);
  url.username = 'user';
  url.password = 'p%40ss';
  // biome-ignore lint/style/noProcessEnv: set before the first request, as a shell does
  Object.assign(process.env, { https_proxy: url.href, http_proxy: url.href, no_proxy: 'direct.test' });
});

beforeEach(() => {
  received = [];
  proxy.asked.length = 0;
  proxy.headers.length = 0;
  proxy.refuseWith = undefined;
});

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await proxy.close();
});

const post = (url: string, { timeoutMs = 8_000, beforeSending = (): void => undefined } = {}) =>
  withDeadline(timeoutMs, (signal) =>
    sendRequest(url, { method: 'POST', headers: { 'X-Key': '1' }, body: '{"a":1}', signal, beforeSending }),
  );

const failureOf = async (request: Promise<unknown>) =>
  connectionFailure(
    await request.then(
      () => undefined,
      (error: unknown) => error,
    ),
  );

const LOGIN = `Basic ${Buffer.from('user:p@ss').toString('base64')}`;

test('when an http URL is requested, then the proxy gets the request and its login, and the server gets no login', async () => {
  const { status, headers, text: body } = await post('http://vendor.test/v1?x=1');
  expect([status, headers.get('x-test'), body]).toEqual([201, 'yes', 'made']);
  expect([proxy.asked, proxy.headers[0]?.['proxy-authorization']]).toEqual([['vendor.test:80'], LOGIN]);
  expect(received).toEqual([{ request: expect.objectContaining({ url: '/v1?x=1', method: 'POST' }), body: '{"a":1}' }]);
  expect(received[0]?.request.headers).toMatchObject({ host: 'vendor.test', 'x-key': '1', 'user-agent': 'parley' });
});

test('when an https URL is requested, then the proxy is asked for a tunnel, whose other end must prove that it is the server', async () => {
  // The server at the other end speaks no TLS.
  expect(await failureOf(post('https://vendor.test/v1'))).toEqual({ kind: 'not_sent', code: 'PROXY_FAILED' });
  expect([proxy.asked, proxy.headers[0]?.['proxy-authorization']]).toEqual([['CONNECT vendor.test:443'], LOGIN]);
  expect(received).toEqual([]);
});

test('when a response is streamed, then it uses the proxy too', async () => {
  const answer = await fetchStream('http://vendor.test/recording', {});
  expect([answer.status, await answer.text(), proxy.asked]).toEqual([201, 'made', ['vendor.test:80']]);
});

test.each(['127.0.0.1', 'localhost', '127.0.0.9'])('when the server is on this machine (%s), then the proxy is not used', async (host) => {
  if (host === '127.0.0.9') expect(await failureOf(post(`http://${host}:${port}/`))).toEqual({ kind: 'not_sent', code: 'ECONNREFUSED' });
  else expect((await post(`http://${host}:${port}/`)).status).toBe(201);
  expect(proxy.asked).toEqual([]);
});

test('when NO_PROXY has the host, then the proxy is not used', async () => {
  expect(await failureOf(post('http://direct.test/'))).toMatchObject({
    kind: 'not_sent',
    code: expect.stringMatching(/ENOTFOUND|EAI_AGAIN/),
  });
  expect(proxy.asked).toEqual([]);
});

test.each([403, 407, 502])('when the proxy refuses the tunnel with %i, then the request was not sent', async (status) => {
  proxy.refuseWith = status;
  expect(await failureOf(post('https://vendor.test/'))).toEqual({ kind: 'not_sent', code: 'PROXY_FAILED' });
  await expect(post('https://vendor.test/')).rejects.toThrow(`the proxy did not connect: Proxy response (${status})`);
});

test('when the proxy does not respond to CONNECT, then that times out before the request, which was not sent', async () => {
  proxy.refuseWith = 0;
  expect(await failureOf(post('https://vendor.test/'))).toEqual({ kind: 'not_sent', code: 'PROXY_FAILED' });
});

test('when the last check fails, then nothing was sent', async () => {
  const expired = new ClaimExpiredError('the claim was too old');
  const beforeSending = () => {
    throw expired;
  };
  await expect(post('http://vendor.test/', { beforeSending })).rejects.toBe(expired);
  expect(received).toEqual([]);
});

test('when nothing listens where the proxy should be, then the request was not sent', async () => {
  await proxy.close();
  for (const url of ['https://vendor.test/', 'http://vendor.test/'])
    expect(await failureOf(post(url))).toEqual({ kind: 'not_sent', code: 'ECONNREFUSED' });
  proxy.close = async () => undefined;
});
