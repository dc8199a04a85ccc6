/**
 * The two servers of a test run. Their pids are recorded as soon as they are known, so that the next run can stop them if this one is
 * killed before its teardown.
 */
import { writeFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { isRunning, type RecordedProcess, sendSignal, stopLeftovers } from '../../src/local/embedded/leftovers';
import { freePort } from '../../src/local/embedded/ports';
import { startPostgres } from '../../src/local/embedded/postgres';
import { findTemporalCli } from '../../src/local/embedded/temporal-cli';
import { startTemporalServer } from '../../src/local/embedded/temporal-server';
import { applyMigrations } from '../../src/platform/migrations';

/** The migrated database that all test databases are copied from. After the setup nothing may connect to it, or copying would fail. */
export const TEMPLATE_DATABASE = 'parley_template';

const RUNS_DIR = join(tmpdir(), `parley-test-runs-${userInfo().username}`);
const RUN_FILE = 'run.json';

interface Run {
  dir: string;
  processes: RecordedProcess[];
  stops: (() => Promise<void>)[];
  onSignal: (name: NodeJS.Signals) => void;
}

// Jest loads setup and teardown as separate modules in one process; they share state through the global object.
const shared = globalThis as { parleyTestRun?: Run };

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Starts both and sets TEST_TEMPORAL_ADDRESS, TEST_TEMPORAL_CLI and TEST_POSTGRES_URL. If one fails, stops the other and throws. */
export async function startEngine(): Promise<void> {
  await mkdir(RUNS_DIR, { recursive: true });
  await chmod(RUNS_DIR, 0o755);
  await stopEarlierRuns();
  const run: Run = { dir: await mkdtemp(join(RUNS_DIR, 'run-')), processes: [], stops: [], onSignal: (name) => endBySignal(run, name) };
  // When we run as root, PostgreSQL runs under another account.
  await chmod(run.dir, 0o755);
  shared.parleyTestRun = run;
  writeRunFile(run);
  for (const name of SIGNALS) process.once(name, run.onSignal);
  const started = await Promise.allSettled([startPostgresServer(run), startTemporal(run)]);
  const failed = started.find((result) => result.status === 'rejected');
  if (failed === undefined) return;
  await stopEngine();
  throw failed.reason;
}

/** Stops both and removes their files. Does nothing if they are not running. */
export async function stopEngine(): Promise<void> {
  const run = shared.parleyTestRun;
  if (run === undefined) return;
  delete shared.parleyTestRun;
  await Promise.all(run.stops.map((stop) => stop()));
  await rm(run.dir, { recursive: true, force: true });
  for (const name of SIGNALS) process.removeListener(name, run.onSignal);
}

async function startPostgresServer(run: Run): Promise<void> {
  const onSpawn = (pid: number) => addProcess(run, { name: 'PostgreSQL', pid, marks: ['postgres', run.dir] });
  const options = {
    dataDir: join(run.dir, 'postgres'),
    port: await freePort(0),
    fast: true,
    onSpawn,
    logFile: join(run.dir, 'postgres.log'),
  };
  const postgres = await startPostgres({ ...options, database: TEMPLATE_DATABASE });
  run.stops.push(postgres.stop);
  await applyMigrations(postgres.url);
  const server = new URL(postgres.url);
  server.pathname = '/postgres';
  // biome-ignore lint/style/noProcessEnv: the only way to pass values from jest's setup to its test processes
  process.env.TEST_POSTGRES_URL = server.href;
}

async function startTemporal(run: Run): Promise<void> {
  // biome-ignore lint/style/noProcessEnv: needed to find the Temporal CLI
  const environment = process.env;
  const onProgress = (line: string) => process.stderr.write(`${line}\n`);
  const cliPath = await findTemporalCli({ setting: environment.TEMPORAL_CLI_PATH || undefined, environment, onProgress });
  const onSpawn = (pid: number) => addProcess(run, { name: 'Temporal', pid, marks: ['server start-dev', '--headless'] });
  const logFile = join(run.dir, 'temporal.log');
  const temporal = await startTemporalServer({ cliPath, port: await freePort(0), onSpawn, logFile });
  run.stops.push(temporal.stop);
  environment.TEST_TEMPORAL_ADDRESS = temporal.address;
  environment.TEST_TEMPORAL_CLI = cliPath;
}

function addProcess(run: Run, process: RecordedProcess): void {
  run.processes.push(process);
  writeRunFile(run);
}

function writeRunFile(run: Run): void {
  writeFileSync(join(run.dir, RUN_FILE), JSON.stringify({ pid: process.pid, processes: run.processes }));
}

/** Jest runs no teardown after a signal, so stop the servers here. The next run removes the files. */
function endBySignal(run: Run, name: NodeJS.Signals): void {
  for (const { pid } of run.processes) sendSignal(pid, 'SIGINT');
  process.kill(process.pid, name);
}

async function stopEarlierRuns(): Promise<void> {
  for (const name of await readdir(RUNS_DIR)) {
    const dir = join(RUNS_DIR, name);
    const earlier = await readRunFile(dir);
    if (earlier === undefined || (await isRunning(earlier.pid, ['jest']))) continue;
    await stopLeftovers(earlier.processes);
    await rm(dir, { recursive: true, force: true });
  }
}

/** Undefined for a run that is just starting. */
async function readRunFile(dir: string): Promise<{ pid: number; processes: RecordedProcess[] } | undefined> {
  try {
    return JSON.parse(await readFile(join(dir, RUN_FILE), 'utf8')) as { pid: number; processes: RecordedProcess[] };
  } catch {
    return undefined;
  }
}
