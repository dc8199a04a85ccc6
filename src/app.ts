/** The HTTP application: webhook, REST API and health, over whatever the process has opened. */
import type { Client } from '@temporalio/client';
import express, { type Express } from 'express';
import { requireApiKey } from './api/access';
import { conversationRoutes } from './api/conversations';
import { errorHandler, notFound } from './api/errors';
import type { Settings } from './config';
import { type Database, isDatabaseReachable } from './database';
import type { Logger } from './logger';
import { isTemporalReachable } from './temporal';
import type { HandOverDependencies } from './webhooks/hand-over';
import { kapsoWebhook } from './webhooks/kapso';
import { vapiWebhook } from './webhooks/vapi';

export interface AppDependencies {
  settings: Settings;
  db: Database;
  temporal: Client;
  logger: Logger;
  handOverDependencies(): HandOverDependencies | undefined;
}

/** A health probe waits this long for either side. */
const PROBE_TIMEOUT_MS = 2_000;

/** Builds the application; it listens nowhere yet. */
export function createApp({ settings, db, temporal, logger, handOverDependencies }: AppDependencies): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.get('/healthz', (_request, response) => {
    response.json({ alive: true });
  });
  app.get('/readyz', async (_request, response) => {
    const [temporalIsUp, databaseIsUp] = await Promise.all([
      isTemporalReachable(temporal, PROBE_TIMEOUT_MS),
      isDatabaseReachable(db, PROBE_TIMEOUT_MS),
    ]);
    const started = handOverDependencies() !== undefined;
    const ready = temporalIsUp && databaseIsUp && started;
    response.status(ready ? 200 : 503).json({ ready, temporal: temporalIsUp, postgres: databaseIsUp, started });
  });
  app.use(
    kapsoWebhook({
      secrets: settings.KAPSO_WEBHOOK_SECRET,
      verifyToken: settings.KAPSO_WEBHOOK_TOKEN,
      logShapes: settings.DEBUG_WEBHOOK,
      logger,
      handOverDependencies,
    }),
  );
  app.use(vapiWebhook({ settings, logger, handOverDependencies }));
  app.use('/api/v1/conversations', requireApiKey(settings.API_KEYS), conversationRoutes(db.orm));
  app.use(notFound);
  app.use(errorHandler(logger));
  return app;
}
