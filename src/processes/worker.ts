/** The worker process: stateless, any number of it. The one place that builds the activities' dependencies. */

import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { createActivities } from '../../activities';
import { CALLBACK_TIMEOUT_MS } from '../../activities/callback';
import { ASK_TIMEOUT_MS, DIAL_TIMEOUT_MS } from '../../activities/voice';
import { SEND_TIMEOUT_MS } from '../../activities/whatsapp';
import { type BackgroundWork, createBackgroundWork } from '../platform/background';
import { loadEnvFile, PROVIDER_NAMES, readSettings, requireSettings, type Settings } from '../platform/config';
import { type Database, openDatabase } from '../platform/database';
import { withDeadline } from '../platform/deadline';
import { onShutdown, patiently, runProcess } from '../platform/lifecycle';
import { createLogger, type Logger } from '../platform/logger';
import { createWorkerMetrics, type ProcessMetrics, type WorkerMetrics } from '../platform/metrics';
import { openTemporalClient, temporalConfig } from '../platform/temporal';
import { callbackSettings, createCallbackClient } from '../providers/callback/client';
import { createKapsoClient } from '../providers/kapso/client';
import { createLanguageModels, type LanguageModels } from '../providers/models/client';
import { type CallServer, callServer, createVapiClient } from '../providers/vapi/client';
import { ensureFirstWorkspace } from '../record/workspaces';
import { ensureRetentionSchedule } from './schedules';
import { ensureSearchAttributes } from './search-attributes';
import { compression, polls, slots, stickyTimeout } from './worker-tuning';
import { workflowBundle } from './workflow-bundle';

/** What runs may finish for this long: a send takes 10 s, a model attempt longer and is taken over by another worker. */
const SHUTDOWN_GRACE_MS = 12_000;

async function main(environment: NodeJS.ProcessEnv): Promise<void> {
  const settings = requireSettings(readSettings(environment), {
    DATABASE_URL: 'the worker needs the record',
    KAPSO_API_KEY: 'replies are sent with it',
  });
  const logger = createLogger('worker', settings.LOG_LEVEL);
  const sdkMetricsAddress = settings.WORKER_HEALTH_PORT ? await freeLoopbackAddress() : undefined;
  installRuntime(logger, sdkMetricsAddress);
  const metrics = createWorkerMetrics(() => readSdkMetrics(sdkMetricsAddress));
  const stopping = new AbortController();
  const background = createBackgroundWork();
  const running: { worker?: Worker; finished?: Promise<void>; health?: Server } = {};
  const db = openDatabase(settings.DATABASE_URL, {
    onConnectionLost: (error) => logger.warn({ error }, 'connection to PostgreSQL lost'),
    onQuery: metrics.queryEnded,
  });
  onShutdown(logger, SHUTDOWN_GRACE_MS + 5_000, async () => {
    stopping.abort();
    running.worker?.shutdown();
    await running.finished;
    await background.settled();
    running.health?.close();
    await db.close();
  });
  if (settings.WORKER_HEALTH_PORT)
    running.health = serveHealth(settings.WORKER_HEALTH_PORT, settings.HOST, metrics, () => running.worker?.getState() === 'RUNNING');
  running.worker = await startWorker({ settings, environment, db, background, logger, metrics, signal: stopping.signal });
  running.finished = running.worker.run();
  logger.info({ taskQueue: settings.TEMPORAL_TASK_QUEUE }, 'worker ready');
  await running.finished;
}

