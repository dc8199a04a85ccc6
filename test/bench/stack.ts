/** The processes that are measured, with servers of their own, and the entry points of both sides. */
import { randomUUID } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../src/local/embedded/ports';
import { startPostgres } from '../../src/local/embedded/postgres';
import { startTemporalServer } from '../../src/local/embedded/temporal-server';
import { settingsSchema } from '../../src/platform/config';
import { applyMigrations } from '../../src/platform/migrations';
import { freshWamid } from '../../src/sandbox/kapso/store';
import { type Child, type ChildOptions, startChild } from './child';
import type { Acknowledged, BenchMessage, Ledger, Side } from './load';
import type { BareOrder, FromBareDriver, FromBareWorker, FromSandbox, ToSandbox } from './protocol';
import { WebhookClient } from './webhook';

const SECRET = 'bench-secret';
const PHONE_NUMBER_ID = '100000000000009';

/** The measured processes. */
export type ProcessName = 'api' | 'worker' | 'bareDriver' | 'bareWorker' | 'temporal' | 'postgres' | 'sandbox';

/** Options of the stack. */
export interface StackOptions {
  cliPath: string;
  profileDir: string | undefined;
  /** The bare worker gets Parley's pollers and compression. */
  tunedBare: boolean;
  /** Is notified of done messages on both sides. */
  ledger: Ledger;
  signal: AbortSignal;
  onProgress: (line: string) => void;
}

/** Starts step by step; `close` undoes the completed steps, even after a failed or aborted start. */
export class Stack {
  readonly pids = {} as Record<ProcessName, number>;
  readonly #options: StackOptions;
  readonly #stops: (() => Promise<void>)[] = [];
  readonly #accepted = new Map<string, (acknowledged: Acknowledged) => void>();
  readonly #refused = new Map<string, (error: Error) => void>();
  #sandbox: Child | undefined;
  #bareDriver: Child | undefined;
  #webhooks: WebhookClient | undefined;
  #sandboxUrl = '';
  #watched: () => void = () => undefined;
  #settled: (totals: SandboxTotals) => void = () => undefined;
  #closing = false;
  #fail: (error: Error) => void = () => undefined;
  /** Rejects when a process exits unexpectedly. */
  readonly failed = new Promise<never>((_resolve, reject) => {
    this.#fail = reject;
  });
  /** The Kapso double's totals, as of the last time it settled. */
  totals: SandboxTotals = { accepted: 0, refused: 0, unanswered: 0, lostWebhooks: 0 };
  replies = 0;

  constructor(options: StackOptions) {
    this.#options = options;
    // Only awaited during the measurement; at other times a rejection must not count as unhandled.
    this.failed.catch(() => undefined);
  }

  async start(): Promise<void> {
    const { onProgress } = this.#options;
    const dir = await mkdtemp(join(tmpdir(), 'parley-bench-'));
    this.#stops.push(() => rm(dir, { recursive: true, force: true }));
    // When we run as root, PostgreSQL runs under another account.
    await chmod(dir, 0o755);
    onProgress('starting PostgreSQL and Temporal');
    const databaseUrl = await this.#startPostgres(dir);
    const temporalAddress = await this.#startTemporal(dir);
    onProgress('starting the API, the worker, the sandbox and the bare side');
    const port = await freePort(0);
    const url = `http://127.0.0.1:${port}/webhook/kapso`;
    await this.#startSandbox(url);
    const product = {
      ...productSettings(this.#sandboxUrl),
      PORT: String(port),
      DATABASE_URL: databaseUrl,
      TEMPORAL_ADDRESS: temporalAddress,
    };
    await this.#startProduct('api', 'src/processes/server.ts', product, 'api ready');
    await this.#startProduct('worker', 'src/processes/worker.ts', product, 'worker ready');
    await this.#startBare({
      BENCH_TEMPORAL_ADDRESS: temporalAddress,
      BENCH_TASK_QUEUE: 'bench-bare',
      ...(this.#options.tunedBare ? { BENCH_TUNED: 'yes' } : {}),
    });
    this.#webhooks = new WebhookClient({ url, secret: SECRET, phoneNumberId: PHONE_NUMBER_ID });
  }

