import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { createLogger } from '../platform/logger';
import { requireApiKey } from './access';
import { errorHandler } from './errors';
import { createRateLimits } from './rate-limits';

async function statusOf(keys: string[], authorization?: string): Promise<number> {
  const app = express();
  app.get(
    '/',
    requireApiKey(
      keys,
      createRateLimits({ API_RATE_LIMIT_PER_MINUTE: 100, UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: 100, TRUST_PROXY_HOPS: 0 }),
    ),
    (_request, response) => {
      response.send('in');
    },
  );
  app.use(errorHandler(createLogger('test', 'silent')));
  const server = app.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    return (await fetch(`http://127.0.0.1:${port}/`, { headers: authorization ? { Authorization: authorization } : {} })).status;
  } finally {
    server.close();
  }
}

describe('bearer keys', () => {
  test.each([
    [['a', 'b'], 'Bearer a', 200],
    [['a', 'b'], 'bearer b', 200],
    [['a', 'b'], 'Bearer c', 401],
    [['a', 'b'], 'Basic a', 401],
    [['a', 'b'], undefined, 401],
    [[], 'Bearer ', 401],
    [[], 'Bearer undefined', 401],
  ])('when the keys are %j and the header is %s, then the answer is %i', async (keys, authorization, status) => {
    expect(await statusOf(keys, authorization)).toBe(status);
  });
});
