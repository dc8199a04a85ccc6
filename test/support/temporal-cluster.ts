/**
 * A Temporal server with its four roles on PostgreSQL, as a cluster has it, on loopback. Built once with Go, because there is no other
 * source without Docker; the version is that of docker-compose.yml up to the patch.
 */
import { execFile, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { constants } from 'node:fs';
import { access, copyFile, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { Connection } from '@temporalio/client';
import { Client } from 'pg';
import { freePort } from '../../src/local/embedded/ports';
import { type RunningServer, startServer } from '../../src/local/embedded/process';

const run = promisify(execFile);

const VERSION = 'v1.29.1';
const PROGRAMS = ['server', 'tools/sql'].map((path) => `go.temporal.io/server/cmd/${path}@${VERSION}`);
const DYNAMIC_CONFIG = resolve(__dirname, '../../docs/temporal-dynamic-config.yaml');
const HISTORY_SHARDS = 16;
const NAMESPACE = 'default';
const RETENTION_SECONDS = 72 * 60 * 60;
const REPORT_INTERVAL_MS = 15_000;
const REQUEST_TIMEOUT_MS = 2_000;
const STOP_GRACE_MS = 15_000;

/** The databases, and the name of their tables in the source. */
const DATABASES = { temporal: 'temporal', temporal_visibility: 'visibility' } as const;
const ROLES = ['frontend', 'history', 'matching', 'worker'] as const;

/** The programs of the server, in the user's cache. */
export interface ClusterPrograms {
  server: string;
  sqlTool: string;
  /** Folder with the definitions of the tables. */
  schema: string;
}

/** Builds the programs unless they were built before. @throws Error if Go is not installed, or the build fails */
export async function buildCluster(
  environment: Record<string, string | undefined>,
  onProgress: (line: string) => void,
): Promise<ClusterPrograms> {
  const dir = join(environment.XDG_CACHE_HOME || join(homedir(), '.cache'), 'parley', `temporal-server-${VERSION}`);
  if (!(await isExecutable(join(dir, 'server')))) await build(dir, environment, onProgress);
  const { stdout } = await run('go', ['env', 'GOMODCACHE'], { env: environment });
  return {
    server: join(dir, 'server'),
    sqlTool: join(dir, 'sql'),
    schema: join(stdout.trim(), `go.temporal.io/server@${VERSION}`, 'schema', 'postgresql', 'v12'),
  };
}

async function build(dir: string, environment: Record<string, string | undefined>, onProgress: (line: string) => void): Promise<void> {
  const startedAtMs = Date.now();
  const say = () => onProgress(`building the Temporal server with Go, ${Math.round((Date.now() - startedAtMs) / 1_000)} s so far`);
  say();
  const timer = setInterval(say, REPORT_INTERVAL_MS);
  const fresh = `${dir}.new-${process.pid}`;
  try {
    await mkdir(fresh, { recursive: true });
    await runQuietly('go', ['install', ...PROGRAMS], { ...environment, GOBIN: fresh, CGO_ENABLED: '0' });
    await rm(dir, { recursive: true, force: true });
    await rename(fresh, dir);
  } finally {
    clearInterval(timer);
    await rm(fresh, { recursive: true, force: true });
  }
}

/** A running cluster's address, and how to start its server again. */
export interface Cluster {
  address: string;
  /** Starts the server on the same data, and waits until it has its namespace. */
  start(): Promise<RunningServer>;
}

/** Makes the databases on the server at `postgresUrl`, and the configuration in `dir`. */
export async function prepareCluster(dir: string, postgresUrl: string, programs: ClusterPrograms): Promise<Cluster> {
  for (const [database, tables] of Object.entries(DATABASES)) await makeDatabase(postgresUrl, database, tables, programs);
  const ports = await freePorts(2 * ROLES.length);
  const address = `127.0.0.1:${ports[0]}`;
  await mkdir(join(dir, 'config'), { recursive: true });
  await copyFile(DYNAMIC_CONFIG, join(dir, 'config', 'dynamic.yaml'));
  // YAML is a superset of JSON.
  await writeFile(join(dir, 'config', 'development.yaml'), JSON.stringify(configuration(dir, new URL(postgresUrl), ports), undefined, 2));
  return {
    address,
    start: () =>
      startServer({
        name: 'the Temporal cluster',
        command: programs.server,
        args: ['--root', dir, '--config', 'config', '--env', 'development', 'start'],
        environment: {},
        cwd: dir,
        isReady: () => hasNamespace(address),
        stopSignal: 'SIGTERM',
        stopGraceMs: STOP_GRACE_MS,
        logFile: join(dir, 'cluster.log'),
      }),
  };
}

async function makeDatabase(postgresUrl: string, database: string, tables: string, { sqlTool, schema }: ClusterPrograms): Promise<void> {
  const { username, password, hostname, port } = new URL(postgresUrl);
  const client = new Client({ connectionString: new URL('/postgres', postgresUrl).href });
  await client.connect();
  try {
    await client.query(`CREATE DATABASE ${client.escapeIdentifier(database)}`);
  } finally {
    await client.end();
  }
  const login = ['--plugin', 'postgres12', '--ep', hostname, '-p', port, '-u', username, '--pw', decodeURIComponent(password)];
  await runQuietly(sqlTool, [...login, '--db', database, 'setup-schema', '-v', '0.0'], {});
  await runQuietly(sqlTool, [...login, '--db', database, 'update-schema', '-d', join(schema, tables, 'versioned')], {});
}

/** Below 32,768, because the server stores the ports of its members as small integers. */
async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  const first = 20_000 + randomInt(10_000);
  while (ports.length < count) ports.push(await freePort(first, ports));
  return ports;
}

/** The server's configuration. Each role has a port for requests and one for the membership of the cluster. */
function configuration(dir: string, { host, username, password }: URL, ports: readonly number[]): object {
  const store = (databaseName: string, maxConns: number) => ({
    sql: {
      ...{ pluginName: 'postgres12', databaseName, connectAddr: host, connectProtocol: 'tcp' },
      ...{ user: username, password: decodeURIComponent(password), maxConns, maxIdleConns: maxConns },
    },
  });
  const rolePorts = (index: number) => ({ grpcPort: ports[index], membershipPort: ports[ROLES.length + index], bindOnLocalHost: true });
  const frontend = `127.0.0.1:${ports[0]}`;
  return {
    log: { stdout: true, level: 'warn' },
    persistence: {
      ...{ defaultStore: 'default', visibilityStore: 'visibility', numHistoryShards: HISTORY_SHARDS },
      datastores: { default: store('temporal', 20), visibility: store('temporal_visibility', 5) },
    },
    global: { membership: { maxJoinDuration: '30s', broadcastAddress: '127.0.0.1' } },
    services: Object.fromEntries(ROLES.map((role, index) => [role, { rpc: rolePorts(index) }])),
    clusterMetadata: {
      ...{ enableGlobalNamespace: false, failoverVersionIncrement: 10, masterClusterName: 'active', currentClusterName: 'active' },
      clusterInformation: { active: { enabled: true, initialFailoverVersion: 1, rpcAddress: frontend } },
    },
    dcRedirectionPolicy: { policy: 'noop' },
    dynamicConfigClient: { filepath: join(dir, 'config', 'dynamic.yaml'), pollInterval: '60s' },
    publicClient: { hostPort: frontend },
  };
}

/** Creates the namespace if it is missing. */
async function hasNamespace(address: string): Promise<boolean> {
  const connection = Connection.lazy({ address });
  const { workflowService } = connection;
  try {
    return await connection.withDeadline(Date.now() + REQUEST_TIMEOUT_MS, async () => {
      try {
        await workflowService.describeNamespace({ namespace: NAMESPACE });
        // Answers once the history service is there as well.
        await workflowService.listWorkflowExecutions({ namespace: NAMESPACE, pageSize: 1 });
        return true;
      } catch {
        // Its type wants a Long, its encoder takes a number as well.
        const workflowExecutionRetentionPeriod = { seconds: RETENTION_SECONDS as never };
        await workflowService.registerNamespace({ namespace: NAMESPACE, workflowExecutionRetentionPeriod });
        return false;
      }
    });
  } catch {
    return false;
  } finally {
    await connection.close();
  }
}

async function isExecutable(path: string): Promise<boolean> {
  return await access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** @throws Error with the end of its output if it fails */
function runQuietly(command: string, args: string[], environment: Record<string, string | undefined>): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        output = (output + chunk.toString()).slice(-2_000);
      });
    }
    child.once('error', (error) => reject(new Error(`${command}: ${error.message}`)));
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${command} failed: ${output.trim()}`))));
  });
}
