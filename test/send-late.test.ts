/** A worker that is stopped between its claim of a reply and the request: others settle and send it, and it must not. */
import { eventually, newPhone, outcomesOf, repliesOf } from './support/expectations';
import { POSTGRES_GREETING_END, startProxy, type TcpProxy } from './support/proxy';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;
let postgres: TcpProxy;
let temporal: TcpProxy;

beforeAll(async () => {
  system = await startSuite('send_late', { workers: 0, environment: () => ({ SEND_CONFIRM_MS: '1000' }) });
  postgres = await startProxy(new URL(system.databaseUrl).host);
  temporal = await startProxy(system.environment.TEMPORAL_ADDRESS ?? '');
  // Makes the first claim take long enough to be caught in the middle, with another worker ready.
  await system.db.$executeRawUnsafe(
    `CREATE FUNCTION slow_claim() RETURNS trigger AS 'BEGIN PERFORM pg_sleep(6); RETURN NEW; END' LANGUAGE plpgsql`,
  );
  await system.db.$executeRawUnsafe(`CREATE TRIGGER slow_claim BEFORE UPDATE ON messages FOR EACH ROW
    WHEN (OLD.status = 'pending' AND NEW.status = 'sending' AND OLD.send_attempts = 0) EXECUTE FUNCTION slow_claim()`);
});

afterAll(async () => {
  await system?.close();
  await Promise.all([postgres?.close(), temporal?.close()]);
});

/** A worker that reaches both servers through the proxies. */
async function startProxiedWorker() {
  const database = new URL(system.databaseUrl);
  database.port = String(postgres.port);
  return await system.startWorker({ DATABASE_URL: database.href, TEMPORAL_ADDRESS: `127.0.0.1:${temporal.port}` });
}

async function claimIsRunning(): Promise<void> {
  await eventually(async () => {
    const sessions = await system.db.$queryRaw<{ count: number }[]>`
      SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`;
    expect(sessions).toEqual([{ count: 1 }]);
  }, 30_000);
}

test('when a stopped worker goes on after another one has settled and sent its reply, then the customer sees one reply', async () => {
  const phone = newPhone();
  const sleeper = await startProxiedWorker();
  await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
  await claimIsRunning();
  await system.startWorker();
  postgres.holdAnswers(POSTGRES_GREETING_END);
  await eventually(async () => expect(await repliesOf(system, phone)).toMatchObject([{ status: 'sending', sendAttempts: 1 }]));
  sleeper.child.kill('SIGSTOP');
  // As on a machine that sleeps: its polls end, and it gets no work that others could do.
  await temporal.down();
  postgres.releaseAnswers();
  try {
    expect(await outcomesOf(system, phone, 1, 60_000)).toEqual(['answered']);
    expect(await repliesOf(system, phone)).toMatchObject([{ sendAttempts: 2 }]);
    await temporal.up();
  } finally {
    sleeper.child.kill('SIGCONT');
  }
  expect(await sleeper.line('reply send')).toContain('CLAIM_EXPIRED');
  expect(system.sandbox.kapso.visibleTo(phone)).toHaveLength(1);
  // The late worker's word changes nothing about the row.
  expect((await repliesOf(system, phone))[0]?.status).toMatch(/^(sent|delivered|read)$/);
}, 120_000);
