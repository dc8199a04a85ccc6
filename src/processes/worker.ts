/** The worker process. Stateless; run any number. Creates the activities' dependencies. */

import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { Client } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { createActivities, type KapsoAccount } from '../../activities';
import { CALLBACK_TIMEOUT_MS } from '../../activities/callback';
import type { ServicesByWorkspace } from '../../activities/services';
import { type BackgroundWork, createBackgroundWork } from '../platform/background';
import { loadEnvFile, PROVIDER_NAMES, readSettings, requireSettings, requireWhatsAppSetting, type Settings } from '../platform/config';
import { type Database, openDatabase, reachDatabase } from '../platform/database';
import { withDeadline } from '../platform/deadline';
import { sendRequest } from '../platform/http-request';
import { createStartupRetry, onShutdown, runProcess } from '../platform/lifecycle';
import { createLogger, type Logger } from '../platform/logger';
import { createWorkerMetrics, type ProcessMetrics, type WorkerMetrics } from '../platform/metrics';
import { openTemporalClient, reachTemporal, temporalConfig } from '../platform/temporal';
import { callbackSettings, createCallbackClient } from '../providers/callback/client';
import { createKapsoLists, createPacer } from '../providers/kapso/lists';
import { createLanguageModels, type LanguageModels } from '../providers/models/client';
import { requestTimeouts } from '../providers/models/timeouts';
import { loadIdentity } from '../record/identity';
import { createWorkspaceDirectory, type WorkspaceDirectory } from '../record/workspace-directory';
import { ensureFirstWorkspace } from '../record/workspaces';
import { createListedCollector } from '../webhooks/listed';
import { createWorkflowSignaller } from '../webhooks/signaller';
import { createStatusKeeper } from '../webhooks/statuses';
import { startAlerting } from './alerting';
import { type ModelWarning, type ModelWatch, watchModels } from './model-watch';
import { startRepairs } from './repairs';
import { ensureRetentionSchedule } from './schedules';
import { ensureSearchAttributes } from './search-attributes';
import { watchSilentConversations } from './silent-watch';
import { deploymentOptions } from './worker-deployment';
import { compression, polls, slots, stickyTimeout } from './worker-tuning';
import { workflowBundle } from './workflow-bundle';
import { createWorkspaceServices, watchedWorkspaces } from './workspace-services';

/** Time for running activities to finish: a send takes up to 10 s. A model call may take longer; another worker repeats it. */
const SHUTDOWN_GRACE_MS = 12_000;

async function main(environment: NodeJS.ProcessEnv): Promise<void> {
  const settings = requireSettings(readSettings(environment), { DATABASE_URL: 'the worker needs a database' });
  requireWhatsAppSetting(settings, 'KAPSO_API_KEY');
  const logger = createLogger('worker', settings.LOG_LEVEL);
  const sdkMetricsAddress = settings.WORKER_HEALTH_PORT ? await freeLoopbackAddress() : undefined;
  installRuntime(logger, sdkMetricsAddress);
  const metrics = createWorkerMetrics(() => readSdkMetrics(sdkMetricsAddress));
  const stopping = new AbortController();
  const background = createBackgroundWork();
  const running: RunningParts & { finished?: Promise<void>; health?: Server } = {};
  const db = openDatabase(settings.DATABASE_URL, {
    onConnectionLost: (error) => logger.warn({ error }, 'connection to PostgreSQL lost'),
    onQuery: metrics.queryEnded,
  });
  const directory = createWorkspaceDirectory({ db, settings, logger });
  const services = createWorkspaceServices(settings, directory);
  onShutdown(logger, SHUTDOWN_GRACE_MS + 5_000, async () => {
    stopping.abort();
    running.worker?.shutdown();
    await running.finished;
    await background.settled();
    running.health?.close();
    await db.close();
  });
  if (settings.WORKER_HEALTH_PORT)
    running.health = serveHealth(settings.WORKER_HEALTH_PORT, settings.HOST, metrics, () => readinessOf(running));
  const onMissingAttributes = (names: string[]) => {
    running.missingAttributes = names;
  };
  // Before Temporal is reached, because its outage is a cause of alerts.
  startAlerting({ settings, db, logger, signal: stopping.signal });
  const { worker, client } = await startWorker({
    ...{ settings, environment, db, directory, services, background, logger, metrics, onMissingAttributes, signal: stopping.signal },
  });
  running.worker = worker;
  running.finished = running.worker.run();
  const workspaceOf = watchedWorkspaces(services, directory);
  running.modelWatch = watchModels({ settings, workspaceOf, db, logger, signal: stopping.signal, callsModels: true });
  startRepairs({ settings, db, client, logger, signal: stopping.signal });
  const { deploymentName, buildId } = running.worker.options.workerDeploymentOptions?.version ?? {};
  logger.info({ taskQueue: settings.TEMPORAL_TASK_QUEUE, deploymentName, buildId, versioning: settings.WORKER_VERSIONING }, 'worker ready');
  await running.finished;
}

