/** Temporal and PostgreSQL go away and come back while people write: nothing is lost, nothing comes twice. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../src/local/embedded/ports';
import { type EmbeddedPostgres, startPostgres } from '../src/local/embedded/postgres';
import { findTemporalCli } from '../src/local/embedded/temporal-cli';
import { type EmbeddedTemporal, startTemporalServer } from '../src/local/embedded/temporal-server';
import { applyMigrations } from '../src/platform/migrations';
import { signBody } from '../src/sandbox/webhook-sender';
import { balance, eventually, newPhone, outcomesOf } from './support/expectations';
import { type System, startSystem, WEBHOOK_SECRET } from './support/system';

let folder: string;
let postgres: EmbeddedPostgres;
let temporal: EmbeddedTemporal;
let postgresPort: number;
let temporalPort: number;
let system: System;

// Its own engine, because it is the one suite that takes the engine away.
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'parley-restart-'));
  [postgresPort, temporalPort] = [await freePort(35_000), await freePort(36_000)];
  await Promise.all([startTheDatabase(), startTheEngine()]);
  await applyMigrations(postgres.url);
  system = await startSystem({ databaseUrl: postgres.url, temporalAddress: temporal.address });
}, 120_000);

afterAll(async () => {
  await system?.close();
  await temporal?.stop();
  await postgres?.stop();
  await rm(folder, { recursive: true, force: true });
});

async function startTheDatabase(): Promise<void> {
  postgres = await startPostgres({
    dataDir: join(folder, 'postgres'),
    port: postgresPort,
    fast: true,
    logFile: join(folder, 'postgres.log'),
  });
}

async function startTheEngine(): Promise<void> {
  // biome-ignore lint/style/noProcessEnv: the run's own choice of the CLI
  const environment = process.env;
  const cliPath = await findTemporalCli({ setting: environment.TEMPORAL_CLI_PATH, environment, onProgress: () => undefined });
  temporal = await startTemporalServer({
    cliPath,
    port: temporalPort,
    dataFile: join(folder, 'temporal.sqlite'),
    logFile: join(folder, 'temporal.log'),
  });
}

const kapso = () => system.sandbox.kapso;

async function expectAllAnsweredOnce(phones: string[]): Promise<void> {
  for (const phone of phones) {
    await kapso().waitForVisible(phone, 1, 60_000);
    expect(await outcomesOf(system, phone, 1, 60_000)).toEqual(['answered']);
  }
  await kapso().settled();
  for (const phone of phones) expect(kapso().visibleTo(phone)).toHaveLength(1);
  await balance(system.db);
}

test('when PostgreSQL is restarted under load, then every message is answered once', async () => {
  const phones = Array.from({ length: 20 }, newPhone);
  system.sandbox.models.program({ model: 'sandbox-model', delayMs: 500 });
  const sending = Promise.all(phones.map((from) => kapso().customerSends({ from, text: 'hi' })));
  await eventually(async () => expect(kapso().counts().accepted).toBeGreaterThan(0));
  await postgres.stop();
  const whileDown = newPhone();
  expect((await kapso().customerSends({ from: whileDown, text: 'hi' })).status).toBe(200);
  await startTheDatabase();
  await sending;
  await expectAllAnsweredOnce([...phones, whileDown]);
}, 150_000);

test('when Temporal is restarted under load, then every message is answered once', async () => {
  const phones = Array.from({ length: 20 }, newPhone);
  const accepted = kapso().counts().accepted;
  const sending = Promise.all(phones.map((from) => kapso().customerSends({ from, text: 'hi' })));
  await eventually(async () => expect(kapso().counts().accepted).toBeGreaterThan(accepted));
  await temporal.stop();
  // Not taken while it is away: the sender is asked to come again, and does.
  const whileDown = newPhone();
  const late = kapso().customerSends({ from: whileDown, text: 'hi' });
  await startTheEngine();
  expect([...(await sending), await late].map(({ status }) => status)).toEqual([...phones, whileDown].map(() => 200));
  await expectAllAnsweredOnce([...phones, whileDown]);
}, 150_000);

test('when Temporal hangs, then a webhook gets 503 with Retry-After soon after 1.5 s, and is accepted once Temporal resumes', async () => {
  const body = JSON.stringify({ messages: [{ from: newPhone(), id: 'wamid.hang', text: { body: 'hi' } }] });
  const post = () =>
    fetch(`${system.apiUrl}/webhook/kapso`, { method: 'POST', body, headers: { 'X-Webhook-Signature': signBody(WEBHOOK_SECRET, body) } });
  expect((await post()).status).toBe(200);
  process.kill(temporal.pid, 'SIGSTOP');
  try {
    const startedAtMs = Date.now();
    const answer = await post();
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '5']);
    expect(Date.now() - startedAtMs).toBeGreaterThan(1_000);
    expect(Date.now() - startedAtMs).toBeLessThan(3_000);
  } finally {
    process.kill(temporal.pid, 'SIGCONT');
  }
  await eventually(async () => expect((await post()).status).toBe(200));
});
