/** The HTTP application: webhook, REST API and health, over whatever the process has opened. */
import type { Client } from '@temporalio/client';
import express, { type Express } from 'express';
import { requireApiKey } from './api/access';
import type { CallWaiters } from './api/call-waiters';
import { callRoutes } from './api/calls';
import { conversationRoutes } from './api/conversations';
import { docsRoutes } from './api/docs';
import { errorHandler, notFound } from './api/errors';
import { healthRoutes } from './api/health';
import { measureRequests, pathFinder, refuseWrongMethods } from './api/known-paths';
import { apiPaths, openApiDocument } from './api/openapi';
import { createRateLimits } from './api/rate-limit';
import { recordingRoutes } from './api/recording';
import type { Settings } from './config';
import type { Database } from './database';
import type { Logger } from './logger';
import type { ApiMetrics } from './metrics';
import { VAPI_WEBHOOK_PATH } from './providers/vapi';
import type { HandOverDependencies } from './webhooks/hand-over';
import { kapsoWebhook, WEBHOOK_PATHS } from './webhooks/kapso';
import { measureWebhooks } from './webhooks/measure';
import { vapiWebhook } from './webhooks/vapi';

export interface AppDependencies {
  settings: Settings;
  db: Database;
  temporal: Client;
  logger: Logger;
  metrics: ApiMetrics;
  waiters: CallWaiters;
  handOverDependencies(): HandOverDependencies | undefined;
}

/** Builds the application; it listens nowhere yet. What stands in front of the webhooks is paid by each of them: look-ups in memory only. */
export function createApp({ settings, db, temporal, logger, metrics, waiters, handOverDependencies }: AppDependencies): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.set('trust proxy', settings.TRUST_PROXY_HOPS);
  const limits = createRateLimits(settings);
  const withKey = requireApiKey(settings.API_KEYS, limits);
  const findPath = pathFinder(apiPaths);
  app.use(measureRequests(findPath, metrics), refuseWrongMethods(findPath));

  app.use(WEBHOOK_PATHS, measureWebhooks('kapso', metrics), limits.webhooks());
  app.use(
    kapsoWebhook({
      secrets: settings.KAPSO_WEBHOOK_SECRET,
      verifyToken: settings.KAPSO_WEBHOOK_TOKEN,
      logShapes: settings.DEBUG_WEBHOOK,
      logger,
      handOverDependencies,
    }),
  );
  app.use(VAPI_WEBHOOK_PATH, measureWebhooks('vapi', metrics), limits.webhooks());
  app.use(vapiWebhook({ settings, logger, handOverDependencies }));
  app.use('/api/v1/conversations', withKey, conversationRoutes(db.orm));
  const vapi = { baseUrl: settings.VAPI_BASE_URL, apiKey: settings.VAPI_API_KEY };
  const identity = () => handOverDependencies()?.identity;
  app.use(
    '/api/v1/vapi/calls',
    withKey,
    callRoutes({ settings, db, temporal, waiters, logger, identity }),
    recordingRoutes({ db, logger, vapi }),
  );

  app.use(healthRoutes({ temporal, db, metrics, waiters, isStarted: () => handOverDependencies() !== undefined }));
  app.use(['/openapi.json', '/docs'], limits.open);
  app.use(docsRoutes(openApiDocument()));
  app.use(notFound);
  app.use(errorHandler(logger));
  return app;
}
