/** A migration that is killed at any point: the next run completes it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { diffFromDatabase } from '../prisma/schema-engine';
import { freePort } from '../src/local/embedded/ports';
import { dropDatabase, MIGRATIONS_DIR } from '../src/platform/migrations';
import { testDatabase } from './support/engine';
import { randomNumbers } from './support/random';

const ROOT = join(__dirname, '..');
const KILLS = 10;
const SEED = 20_261_126;
const names = readdirSync(MIGRATIONS_DIR).filter((name) => /^\d{14}_/.test(name));

/** Passes everything on to PostgreSQL, and calls `onRequest` before each request of the process under test. */
async function startWatchedPath(target: URL, onRequest: () => 'pass' | 'drop') {
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname);
    client.on('data', (data) => {
      if (onRequest() === 'pass') upstream.write(data);
    });
    upstream.pipe(client);
    for (const socket of [client, upstream]) socket.on('error', () => undefined);
    client.on('close', () => upstream.destroy());
    upstream.on('close', () => client.destroy());
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const url = new URL(target);
  url.port = String((server.address() as AddressInfo).port);
  return { url: url.href, close: () => once(server.close(), 'close') };
}

function startMigration(databaseUrl: string): ChildProcess {
  // biome-ignore lint/style/noProcessEnv: an operator's shell, without any setting of ours but the database
  const { PATH, HOME } = process.env;
  return spawn(process.execPath, ['--import', 'tsx', 'src/processes/migrate.ts'], {
    cwd: ROOT,
    env: { PATH, HOME, DATABASE_URL: databaseUrl },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

/** Runs a migration whose process is killed at its `killAt`-th request, which PostgreSQL may or may not get. Resolves to the number of requests. */
async function migrateAndKill(target: URL, killAt: number, fate: 'pass' | 'drop'): Promise<{ requests: number; signal: string | null }> {
  let requests = 0;
  const path = await startWatchedPath(target, () => {
    requests += 1;
    if (requests < killAt) return 'pass';
    migration.kill('SIGKILL');
    return requests === killAt ? fate : 'drop';
  });
  const migration = startMigration(path.url);
  const [, signal] = (await once(migration, 'exit')) as [number | null, string | null];
  await path.close();
  return { requests, signal };
}

async function readTable(url: string): Promise<unknown[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query(
    'SELECT migration_name, finished_at IS NOT NULL AS finished, rolled_back_at FROM _prisma_migrations ORDER BY 1',
  );
  await client.end();
  return rows;
}

test(`when a first migration is killed at any of ${KILLS} moments, then the next start completes it`, async () => {
  const other = await testDatabase('killed');
  await other.drop();
  const target = new URL(other.url);
  const random = randomNumbers(SEED);
  const { requests: all, signal } = await migrateAndKill(target, Number.POSITIVE_INFINITY, 'pass');
  expect(signal).toBeNull();
  expect(all).toBeGreaterThan(names.length * 3);
  const recorded = names.map((name) => ({ migration_name: name, finished: true, rolled_back_at: null }));
  for (let kill = 0; kill < KILLS; kill++) {
    await dropDatabase(target.href);
    const moment = {
      killAt: 1 + Math.floor(((kill + random()) / KILLS) * all),
      fate: random() < 0.5 ? ('pass' as const) : ('drop' as const),
    };
    const killed = await migrateAndKill(target, moment.killAt, moment.fate);
    expect({ moment, signal: killed.signal }).toEqual({ moment, signal: 'SIGKILL' });
    expect({ moment, exit: await once(startMigration(target.href), 'exit') }).toEqual({ moment, exit: [0, null] });
    expect({ moment, rows: await readTable(target.href) }).toEqual({ moment, rows: recorded });
    expect({ moment, difference: await diffFromDatabase(target.href) }).toEqual({ moment, difference: '' });
  }
  await dropDatabase(target.href);
}, 180_000);

/** `npm start` in a process group of its own, as a terminal has it. */
function startEverything(environment: NodeJS.ProcessEnv) {
  const child = spawn('npm', ['run', '--silent', 'start'], {
    cwd: ROOT,
    env: environment,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exited = once(child, 'exit');
  let output = '';
  const says = (words: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => output.includes(words) && resolve();
      for (const stream of [child.stdout, child.stderr]) stream.on('data', look);
      void exited.then(() => reject(new Error(`it ended before it said "${words}":\n${output}`)));
      look();
    });
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += String(chunk);
    });
  }
  const end = async (signal: NodeJS.Signals) => {
    process.kill(-(child.pid ?? 0), signal);
    await exited;
  };
  return { says, end };
}

test('when npm start is repeatedly killed while it migrates, then the next one runs', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'parley-killed-start-'));
  // biome-ignore lint/style/noProcessEnv: a stranger's shell, without any setting of ours but the run's choice of the CLI
  const { PATH, HOME, XDG_CACHE_HOME, TEMPORAL_CLI_PATH } = process.env;
  const names = ['PORT', 'POSTGRES_PORT', 'SANDBOX_PORT', 'TEMPORAL_PORT', 'TEMPORAL_UI_PORT'];
  const ports = await Promise.all(names.map(async (name, index) => [name, String(await freePort(56_000 + 100 * index))]));
  const environment = { PATH, HOME, XDG_CACHE_HOME, TEMPORAL_CLI_PATH, DATA_DIR: dataDir, ...Object.fromEntries(ports) };
  const random = randomNumbers(SEED);
  for (let kill = 0; kill < 3; kill++) {
    const start = startEverything(environment);
    await start.says('PostgreSQL ');
    // The test is about random moments, so there is no event to wait for.
    await sleep(random() * 150);
    await start.end('SIGKILL');
  }
  const start = startEverything(environment);
  await start.says('npm run chat');
  await start.end('SIGINT');
  await rm(dataDir, { recursive: true });
}, 180_000);
