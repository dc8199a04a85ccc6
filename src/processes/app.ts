/** Assembles the HTTP application: webhooks, REST API, health and documentation. */

import type { RequestListener } from 'node:http';
import type { Client } from '@temporalio/client';
import express from 'express';
import { createAttentionQueue } from '../api/attention-queue';
import { auditRoutes } from '../api/audit';
import type { CallWaiters } from '../api/call-waiters';
import { callRoutes } from '../api/calls';
import { createConversationEnd } from '../api/conversation-ends';
import { conversationModeRoutes } from '../api/conversation-modes';
import { conversationRoutes } from '../api/conversations';
import { deadLetterRoutes } from '../api/dead-letters';
import { handMessageRoutes } from '../api/hand-messages';
import { keyRoutes } from '../api/keys';
import { messageRoutes } from '../api/messages';
import { metricsRoutes } from '../api/metrics';
import { modeRoutes } from '../api/modes';
import { noteRoutes } from '../api/notes';
import { parkedMessageRoutes } from '../api/parked-messages';
import { recordingRoutes } from '../api/recording';
import { sessionResultRoutes } from '../api/session-result';
import { syncRoutes } from '../api/workspace-sync';
import { webhookRoutes } from '../api/workspace-webhook';
import { workspaceRoutes } from '../api/workspaces';
import { requireApiKey } from '../http/access';
import { docsRoutes } from '../http/docs';
import { errorHandler, notFound } from '../http/errors';
import { healthRoutes } from '../http/health';
import { measureRequests, pathFinder, refuseWrongMethods } from '../http/paths';
import { createRateLimits } from '../http/rate-limits';
import { webhookIngress } from '../http/webhook-ingress';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import type { ApiMetrics } from '../platform/metrics';
import { findKeyHolder } from '../record/api-keys';
import { countRecord } from '../record/counts';
import { createWorkspaceDirectory, type WorkspaceDirectory } from '../record/workspace-directory';
import type { HandOverDependencies } from '../webhooks/hand-over';
import { handshakeRoutes, kapsoWebhook } from '../webhooks/kapso';
import { createReplay } from '../webhooks/replay';
import { vapiWebhook } from '../webhooks/vapi';
import { requestSend } from './conversation-signals';
import { apiPaths, openApiDocument } from './openapi';

export interface AppDependencies {
  settings: Settings;
  db: Database;
  temporal: Client;
  logger: Logger;
  metrics: ApiMetrics;
  waiters: CallWaiters;
  /** Default: one of its own. */
  directory?: WorkspaceDirectory;
  handOverDependencies(): HandOverDependencies | undefined;
  /** Whether Temporal and PostgreSQL were reached since the start (default: true). */
  isStarted?(): boolean;
  /** Shown on /readyz. */
  warnings?(): { kind: string; text: string }[];
  missingSearchAttributes?(): string[];
}

/** Builds the application as a request listener; the caller starts the server. */
export function createApp(dependencies: AppDependencies): RequestListener {
  const { settings, db, temporal, logger, metrics, waiters, handOverDependencies } = dependencies;
  const { isStarted = () => true, warnings = () => [], missingSearchAttributes = () => [] } = dependencies;
  const directory = dependencies.directory ?? createWorkspaceDirectory({ db, settings, logger });
  const limits = createRateLimits(settings);
  const findPath = pathFinder(apiPaths);
  const secrets = settings.KAPSO_WEBHOOK_SECRET;
  const webhooks = [
    kapsoWebhook({ secrets, directory, logShapes: settings.DEBUG_WEBHOOK, logger, handOverDependencies }),
    vapiWebhook({ settings, directory, logger, handOverDependencies }),
  ];
  const takeWebhook = webhookIngress(webhooks, { findPath, limits, metrics, logger });

  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.use(measureRequests(findPath, metrics), refuseWrongMethods(findPath));
  app.use(handshakeRoutes(settings.KAPSO_WEBHOOK_TOKEN, limits.open));
  const findKey = (keyHash: string) => fromRecord(findKeyHolder(db, keyHash));
  const withKey = requireApiKey({ keys: settings.API_KEYS, findKey, findPath, limits });
  const identity = () => handOverDependencies()?.identity;
  const taskQueue = settings.TEMPORAL_TASK_QUEUE;
  const queue = createAttentionQueue({ db, waiters, logger });
  app.use(
    '/api/v1/conversations',
    withKey,
    conversationRoutes(db, queue),
    noteRoutes({ db, identity }),
    sessionResultRoutes({ db, temporal, waiters, logger }),
    conversationModeRoutes({ db, temporal, taskQueue, logger }),
    handMessageRoutes({ db, logger, requestSend: (workflowId, fact) => requestSend(temporal, taskQueue, workflowId, fact) }),
  );
  app.use('/api/v1/messages', withKey, messageRoutes({ db, waiters, logger }));
  app.use(['/api/v1/mode', '/api/v1/workspaces/:id/mode'], withKey);
  app.use('/api/v1', modeRoutes({ db, logger }));
  app.use('/api/v1/metrics', withKey, metricsRoutes({ db, settings }));
  app.use('/api/v1/audit', withKey, auditRoutes(db));
  const endConversations = createConversationEnd({ temporal, taskQueue: settings.TEMPORAL_TASK_QUEUE, logger });
  app.use('/api/v1/workspaces', withKey, workspaceRoutes({ settings, db, directory, logger, endConversations }), keyRoutes(db));
  app.use('/api/v1/parked-messages', withKey, parkedMessageRoutes(db));
  const replay = createReplay({ settings, logger, handOverDependencies });
  app.use('/api/v1/dead-letters', withKey, deadLetterRoutes({ db, logger, replay }));
  const settingsOf = async (workspaceId: string | null) => {
    const workspace = workspaceId === null ? undefined : await fromRecord(directory.find(({ byId }) => byId.get(workspaceId)));
    return workspace?.settings ?? settings;
  };
  app.use(
    '/api/v1/workspaces',
    withKey,
    syncRoutes({ settings, settingsOf, db, temporal, logger }),
    webhookRoutes({ settingsOf, shared: settings, db, logger }),
  );
  app.use(
    '/api/v1/vapi/calls',
    withKey,
    callRoutes({ settings, settingsOf, db, temporal, waiters, logger, identity }),
    recordingRoutes({ db, logger, settingsOf }),
  );

  app.use(
    healthRoutes({
      temporal,
      db,
      metrics,
      countWaiters: () => waiters.counts(),
      countRecord: () => countRecord(db),
      isStarted,
      warnings,
      missingSearchAttributes,
    }),
  );
  app.use(['/openapi.json', '/docs'], limits.open);
  app.use(docsRoutes(openApiDocument()));
  app.use(notFound);
  app.use(errorHandler(logger));
  return (request, response) => {
    if (!takeWebhook(request, response)) app(request, response);
  };
}