async function startWorker(parts: {
  settings: Settings & { DATABASE_URL: string };
  environment: NodeJS.ProcessEnv;
  db: Database;
  directory: WorkspaceDirectory;
  services: ServicesByWorkspace;
  background: BackgroundWork;
  logger: Logger;
  metrics: WorkerMetrics;
  onMissingAttributes(names: string[]): void;
  signal: AbortSignal;
}): Promise<{ worker: Worker; client: Client }> {
  const { settings, environment, db, directory, services, background, logger, metrics, signal } = parts;
  const retry = createStartupRetry(logger, signal);
  const config = temporalConfig(environment);
  const models = createLanguageModels(settings);
  logModelProviders(models, settings, logger);
  const bundle = await workflowBundle();
  const identity = await retry('PostgreSQL is not ready', async () => {
    await reachDatabase(db, settings.DATABASE_URL);
    await ensureFirstWorkspace(db.orm, settings);
    // From here on, the workspaces stay known during an outage of the database.
    await directory.current(0);
    return await loadIdentity(db.orm);
  });
  const starting = openTemporalClient(config);
  await retry('Temporal is not ready', async () => {
    await reachTemporal(starting, config);
    await ensureSearchAttributes(starting, parts.onMissingAttributes);
  });
  await retry('Temporal is not ready', () => ensureRetentionSchedule(starting, settings, logger));
  const watched = watchSilentConversations({ db, temporal: starting, taskQueue: settings.TEMPORAL_TASK_QUEUE, logger, signal });
  background.track(watched.then(() => starting.connection.close()).catch(() => undefined));
  const connection = await retry('Temporal is not ready', () => NativeConnection.connect({ ...config.connectionOptions, ...compression }));
  const client = new Client({ connection, namespace: config.namespace });
  const signaller = createWorkflowSignaller(client);
  const handOverDependencies = {
    ...{ db, identity, logger, signaller, statuses: createStatusKeeper({ db, signaller, logger }) },
    ...{ taskQueue: settings.TEMPORAL_TASK_QUEUE, defaultPhoneNumberId: settings.KAPSO_PHONE_NUMBER_ID },
  };
  const worker = await Worker.create({
    connection,
    namespace: config.namespace,
    taskQueue: settings.TEMPORAL_TASK_QUEUE,
    workflowBundle: bundle,
    workerDeploymentOptions: deploymentOptions(settings, bundle.hash),
    activities: createActivities({
      db,
      identity,
      background,
      services,
      logger,
      metrics,
      limits: {
        modelAttemptMs: settings.MODEL_TIMEOUT_MS,
        providerAttemptMs: requestTimeouts(settings),
        turnMs: settings.TURN_TIMEOUT_MS,
      },
      answerLimits: { withinMs: settings.ANSWER_WITHIN_HOURS * 60 * 60_000, repliesPerHour: settings.REPLIES_PER_HOUR },
      taskQueue: settings.TEMPORAL_TASK_QUEUE,
      followUpText: settings.CALL_FOLLOW_UP_TEXT,
      callbacks: createCallbackClient({ ...callbackSettings(settings), timeoutMs: CALLBACK_TIMEOUT_MS }),
      archiveDir: join(settings.DATA_DIR, 'archive', 'calls'),
      kapsoAccount: kapsoAccounts(settings, directory),
      collectListed: (phoneNumberId) => createListedCollector(phoneNumberId, handOverDependencies),
      publicUrl: settings.PUBLIC_URL,
      resumesWebhook: settings.KAPSO_RESUME_WEBHOOK,
      repairs: settings.REPAIR_MINUTES > 0,
    }),
    ...stickyTimeout,
    ...polls,
    ...slots,
    shutdownGraceTime: SHUTDOWN_GRACE_MS,
  });
  return { worker, client };
}

