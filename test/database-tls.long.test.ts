/** PostgreSQL over TLS: what connects, what is refused, and what the error says to change. */
import { execFile } from 'node:child_process';
import { chmod, chown, copyFile, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from '../src/local/embedded/ports';
import { type EmbeddedPostgres, startPostgres } from '../src/local/embedded/postgres';
import { openDatabase, reachDatabase, sql } from '../src/platform/database';
import { applyMigrations } from '../src/platform/migrations';
import { type Certificate, makeCertificate } from './support/certificates';
import { testDatabase, testTemporal } from './support/engine';
import { testWith } from './support/programs';
import { inherited, startProcess } from './support/system';

const withOpenssl = testWith('openssl');

let folder: string;
let postgres: EmbeddedPostgres;
/** Trusted: the server's own. */
let server: Certificate;
let stranger: Certificate;

beforeAll(async () => {
  if (withOpenssl === test.skip) return;
  folder = await mkdtemp(join(tmpdir(), 'parley-tls-'));
  await chmod(folder, 0o755);
  server = await makeCertificate(folder, 'server', 'DNS:localhost');
  stranger = await makeCertificate(folder, 'stranger', 'DNS:localhost');
  const dataDir = join(folder, 'postgres');
  const start = async () => startPostgres({ dataDir, port: await freePort(0), fast: true, logFile: join(folder, 'postgres.log') });
  postgres = await start();
  await postgres.stop();
  // The key must belong to the account that runs the server.
  const { uid, gid } = await stat(dataDir);
  for (const [from, name] of [
    [server.certFile, 'server.crt'],
    [server.keyFile, 'server.key'],
  ] as const) {
    await copyFile(from, join(dataDir, name));
    await chown(join(dataDir, name), uid, gid);
    await chmod(join(dataDir, name), 0o600);
  }
  await writeFile(join(dataDir, 'postgresql.auto.conf'), 'ssl = on\n');
  postgres = await start();
  await applyMigrations(postgres.url);
}, 120_000);

afterAll(async () => {
  await postgres?.stop();
  if (folder) await rm(folder, { recursive: true, force: true });
});

/** The server's URL for a host name and these parameters. */
function urlWith(parameters: string, host = 'localhost'): string {
  const url = new URL(postgres.url);
  url.hostname = host;
  return `${url.href}?${parameters}`;
}

/** Whether a connection uses TLS, over SQL and over Prisma's models; or its error. */
async function connect(url: string): Promise<unknown> {
  const db = openDatabase(url);
  try {
    await reachDatabase(db, url);
    const isEncrypted = sql`SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()`;
    const [[own], [prismas]] = await Promise.all([
      db.query<{ ssl: boolean }>(isEncrypted),
      db.orm.$queryRaw<{ ssl: boolean }[]>`SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()`,
    ]);
    return own?.ssl === prismas?.ssl ? own?.ssl : 'the two differ';
  } catch (error) {
    return error instanceof Error ? `${error.name}: ${error.message}` : error;
  } finally {
    await db.close();
  }
}

withOpenssl('when the URL asks for TLS and the certificate can be checked, then the connection is encrypted', async () => {
  const root = `sslrootcert=${server.certFile}`;
  for (const mode of ['require', 'verify-ca', 'verify-full'])
    expect([mode, await connect(urlWith(`sslmode=${mode}&${root}`))]).toEqual([mode, true]);
  expect(await connect(urlWith('sslmode=require&uselibpqcompat=true'))).toBe(true);
  expect(await connect(urlWith(`sslmode=verify-ca&${root}&uselibpqcompat=true`, '127.0.0.1'))).toBe(true);
  expect(await connect(urlWith('sslmode=no-verify'))).toBe(true);
  expect(await connect(urlWith('sslmode=disable'))).toBe(false);
  expect(await connect(urlWith(''))).toBe(false);
});

withOpenssl('when the certificate is refused, then the error names the setting and what to add', async () => {
  for (const mode of ['require', 'verify-full', 'prefer'])
    expect(await connect(urlWith(`sslmode=${mode}`))).toMatch(
      /^ConnectionProblem: DATABASE_URL: .*authority.*unknown.*sslrootcert=.*uselibpqcompat=true/,
    );
  expect(await connect(urlWith(`sslmode=verify-full&sslrootcert=${stranger.certFile}`))).toMatch(/DATABASE_URL: .*authority.*unknown/);
  expect(await connect(urlWith(`sslmode=verify-full&sslrootcert=${server.certFile}`, '127.0.0.1'))).toMatch(
    /DATABASE_URL: .*for another host.*verify-ca/,
  );
  expect(await connect(urlWith('sslmode=verify-full&sslrootcert=/nowhere/ca.pem'))).toMatch(
    /DATABASE_URL: the file \/nowhere\/ca.pem cannot be read \(ENOENT\)/,
  );
  expect(await connect(urlWith('sslmode=verify-ca&uselibpqcompat=true'))).toMatch(/DATABASE_URL: .*sslrootcert/);
});

withOpenssl('when the server speaks no TLS, or refuses the login, then the error says so', async () => {
  const plain = await testDatabase('tls');
  const wrong = new URL(urlWith('sslmode=disable'));
  wrong.password = 'wrong-password';
  const missing = new URL(urlWith('sslmode=disable'));
  missing.pathname = '/nothing_here';
  try {
    expect(await connect(`${plain.url}?sslmode=require`)).toMatch(/DATABASE_URL: .*does not speak TLS.*sslmode=disable/);
    expect(await connect(wrong.href)).toMatch(/DATABASE_URL: .*refuses the password of the user postgres/);
    expect(await connect(missing.href)).toMatch(/DATABASE_URL: .*no database nothing_here.*npm run migrate/);
    expect(await connect('postgresql://localhost:1/parley')).toMatch(/DATABASE_URL: no PostgreSQL answers at localhost:1 \(ECONNREFUSED\)/);
    expect(await connect('postgresql://nowhere.invalid/parley')).toMatch(/DATABASE_URL: no PostgreSQL answers at nowhere.invalid:5432/);
  } finally {
    await plain.drop();
  }
});

const run = async (entry: string, environment: Record<string, string>) =>
  await promisify(execFile)(process.execPath, ['--import', 'tsx', entry], { env: { ...inherited(), ...environment } }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout, stderr }),
  );

