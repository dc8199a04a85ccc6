/** The services that `npm start` runs: the database and Temporal, unless the settings name others, and the two production processes. */
import { applyMigrations } from '../platform/migrations';
import { logFile } from './embedded/instance';
import { startPostgres } from './embedded/postgres';
import { findTemporalCli } from './embedded/temporal-cli';
import { startTemporalServer } from './embedded/temporal-server';
import { type ProjectProcess, runProcess, until } from './project-process';
import { choosePort, type Environment, type Start } from './start-context';
import { say, step } from './terminal';

export async function startDatabase({ settings, supervisor, ports }: Start): Promise<string> {
  const { DATA_DIR } = settings;
  const port = await choosePort(settings.POSTGRES_PORT, ports);
  const options = { dataDir: `${DATA_DIR}/postgres`, port, logFile: logFile(DATA_DIR, 'postgres'), onNotice: say };
  const postgres = await supervisor.run({
    name: 'PostgreSQL',
    marks: ['postgres', '-D', String(port)],
    start: (onSpawn) => startPostgres({ ...options, onSpawn }),
  });
  step('PostgreSQL', `127.0.0.1:${port}`);
  return postgres.url;
}

export async function migrate(databaseUrl: string): Promise<void> {
  const applied = await applyMigrations(databaseUrl).catch((error: Error) => {
    throw new Error(`the database could not be migrated: ${error.message || error.name}`, { cause: error });
  });
  step('Migrations', applied.length === 0 ? 'up to date' : `applied ${applied.join(', ')}`);
}

export async function startTemporal(start: Start): Promise<{ environment: Environment; uiUrl: string | undefined }> {
  const { settings, environment, supervisor, ports } = start;
  if (settings.TEMPORAL_ADDRESS !== undefined) return { environment: {}, uiUrl: undefined };
  const cliPath = await findTemporalCli({ setting: settings.TEMPORAL_CLI_PATH, environment, onProgress: say });
  const port = await choosePort(settings.TEMPORAL_PORT, ports);
  const uiPort = await choosePort(settings.TEMPORAL_UI_PORT, ports);
  const dataFile = `${settings.DATA_DIR}/temporal.sqlite`;
  const namespaces = settings.TEMPORAL_NAMESPACE === undefined ? [] : [settings.TEMPORAL_NAMESPACE];
  const options = { cliPath, dataFile, port, uiPort, namespaces, logFile: logFile(settings.DATA_DIR, 'temporal') };
  const temporal = await supervisor.run({
    name: 'Temporal',
    marks: ['server start-dev', dataFile],
    start: (onSpawn) => startTemporalServer({ ...options, onSpawn }),
  });
  step('Temporal', `${temporal.address}, UI ${temporal.uiUrl}`);
  // What leads to another server must not reach this one. Empty counts as not set, also where .env has a value.
  const remote = Object.keys(environment).filter((name) => /^TEMPORAL_(API_KEY|TLS|GRPC_META)/.test(name));
  const cleared = Object.fromEntries(remote.map((name) => [name, '']));
  return { environment: { ...cleared, TEMPORAL_ADDRESS: temporal.address }, uiUrl: temporal.uiUrl };
}

export async function startApi(start: Start, environment: Environment, apiUrl: string): Promise<void> {
  const untilReady = (_child: ProjectProcess, signal: AbortSignal) => until(() => answersOk(`${apiUrl}/readyz`), signal);
  await runProcess(start, { name: 'API', entry: 'src/processes/server.ts', environment, untilReady });
  step('API', apiUrl);
}

export async function startWorker(start: Start, environment: Environment): Promise<void> {
  // Its ready line is an "info": with a stricter level there is nothing to wait for.
  const silent = ['warn', 'error', 'silent'].includes(start.settings.LOG_LEVEL);
  const untilReady = (child: ProjectProcess, signal: AbortSignal) => until(() => silent || child.said('worker ready'), signal);
  await runProcess(start, { name: 'Worker', entry: 'src/processes/worker.ts', environment, untilReady });
  step('Worker', silent ? 'started' : 'ready');
}

async function answersOk(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false;
  }
}
