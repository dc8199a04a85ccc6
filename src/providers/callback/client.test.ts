/** Where callbacks may go, and what is sent. The receivers are real local servers; only the DNS resolver is replaced. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { Webhook } from 'standardwebhooks';
import { type ForwardProxy, startForwardProxy } from '../../../test/support/forward-proxy';
import type { ProxySettings } from '../../platform/config';
import { type Address, callbackProblem, checkCallbackUrl, createCallbackClient, isKestraResume, isPublicAddress } from './client';

const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
const CALL_ID = '5f0c3b8e-1d2a-8c4b-a6f7-0123456789ab';
const body = { callId: CALL_ID, outcome: 'completed', done: true, isUpdate: false };

const servers: Server[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  }
});

async function listen(listener: RequestListener): Promise<number> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

interface Received {
  request: IncomingMessage;
  body: Buffer;
}

/** A receiver that responds with the given statuses in order, then keeps repeating the last one. */
async function receiver(...statuses: number[]): Promise<{ port: number; received: Received[] }> {
  const received: Received[] = [];
  const port = await listen((request, response) => {
    void buffer(request).then((content) => {
      received.push({ request, body: content });
      response.writeHead(statuses[Math.min(received.length, statuses.length) - 1] ?? 200).end('seen');
    });
  });
  return { port, received };
}

function client(options: {
  allowedHosts: string[];
  resolve?: (hostname: string) => Promise<Address[]>;
  timeoutMs?: number;
  proxies?: ProxySettings;
}) {
  return createCallbackClient({
    timeoutMs: 2_000,
    signingSecret: SECRET,
    kestraAuthorization: 'Basic a2VzdHJhOnNlY3JldA==',
    ...options,
  });
}

describe('the URL of a callback', () => {
  const hosts = ['hooks.example.com', 'flows.example.com:8080', '127.0.0.1:9000', '[::1]:9001', '10.0.0.7', 'bücher.example'];

  test.each([
    'https://hooks.example.com/x?y=1',
    'https://HOOKS.example.com:443/x',
    'http://flows.example.com:8080/api/v1/main/executions/a/resume',
    'https://flows.example.com:8080/',
    'http://127.0.0.1:9000/',
    'http://2130706433:9000/',
    'http://0177.0.0.1:9000/',
    'http://[::1]:9001/',
    'https://xn--bcher-kva.example/',
  ])('when it is %s, then it is allowed', (url) => {
    expect(checkCallbackUrl(url, hosts)).toMatchObject({ ok: true });
  });

  test.each([
    ['http://hooks.example.com/', 'https'],
    ['https://hooks.example.com:8443/', 'port'],
    ['https://flows.example.com/', 'not allowed'],
    ['https://evil.example/', 'not allowed'],
    ['https://hooks.example.com.evil.example/', 'not allowed'],
    ['https://hooks.example.com./', 'not allowed'],
    ['https://evil.example#@hooks.example.com/', 'not allowed'],
    ['https://evil.example\\@hooks.example.com/', 'not allowed'],
    ['https://hooks.example.com@evil.example/', 'user name'],
    ['https://user:pass@hooks.example.com/', 'user name'],
    ['https://hooks.example.com:443@evil.example/', 'user name'],
    ['ftp://hooks.example.com/', 'https'],
    ['file:///etc/passwd', 'https'],
    ['gopher://hooks.example.com:443/', 'https'],
    ['//hooks.example.com/', 'URL'],
    ['hooks.example.com', 'URL'],
    ['', 'URL'],
    ['http://127.0.0.1:9002/', 'not allowed'],
    ['http://localhost:9000/', 'not allowed'],
    ['http://localhost.:9000/', 'not allowed'],
    ['http://[::ffff:127.0.0.1]:9000/', 'not allowed'],
    ['http://2130706433/', 'not allowed'],
    ['http://169.254.169.254/latest/meta-data', 'not allowed'],
    ['https://10.0.0.7/', 'internal'],
    ['https://0xa.7/', 'internal'],
  ])('when it is %s, then it is rejected', (url, problem) => {
    expect(checkCallbackUrl(url, hosts)).toMatchObject({ ok: false, problem: expect.stringContaining(problem) });
  });

  test('when it is longer than servers accept, then it is rejected', () => {
    expect(checkCallbackUrl(`https://hooks.example.com/${'x'.repeat(2_048)}`, hosts)).toMatchObject({ ok: false });
  });

  test('when no host is allowed, then callbacks are rejected', () => {
    expect(callbackProblem('https://hooks.example.com/', { allowedHosts: [] })).toContain('CALLBACK_ALLOWED_HOSTS');
  });

  test('when there is no signing key, then only a Kestra resume URL is accepted', () => {
    const settings = { allowedHosts: hosts };
    expect(callbackProblem('https://hooks.example.com/', settings)).toContain('CALLBACK_SIGNING_SECRET');
    expect(callbackProblem('https://hooks.example.com/api/v1/main/executions/a/resume', settings)).toBeUndefined();
    expect(callbackProblem('https://hooks.example.com/', { ...settings, signingSecret: SECRET })).toBeUndefined();
  });
});

