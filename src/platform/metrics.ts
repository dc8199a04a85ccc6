/**
 * What Prometheus can ask of a process. Built once per process and handed down; nothing here is global.
 * Labels are bounded and tell nothing personal: what is not known by name counts as `other`.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** Who sends webhooks. */
export type WebhookSource = 'kapso' | 'vapi';

/** How a webhook ended. All but `taken` and `skipped` are failures, and name the reason. */
export type WebhookResult =
  | 'taken'
  | 'skipped'
  | 'bad_signature'
  | 'unreadable'
  | 'too_large'
  | 'not_started'
  | 'not_stored'
  | 'rate_limited'
  | 'aborted'
  | 'failed';

/** What every process measures. */
export interface ProcessMetrics {
  /** A query of the record ended, well or not. `kind`: single statements or the models (src/platform/database.ts). */
  queryEnded(kind: 'sql' | 'orm', seconds: number): void;
  /** Everything in Prometheus' text form (version 0.0.4). */
  text(): Promise<string>;
  contentType: string;
}

/** How full the record is, for the gauges; read when somebody asks. */
export interface RecordCounts {
  /** Messages for a number that no workspace has. */
  parked: number;
  /** Inbound messages without an outcome. */
  withoutOutcome: number;
  /** That wait for a person; counted up to 10000. */
  conversationsInNeed: number;
  /** `inNeed`: how many of them wait for a person. */
  calls: { status: string; outcome: string | null; count: number; inNeed: number }[];
}

/** Requests that wait for calls, and the requests at Temporal that this costs: now, and in all. */
export interface WaiterCounts {
  waiters: number;
  waits: number;
  waitsBegun: number;
}

/** What the API measures. */
export interface ApiMetrics extends ProcessMetrics {
  /** `type`: one of few; the webhook counts what it does not know as `other`. */
  webhookAnswered(webhook: { source: WebhookSource; type: string; result: WebhookResult; seconds: number }): void;
  /** `route` is a path of the OpenAPI document, or `other`. */
  requestAnswered(request: { method: string; route: string; status: number; seconds: number }): void;
  /** Undefined: the record could not be read, and its gauges have no value. */
  setRecordCounts(counts: RecordCounts | undefined): void;
  /** Requests that wait for calls, and what that costs at Temporal. */
  setWaiterCounts(counts: WaiterCounts): void;
}

/** What activities measure. Handed to them by the worker. */
export interface WorkerMetrics {
  /** `result`: `answered`, or the type of the failure (activities/failures.ts). */
  modelAsked(call: { provider: string; result: string; seconds: number }): void;
  /** `result`: the verdict of the send (`sent`, `unconfirmed`, `pending`, `failed`). */
  sendTried(result: string): void;
  /** A call's result stands. `durationSeconds` is null when nobody knows it. */
  callConcluded(call: { outcome: string; durationSeconds: number | null }): void;
  /** `result`: `delivered`, `gone`, the type of the failure of an attempt, or `given_up` after the last one. */
  callbackTried(result: string): void;
}

/** From a webhook's usual few milliseconds up to a long poll of 55 seconds. */
const REQUEST_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const QUERY_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15];
const MODEL_BUCKETS = [0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120];
const CALL_BUCKETS = [5, 15, 30, 60, 120, 300, 600, 1_200, 3_600];

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);
/** Vapi's states of a call. */
const CALL_STATUSES = new Set(['scheduled', 'queued', 'ringing', 'in-progress', 'forwarding', 'ended']);

/** A word of ours: short, no digits in a row that could be a number of somebody. Anything else is `other`. */
function word(text: string): string {
  return /^[A-Za-z][A-Za-z_.-]{0,39}$/.test(text) ? text : 'other';
}

