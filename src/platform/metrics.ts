/**
 * Prometheus metrics. Created once per process and passed down; there is no global registry.
 * Label values are bounded and never personal: an unknown value counts as `other`.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** The senders of webhooks. */
export type WebhookSource = 'kapso' | 'vapi';

/** How a webhook request ended. Every result except `taken` and `skipped` is a failure and names its reason. */
export type WebhookResult =
  | 'taken'
  | 'skipped'
  | 'bad_signature'
  | 'unreadable'
  | 'too_large'
  | 'not_started'
  | 'not_stored'
  | 'rate_limited'
  | 'overloaded'
  | 'aborted'
  | 'failed';

/** Metrics of every process. */
export interface ProcessMetrics {
  /** A database query ended, successfully or not. `kind`: SQL statement or Prisma model (src/platform/database.ts). */
  queryEnded(kind: 'sql' | 'orm', seconds: number): void;
  /** All metrics in the Prometheus text format (version 0.0.4). */
  text(): Promise<string>;
  contentType: string;
}

/** Row counts for the gauges; read from the database at each scrape. */
export interface RecordCounts {
  /** Messages to a number that belongs to no workspace. */
  parked: number;
  /** Inbound messages without an outcome. */
  withoutOutcome: number;
  /** The requests that wait in the spool; counted up to 10000. */
  spooled: { waiting: number; oldestSeconds: number };
  /** Conversations that need a person; counted up to 10000. */
  conversationsInNeed: number;
  /** `inNeed`: how many of these calls need a person. */
  calls: { status: string; outcome: string | null; count: number; inNeed: number }[];
  /** That nobody has replayed. */
  deadLetters: { reason: string; count: number }[];
}

/** Requests that wait for a call (`waiters`), and the Temporal requests that serve them: open now (`waits`) and in total (`waitsBegun`). */
export interface WaiterCounts {
  waiters: number;
  waits: number;
  waitsBegun: number;
}

/** Metrics of the API. */
export interface ApiMetrics extends ProcessMetrics {
  /** `type`: the event's type; an unknown one counts as `other`. */
  webhookAnswered(webhook: { source: WebhookSource; type: string; result: WebhookResult; seconds: number }): void;
  /** `route`: a path of the OpenAPI document, or `other`. */
  requestAnswered(request: { method: string; route: string; status: number; seconds: number }): void;
  /** Pass undefined if the database could not be read; its gauges then have no value. */
  setRecordCounts(counts: RecordCounts | undefined): void;
  /** Requests that wait for calls, and the Temporal requests behind them. */
  setWaiterCounts(counts: WaiterCounts): void;
}

/** Metrics of the activities. The worker passes them in. */
export interface WorkerMetrics {
  /** `result`: `answered`, or the failure type (activities/failures.ts). */
  modelAsked(call: { provider: string; result: string; seconds: number }): void;
  /** `result`: the outcome of the send (`sent`, `unconfirmed`, `pending`, `failed`). */
  sendTried(result: string): void;
  /** A call has its final result. `durationSeconds` is null if unknown. */
  callConcluded(call: { outcome: string; durationSeconds: number | null }): void;
  /** `result`: `delivered`, `gone`, the failure type of an attempt, or `given_up` after the last attempt. */
  callbackTried(result: string): void;
}

/** In seconds: from a webhook's typical few milliseconds up to a 55-second long poll. */
const REQUEST_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const QUERY_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15];
const MODEL_BUCKETS = [0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120];
const CALL_BUCKETS = [5, 15, 30, 60, 120, 300, 600, 1_200, 3_600];

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);
/** Vapi's call statuses. */
const CALL_STATUSES = new Set(['scheduled', 'queued', 'ringing', 'in-progress', 'forwarding', 'ended']);

/** Accepts short identifiers without digits, which cannot contain a phone number. Anything else becomes `other`. */
function boundedLabel(text: string): string {
  return /^[A-Za-z][A-Za-z_.-]{0,39}$/.test(text) ? text : 'other';
}

