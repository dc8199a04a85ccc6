/** PostgreSQL and Temporal of a run, as processes that can be killed and started again with the same data. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../src/local/embedded/ports';
import { startPostgres } from '../../src/local/embedded/postgres';
import type { RunningServer } from '../../src/local/embedded/process';
import { startTemporalServer } from '../../src/local/embedded/temporal-server';
import { applyMigrations } from '../../src/platform/migrations';
import { type ClusterPrograms, prepareCluster } from '../support/temporal-cluster';

/** A server that keeps its address and its data when it is killed. */
export interface KillableServer {
  /** Sends SIGKILL and waits for the exit. */
  kill(): Promise<void>;
  /** Starts it again. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** The servers of a run. */
export interface Servers {
  postgres: KillableServer;
  temporal: KillableServer;
  databaseUrl: string;
  temporalAddress: string;
}

/** Wraps a function that starts the server. */
export async function killable(startServer: () => Promise<RunningServer>): Promise<KillableServer> {
  let running: RunningServer | undefined = await startServer();
  return {
    async kill() {
      if (running === undefined) return;
      process.kill(running.pid, 'SIGKILL');
      await running.ended;
      running = undefined;
    },
    async start() {
      running ??= await startServer();
    },
    async stop() {
      await running?.stop();
      running = undefined;
    },
  };
}

/** What has been started, to be stopped in reverse order, also if a later start fails. */
export type Stops = (() => Promise<void>)[];

/** Starts the servers of `npm start`, with a migrated database, in a temporary folder. */
export async function startEmbeddedServers(cliPath: string, stops: Stops): Promise<Servers> {
  const dir = await makeFolder(stops);
  const { server: postgres, url } = await startDatabase(dir, 'postgres', stops);
  const port = await freePort(0);
  const dataFile = join(dir, 'temporal', 'temporal.db');
  const temporal = await killable(() => startTemporalServer({ cliPath, dataFile, port, logFile: join(dir, 'temporal.log') }));
  stops.push(temporal.stop);
  await applyMigrations(url);
  return { postgres, temporal, databaseUrl: url, temporalAddress: `127.0.0.1:${port}` };
}

/** Starts a Temporal cluster, with a PostgreSQL server of its own, so that Parley's can be taken away alone. */
export async function startClusterServers(programs: ClusterPrograms, stops: Stops): Promise<Servers> {
  const dir = await makeFolder(stops);
  const { server: postgres, url } = await startDatabase(dir, 'postgres', stops);
  const store = await startDatabase(dir, 'temporal-postgres', stops);
  const cluster = await prepareCluster(join(dir, 'temporal'), store.url, programs);
  const temporal = await killable(() => cluster.start());
  stops.push(temporal.stop);
  await applyMigrations(url);
  return { postgres, temporal, databaseUrl: url, temporalAddress: cluster.address };
}

async function makeFolder(stops: Stops): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'parley-reliability-'));
  stops.push(() => rm(dir, { recursive: true, force: true }));
  // When we run as root, PostgreSQL runs under another account.
  await chmod(dir, 0o755);
  return dir;
}

/** With fsync: otherwise a killed server loses what it has confirmed. */
async function startDatabase(dir: string, name: string, stops: Stops): Promise<{ server: KillableServer; url: string }> {
  const port = await freePort(0);
  let url = '';
  const server = await killable(async () => {
    const started = await startPostgres({ dataDir: join(dir, name), port, logFile: join(dir, `${name}.log`) });
    url = started.url;
    return started;
  });
  stops.push(server.stop);
  return { server, url };
}
