/** Temporal on one machine: the development server of the Temporal CLI, with the settings that make it quick. */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection } from '@temporalio/client';
import { freePort, isFree } from './ports';
import { type ServerProcess, spawnServer } from './process';

const HOST = '127.0.0.1';
const READY_WITHIN_MS = 60_000;
const STOP_WITHIN_MS = 10_000;
const ASK_EVERY_MS = 50;
const ANSWER_WITHIN_MS = 2_000;

/** The SQLite defaults wait for the disk at every commit; with a write-ahead log, 2.5 times as many conversations per second. */
const SQLITE_PRAGMAS = ['journal_mode=wal', 'synchronous=normal'];

/** Typed and few: what operators filter by. */
const SEARCH_ATTRIBUTES = {
  ParleyWorkspace: 'Keyword',
  ParleyMode: 'Keyword',
  ParleyAttention: 'Bool',
  ParleyCallStatus: 'Keyword',
  ParleyCallOutcome: 'Keyword',
} as const;

const DYNAMIC_CONFIG: DynamicConfig = {
  // The one shard's queues are read at most 20 times a second by default: every hop of a message would wait up to 40 ms.
  'history.transferProcessorMaxPollRPS': 2_000,
  'history.timerProcessorMaxPollRPS': 2_000,
  // The worker that finishes a workflow task may start its activities at once, without a round through matching.
  'system.enableActivityEagerExecution': true,
};

export type DynamicConfig = Record<string, string | number | boolean>;

export interface TemporalServerOptions {
  /** From `findTemporalCli`. */
  cliPath: string;
  /** SQLite file, kept between runs; without it everything is lost at the stop. */
  dataFile?: string;
  port: number;
  /** Port of the web UI; without it there is none. */
  uiPort?: number;
  /** Namespaces besides "default". */
  namespaces?: string[];
  /** Added to, and over, our own values. */
  dynamicConfig?: DynamicConfig;
  /** Told the process id at once, before the server answers: whoever keeps a list misses none. */
  onSpawn?: (pid: number) => void;
  onLog?: (line: string) => void;
  /** The server's log is appended here. */
  logFile?: string;
}

export interface EmbeddedTemporal {
  readonly address: string;
  /** Undefined when it was started without a UI. */
  readonly uiUrl: string | undefined;
  readonly pid: number;
  /** Resolves when the server has ended, with how. Never rejects. */
  readonly ended: Promise<string>;
  /** Asks it to end, and kills it after 10 s. */
  stop(): Promise<void>;
}

/**
 * Starts a server on 127.0.0.1 and waits until it answers and knows our search attributes.
 * @throws Error when the port is taken, when it ends early or does not answer within 60 s, with its last log lines
 */
export async function startTemporalServer(options: TemporalServerOptions): Promise<EmbeddedTemporal> {
  // A server that cannot listen does not end at once, and the one that does would answer in its place.
  if (!(await isFree(options.port))) throw new Error(`port ${options.port} is taken: the Temporal server cannot listen there`);
  if (options.dataFile !== undefined) await mkdir(dirname(options.dataFile), { recursive: true });
  const server = await spawnServer({
    command: options.cliPath,
    args: await serverArgs(options),
    // Nothing of ours: the CLI reads TEMPORAL_* as its own settings.
    environment: {},
    onSpawn: options.onSpawn,
    onLog: options.onLog,
    logFile: options.logFile,
  });
  const address = `${HOST}:${options.port}`;
  await untilReady(server, address, ['default', ...(options.namespaces ?? [])]);
  return {
    address,
    uiUrl: options.uiPort === undefined ? undefined : `http://${HOST}:${options.uiPort}`,
    pid: server.pid,
    ended: server.ended,
    stop: () => server.stop('SIGTERM', STOP_WITHIN_MS),
  };
}

async function serverArgs(options: TemporalServerOptions): Promise<string[]> {
  const { dataFile, port, uiPort, namespaces = [] } = options;
  // Its own choice of further ports starts from the same numbers in every server: two on one machine would collide.
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

async function untilReady(server: ServerProcess, address: string, namespaces: string[]): Promise<void> {
  let endedHow: string | undefined;
  void server.ended.then((how) => {
    endedHow = how;
  });
  const deadline = Date.now() + READY_WITHIN_MS;
  const connection = Connection.lazy({ address });
  try {
    while (!(await knowsAll(connection, namespaces))) {
      if (endedHow !== undefined) throw new Error(`the Temporal server ended at once (${endedHow}):\n${server.lastLines()}`);
      if (Date.now() > deadline) {
        await server.stop('SIGTERM', 1_000);
        throw new Error(`the Temporal server did not answer within ${READY_WITHIN_MS / 1_000} s:\n${server.lastLines()}`);
      }
      await sleep(ASK_EVERY_MS);
    }
  } finally {
    await connection.close();
  }
}

/** It answers before it has made its namespaces and search attributes; a workflow that starts in between would fail. */
async function knowsAll(connection: Connection, namespaces: string[]): Promise<boolean> {
  try {
    return await connection.withDeadline(Date.now() + ANSWER_WITHIN_MS, async () => {
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