/** Each number's access to Kapso, with its workspace's key or that of the environment. Requests with the same key share one rate limit. */
function kapsoAccounts(settings: Settings, directory: WorkspaceDirectory): (phoneNumberId: string) => Promise<KapsoAccount | undefined> {
  const accounts = new Map<string, KapsoAccount>();
  return async (phoneNumberId) => {
    const workspace = await directory.find(({ byKapsoNumber }) => byKapsoNumber.get(phoneNumberId));
    const { KAPSO_API_KEY: apiKey, KAPSO_BASE_URL: baseUrl } = workspace?.settings ?? settings;
    if (apiKey === undefined) return undefined;
    const project = { baseUrl, apiKey };
    const known = accounts.get(apiKey) ?? { project, lists: createKapsoLists(project, createPacer(settings.KAPSO_READS_PER_MINUTE)) };
    accounts.set(apiKey, known);
    return known;
  };
}

/** Routes the SDK's logs to our logger, leaves signals to `onShutdown`, and serves the SDK's metrics at `sdkMetricsAddress`. */
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

function logModelProviders(models: LanguageModels, settings: Settings, logger: Logger): void {
  const wanted = settings.AI_PROVIDERS?.map((entry) => entry.split(':')[0] ?? '') ?? PROVIDER_NAMES.filter((name) => name !== 'sandbox');
  const withoutKey = wanted.filter((name) => !models.available.some((available) => available === name));
  logger.info({ available: models.available, withoutKey }, 'model providers; those without a key are skipped');
}

/**
 * Picks a free port, because the SDK does not report which one it bound. The port is not reserved: if another process takes it
 * first, the start fails.
 */
async function freeLoopbackAddress(): Promise<string> {
  const server = createTcpServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return `127.0.0.1:${port}`;
}

/** Generous: the SDK serves its metrics from memory, over loopback. */
const SDK_METRICS_TIMEOUT_MS = 1_000;

async function readSdkMetrics(address: string | undefined): Promise<string> {
  if (!address) return '';
  const get = (signal: AbortSignal) => sendRequest(`http://${address}/metrics`, { method: 'GET', headers: {}, signal });
  return (await withDeadline(SDK_METRICS_TIMEOUT_MS, get)).text;
}

interface Readiness {
  ready: boolean;
  /** Search attributes that the Temporal namespace lacks and that we could not add. */
  missingSearchAttributes?: string[];
  /** Problems that need a person but do not keep the worker from being ready. */
  warnings?: ModelWarning[];
}

interface RunningParts {
  worker?: Worker;
  modelWatch?: ModelWatch;
  missingAttributes?: string[];
}

function readinessOf({ worker, modelWatch, missingAttributes }: RunningParts): Readiness {
  const warnings = modelWatch?.warnings() ?? [];
  if (worker) return { ready: worker.getState() === 'RUNNING', ...(warnings.length > 0 ? { warnings } : {}) };
  return { ready: false, ...(missingAttributes?.length && { missingSearchAttributes: missingAttributes }) };
}

/** Serves `/healthz` and `/readyz` for orchestrators and `/metrics` for Prometheus. */
function serveHealth(port: number, host: string | undefined, metrics: ProcessMetrics, readiness: () => Readiness): Server {
  const server = createServer((request, response) => {
    const path = request.url?.split('?', 1)[0];
    if (path === '/metrics') return void sendMetrics(response, metrics);
    const state = path === '/readyz' ? readiness() : { alive: true, ready: true };
    response.writeHead(state.ready ? 200 : 503, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(path === '/readyz' ? state : { alive: true }));
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

// biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
runProcess('worker', main, process.env);
