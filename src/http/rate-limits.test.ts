import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { createLogger } from '../platform/logger';
import { createApiMetrics } from '../platform/metrics';
import { requireApiKey } from './access';
import { errorHandler } from './errors';
import { createRateLimits } from './rate-limits';
import { jsonResponse, type Webhook, webhookIngress } from './webhook-ingress';

const API_LIMIT = 200;
const WEBHOOK_LIMIT = 3;
/** A tenth of the API's. */
const BAD_KEY_LIMIT = 20;

interface Asked {
  path: string;
  from?: string;
  key?: string;
}

/** An application with the limits in front of plain answers, behind one proxy, as long as `use` runs. */
async function withApp(use: (ask: (asked: Asked) => Promise<Response>) => Promise<void>): Promise<void> {
  const limits = createRateLimits({
    API_RATE_LIMIT_PER_MINUTE: API_LIMIT,
    UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: WEBHOOK_LIMIT,
    TRUST_PROXY_HOPS: 1,
  });
  const logger = createLogger('test', 'silent');
  const webhook = (source: 'kapso' | 'vapi'): Webhook => ({
    ...{ source, paths: [`/${source}`], bodyLimitMib: 1, refusal: 'no proof' },
    proofOf: ({ authorization }) => authorization === 'Bearer good',
    take: async () => jsonResponse({}),
  });
  const permissions = new Map([['POST', 'conversations:read'] as const]);
  const findPath = (template: string) => ({ template, methods: new Set(['POST']), allow: 'POST', permissions });
  const takeWebhook = webhookIngress([webhook('kapso'), webhook('vapi')], { findPath, limits, metrics: createApiMetrics(), logger });
  const app = express();
  app.use('/api', requireApiKey({ keys: ['good', 'other'], findKey: async () => undefined, findPath, limits }));
  app.use((_request, response) => {
    response.send('in');
  });
  app.use(errorHandler(logger));
  const server = createServer((request, response) => {
    if (!takeWebhook(request, response)) app(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    await use(({ path, from = '192.0.2.1', key }) =>
      fetch(`http://127.0.0.1:${port}${path}`, {
        method: 'POST',
        headers: { 'X-Forwarded-For': from, ...(key ? { Authorization: `Bearer ${key}` } : {}) },
      }),
    );
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

async function statuses(ask: (asked: Asked) => Promise<Response>, asked: Asked, count: number): Promise<number[]> {
  const answers: number[] = [];
  for (let index = 0; index < count; index += 1) answers.push((await ask(asked)).status);
  return answers;
}

const times = (count: number, status: number) => Array.from({ length: count }, () => status);

describe('limits', () => {
  test('when an address sends too many unsigned webhooks, then it gets the time to retry, and no other address or source does', async () => {
    await withApp(async (ask) => {
      expect(await statuses(ask, { path: '/kapso' }, WEBHOOK_LIMIT)).toEqual(times(WEBHOOK_LIMIT, 401));
      const refused = await ask({ path: '/kapso' });
      expect([refused.status, refused.headers.get('content-type')]).toEqual([429, 'application/problem+json; charset=utf-8']);
      const waitSeconds = Number(refused.headers.get('retry-after'));
      expect(waitSeconds).toBeGreaterThan(0);
      expect(waitSeconds).toBeLessThanOrEqual(60);
      expect(await refused.json()).toMatchObject({ type: 'about:blank', title: 'Too Many Requests', status: 429 });
      expect((await ask({ path: '/kapso', from: '192.0.2.2' })).status).toBe(401);
      expect((await ask({ path: '/vapi' })).status).toBe(401);
    });
  });

  test('when an address sends signed webhooks, then there is no limit, whatever else comes from it', async () => {
    await withApp(async (ask) => {
      expect(await statuses(ask, { path: '/kapso', key: 'good' }, 10 * WEBHOOK_LIMIT)).toEqual(times(10 * WEBHOOK_LIMIT, 200));
      // They do not count either.
      expect(await statuses(ask, { path: '/kapso' }, WEBHOOK_LIMIT + 1)).toEqual([...times(WEBHOOK_LIMIT, 401), 429]);
      expect((await ask({ path: '/kapso', key: 'good' })).status).toBe(200);
    });
  });

  test('when IPv6 addresses are of one network, then they share a count', async () => {
    await withApp(async (ask) => {
      for (let host = 1; host <= WEBHOOK_LIMIT; host += 1) await ask({ path: '/kapso', from: `2001:db8:0:${host}::1` });
      expect((await ask({ path: '/kapso', from: '2001:db8:0:9::1' })).status).toBe(429);
      expect((await ask({ path: '/kapso', from: '2001:db8:1::1' })).status).toBe(401);
    });
  });

  test('when an IPv4 address is written as an IPv6 one, then it is the same sender, and shares its count with no other', async () => {
    await withApp(async (ask) => {
      for (let index = 0; index < WEBHOOK_LIMIT; index += 1) await ask({ path: '/kapso', from: '::ffff:192.0.2.1' });
      expect((await ask({ path: '/kapso', from: '192.0.2.1' })).status).toBe(429);
      expect((await ask({ path: '/kapso', from: '::ffff:192.0.2.2' })).status).toBe(401);
    });
  });

  test('when a foreign proxy is named before the last one, then the address that our proxy saw counts', async () => {
    await withApp(async (ask) => {
      for (let index = 0; index < WEBHOOK_LIMIT; index += 1) await ask({ path: '/kapso', from: `198.51.100.${index}, 192.0.2.1` });
      expect((await ask({ path: '/kapso', from: '198.51.100.99, 192.0.2.1' })).status).toBe(429);
    });
  });

  test('when unsigned webhooks come from very many addresses, then those beyond a bound share a count', () => {
    const settings = { API_RATE_LIMIT_PER_MINUTE: 1, UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: WEBHOOK_LIMIT, TRUST_PROXY_HOPS: 0 };
    const secondsToWait = createRateLimits(settings).unsignedWebhooks();
    const from = (host: number) =>
      secondsToWait({ socket: { remoteAddress: `10.${host >> 16}.${(host >> 8) & 255}.${host & 255}` }, headers: {} } as IncomingMessage);
    const refused = Array.from({ length: 20_000 }, (_, host) => from(host)).filter((seconds) => seconds !== undefined);
    expect(refused.length).toBe(10_000 - WEBHOOK_LIMIT);
    expect([from(1), from(1), from(1)]).toEqual([undefined, undefined, expect.any(Number)]);
  });

  test('when a key has reached its limit, then another key from the same address has not', async () => {
    await withApp(async (ask) => {
      expect(await statuses(ask, { path: '/api', key: 'good' }, API_LIMIT)).toEqual(times(API_LIMIT, 200));
      const { status, headers } = await ask({ path: '/api', key: 'good' });
      expect([status, headers.get('ratelimit')]).toEqual([429, expect.stringMatching(/r=0; t=\d+/)]);
      expect(headers.get('ratelimit-policy')).toMatch(new RegExp(`q=${API_LIMIT}; w=60`));
      expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
      expect((await ask({ path: '/api', key: 'good', from: '192.0.2.2' })).status).toBe(429);
      expect((await ask({ path: '/api', key: 'other' })).status).toBe(200);
    });
  });

  test('when wrong keys come from an address, each another one, then it is refused sooner, and a good key still gets in', async () => {
    await withApp(async (ask) => {
      const answers: number[] = [];
      for (let index = 0; index <= BAD_KEY_LIMIT; index += 1) answers.push((await ask({ path: '/api', key: `wrong-${index}` })).status);
      expect(answers).toEqual([...times(BAD_KEY_LIMIT, 401), 429]);
      expect((await ask({ path: '/api' })).status).toBe(429);
      expect((await ask({ path: '/api', key: 'good' })).status).toBe(200);
      expect((await ask({ path: '/api', from: '192.0.2.2' })).status).toBe(401);
    });
  });
});
