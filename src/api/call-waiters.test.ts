import { createLogger } from '../platform/logger';
import { openTemporalClient } from '../platform/temporal';
import { createCallWaiters } from './call-waiters';

/** Connects with its first call, and none is made. */
const temporal = openTemporalClient({ connectionOptions: { address: '127.0.0.1:1' }, namespace: 'default' });

test('when the process stops, then all waits end, and so do later ones', async () => {
  const waiters = createCallWaiters({ temporal, logger: createLogger('test', 'silent') });
  const { signal } = new AbortController();
  const resting = waiters.rest(60_000, signal);
  expect(waiters.counts()).toEqual({ waiters: 1, waits: 0, waitsBegun: 0 });
  waiters.close();
  await resting;
  await waiters.rest(60_000, signal);
  expect(await waiters.wait('call-x', 60_000, signal)).toBe(false);
  expect(waiters.counts()).toEqual({ waiters: 0, waits: 0, waitsBegun: 0 });
});