/** The API's metrics. */
export function createApiMetrics(): ApiMetrics {
  const { registry, ...common } = createProcessMetrics();
  const registers = [registry];
  const webhooks = new Counter({
    name: 'parley_webhooks_total',
    help: 'Webhooks by sender, type and result; a result other than taken or skipped is the reason for a failure',
    labelNames: ['source', 'type', 'result'],
    registers,
  });
  const webhookSeconds = new Histogram({
    name: 'parley_webhook_answer_seconds',
    help: 'Time from receiving the headers of a webhook to its response; statuses are batched for up to 100 ms',
    labelNames: ['source', 'type'],
    buckets: REQUEST_BUCKETS,
    registers,
  });
  const requestSeconds = new Histogram({
    name: 'parley_http_request_seconds',
    help: 'Time from receiving the headers of a request to its response, by path of the OpenAPI document; includes long polls',
    labelNames: ['method', 'route', 'status'],
    buckets: REQUEST_BUCKETS,
    registers,
  });
  const recordReadable = new Gauge({
    name: 'parley_record_readable',
    help: 'Whether PostgreSQL responded to this scrape in time; if 0, the gauges read from it have no value',
    registers,
  });
  const parkedMessages = new Gauge({
    name: 'parley_parked_messages',
    help: 'Parked messages: sent to a number that belongs to no workspace',
    registers,
  });
  const withoutOutcome = new Gauge({
    name: 'parley_messages_without_outcome',
    help: 'Inbound messages still being processed, among the newest 10000 messages',
    registers,
  });
  const spooled = new Gauge({
    name: 'parley_spooled_requests',
    help: 'Webhook events that wait in the spool until Temporal accepts them; counted up to 10000',
    registers,
  });
  const spoolAge = new Gauge({
    name: 'parley_spool_oldest_seconds',
    help: 'Age of the oldest event in the spool; 0 if it is empty',
    registers,
  });
  const calls = new Gauge({
    name: 'parley_calls',
    help: 'Voice calls in the database by status and outcome (none: not done yet)',
    labelNames: ['status', 'outcome'],
    registers,
  });
  const needingAttention = new Gauge({
    name: 'parley_needing_attention',
    help: 'Conversations (counted up to 10000) and voice calls in the database that need a person',
    labelNames: ['kind'],
    registers,
  });
  const deadLetters = new Gauge({
    name: 'parley_dead_letters',
    help: 'What could not be read or recorded and nobody has replayed, by reason',
    labelNames: ['reason'],
    registers,
  });
  const waiters = new Gauge({
    name: 'parley_call_waiters',
    help: 'Requests that wait for a call, a message, a session or attention',
    registers,
  });
  const waits = new Gauge({
    name: 'parley_call_waits',
    help: 'Open Temporal requests on behalf of call waiters: one per call, however many waiters',
    registers,
  });
  const waitsBegun = new Gauge({
    name: 'parley_call_waits_begun',
    help: 'Temporal requests on behalf of call waiters since the process started',
    registers,
  });
  return {
    ...common,
    setWaiterCounts(counts) {
      waiters.set(counts.waiters);
      waits.set(counts.waits);
      waitsBegun.set(counts.waitsBegun);
    },
    webhookAnswered({ source, type, result, seconds }) {
      const typeLabel = boundedLabel(type);
      webhooks.inc({ source, type: typeLabel, result });
      webhookSeconds.observe({ source, type: typeLabel }, seconds);
    },
    requestAnswered({ method, route, status, seconds }) {
      requestSeconds.observe({ method: METHODS.has(method) ? method : 'other', route, status }, seconds);
    },
    setRecordCounts(counts) {
      recordReadable.set(counts ? 1 : 0);
      calls.reset();
      needingAttention.reset();
      deadLetters.reset();
      parkedMessages.remove();
      withoutOutcome.remove();
      spooled.remove();
      spoolAge.remove();
      if (!counts) return;
      parkedMessages.set(counts.parked);
      withoutOutcome.set(counts.withoutOutcome);
      spooled.set(counts.spooled.waiting);
      spoolAge.set(counts.spooled.oldestSeconds);
      needingAttention.set({ kind: 'conversation' }, counts.conversationsInNeed);
      needingAttention.set(
        { kind: 'call' },
        counts.calls.reduce((sum, { inNeed }) => sum + inNeed, 0),
      );
      for (const { reason, count } of counts.deadLetters) deadLetters.inc({ reason: boundedLabel(reason) }, count);
      for (const { status, outcome, count } of counts.calls) {
        const outcomeLabel = outcome === null ? 'none' : boundedLabel(outcome);
        calls.inc({ status: CALL_STATUSES.has(status) ? status : 'other', outcome: outcomeLabel }, count);
      }
    },
  };
}

