/** The worker process: stateless, any number of it. The one place that builds the activities' dependencies. */
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { createActivities } from '../activities';
import { CALLBACK_TIMEOUT_MS } from '../activities/callback';
import { SEND_TIMEOUT_MS } from '../activities/whatsapp';
import { loadEnvFile, PROVIDER_NAMES, readSettings, requireSettings, type Settings } from './config';
import { type Database, openDatabase } from './database';
import { onShutdown, patiently, runProcess } from './lifecycle';
import { createLogger, type Logger } from './logger';
import { callbackSettings, createCallbackClient } from './providers/callback';
import { createKapsoClient } from './providers/kapso';
import { createLanguageModels, type LanguageModels } from './providers/llm';
import { ensureRetentionSchedule } from './schedules';
import { ensureSearchAttributes, openTemporalClient, temporalConfig } from './temporal';
import { workflowBundle } from './workflow-bundle';
import { ensureFirstWorkspace } from './workspace';

/** What runs may finish for this long: a send takes 10 s, a model attempt longer and is taken over by another worker. */
const SHUTDOWN_GRACE_MS = 12_000;

/**
 * How long the tasks of a dead worker's sticky queue wait before any worker may take them. Half of the bound
 * that a customer waits after a kill; longer saves replays when a live worker is busy.
 */
const STICKY_TIMEOUT_MS = 2_500;

async function main(environment: NodeJS.ProcessEnv): Promise<void> {
  const settings = requireSettings(readSettings(environment), {
    DATABASE_URL: 'the worker needs the record',
    KAPSO_API_KEY: 'replies are sent with it',
  });
  const logger = createLogger('worker', settings.LOG_LEVEL);
  useLogger(logger);
  const stopping = new AbortController();
  const running: { worker?: Worker; finished?: Promise<void>; health?: Server } = {};
  const db = openDatabase(settings.DATABASE_URL, { onConnectionLost: (error) => logger.warn({ error }, 'connection to PostgreSQL lost') });
  onShutdown(logger, SHUTDOWN_GRACE_MS + 5_000, async () => {
    stopping.abort();
    running.worker?.shutdown();
    await running.finished;
    running.health?.close();
    await db.close();
  });
  if (settings.WORKER_HEALTH_PORT)
    running.health = serveHealth(settings.WORKER_HEALTH_PORT, () => running.worker?.getState() === 'RUNNING');
  running.worker = await startWorker({ settings, environment, db, logger, signal: stopping.signal });
  running.finished = running.worker.run();
  logger.info({ taskQueue: settings.TEMPORAL_TASK_QUEUE }, 'worker ready');
  await running.finished;
}

async function startWorker(parts: {
  settings: Settings & { DATABASE_URL: string; KAPSO_API_KEY: string };
  environment: NodeJS.ProcessEnv;
  db: Database;
  logger: Logger;
  signal: AbortSignal;
}): Promise<Worker> {
  const { settings, environment, db, logger, signal } = parts;
  const keepTrying = patiently(logger, signal);
  const config = temporalConfig(environment);
  const models = createLanguageModels(settings);
  sayWhoAnswers(models, settings, logger);
  const kapso = createKapsoClient({ baseUrl: settings.KAPSO_BASE_URL, apiKey: settings.KAPSO_API_KEY, timeoutMs: SEND_TIMEOUT_MS });
  const bundle = await workflowBundle();
  await keepTrying('PostgreSQL is not ready', () => ensureFirstWorkspace(db.orm, settings));
  const client = openTemporalClient(config);
  await keepTrying('Temporal is not ready', () => ensureSearchAttributes(client));
  await keepTrying('Temporal is not ready', () => ensureRetentionSchedule(client, settings, logger));
  await client.connection.close();
  const connection = await keepTrying('Temporal is not ready', () => NativeConnection.connect(config.connectionOptions));
  return await Worker.create({
    connection,
    namespace: config.namespace,
    taskQueue: settings.TEMPORAL_TASK_QUEUE,
    workflowBundle: bundle,
    activities: createActivities({
      db,
      kapso,
      models,
      logger,
      limits: { modelAttemptMs: settings.MODEL_TIMEOUT_MS, turnMs: settings.TURN_TIMEOUT_MS },
      callbacks: createCallbackClient({ ...callbackSettings(settings), timeoutMs: CALLBACK_TIMEOUT_MS }),
      archiveDir: join(settings.DATA_DIR, 'archive', 'calls'),
    }),
    stickyQueueScheduleToStartTimeout: STICKY_TIMEOUT_MS,
    shutdownGraceTime: SHUTDOWN_GRACE_MS,
  });
}

/** The engine's own log lines take our form, and signals are ours to handle. */
function useLogger(logger: Logger): void {
  Runtime.install({
    logger: new DefaultLogger('INFO', ({ level, message, meta }) => {
      const { error, ...fields } = (meta ?? {}) as Record<string, unknown>;
      const line = { ...fields, ...(error ? { error } : {}) };
      if (level === 'ERROR') logger.error(line, message);
      else if (level === 'WARN') logger.warn(line, message);
      else logger.info(line, message);
    }),
    shutdownSignals: [],
  });
}

function sayWhoAnswers(models: LanguageModels, settings: Settings, logger: Logger): void {
  const wanted = settings.AI_PROVIDERS?.map((entry) => entry.split(':')[0] ?? '') ?? PROVIDER_NAMES.filter((name) => name !== 'sandbox');
  const withoutKey = wanted.filter((name) => !models.available.some((available) => available === name));
  logger.info({ available: models.available, withoutKey }, 'model providers; those without a key are left out of the chain');
}

/** `/healthz` and `/readyz` for an orchestrator. */
function serveHealth(port: number, isReady: () => boolean): Server {
  const server = createServer((request, response) => {
    const ready = request.url !== '/readyz' || isReady();
    response.writeHead(ready ? 200 : 503, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(request.url === '/readyz' ? { ready } : { alive: true }));
  });
  return server.listen(port);
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: the entry of a process hands its environment to the one reader of settings
runProcess('worker', main, process.env);
