/** Temporal on one machine: runs the Temporal CLI's development server, tuned for low latency. */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { ConnectionLike } from '@temporalio/client';
import { openTemporalClient } from '../../platform/temporal';
import { freePort, isFree } from './ports';
import { type RunningServer, startServer } from './process';

const HOST = '127.0.0.1';
const STOP_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 2_000;

/** By default SQLite waits for the disk at every commit; with a write-ahead log it handles 2.5 times as many conversations per second. */
const SQLITE_PRAGMAS = ['journal_mode=wal', 'synchronous=normal'];

/** The attributes that operators filter by. */
const SEARCH_ATTRIBUTES = {
  ParleyWorkspace: 'Keyword',
  ParleyMode: 'Keyword',
  ParleyAttention: 'Bool',
  ParleyCallStatus: 'Keyword',
  ParleyCallOutcome: 'Keyword',
} as const;

const DYNAMIC_CONFIG: DynamicConfig = {
  // By default the single shard's queues are read at most 20 times a second, which delays every hop of a message by up to 40 ms.
  'history.transferProcessorMaxPollRPS': 2_000,
  'history.timerProcessorMaxPollRPS': 2_000,
  // A worker that completes a workflow task can start its activities at once, without a round trip through the matching service.
  'system.enableActivityEagerExecution': true,
};

/** Temporal's dynamic configuration: values by key. */
export type DynamicConfig = Record<string, string | number | boolean>;

/** Options of the embedded Temporal server. */
export interface TemporalServerOptions {
  /** From `findTemporalCli`. */
  cliPath: string;
  /** SQLite file that keeps the data between runs (default: in memory, lost at the stop). */
  dataFile?: string;
  port: number;
  /** Port of the web UI (default: no UI). */
  uiPort?: number;
  /** Namespaces besides "default". */
  namespaces?: string[];
  /** Added to our own values; overrides them. */
  dynamicConfig?: DynamicConfig;
  /** Called with the pid as soon as the process exists, before the server is ready, so that no process goes unrecorded. */
  onSpawn?: (pid: number) => void;
  onLog?: (line: string) => void;
  /** The server's log is appended to this file. */
  logFile: string;
}

/** A running embedded Temporal server. Stopped with SIGTERM, and SIGKILL after 10 s. */
export interface EmbeddedTemporal extends RunningServer {
  readonly address: string;
  /** Undefined if it was started without a UI. */
  readonly uiUrl: string | undefined;
}

/**
 * Starts a server on 127.0.0.1 and waits until it responds and has our search attributes.
 * @throws Error if the port is taken, or as `startServer`
 */
export async function startTemporalServer(options: TemporalServerOptions): Promise<EmbeddedTemporal> {
  // A server that cannot listen does not exit at once, and whichever server has the port would pass the readiness check.
  if (!(await isFree(options.port))) throw new Error(`port ${options.port} is taken: the Temporal server cannot listen there`);
  if (options.dataFile !== undefined) await mkdir(dirname(options.dataFile), { recursive: true });
  const address = `${HOST}:${options.port}`;
  const { connection } = openTemporalClient({ connectionOptions: { address }, namespace: 'default' });
  try {
    const server = await startServer({
      name: 'the Temporal server',
      command: options.cliPath,
      args: await serverArgs(options),
      // Empty, because the CLI would read our TEMPORAL_* variables as its own settings.
      environment: {},
      isReady: () => isReady(connection, ['default', ...(options.namespaces ?? [])]),
      stopSignal: 'SIGTERM',
      stopGraceMs: STOP_TIMEOUT_MS,
      onSpawn: options.onSpawn,
      onLog: options.onLog,
      logFile: options.logFile,
    });
    return { ...server, address, uiUrl: options.uiPort === undefined ? undefined : `http://${HOST}:${options.uiPort}` };
  } finally {
    await connection.close();
  }
}

async function serverArgs(options: TemporalServerOptions): Promise<string[]> {
  const { dataFile, port, uiPort, namespaces = [] } = options;
  // By default every server picks these ports from the same start, so that two on one machine would collide.
  const httpPort = await freePort(0, [port, uiPort ?? 0]);
  const metricsPort = await freePort(0, [port, uiPort ?? 0, httpPort]);
  const dynamicConfig = Object.entries({ ...DYNAMIC_CONFIG, ...options.dynamicConfig });
  return [
    ...['server', 'start-dev', '--ip', HOST, '--port', String(port)],
    ...(uiPort === undefined ? ['--headless'] : ['--ui-port', String(uiPort)]),
    ...['--http-port', String(httpPort), '--metrics-port', String(metricsPort)],
    ...['--log-level', 'warn', '--color', 'never', '--disable-config-file', '--disable-config-env'],
    ...(dataFile === undefined ? [] : ['--db-filename', dataFile, ...SQLITE_PRAGMAS.flatMap((pragma) => ['--sqlite-pragma', pragma])]),
    ...namespaces.flatMap((name) => ['--namespace', name]),
    ...Object.entries(SEARCH_ATTRIBUTES).flatMap(([name, type]) => ['--search-attribute', `${name}=${type}`]),
    ...dynamicConfig.flatMap(([key, value]) => ['--dynamic-config-value', `${key}=${JSON.stringify(value)}`]),
  ];
}

/** The server responds before its namespaces and search attributes exist; a workflow that starts in between would fail. */
async function isReady(connection: ConnectionLike, namespaces: string[]): Promise<boolean> {
  try {
    return await connection.withDeadline(Date.now() + REQUEST_TIMEOUT_MS, async () => {
      for (const namespace of namespaces) {
        const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace });
        if (!Object.keys(SEARCH_ATTRIBUTES).every((name) => name in customAttributes)) return false;
      }
      return true;
    });
  } catch {
    return false;
  }
}
