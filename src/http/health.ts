/**
 * `/healthz`, `/readyz` and `/metrics`. No key and no rate limit: probes and scrapers ask often, from one address, and a rejection would
 * look like an outage. They return states and counts only; a proxy must block /metrics from the public.
 */
import type { Client } from '@temporalio/client';
import { Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { type Database, isDatabaseReachable } from '../platform/database';
import type { ApiMetrics, RecordCounts, WaiterCounts } from '../platform/metrics';
import { isTemporalReachable } from '../platform/temporal';
import { guardedProblems } from './errors';

/** Timeout of /readyz for Temporal and for PostgreSQL, and of a scrape for PostgreSQL. */
const PROBE_TIMEOUT_MS = 2_000;

const aliveSchema = z.object({ alive: z.literal(true) }).meta({ id: 'Alive' });
const readySchema = z
  .object({
    ready: z.boolean().meta({ description: 'Whether all of the others are true.' }),
    temporal: z.boolean().meta({ description: 'Temporal is reachable.' }),
    postgres: z.boolean().meta({ description: 'PostgreSQL is reachable.' }),
    started: z.boolean().meta({ description: 'Startup is complete.' }),
    warnings: z
      .array(z.object({ kind: z.string(), text: z.string() }))
      .optional()
      .meta({ description: 'Problems that a person should look at; they do not affect `ready`. Left out if there are none.' }),
    missingSearchAttributes: z.array(z.string()).optional().meta({
      description: 'Search attributes that the Temporal namespace lacks and that Parley could not add; no workflow can start without them.',
    }),
  })
  .meta({ id: 'Readiness' });

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });

export const healthPaths: ZodOpenApiPathsObject = {
  '/healthz': {
    get: {
      tags: ['Operation'],
      summary: 'Check whether the process is alive',
      operationId: 'isAlive',
      responses: { 200: { description: 'The process is alive.', content: json(aliveSchema) } },
    },
  },
  '/readyz': {
    get: {
      tags: ['Operation'],
      summary: 'Check whether the process accepts webhooks',
      operationId: 'isReady',
      responses: {
        200: { description: 'The process is ready.', content: json(readySchema) },
        503: { description: 'The process is not ready; the body says why.', content: json(readySchema) },
      },
    },
  },
  '/metrics': {
    get: {
      tags: ['Operation'],
      summary: 'Prometheus metrics',
      operationId: 'getMetrics',
      responses: {
        200: { description: 'Prometheus text format, version 0.0.4.', content: { 'text/plain': { schema: z.string() } } },
        500: guardedProblems[500],
      },
    },
  },
};

export interface HealthOptions {
  temporal: Client;
  db: Database;
  metrics: ApiMetrics;
  /** Requests that wait for calls, and the Temporal requests behind them. */
  countWaiters(): WaiterCounts;
  countRecord(): Promise<RecordCounts>;
  isStarted(): boolean;
  /** Problems that need a person but do not keep the process from being ready. */
  warnings(): { kind: string; text: string }[];
  /** Search attributes without which the startup cannot complete. */
  missingSearchAttributes(): string[];
}

/** Routes of health and metrics. */
export function healthRoutes(options: HealthOptions): Router {
  const { temporal, db, metrics, countWaiters, countRecord, isStarted, warnings, missingSearchAttributes } = options;
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
    const missing = started ? [] : missingSearchAttributes();
    const body: z.input<typeof readySchema> = {
      ...{ ready, temporal: temporalIsUp, postgres: databaseIsUp, started },
      ...some(warnings()),
      ...(missing.length > 0 && { missingSearchAttributes: missing }),
    };
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

function some<T>(warnings: T[]): { warnings?: T[] } {
  return warnings.length > 0 ? { warnings } : {};
}

/** At most one read at a time, shared by all scrapes: the query of a scrape that timed out keeps running until PostgreSQL cancels it. */
function sharedWhileRunning<T>(read: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined;
  return () => {
    running ??= read().finally(() => {
      running = undefined;
    });
    return running;
  };
}

/** Undefined if it fails or times out. */
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
