/** The API process: stateless, any number of it. Starts while Temporal or PostgreSQL is away and says so in `/readyz`. */

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { Client } from '@temporalio/client';
import { createCallWaiters } from '../api/call-waiters';
import { refuseUnread } from '../http/errors';
import { loadEnvFile, readSettings, requireSettings, type Settings } from '../platform/config';
import { type Database, openDatabase } from '../platform/database';
import { onShutdown, patiently, runProcess } from '../platform/lifecycle';
import { createLogger, type Logger } from '../platform/logger';
import { createApiMetrics } from '../platform/metrics';
import { openTemporalClient, temporalConfig } from '../platform/temporal';
import { loadIdentity } from '../record/identity';
import { ensureFirstWorkspace } from '../record/workspaces';
import type { HandOverDependencies } from '../webhooks/hand-over';
import { createWorkflowSignaller } from '../webhooks/signaller';
import { createStatusKeeper } from '../webhooks/statuses';
import { createApp } from './app';
import { ensureSearchAttributes } from './search-attributes';

/** A request takes at most this long to finish when the process is told to stop. */
const SHUTDOWN_LIMIT_MS = 15_000;

/** Longer than the minute for which proxies and senders keep a connection: who closes second gets no reset. */
const KEEP_ALIVE_MS = 65_000;

/** How soon a connection that has become idle is closed while the process stops. */
const IDLE_SWEEP_MS = 50;

async function main(environment: NodeJS.ProcessEnv): Promise<void> {
  const settings = requireSettings(readSettings(environment), {
    DATABASE_URL: 'the API needs the record',
    KAPSO_WEBHOOK_SECRET: 'without a secret anybody could send messages to the webhook',
  });
  const logger = createLogger('api', settings.LOG_LEVEL);
  const metrics = createApiMetrics();
  const db = openDatabase(settings.DATABASE_URL, {
    onConnectionLost: (error) => logger.warn({ error }, 'connection to PostgreSQL lost'),
    onQuery: metrics.queryEnded,
  });
  const temporal = openTemporalClient(temporalConfig(environment));
  let handOverDependencies: HandOverDependencies | undefined;
  const waiters = createCallWaiters({ temporal, logger });
  const app = createApp({ settings, db, temporal, logger, metrics, waiters, handOverDependencies: () => handOverDependencies });
  const server = createServer(app).listen({ port: settings.PORT, host: settings.HOST });
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.on('clientError', refuseUnread);
  const stopping = new AbortController();
  onShutdown(logger, SHUTDOWN_LIMIT_MS, async () => {
    stopping.abort();
    // Who waits for a call is answered as it stands, and asks again elsewhere.
    waiters.close();
    await closeServer(server);
    await temporal.connection.close();
    await db.close();
  });
  await once(server, 'listening');
  logger.info({ port: settings.PORT }, 'api listening');
  handOverDependencies = await prepare({ settings, db, temporal, logger, signal: stopping.signal });
  logger.info('api ready');
}

/** What a webhook needs: the installation's key, the first workspace, the search attributes. Tried until it works. */
async function prepare(parts: {
  settings: Settings;
  db: Database;
  temporal: Client;
  logger: Logger;
  signal: AbortSignal;
}): Promise<HandOverDependencies> {
  const { settings, db, temporal, logger, signal } = parts;
  const keepTrying = patiently(logger, signal);
  const identity = await keepTrying('PostgreSQL is not ready', async () => {
    await ensureFirstWorkspace(db.orm, settings);
    return await loadIdentity(db.orm);
  });
  await keepTrying('Temporal is not ready', () => ensureSearchAttributes(temporal));
  return {
    ...{ db, identity, logger },
    signaller: createWorkflowSignaller(temporal),
    taskQueue: settings.TEMPORAL_TASK_QUEUE,
    statuses: createStatusKeeper({ db, temporal, logger }),
    defaultPhoneNumberId: settings.KAPSO_PHONE_NUMBER_ID,
  };
}

/** Stops taking connections and waits for the requests that run. */
async function closeServer(server: Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  server.closeIdleConnections();
  // A connection is idle only after the answer that it still carries, and its other side may want to keep it.
  const sweep = setInterval(() => server.closeIdleConnections(), IDLE_SWEEP_MS);
  await closed;
  clearInterval(sweep);
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: the entry of a process hands its environment to the one reader of settings
runProcess('api', main, process.env);
