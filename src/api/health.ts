/**
 * `/healthz`, `/readyz` and `/metrics`. No key and no limit: probes and scrapers come often, from one address, and a
 * refusal would look like an outage. They tell states and counts only; a proxy keeps /metrics from the public.
 */
import type { Client } from '@temporalio/client';
import { Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { type Database, isDatabaseReachable, sql } from '../database';
import type { ApiMetrics, RecordCounts } from '../metrics';
import { isTemporalReachable } from '../temporal';
import type { CallWaiters } from './call-waiters';
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
  waiters: Pick<CallWaiters, 'counts'>;
  isStarted(): boolean;
}

/** Routes of the operation side. */
export function healthRoutes({ temporal, db, metrics, waiters, isStarted }: HealthOptions): Router {
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
  const counts = sharedWhileRunning(() => countRecord(db));
  router.get('/metrics', async (_request, response) => {
    metrics.setWaiterCounts(waiters.counts());
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

/** The newest 10000 messages by the index of their positions: no index knows all that have no outcome. Of conversations 10000 are enough. */
async function countRecord(db: Database): Promise<RecordCounts> {
  const rows = await db.query<Omit<RecordCounts, 'calls'> & { calls: RecordCounts['calls'] | null }>(sql`
    SELECT (SELECT count(*)::int FROM parked_messages WHERE released_at IS NULL) AS parked,
      (SELECT count(*)::int FROM (SELECT direction, outcome FROM messages ORDER BY position DESC LIMIT 10000) newest
        WHERE direction = 'inbound' AND outcome IS NULL) AS "withoutOutcome",
      (SELECT count(*)::int FROM (SELECT FROM conversations WHERE needs_attention LIMIT 10000) c) AS "conversationsInNeed",
      (SELECT json_agg(c) FROM (SELECT status, outcome, count(*)::int AS count, count(*) FILTER (WHERE needs_attention)::int AS "inNeed"
        FROM vapi_call_results GROUP BY 1, 2) c) AS calls`);
  const row = rows[0];
  if (!row) throw new Error('the record was not counted');
  return { ...row, calls: row.calls ?? [] };
}
