/** The API in the test process, behind proxies to PostgreSQL and Temporal, for tests that inspect it or cut it off. No worker. */

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Client } from '@temporalio/client';
import { type CallWaiters, createCallWaiters } from '../../src/api/call-waiters';
import { readSettings } from '../../src/platform/config';
import { type Database, openDatabase } from '../../src/platform/database';
import { createLogger } from '../../src/platform/logger';
import { createApiMetrics } from '../../src/platform/metrics';
import { openTemporalClient } from '../../src/platform/temporal';
import { createApp } from '../../src/processes/app';
import { ensureSearchAttributes } from '../../src/processes/search-attributes';
import { loadIdentity } from '../../src/record/identity';
import { createWorkflowSignaller } from '../../src/webhooks/signaller';
import { createStatusKeeper } from '../../src/webhooks/statuses';
import { testDatabase, testTemporal } from './engine';
import { startProxy, type TcpProxy } from './proxy';
import { API_KEY, VAPI_WEBHOOK_SECRET } from './system';

/** A second valid API key. */
export const OTHER_API_KEY = 'other-test-api-key';

/** A running API. */
export interface TestApi {
  apiUrl: string;
  server: Server;
  /** Connects directly, not through the proxy. */
  db: Database;
  /** The API's own, which connects through the proxy. */
  itsDb: Database;
  /** Connects directly, not through the proxy. */
  temporal: Client;
  /** The API's own client, which connects through the proxy. */
  itsTemporal: Client;
  postgresProxy: TcpProxy;
  temporalProxy: TcpProxy;
  waiters: CallWaiters;
  /** The abort signals of the waits that the API requested, in order. */
  waitedFor: AbortSignal[];
  logLines: string[];
  /** Starts a second API with other settings. Resolves to its URL. */
  another(environment: Record<string, string>): Promise<string>;
  close(): Promise<void>;
}

/** Starts the API on a new database whose name begins with `name` (a-z, 0-9, _). `settings`: added to those below. */
export async function startTestApi(name: string, settings: Record<string, string> = {}): Promise<TestApi> {
  const database = await testDatabase(name);
  const { address, namespace } = testTemporal();
  const [postgresProxy, temporalProxy] = await Promise.all([startProxy(new URL(database.url).host), startProxy(address)]);
  const proxied = new URL(database.url);
  proxied.port = String(postgresProxy.port);
  const db = openDatabase(database.url);
  const itsDb = openDatabase(proxied.href);
  const temporal = openTemporalClient({ connectionOptions: { address }, namespace });
  const itsTemporal = openTemporalClient({ connectionOptions: { address: `127.0.0.1:${temporalProxy.port}` }, namespace });
  await ensureSearchAttributes(temporal);
  const logLines: string[] = [];
  const logger = createLogger('api', 'debug', { write: (line) => logLines.push(line) });
  const waitedFor: AbortSignal[] = [];
  const real = createCallWaiters({ temporal: itsTemporal, logger });
  const waiters: CallWaiters = {
    ...real,
    wait(workflowId, timeoutMs, left) {
      waitedFor.push(left);
      return real.wait(workflowId, timeoutMs, left);
    },
  };
  const environment = {
    API_KEYS: `${API_KEY},${OTHER_API_KEY}`,
    VAPI_API_KEY: 'test-vapi-key',
    VAPI_ASSISTANT_ID: 'assistant-1',
    VAPI_PHONE_NUMBER_ID: 'number-1',
    VAPI_WEBHOOK_SECRET,
    CALLBACK_ALLOWED_HOSTS: 'hooks.example',
    CALLBACK_SIGNING_SECRET: `whsec_${randomBytes(32).toString('base64')}`,
    TEMPORAL_TASK_QUEUE: `test-${randomBytes(5).toString('hex')}`,
    ...settings,
  };
  const identity = await loadIdentity(db.orm);
  const servers: Server[] = [];
  const serve = async (extra: Record<string, string> = {}) => {
    const settings = readSettings({ ...environment, ...extra });
    const signaller = createWorkflowSignaller(itsTemporal);
    const statuses = createStatusKeeper({ db: itsDb, signaller, logger });
    const ready = { signaller, taskQueue: settings.TEMPORAL_TASK_QUEUE, db: itsDb, identity, logger, statuses };
    const handOverDependencies = () => ({ ...ready, defaultPhoneNumberId: undefined });
    const metrics = createApiMetrics();
    const app = createApp({ settings, db: itsDb, temporal: itsTemporal, logger, metrics, waiters, handOverDependencies });
    const server = createServer(app).listen(0, '127.0.0.1');
    servers.push(server);
    await once(server, 'listening');
    return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
  };
  const { server, url: apiUrl } = await serve();
  return {
    ...{ apiUrl, server, db, itsDb, temporal, itsTemporal, postgresProxy, temporalProxy, waiters, waitedFor, logLines },
    another: async (extra) => (await serve(extra)).url,
    async close() {
      waiters.close();
      for (const each of servers) {
        each.closeAllConnections();
        each.close();
      }
      await Promise.all([temporal.connection.close(), itsTemporal.connection.close(), db.close(), itsDb.close()]);
      await Promise.all([postgresProxy.close(), temporalProxy.close()]);
      await database.drop();
    },
  };
}
