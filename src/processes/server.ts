/** The API process. Stateless; run any number. Starts even if Temporal or PostgreSQL is unreachable; `/readyz` reports that. */

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { createCallWaiters } from '../api/call-waiters';
import { refuseUnread } from '../http/errors';
import { loadEnvFile, readSettings, requireSettings, requireWhatsAppSetting, type Settings } from '../platform/config';
import { type Database, openDatabase, reachDatabase } from '../platform/database';
import { createStartupRetry, onShutdown, runProcess } from '../platform/lifecycle';
import { createLogger } from '../platform/logger';
import { createApiMetrics } from '../platform/metrics';
import { openTemporalClient, reachTemporal, temporalConfig } from '../platform/temporal';
import { type Identity, loadIdentity } from '../record/identity';
import type { SpoolDepth } from '../record/spool';
import { createWorkspaceDirectory, type WorkspaceDirectory } from '../record/workspace-directory';
import { ensureFirstWorkspace } from '../record/workspaces';
import type { HandOverDependencies } from '../webhooks/hand-over';
import { releaseParkedMessages } from '../webhooks/parked-messages';
import { createTemporalSender, signallerOver } from '../webhooks/signaller';
import { createSpool } from '../webhooks/spool';
import { relaySpool, spoolText } from '../webhooks/spool-relay';
import { createStatusKeeper } from '../webhooks/statuses';
import { createLateEventTaker } from '../webhooks/take-late-events';
import { createApp } from './app';
import { type ModelWatch, watchModels } from './model-watch';
import { triggerRepairs } from './repairs';
import { ensureSearchAttributes } from './search-attributes';
import { createWorkspaceServices, watchedWorkspaces } from './workspace-services';

/** How long requests may take to finish at shutdown. */
const SHUTDOWN_LIMIT_MS = 15_000;

/** Longer than the 60 s of common proxies and clients, so that they close an idle connection first and never hit a reset. */
const KEEP_ALIVE_MS = 65_000;

/** Limits for slow senders. Providers give up after 10 s; a long poll has sent its request long before it is answered. */
const SLOW_SENDER_LIMITS = { headersTimeout: 10_000, requestTimeout: 15_000, connectionsCheckingInterval: 2_000 };

/** How often idle connections are closed during shutdown. */
const IDLE_SWEEP_MS = 50;

/** Interval between looks for parked messages whose number has got a workspace. */
const RELEASE_INTERVAL_MS = 60_000;

async function main(environment: NodeJS.ProcessEnv): Promise<void> {
  const settings = requireSettings(readSettings(environment), { DATABASE_URL: 'the API needs a database' });
  requireWhatsAppSetting(settings, 'KAPSO_WEBHOOK_SECRET');
  const logger = createLogger('api', settings.LOG_LEVEL);
  const metrics = createApiMetrics();
  const db = openDatabase(settings.DATABASE_URL, {
    onConnectionLost: (error) => logger.warn({ error }, 'connection to PostgreSQL lost'),
    onQuery: metrics.queryEnded,
  });
  const temporalSettings = temporalConfig(environment);
  const temporal = openTemporalClient(temporalSettings);
  let missingSearchAttributes: string[] = [];
  let handOverDependencies: HandOverDependencies | undefined;
  const directory = createWorkspaceDirectory({ db, settings, logger });
  let isStarted = false;
  const sendNow = createTemporalSender(temporal);
  const spool = createSpool({ db, sendNow, logger });
  const waiters = createCallWaiters({ temporal, logger });
  let modelWatch: ModelWatch | undefined;
  let relaying: Promise<void> | undefined;
  const app = createApp({
    ...{ settings, db, directory, temporal, logger, metrics, waiters },
    handOverDependencies: () => handOverDependencies,
    isStarted: () => isStarted,
    warnings: () => [...(modelWatch?.warnings() ?? []), ...spoolWarnings(spool.depth())],
    missingSearchAttributes: () => missingSearchAttributes,
  });
  const server = createServer(SLOW_SENDER_LIMITS, app).listen({ port: settings.PORT, host: settings.HOST });
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.on('clientError', refuseUnread);
  const stopping = new AbortController();
  onShutdown(logger, SHUTDOWN_LIMIT_MS, async () => {
    stopping.abort();
    // Answers requests that wait for a call with its current state; clients ask another API process next.
    waiters.close();
    await closeServer(server);
    await relaying;
    await temporal.connection.close();
    await db.close();
  });
  await once(server, 'listening');
  logger.info({ port: settings.PORT }, 'api listening');
  const connectTemporal = async () => {
    await reachTemporal(temporal, temporalSettings);
    await ensureSearchAttributes(temporal, (names) => {
      missingSearchAttributes = names;
    });
  };
  const retry = createStartupRetry(logger, stopping.signal);
  const signaller = signallerOver(spool.send);
  handOverDependencies = {
    ...{ db, identity: await retry('PostgreSQL is not ready', () => prepareDatabase(db, directory, settings)), logger, signaller },
    taskQueue: settings.TEMPORAL_TASK_QUEUE,
    statuses: createStatusKeeper({ db, signaller, logger }),
    defaultPhoneNumberId: settings.KAPSO_PHONE_NUMBER_ID,
  };
  const checkTemporal = () => ensureSearchAttributes(temporal);
  const takeEvents = createLateEventTaker(settings, handOverDependencies);
  relaying = relaySpool({ db, databaseUrl: settings.DATABASE_URL, spool, sendNow, takeEvents, checkTemporal, logger }, stopping.signal);
  logger.info('api accepts webhooks');
  await retry('Temporal is not ready', connectTemporal);
  isStarted = true;
  keepReleasingParkedMessages(handOverDependencies, stopping.signal);
  void triggerRepairs({ db, client: temporal, logger });
  const workspaceOf = watchedWorkspaces(createWorkspaceServices(settings, directory), directory);
  modelWatch = watchModels({ settings, workspaceOf, db, logger, signal: stopping.signal, callsModels: false });
  logger.info('api ready');
}

/** Sets up what webhooks need from the database: the first workspace and the identity key. */
async function prepareDatabase(
  db: Database,
  directory: WorkspaceDirectory,
  settings: Settings & { DATABASE_URL: string },
): Promise<Identity> {
  await reachDatabase(db, settings.DATABASE_URL);
  await ensureFirstWorkspace(db.orm, settings);
  // From here on, webhooks are verified without the database.
  await directory.current(0);
  return await loadIdentity(db.orm);
}

function spoolWarnings(depth: SpoolDepth): { kind: string; text: string }[] {
  return depth.waiting > 0 ? [{ kind: 'spool', text: spoolText(depth) }] : [];
}

/** At the start and from time to time: whoever adds a workspace does not know which messages waited for it. */
function keepReleasingParkedMessages(dependencies: HandOverDependencies, signal: AbortSignal): void {
  const release = (ageMs?: number) =>
    releaseParkedMessages(dependencies, ageMs).catch((error: unknown) =>
      dependencies.logger.warn({ error }, 'parked messages could not be released; trying again'),
    );
  void release(0);
  const timer = setInterval(() => void release(), RELEASE_INTERVAL_MS).unref();
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
}

/** Stops accepting connections and waits for the requests in progress. */
async function closeServer(server: Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  server.closeIdleConnections();
  // A connection becomes idle once its response is sent, and the client may keep it open: close it then.
  const sweep = setInterval(() => server.closeIdleConnections(), IDLE_SWEEP_MS);
  await closed;
  clearInterval(sweep);
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
runProcess('api', main, process.env);
