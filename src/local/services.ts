/** The services of `npm start`: PostgreSQL and Temporal, unless the settings name external ones, and the two production processes. */
import { ConnectionProblem, databaseProblem } from '../platform/connection-problems';
import { applyMigrations } from '../platform/migrations';
import { openTemporalClient, reachTemporal, temporalConfig } from '../platform/temporal';
import { logFile } from './embedded/instance';
import { startPostgres } from './embedded/postgres';
import { findTemporalCli } from './embedded/temporal-cli';
import { startTemporalServer } from './embedded/temporal-server';
import { runProcess } from './project-process';
import { choosePort, type Environment, type StartContext } from './start-context';
import { say, sayRow } from './terminal';

/** Starts the embedded PostgreSQL. Returns the URL of Parley's database. */
export async function startDatabase({ settings, supervisor, ports }: StartContext): Promise<string> {
  const { DATA_DIR } = settings;
  const port = await choosePort(settings.POSTGRES_PORT, ports);
  const options = { dataDir: `${DATA_DIR}/postgres`, port, logFile: logFile(DATA_DIR, 'postgres'), onNotice: say };
  const postgres = await supervisor.run({
    name: 'PostgreSQL',
    marks: ['postgres', '-D', String(port)],
    start: (onSpawn) => startPostgres({ ...options, onSpawn }),
  });
  sayRow('PostgreSQL', `127.0.0.1:${port}`);
  return postgres.url;
}

/** Applies pending migrations. */
export async function migrate(databaseUrl: string): Promise<void> {
  const applied = await applyMigrations(databaseUrl, { onNotice: say }).catch((error: Error) => {
    const problem = databaseProblem(error, databaseUrl);
    if (problem instanceof ConnectionProblem) throw problem;
    throw new Error(`migrating the database failed: ${error.message || error.name}`, { cause: error });
  });
  sayRow('Migrations', applied.length === 0 ? 'up to date' : `applied ${applied.join(', ')}`);
}

/** Starts the embedded Temporal server unless TEMPORAL_ADDRESS is set. Returns the environment that connects to it. */
export async function startTemporal(context: StartContext): Promise<{ environment: Environment; uiUrl: string | undefined }> {
  const { settings, environment, supervisor, ports } = context;
  if (settings.TEMPORAL_ADDRESS !== undefined) {
    await checkTemporal(environment);
    return { environment: {}, uiUrl: undefined };
  }
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
  sayRow('Temporal', `${temporal.address}, UI ${temporal.uiUrl}`);
  // Clear settings that belong to a remote server. Empty counts as not set and overrides a value in .env.
  const remote = Object.keys(environment).filter((name) => /^TEMPORAL_(API_KEY|TLS|GRPC_META)/.test(name));
  const cleared = Object.fromEntries(remote.map((name) => [name, '']));
  return { environment: { ...cleared, TEMPORAL_ADDRESS: temporal.address }, uiUrl: temporal.uiUrl };
}

/** Fails early, before a process waits for Temporal. @throws ConnectionProblem */
async function checkTemporal(environment: Environment): Promise<void> {
  const config = temporalConfig(environment);
  const client = openTemporalClient(config);
  try {
    await reachTemporal(client, config);
  } finally {
    await client.connection.close();
  }
}

/** Starts the API process and waits until `/readyz` succeeds. */
export async function startApi(context: StartContext, environment: Environment, apiUrl: string): Promise<void> {
  const isReady = () => answersOk(`${apiUrl}/readyz`);
  await runProcess(context, { name: 'API', entry: 'src/processes/server.ts', environment, isReady });
  sayRow('API', apiUrl);
}

/** Starts the worker process and waits until it is ready. */
export async function startWorker(context: StartContext, environment: Environment): Promise<void> {
  // The ready line has level info; at a stricter level there is no line to wait for.
  const silent = ['warn', 'error', 'silent'].includes(context.settings.LOG_LEVEL);
  const isReady = (hasLogged: (message: string) => boolean) => silent || hasLogged('worker ready');
  await runProcess(context, { name: 'Worker', entry: 'src/processes/worker.ts', environment, isReady });
  sayRow('Worker', silent ? 'started' : 'ready');
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
