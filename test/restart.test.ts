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
import { balance, eventually, inboundOf, newPhone, outcomesOf } from './support/expectations';
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
  const whileDown = newPhone();
  expect(await kapso().customerSends({ from: whileDown, text: 'hi' })).toMatchObject({ status: 200, attempts: 1 });
  await startTheEngine();
  expect((await sending).map(({ status }) => status)).toEqual(phones.map(() => 200));
  await expectAllAnsweredOnce([...phones, whileDown]);
}, 150_000);

test('when Temporal hangs, then webhooks are answered 200 within about 1.5 s, soon at once, and their messages are answered once', async () => {
  const phone = newPhone();
  const post = async (id: string) => {
    const body = JSON.stringify({ messages: [{ from: phone, id: `wamid.hang-${id}`, text: { body: id } }] });
    const startedAtMs = Date.now();
    const headers = { 'X-Webhook-Signature': signBody(WEBHOOK_SECRET, body) };
    const { status } = await fetch(`${system.apiUrl}/webhook/kapso`, { method: 'POST', body, headers });
    expect(status).toBe(200);
    return Date.now() - startedAtMs;
  };
  const texts = Array.from({ length: 8 }, (_, index) => `message ${index}`);
  process.kill(temporal.pid, 'SIGSTOP');
  try {
    const tookMs = [];
    for (const text of texts) tookMs.push(await post(text));
    expect(Math.max(...tookMs)).toBeLessThan(2_000);
    // One waits; the others follow what is in the spool already.
    expect(tookMs.toSorted((one, other) => other - one)[1]).toBeLessThan(1_000);
  } finally {
    process.kill(temporal.pid, 'SIGCONT');
  }
  await outcomesOf(system, phone, texts.length, 60_000);
  expect((await inboundOf(system, phone)).map(({ text }) => text)).toEqual(texts);
  await kapso().settled();
  await balance(system.db);
}, 120_000);