async function startWorker(parts: {
  settings: Settings & { DATABASE_URL: string; KAPSO_API_KEY: string };
  environment: NodeJS.ProcessEnv;
  db: Database;
  background: BackgroundWork;
  logger: Logger;
  metrics: WorkerMetrics;
  signal: AbortSignal;
}): Promise<Worker> {
  const { settings, environment, db, background, logger, metrics, signal } = parts;
  const keepTrying = patiently(logger, signal);
  const config = temporalConfig(environment);
  const models = createLanguageModels(settings);
  sayWhoAnswers(models, settings, logger);
  const kapso = createKapsoClient({ baseUrl: settings.KAPSO_BASE_URL, apiKey: settings.KAPSO_API_KEY, timeoutMs: SEND_TIMEOUT_MS });
  const vapi = createVapiClient({
    baseUrl: settings.VAPI_BASE_URL,
    // Without a key no call can be asked for; a running one of earlier settings is told so by Vapi.
    apiKey: settings.VAPI_API_KEY ?? '',
    dialTimeoutMs: DIAL_TIMEOUT_MS,
    timeoutMs: ASK_TIMEOUT_MS,
    ...definedServer(settings),
  });
  const bundle = await workflowBundle();
  await keepTrying('PostgreSQL is not ready', () => ensureFirstWorkspace(db.orm, settings));
  const client = openTemporalClient(config);
  await keepTrying('Temporal is not ready', () => ensureSearchAttributes(client));
  await keepTrying('Temporal is not ready', () => ensureRetentionSchedule(client, settings, logger));
  await client.connection.close();
  const connection = await keepTrying('Temporal is not ready', () =>
    NativeConnection.connect({ ...config.connectionOptions, ...compression }),
  );
  return await Worker.create({
    connection,
    namespace: config.namespace,
    taskQueue: settings.TEMPORAL_TASK_QUEUE,
    workflowBundle: bundle,
    activities: createActivities({
      db,
      background,
      kapso,
      vapi,
      models,
      logger,
      metrics,
      limits: { modelAttemptMs: settings.MODEL_TIMEOUT_MS, turnMs: settings.TURN_TIMEOUT_MS },
      taskQueue: settings.TEMPORAL_TASK_QUEUE,
      followUpText: settings.CALL_FOLLOW_UP_TEXT,
      callbacks: createCallbackClient({ ...callbackSettings(settings), timeoutMs: CALLBACK_TIMEOUT_MS }),
      archiveDir: join(settings.DATA_DIR, 'archive', 'calls'),
    }),
    ...stickyTimeout,
    ...polls,
    ...slots,
    shutdownGraceTime: SHUTDOWN_GRACE_MS,
  });
}

function definedServer(settings: Settings): { server?: CallServer } {
  const server = callServer(settings);
  return server ? { server } : {};
}

/** The engine's own log lines take our form, signals are ours to handle, and its metrics can be read at `sdkMetricsAddress`. */
function installRuntime(logger: Logger, sdkMetricsAddress: string | undefined): void {
  Runtime.install({
    logger: new DefaultLogger('INFO', ({ level, message, meta }) => {
      const { error, ...fields } = (meta ?? {}) as Record<string, unknown>;
      const line = { ...fields, ...(error ? { error } : {}) };
      if (level === 'ERROR') logger.error(line, message);
      else if (level === 'WARN') logger.warn(line, message);
      else logger.info(line, message);
    }),
    shutdownSignals: [],
    ...(sdkMetricsAddress
      ? {
          telemetryOptions: {
            metrics: { prometheus: { bindAddress: sdkMetricsAddress, countersTotalSuffix: true, useSecondsForDurations: true } },
          },
        }
      : {}),
  });
}

function sayWhoAnswers(models: LanguageModels, settings: Settings, logger: Logger): void {
  const wanted = settings.AI_PROVIDERS?.map((entry) => entry.split(':')[0] ?? '') ?? PROVIDER_NAMES.filter((name) => name !== 'sandbox');
  const withoutKey = wanted.filter((name) => !models.available.some((available) => available === name));
  logger.info({ available: models.available, withoutKey }, 'model providers; those without a key are left out of the chain');
}

/** The SDK takes an address and does not tell which port it got, so the port is found here. Free now, not reserved: a lost race ends the start. */
async function freeLoopbackAddress(): Promise<string> {
  const server = createTcpServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return `127.0.0.1:${port}`;
}

/** It answers on the loopback, from memory. */
const SDK_METRICS_TIMEOUT_MS = 1_000;

async function readSdkMetrics(address: string | undefined): Promise<string> {
  if (!address) return '';
  return await withDeadline(SDK_METRICS_TIMEOUT_MS, async (signal) => await (await fetch(`http://${address}/metrics`, { signal })).text());
}

/** `/healthz` and `/readyz` for an orchestrator, `/metrics` for Prometheus. */
function serveHealth(port: number, host: string | undefined, metrics: ProcessMetrics, isReady: () => boolean): Server {
  const server = createServer((request, response) => {
    const path = request.url?.split('?', 1)[0];
    if (path === '/metrics') return void sendMetrics(response, metrics);
    const ready = path !== '/readyz' || isReady();
    response.writeHead(ready ? 200 : 503, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(path === '/readyz' ? { ready } : { alive: true }));
  });
  return server.listen({ port, host });
}

async function sendMetrics(response: ServerResponse, metrics: ProcessMetrics): Promise<void> {
  try {
    const text = await metrics.text();
    response.writeHead(200, { 'Content-Type': metrics.contentType });
    response.end(text);
  } catch {
    response.writeHead(500);
    response.end();
  }
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: the entry of a process hands its environment to the one reader of settings
runProcess('worker', main, process.env);
