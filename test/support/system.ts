/**
 * The whole system for one suite: its own database, task queue and phone number id on the shared servers, a sandbox in the test
 * process, and the API and workers as real processes that a test can kill.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Client, Connection } from '@temporalio/client';
import type { PrismaClient } from '../../prisma/generated/client';
import { freePort } from '../../src/local/embedded/ports';
import { openDatabase } from '../../src/platform/database';
import { createLogger } from '../../src/platform/logger';
import type { Sandbox, SandboxOptions } from '../../src/sandbox/sandbox';
import { startSandbox } from '../../src/sandbox/sandbox';
import { SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID } from '../../src/sandbox/vapi/bodies';

export const WEBHOOK_SECRET = 'test-secret-0123456789abcdef';
export const VAPI_WEBHOOK_SECRET = 'test-vapi-secret-0123456789abcdef';
export const API_KEY = 'test-api-key';

/** A running process of the project. */
export interface RunningProcess {
  name: string;
  child: ChildProcess;
  /** All output lines. */
  lines: string[];
  /** Resolves with the first output line, past or future, that contains all the words; rejects if the process exits first. */
  line(...words: string[]): Promise<string>;
  /** Sends SIGKILL and waits for the exit. */
  kill(): Promise<void>;
  /** Sends SIGTERM and waits for the exit. Resolves to the exit code. */
  stop(): Promise<number | null>;
}

/** A running system. */
export interface System {
  api: RunningProcess;
  apiUrl: string;
  workers: RunningProcess[];
  sandbox: Sandbox;
  db: PrismaClient;
  temporal: Client;
  taskQueue: string;
  phoneNumberId: string;
  databaseUrl: string;
  environment: Record<string, string>;
  startWorker(extra?: Record<string, string>): Promise<RunningProcess>;
  startApi(extra?: Record<string, string>): Promise<RunningProcess>;
  close(): Promise<void>;
}

/** Options of a system. */
export interface SystemOptions {
  databaseUrl: string;
  temporalAddress: string;
  /** Added to the environment of the API and the workers; overrides the defaults. */
  environment?: (sandbox: Sandbox) => Record<string, string>;
  workers?: number;
  sandbox?: Partial<SandboxOptions>;
  phoneNumberId?: string;
}

/** Starts a process of the project; resolves when it logs `readyMessage`. */
export async function startProcess(
  name: string,
  entry: string,
  environment: Record<string, string>,
  readyMessage: string,
): Promise<RunningProcess> {
  const child = spawn(process.execPath, ['--import', 'tsx', entry], {
    env: { ...inherited(), ...environment },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    if (!stream) continue;
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      for (const look of waiting) look();
    });
  }
  const exited = once(child, 'exit');
  const running: RunningProcess = {
    name,
    child,
    lines,
    line: (...words) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = lines.find((line) => words.every((word) => line.includes(word)));
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        exited.then(
          () => reject(new Error(`${name} exited before it printed "${words.join(' … ')}":\n${lines.slice(-20).join('\n')}`)),
          reject,
        );
        look();
      }),
    async kill() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await exited;
    },
    async stop() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
      const [code] = await exited;
      return code as number | null;
    },
  };
  await running.line(readyMessage);
  return running;
}

/** The variables that a process needs; a developer's own keys must not reach a test. */
export function inherited(): Record<string, string> {
  // biome-ignore lint/style/noProcessEnv: a test harness starts processes as a shell does
  const { PATH = '', HOME = '' } = process.env;
  return { PATH, HOME };
}

/** Starts everything. `close` stops the API and the workers before the sandbox, so that nothing is lost. */
export async function startSystem(options: SystemOptions): Promise<System> {
  const taskQueue = `test-${randomBytes(5).toString('hex')}`;
  const phoneNumberId = options.phoneNumberId ?? `1${Date.now()}${randomBytes(2).readUInt16BE()}`;
  const port = await freePort(20_000 + (randomBytes(2).readUInt16BE() % 20_000));
  const apiUrl = `http://127.0.0.1:${port}`;
  const sandbox = await startSandbox({
    port: 0,
    webhookUrls: [`${apiUrl}/webhook/kapso`],
    webhookSecret: WEBHOOK_SECRET,
    phoneNumberId,
    statusDelaysMs: { sent: 20, delivered: 40, read: 60 },
    webhookRetryDelaysMs: [500, 1_000, 2_000, 4_000, 8_000],
    log: createLogger('sandbox', 'error'),
    ...options.sandbox,
    vapi: {
      auth: { scheme: 'secret', secret: VAPI_WEBHOOK_SECRET },
      serverUrl: `${apiUrl}/api/v1/vapi/webhooks/vapi`,
      timings: { queueMs: 10, ringMs: 50, talkMs: 150, reportMs: 50, lateReportMs: 8_000 },
      concurrencyLimit: 10_000,
      backoffFactor: 0.1,
      ...options.sandbox?.vapi,
    },
  });
  const environment: Record<string, string> = {
    PORT: String(port),
    DATABASE_URL: options.databaseUrl,
    TEMPORAL_ADDRESS: options.temporalAddress,
    TEMPORAL_TASK_QUEUE: taskQueue,
    KAPSO_BASE_URL: sandbox.url,
    KAPSO_API_KEY: 'test-kapso-key',
    KAPSO_WEBHOOK_SECRET: WEBHOOK_SECRET,
    KAPSO_WEBHOOK_TOKEN: 'fake-verify-token',
    KAPSO_PHONE_NUMBER_ID: phoneNumberId,
    // A pass would use up the faults of lists that a test has programmed.
    REPAIR_MINUTES: '0',
    CHATBOT_ENABLED: 'true',
    AI_ENABLED: 'true',
    SANDBOX_URL: sandbox.url,
    VAPI_API_KEY: 'test-vapi-key',
    VAPI_BASE_URL: sandbox.vapiUrl,
    VAPI_ASSISTANT_ID: SANDBOX_ASSISTANT_ID,
    VAPI_PHONE_NUMBER_ID: SANDBOX_VAPI_NUMBER_ID,
    VAPI_WEBHOOK_SECRET,
    PUBLIC_URL: apiUrl,
    CALL_REPORT_GRACE_SECONDS: '2',
    CALL_RING_TIMEOUT_SECONDS: '5',
    API_KEYS: API_KEY,
    REPLY_QUIET_MS: '0',
    SEND_CONFIRM_MS: '20000',
    ...options.environment?.(sandbox),
  };
  const database = openDatabase(options.databaseUrl);
  const db = database.orm;
  const connection = await Connection.connect({ address: options.temporalAddress });
  const processes: RunningProcess[] = [];
  const start = async (name: string, entry: string, extra: Record<string, string>, ready: string) => {
    const running = await startProcess(name, entry, { ...environment, ...extra }, ready);
    processes.push(running);
    return running;
  };
  const startApi = (extra: Record<string, string> = {}) => start('api', 'src/processes/server.ts', extra, 'api ready');
  const startWorker = (extra: Record<string, string> = {}) => start('worker', 'src/processes/worker.ts', extra, 'worker ready');
  const api = await startApi();
  const workers = await Promise.all(Array.from({ length: options.workers ?? 1 }, () => startWorker()));
  return {
    api,
    apiUrl,
    workers,
    sandbox,
    db,
    temporal: new Client({ connection }),
    taskQueue,
    phoneNumberId,
    databaseUrl: options.databaseUrl,
    environment,
    startApi,
    startWorker,
    async close() {
      await Promise.all(processes.map((running) => running.stop()));
      await sandbox.close();
      await database.close();
      await connection.close();
    },
  };
}