/**
 * The worker's metrics. `temporalText` returns the Temporal SDK's own metrics in the same format; if it fails, they are left out.
 */
export function createWorkerMetrics(temporalText: () => Promise<string>): ProcessMetrics & WorkerMetrics {
  const { registry, ...common } = createProcessMetrics();
  const registers = [registry];
  const modelCalls = new Counter({
    name: 'parley_model_calls_total',
    help: 'Model calls by provider and result (answered, or the failure type)',
    labelNames: ['provider', 'result'],
    registers,
  });
  const modelSeconds = new Histogram({
    name: 'parley_model_call_seconds',
    help: 'Duration of model calls, successful or not',
    labelNames: ['provider'],
    buckets: MODEL_BUCKETS,
    registers,
  });
  const sends = new Counter({
    name: 'parley_sends_total',
    help: 'Sends to WhatsApp by result: sent; unconfirmed (outcome unknown); pending (temporarily rejected); failed',
    labelNames: ['result'],
    registers,
  });
  const calls = new Counter({
    name: 'parley_calls_total',
    help: 'Finished voice calls, by outcome',
    labelNames: ['outcome'],
    registers,
  });
  const callSeconds = new Histogram({
    name: 'parley_call_duration_seconds',
    help: 'Duration of finished voice calls, where known',
    labelNames: ['outcome'],
    buckets: CALL_BUCKETS,
    registers,
  });
  const callbacks = new Counter({
    name: 'parley_callbacks_total',
    help: 'Attempts to post the result of a voice call to its callback, by result',
    labelNames: ['result'],
    registers,
  });
  return {
    ...common,
    modelAsked({ provider, result, seconds }) {
      modelCalls.inc({ provider, result: boundedLabel(result) });
      modelSeconds.observe({ provider }, seconds);
    },
    sendTried(result) {
      sends.inc({ result: boundedLabel(result) });
    },
    callConcluded({ outcome, durationSeconds }) {
      calls.inc({ outcome: boundedLabel(outcome) });
      if (durationSeconds !== null) callSeconds.observe({ outcome: boundedLabel(outcome) }, durationSeconds);
    },
    callbackTried(result) {
      callbacks.inc({ result: boundedLabel(result) });
    },
    async text() {
      const [own, temporal] = await Promise.all([common.text(), temporalText().catch(() => '')]);
      return temporal === '' ? own : `${own.trimEnd()}\n${temporal.trimEnd()}\n`;
    },
  };
}

/** Discards everything. For tests and tools that run activities without a worker. */
export const noMetrics: WorkerMetrics = {
  modelAsked: () => undefined,
  sendTried: () => undefined,
  callConcluded: () => undefined,
  callbackTried: () => undefined,
};

function createProcessMetrics(): ProcessMetrics & { registry: Registry } {
  const registry = new Registry();
  // At the default of 10 ms, monitoring the event loop alone costs an idle worker 2 % of a core.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 50 });
  const querySeconds = new Histogram({
    name: 'parley_query_seconds',
    help: 'Duration of database queries, including the wait for a connection; kind: SQL statements (sql) or Prisma models (orm)',
    labelNames: ['kind'],
    buckets: QUERY_BUCKETS,
    registers: [registry],
  });
  return {
    registry,
    contentType: registry.contentType,
    queryEnded: (kind, seconds) => querySeconds.observe({ kind }, seconds),
    text: () => registry.metrics(),
  };
}