/** The API's metrics. */
export function createApiMetrics(): ApiMetrics {
  const { registry, ...common } = createProcessMetrics();
  const registers = [registry];
  const webhooks = new Counter({
    name: 'parley_webhooks_total',
    help: 'Webhooks by sender, type and result; a result other than taken or skipped is the reason of a failure',
    labelNames: ['source', 'type', 'result'],
    registers,
  });
  const webhookSeconds = new Histogram({
    name: 'parley_webhook_answer_seconds',
    help: 'Time from the head of a webhook to its answer; a status waits up to 100 ms for others to be written with',
    labelNames: ['source', 'type'],
    buckets: REQUEST_BUCKETS,
    registers,
  });
  const requestSeconds = new Histogram({
    name: 'parley_http_request_seconds',
    help: 'Time from the head of a request to its answer, by path of the OpenAPI document; a long poll takes as long as it may',
    labelNames: ['method', 'route', 'status'],
    buckets: REQUEST_BUCKETS,
    registers,
  });
  const recordReadable = new Gauge({
    name: 'parley_record_readable',
    help: 'Whether PostgreSQL answered this scrape in time; at 0 the gauges that are read from it have no value',
    registers,
  });
  const spoolDepth = new Gauge({
    name: 'parley_spool_depth',
    help: 'Parked messages: for a number that no workspace has (there is no other spool)',
    registers,
  });
  const withoutOutcome = new Gauge({
    name: 'parley_messages_without_outcome',
    help: 'Inbound messages that are still being worked on, among the newest 10000 messages',
    registers,
  });
  const calls = new Gauge({
    name: 'parley_calls',
    help: 'Voice calls in the record by status and outcome (none: not done yet)',
    labelNames: ['status', 'outcome'],
    registers,
  });
  const needingAttention = new Gauge({
    name: 'parley_needing_attention',
    help: 'What waits for a person: conversations (up to 10000) and voice calls in the record',
    labelNames: ['kind'],
    registers,
  });
  const waiters = new Gauge({ name: 'parley_call_waiters', help: 'Requests that wait for a call to be over', registers });
  const waits = new Gauge({
    name: 'parley_call_waits',
    help: 'Waits at Temporal that are open for them: one per call, however many requests',
    registers,
  });
  const waitsBegun = new Gauge({
    name: 'parley_call_waits_begun',
    help: 'Waits at Temporal begun since the process started',
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
      const named = word(type);
      webhooks.inc({ source, type: named, result });
      webhookSeconds.observe({ source, type: named }, seconds);
    },
    requestAnswered({ method, route, status, seconds }) {
      requestSeconds.observe({ method: METHODS.has(method) ? method : 'other', route, status }, seconds);
    },
    setRecordCounts(counts) {
      recordReadable.set(counts ? 1 : 0);
      calls.reset();
      needingAttention.reset();
      spoolDepth.remove();
      withoutOutcome.remove();
      if (!counts) return;
      spoolDepth.set(counts.parked);
      withoutOutcome.set(counts.withoutOutcome);
      needingAttention.set({ kind: 'conversation' }, counts.conversationsInNeed);
      needingAttention.set(
        { kind: 'call' },
        counts.calls.reduce((sum, { inNeed }) => sum + inNeed, 0),
      );
      for (const { status, outcome, count } of counts.calls) {
        calls.inc({ status: CALL_STATUSES.has(status) ? status : 'other', outcome: outcome === null ? 'none' : word(outcome) }, count);
      }
    },
  };
}

/**
 * The worker's metrics. `temporalText` brings the Temporal SDK's own ones in the same form; they are left out while it fails.
 */
export function createWorkerMetrics(temporalText: () => Promise<string>): ProcessMetrics & WorkerMetrics {
  const { registry, ...common } = createProcessMetrics();
  const registers = [registry];
  const modelCalls = new Counter({
    name: 'parley_model_calls_total',
    help: 'Calls to a model by provider and result (answered, or the type of the failure)',
    labelNames: ['provider', 'result'],
    registers,
  });
  const modelSeconds = new Histogram({
    name: 'parley_model_call_seconds',
    help: 'Duration of calls to a model, however they ended',
    labelNames: ['provider'],
    buckets: MODEL_BUCKETS,
    registers,
  });
  const sends = new Counter({
    name: 'parley_sends_total',
    help: 'Sends to WhatsApp by verdict: sent; unconfirmed (outcome unknown); pending (refused for now); failed',
    labelNames: ['result'],
    registers,
  });
  const calls = new Counter({
    name: 'parley_calls_total',
    help: 'Voice calls that were concluded, by outcome',
    labelNames: ['outcome'],
    registers,
  });
  const callSeconds = new Histogram({
    name: 'parley_call_duration_seconds',
    help: 'Duration of concluded voice calls whose duration is known',
    labelNames: ['outcome'],
    buckets: CALL_BUCKETS,
    registers,
  });
  const callbacks = new Counter({
    name: 'parley_callbacks_total',
    help: 'Attempts to post the result of a voice call, by result',
    labelNames: ['result'],
    registers,
  });
  return {
    ...common,
    modelAsked({ provider, result, seconds }) {
      modelCalls.inc({ provider, result: word(result) });
      modelSeconds.observe({ provider }, seconds);
    },
    sendTried(result) {
      sends.inc({ result: word(result) });
    },
    callConcluded({ outcome, durationSeconds }) {
      calls.inc({ outcome: word(outcome) });
      if (durationSeconds !== null) callSeconds.observe({ outcome: word(outcome) }, durationSeconds);
    },
    callbackTried(result) {
      callbacks.inc({ result: word(result) });
    },
    async text() {
      const [own, temporal] = await Promise.all([common.text(), temporalText().catch(() => '')]);
      return temporal === '' ? own : `${own.trimEnd()}\n${temporal.trimEnd()}\n`;
    },
  };
}

/** For tests and tools that run activities without a worker. */
export const noMetrics: WorkerMetrics = {
  modelAsked: () => undefined,
  sendTried: () => undefined,
  callConcluded: () => undefined,
  callbackTried: () => undefined,
};

function createProcessMetrics(): ProcessMetrics & { registry: Registry } {
  const registry = new Registry();
  // Every 10 ms, which is the default, the watch over the event loop alone would cost an idle worker 2 % of a core.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 50 });
  const querySeconds = new Histogram({
    name: 'parley_query_seconds',
    help: 'Duration of queries of the record, with the wait for a connection; kind: single statements (sql) or models (orm)',
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
