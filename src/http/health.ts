/**
 * `/healthz`, `/readyz` and `/metrics`. No key and no limit: probes and scrapers come often, from one address, and a
 * refusal would look like an outage. They tell states and counts only; a proxy keeps /metrics from the public.
 */
import type { Client } from '@temporalio/client';
import { Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { type Database, isDatabaseReachable } from '../platform/database';
import type { ApiMetrics, RecordCounts, WaiterCounts } from '../platform/metrics';
import { isTemporalReachable } from '../platform/temporal';
import { guardedProblems } from './errors';

/** A health probe waits this long for either side, a scrape for the record. */
const PROBE_TIMEOUT_MS = 2_000;

const aliveSchema = z.object({ alive: z.literal(true) }).meta({ id: 'Alive' });
const readySchema = z
  .object({
    ready: z.boolean().meta({ description: 'All of the others.' }),
    temporal: z.boolean().meta({ description: 'Temporal answers.' }),
    postgres: z.boolean().meta({ description: 'PostgreSQL answers.' }),
    started: z.boolean().meta({ description: 'What webhooks need was loaded once.' }),
  })
  .meta({ id: 'Readiness' });

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });

export const healthPaths: ZodOpenApiPathsObject = {
  '/healthz': {
    get: {
      tags: ['Operation'],
      summary: 'The process lives',
      operationId: 'isAlive',
      responses: { 200: { description: 'It does.', content: json(aliveSchema) } },
    },
  },
  '/readyz': {
    get: {
      tags: ['Operation'],
      summary: 'The process takes webhooks',
      operationId: 'isReady',
      responses: {
        200: { description: 'It does.', content: json(readySchema) },
        503: { description: 'Something is missing; the body names it.', content: json(readySchema) },
      },
    },
  },
  '/metrics': {
    get: {
      tags: ['Operation'],
      summary: 'Counts and durations for Prometheus',
      operationId: 'getMetrics',
      responses: {
        200: { description: 'Prometheus text, version 0.0.4.', content: { 'text/plain': { schema: z.string() } } },
        500: guardedProblems[500],
      },
    },
  },
};

export interface HealthOptions {
  temporal: Client;
  db: Database;
  metrics: ApiMetrics;
  /** Requests that wait for calls, and what that costs at Temporal. */
  countWaiters(): WaiterCounts;
  countRecord(): Promise<RecordCounts>;
  isStarted(): boolean;
}

/** Routes of the operation side. */
export function healthRoutes({ temporal, db, metrics, countWaiters, countRecord, isStarted }: HealthOptions): Router {
  const router = Router();
  router.get('/healthz', (_request, response) => {
    response.json({ alive: true } satisfies z.input<typeof aliveSchema>);
  });
  router.get('/readyz', async (_request, response) => {
    const [temporalIsUp, databaseIsUp] = await Promise.all([
      isTemporalReachable(temporal, PROBE_TIMEOUT_MS),
      isDatabaseReachable(db, PROBE_TIMEOUT_MS),
    ]);
    const started = isStarted();
    const ready = temporalIsUp && databaseIsUp && started;
    const body: z.input<typeof readySchema> = { ready, temporal: temporalIsUp, postgres: databaseIsUp, started };
    response.status(ready ? 200 : 503).json(body);
  });
  const counts = sharedWhileRunning(countRecord);
  router.get('/metrics', async (_request, response) => {
    metrics.setWaiterCounts(countWaiters());
    metrics.setRecordCounts(await withinTime(counts(), PROBE_TIMEOUT_MS));
    response.set('Content-Type', metrics.contentType).send(await metrics.text());
  });
  return router;
}

/** One reading at a time, however many ask: a scrape that gave up leaves its query running until PostgreSQL cancels it. */
function sharedWhileRunning<T>(read: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined;
  return () => {
    running ??= read().finally(() => {
      running = undefined;
    });
    return running;
  };
}

/** Undefined when it fails or takes longer. */
async function withinTime<T>(answer: Promise<T>, timeoutMs: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const tooSlow = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), timeoutMs);
  });
  try {
    return await Promise.race([answer.catch(() => undefined), tooSlow]);
  } finally {
    clearTimeout(timer);
  }
}