withOpenssl('when the migrations and the commands get such a URL, then they use TLS as it says, or fail with only that error', async () => {
  const good = urlWith(`sslmode=require&sslrootcert=${server.certFile}`);
  const bad = urlWith('sslmode=require');
  expect(await run('src/processes/migrate.ts', { DATABASE_URL: good })).toEqual({ code: 0, stdout: 'nothing to apply\n', stderr: '' });
  for (const entry of ['src/processes/migrate.ts', 'src/local/commands/balance.ts']) {
    const { code, stderr } = await run(entry, { DATABASE_URL: bad });
    expect([code, stderr.split('\n').length]).toEqual([1, 2]);
    expect(stderr).toMatch(/^DATABASE_URL: .*sslrootcert/);
  }
});

withOpenssl.each([
  ['API', 'src/processes/server.ts', 'api listening'],
  ['worker', 'src/processes/worker.ts', 'model providers'],
])('when the %s gets a URL whose certificate is refused, then its log names the setting', async (_name, entry, message) => {
  const environment = {
    DATABASE_URL: urlWith('sslmode=require'),
    TEMPORAL_ADDRESS: testTemporal().address,
    KAPSO_API_KEY: 'key',
    KAPSO_WEBHOOK_SECRET: 'secret',
    PORT: String(await freePort(0)),
  };
  const started = await startProcess('early', entry, environment, message);
  const line = await started.line('PostgreSQL is not ready');
  expect(await started.stop()).toBe(0);
  expect(JSON.parse(line)).toMatchObject({ level: 'warn', error: { message: expect.stringMatching(/^DATABASE_URL: .*sslrootcert/) } });
});

test.each([
  ['127.0.0.1:1', 'TEMPORAL_ADDRESS: no Temporal server answers at 127.0.0.1:1'],
  ['nowhere.invalid:7233', 'TEMPORAL_ADDRESS: no Temporal server answers at nowhere.invalid:7233'],
  ['not an address', 'TEMPORAL_ADDRESS: must be host:port'],
])('when TEMPORAL_ADDRESS is %s, then a command names the setting in one line', async (address, words) => {
  const { code, stderr } = await run('src/local/commands/retention.ts', { TEMPORAL_ADDRESS: address });
  expect([code === 0, stderr.trim().split('\n').at(-1)]).toEqual([false, expect.stringContaining(words)]);
});

test('when the namespace does not exist, then a command names its setting', async () => {
  const environment = { TEMPORAL_ADDRESS: testTemporal().address, TEMPORAL_NAMESPACE: 'nowhere' };
  const { code, stderr } = await run('src/local/commands/retention.ts', environment);
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^TEMPORAL_NAMESPACE: .* has no namespace nowhere\n$/)]);
});