  /** Stops everything in reverse order. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#webhooks?.close();
    for (const stop of this.#stops.splice(0).reverse()) await stop();
  }

  get ours(): Side {
    return {
      name: 'ours',
      prepare: (customers) => {
        const watched = new Promise<void>((resolve) => {
          this.#watched = resolve;
        });
        this.#sendToSandbox({ type: 'watch', customers });
        return watched;
      },
      send: (message) => {
        if (this.#webhooks === undefined) throw new Error('not started');
        return this.#webhooks.send(message);
      },
      settle: async () => {
        const settled = new Promise<SandboxTotals>((resolve) => {
          this.#settled = resolve;
        });
        this.#sendToSandbox({ type: 'settle' });
        this.totals = await settled;
      },
    };
  }

  get bare(): Side {
    return { name: 'bare', prepare: async () => undefined, send: (message) => this.#sendBare(message), settle: async () => undefined };
  }

  async #startPostgres(dir: string): Promise<string> {
    const postgres = await startPostgres({ dataDir: join(dir, 'postgres'), port: await freePort(0) });
    this.#started('postgres', postgres);
    await applyMigrations(postgres.url);
    this.#options.signal.throwIfAborted();
    return postgres.url;
  }

  async #startTemporal(dir: string): Promise<string> {
    const dataFile = join(dir, 'temporal', 'temporal.db');
    const temporal = await startTemporalServer({ cliPath: this.#options.cliPath, dataFile, port: await freePort(0) });
    this.#started('temporal', temporal);
    this.#options.signal.throwIfAborted();
    return temporal.address;
  }

  async #startSandbox(webhookUrl: string): Promise<void> {
    this.#sandbox = await this.#startChild('sandbox', {
      entry: 'test/bench/sandbox-process.ts',
      environment: { BENCH_WEBHOOK_URL: webhookUrl, BENCH_WEBHOOK_SECRET: SECRET, BENCH_PHONE_NUMBER_ID: PHONE_NUMBER_ID },
      onMessage: (message) => this.#onSandboxMessage(message as FromSandbox),
    });
  }

  async #startProduct(name: 'api' | 'worker', entry: string, environment: Record<string, string>, readyLine: string): Promise<void> {
    const { profileDir } = this.#options;
    const execArgs = profileDir === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${join(profileDir, name)}`];
    await this.#startChild(name, { entry, environment, readyLine, execArgs });
  }

  async #startBare(environment: Record<string, string>): Promise<void> {
    await this.#startChild('bareWorker', {
      entry: 'test/bench/bare-worker.ts',
      environment,
      onMessage: (message) => this.#onBareWorkerMessage(message as FromBareWorker),
    });
    this.#bareDriver = await this.#startChild('bareDriver', {
      entry: 'test/bench/bare-driver.ts',
      environment,
      onMessage: (message) => this.#onBareDriverMessage(message as FromBareDriver),
    });
  }

  async #startChild(name: ProcessName, options: Omit<ChildOptions, 'name'>): Promise<Child> {
    const child = await startChild({ ...options, name, onStarted: (started) => this.#started(name, started) });
    this.#options.signal.throwIfAborted();
    return child;
  }

  #started(name: ProcessName, running: { pid: number; ended: Promise<string>; stop(): Promise<void>; lastLines?(): string }): void {
    this.pids[name] = running.pid;
    this.#stops.push(() => running.stop());
    void running.ended.then((how) => {
      if (!this.#closing) this.#fail(new Error(`${name} exited unexpectedly (${how}):\n${running.lastLines?.() ?? ''}`));
    });
  }

  #sendToSandbox(message: ToSandbox): void {
    this.#sandbox?.send(message);
  }

  #onSandboxMessage(message: FromSandbox): void {
    switch (message.type) {
      case 'ready':
        this.#sandboxUrl = message.url;
        return;
      case 'watched':
        this.#watched();
        return;
      case 'reply':
        this.replies += 1;
        for (const mark of message.marks) this.#options.ledger.done(mark, message.atMs);
        return;
      case 'settled':
        this.#settled(message);
    }
  }

  #onBareWorkerMessage(message: FromBareWorker): void {
    if (message.type === 'done') this.#options.ledger.done(message.mark, message.atMs);
  }

  #onBareDriverMessage(message: FromBareDriver): void {
    if (message.type === 'ready') return;
    if (message.type === 'acknowledged') this.#accepted.get(message.mark)?.(message);
    else this.#refused.get(message.mark)?.(new Error(message.reason));
    this.#accepted.delete(message.mark);
    this.#refused.delete(message.mark);
  }

  #sendBare({ mark, customer }: BenchMessage): Promise<Acknowledged> {
    const order: BareOrder = { type: 'signal', mark, workflowId: `bare-${customer}`, received: bareDelivery(mark, customer) };
    return new Promise((resolve, reject) => {
      this.#accepted.set(mark, resolve);
      this.#refused.set(mark, reject);
      this.#bareDriver?.send(order);
    });
  }
}

/** Totals of the Kapso double. */
export interface SandboxTotals {
  accepted: number;
  refused: number;
  unanswered: number;
  lostWebhooks: number;
}

/** The signal payload that the API sends for the same message. */
function bareDelivery(mark: string, customer: string): BareOrder['received'] {
  return {
    contact: { phone: customer, name: 'Bench Customer' },
    messages: [{ id: randomUUID(), providerMessageId: freshWamid(), kind: 'text', text: mark, sentAtMs: Date.now() }],
  };
}

/** Sets every other setting to empty, which counts as not set and overrides the user's `.env`, so that none of their keys is used. */
function productSettings(sandboxUrl: string): Record<string, string> {
  return {
    ...Object.fromEntries(Object.keys(settingsSchema.shape).map((name) => [name, ''])),
    TEMPORAL_TASK_QUEUE: 'bench-ours',
    KAPSO_BASE_URL: sandboxUrl,
    KAPSO_API_KEY: 'bench-key',
    KAPSO_WEBHOOK_SECRET: SECRET,
    KAPSO_PHONE_NUMBER_ID: PHONE_NUMBER_ID,
    CHATBOT_ENABLED: 'true',
    AI_ENABLED: 'true',
    SANDBOX_URL: sandboxUrl,
    REPLY_QUIET_MS: '0',
  };
}