test.each([
  ['8.8.8.8', true],
  ['2606:4700:4700::1111', true],
  ['127.0.0.1', false],
  ['127.8.8.8', false],
  ['0.0.0.0', false],
  ['10.1.2.3', false],
  ['172.16.0.1', false],
  ['192.168.1.1', false],
  ['100.64.0.1', false],
  ['169.254.169.254', false],
  ['224.0.0.1', false],
  ['255.255.255.255', false],
  ['192.0.0.192', false],
  ['198.18.0.1', false],
  ['::', false],
  ['::1', false],
  ['::ffff:127.0.0.1', false],
  ['::ffff:8.8.8.8', false],
  ['::127.0.0.1', false],
  ['64:ff9b::7f00:1', false],
  ['64:ff9b:1::a00:1', false],
  ['2002:7f00:1::', false],
  ['2001::7f00:1', false],
  ['fe80::1', false],
  ['fc00::1', false],
  ['fd12::1', false],
  ['fec0::1', false],
  ['ff02::1', false],
  ['2001:db8::1', false],
  ['not an address', false],
])('when the address is %s, then isPublicAddress returns %s', (address, expected) => {
  expect(isPublicAddress(address)).toBe(expected);
});

describe('delivery', () => {
  test('when a receiver verifies the signature with the library, then it is valid, and the id is the same at every attempt', async () => {
    const { port, received } = await receiver(500, 204);
    const callbacks = client({ allowedHosts: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}/hook?a=1`;
    expect(await callbacks.post(url, body)).toEqual({ kind: 'answered', httpStatus: 500 });
    expect(await callbacks.post(url, body)).toEqual({ kind: 'answered', httpStatus: 204 });
    const ids = received.map(({ request, body: content }) => {
      expect(new Webhook(SECRET).verify(content, request.headers as Record<string, string>)).toEqual(body);
      expect(request.url).toBe('/hook?a=1');
      expect(request.headers.authorization).toBeUndefined();
      return request.headers['webhook-id'];
    });
    expect(ids).toEqual([`call-${CALL_ID}`, `call-${CALL_ID}`]);
  });

  test('when the URL resumes a Kestra execution, then it gets the inputs as a form, with the credentials', async () => {
    const { port, received } = await receiver(204);
    const url = `http://127.0.0.1:${port}/api/v1/main/executions/abc/resume`;
    expect(await client({ allowedHosts: [`127.0.0.1:${port}`] }).post(url, body)).toEqual({ kind: 'answered', httpStatus: 204 });
    const [first] = received;
    const form = await new Response(first?.body, { headers: { 'Content-Type': first?.request.headers['content-type'] ?? '' } }).formData();
    expect(Object.fromEntries(form)).toEqual({ callId: CALL_ID, outcome: 'completed', done: 'true' });
    expect(first?.request.headers.authorization).toBe('Basic a2VzdHJhOnNlY3JldA==');
  });

  test('when a receiver redirects to the metadata service, then the redirect is not followed', async () => {
    const port = await listen((_request, response) => {
      response.writeHead(307, { Location: 'http://169.254.169.254/latest/meta-data' }).end();
    });
    const answer = await client({ allowedHosts: [`127.0.0.1:${port}`] }).post(`http://127.0.0.1:${port}/`, body);
    expect(answer).toEqual({ kind: 'answered', httpStatus: 307 });
  });

  test.each([
    ['loopback', [{ address: '127.0.0.1', family: 4 }]],
    ['a mapped loopback', [{ address: '::ffff:127.0.0.1', family: 6 }]],
    [
      'a public and a private address',
      [
        { address: '8.8.8.8', family: 4 },
        { address: '10.0.0.1', family: 4 },
      ],
    ],
  ])('when an allowed host resolves to %s, then nothing is sent', async (_what, addresses) => {
    const callbacks = client({ allowedHosts: ['hooks.example.com'], resolve: async () => addresses });
    expect(await callbacks.post('https://hooks.example.com/', body)).toEqual({
      kind: 'forbidden',
      problem: expect.stringContaining('internal'),
    });
  });

  test('when a host name resolves, then it is resolved once, and the connection goes to the checked address', async () => {
    const { port, received } = await receiver(200);
    let lookups = 0;
    const resolve = async () => {
      lookups += 1;
      return [{ address: '127.0.0.1', family: 4 }];
    };
    // The name does not exist: a second look-up, by the system's resolver, would fail.
    const callbacks = client({ allowedHosts: [`rebinding.invalid:${port}`], resolve });
    expect(await callbacks.post(`http://rebinding.invalid:${port}/`, body)).toEqual({ kind: 'answered', httpStatus: 200 });
    expect([lookups, received[0]?.request.headers.host]).toEqual([1, `rebinding.invalid:${port}`]);
  });

  test('when the host is no longer allowed, then nothing is sent', async () => {
    const { port, received } = await receiver(200);
    const answer = await client({ allowedHosts: ['other.example'] }).post(`http://127.0.0.1:${port}/`, body);
    expect([answer.kind, received.length]).toEqual(['forbidden', 0]);
  });

  test('when the receiver is busy, then its Retry-After is passed on', async () => {
    const port = await listen((_request, response) => {
      response.writeHead(429, { 'Retry-After': '7' }).end();
    });
    const answer = await client({ allowedHosts: [`127.0.0.1:${port}`] }).post(`http://127.0.0.1:${port}/`, body);
    expect(answer).toEqual({ kind: 'answered', httpStatus: 429, retryAfterMs: 7_000 });
  });

  test('when the receiver never responds, is down, or the look-up hangs, then the attempt fails in time, with a reason', async () => {
    const silent = await listen(() => undefined);
    const allowedHosts = [`127.0.0.1:${silent}`, '127.0.0.1:1', 'hooks.example.com'];
    const callbacks = client({ allowedHosts, timeoutMs: 200, resolve: () => new Promise(() => undefined) });
    expect(await callbacks.post(`http://127.0.0.1:${silent}/`, body)).toEqual({ kind: 'no_answer', reason: 'took too long' });
    expect(await callbacks.post('http://127.0.0.1:1/', body)).toEqual({ kind: 'no_answer', reason: 'ECONNREFUSED' });
    expect(await callbacks.post('https://hooks.example.com/', body)).toEqual({ kind: 'no_answer', reason: 'took too long' });
  });
});

test.each([
  ['https://k.example/api/v1/main/executions/4x/resume', true],
  ['https://k.example/base/api/v1/executions/4x/resume', true],
  ['https://k.example/api/v1/main/executions/4x/actions/resume', true],
  ['https://k.example/api/v1/main/executions/4x/actions/restart', false],
  ['https://k.example/hook?next=/executions/4x/resume', false],
])('when the URL is %s, then isKestraResume returns %s', (url, expected) => {
  expect(isKestraResume(new URL(url))).toBe(expected);
});

describe('through a proxy', () => {
  const proxied = async (targets: Record<string, number>) => {
    const proxy = await startForwardProxy(targets);
    proxies.push(proxy);
    const settings = (NO_PROXY: string[] = []) => ({ HTTP_PROXY: proxy.url, HTTPS_PROXY: proxy.url, NO_PROXY });
    return { proxy, settings };
  };
  const proxies: ForwardProxy[] = [];
  afterEach(async () => {
    await Promise.all(proxies.splice(0).map((proxy) => proxy.close()));
  });

  test('when a callback goes to an allowed host, then the proxy connects to the address that was checked, and the host gets its own name', async () => {
    const { port, received } = await receiver(204);
    const { proxy, settings } = await proxied({ '192.0.2.7:8080': port });
    const callbacks = client({
      allowedHosts: ['flows.example:8080'],
      resolve: async () => [
        { address: '2001:db8::7', family: 6 },
        { address: '192.0.2.7', family: 4 },
      ],
      proxies: settings(),
    });
    expect(await callbacks.post('http://flows.example:8080/done?x=1', body)).toEqual({ kind: 'answered', httpStatus: 204 });
    expect(proxy.asked).toEqual(['CONNECT 192.0.2.7:8080']);
    expect(received[0]?.request).toMatchObject({
      url: '/done?x=1',
      headers: { host: 'flows.example:8080', 'user-agent': 'parley-callback' },
    });
    expect(JSON.parse(String(received[0]?.body))).toEqual(body);
  });

  test('when the host resolves to an internal address, then the proxy is not used either', async () => {
    const { proxy, settings } = await proxied({});
    const callbacks = client({
      allowedHosts: ['hooks.example'],
      resolve: async () => [{ address: '10.0.0.8', family: 4 }],
      proxies: settings(),
    });
    expect(await callbacks.post('https://hooks.example/', body)).toMatchObject({ kind: 'forbidden' });
    expect(proxy.asked).toEqual([]);
  });

  test('when the receiver is on this machine, or NO_PROXY has its name or address, then the proxy is not used', async () => {
    const { port, received } = await receiver(200);
    const { proxy, settings } = await proxied({});
    const resolve = async () => [{ address: '127.0.0.1', family: 4 }];
    const allowedHosts = [`flows.example:${port}`, `127.0.0.1:${port}`];
    for (const url of [`http://flows.example:${port}/`, `http://127.0.0.1:${port}/`])
      expect(await client({ allowedHosts, resolve, proxies: settings() }).post(url, body)).toMatchObject({ httpStatus: 200 });
    expect([received.length, proxy.asked]).toEqual([2, []]);
    for (const exception of ['away.example', '192.0.2.0/24']) {
      const callbacks = client({
        allowedHosts: ['away.example:1'],
        resolve: async () => [{ address: '192.0.2.1', family: 4 }],
        proxies: settings([exception]),
        timeoutMs: 50,
      });
      expect(await callbacks.post('http://away.example:1/', body)).toMatchObject({ kind: 'no_answer' });
    }
    expect(proxy.asked).toEqual([]);
  });

  test('when the proxy refuses or does not respond, then there is no response', async () => {
    const { proxy, settings } = await proxied({});
    const options = { allowedHosts: ['flows.example:80'], resolve: async () => [{ address: '192.0.2.7', family: 4 }], timeoutMs: 300 };
    for (const status of [407, 0]) {
      proxy.refuseWith = status;
      expect(await client({ ...options, proxies: settings() }).post('http://flows.example/', body)).toMatchObject({ kind: 'no_answer' });
    }
    expect(proxy.asked).toHaveLength(2);
  });
});
