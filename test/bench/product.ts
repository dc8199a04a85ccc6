/** Parley as it is measured: a sandbox, the API and a worker over one record. */
import { join } from 'node:path';
import { freePort } from '../../src/local/embedded/ports';
import { settingsSchema } from '../../src/platform/config';
import type { Child, Launch } from './child';
import type { Acknowledged, BenchMessage, Ledger, Pids, Side } from './load';
import type { FromSandbox, ToSandbox } from './protocol';
import { WebhookClient } from './webhook';

const SECRET = 'bench-secret';
const API_KEY = 'bench-api-key';
const PHONE_NUMBER_ID = '100000000000009';

/** Totals of the Kapso double. */
export interface SandboxTotals {
  accepted: number;
  refused: number;
  unanswered: number;
  lostWebhooks: number;
}

/** What a product needs to run. */
export interface ProductOptions {
  name: string;
  databaseUrl: string;
  postgres: { pid: number };
  temporal: { pid: number; address: string };
  profileDir: string | undefined;
  /** Is notified of answered messages. */
  ledger: Ledger;
  launch: Launch;
}

/** One Parley. A message is done when the Kapso double accepts its reply. */
export class Product implements Side {
  /** Kapso's id of the business number. */
  static readonly phoneNumberId = PHONE_NUMBER_ID;

  readonly name: string;
  readonly pids: Pids;
  readonly apiUrl: string;
  readonly #ledger: Ledger;
  readonly #webhooks: WebhookClient;
  #sandbox: Child | undefined;
  #sandboxUrl = '';
  #watched: () => void = () => undefined;
  #settled: (totals: SandboxTotals) => void = () => undefined;
  /** The Kapso double's totals, as of the last time it settled. */
  totals: SandboxTotals = { accepted: 0, refused: 0, unanswered: 0, lostWebhooks: 0 };
  messages = 0;
  replies = 0;

  private constructor({ name, postgres, temporal, ledger }: ProductOptions, port: number) {
    this.name = name;
    this.pids = { postgres: postgres.pid, temporal: temporal.pid };
    this.apiUrl = `http://127.0.0.1:${port}`;
    this.#ledger = ledger;
    this.#webhooks = new WebhookClient({ url: this.#webhookUrl, secret: SECRET, phoneNumberId: PHONE_NUMBER_ID });
  }

  /** Starts all processes. */
  static async start(options: ProductOptions): Promise<Product> {
    const port = await freePort(0);
    const product = new Product(options, port);
    await product.#start(options, port);
    return product;
  }

  prepare(customers: string[]): Promise<void> {
    const watched = new Promise<void>((resolve) => {
      this.#watched = resolve;
    });
    this.#sendToSandbox({ type: 'watch', customers });
    return watched;
  }

  send(message: BenchMessage): Promise<Acknowledged> {
    this.messages += 1;
    return this.#webhooks.send(message);
  }

  async settle(): Promise<void> {
    const settled = new Promise<SandboxTotals>((resolve) => {
      this.#settled = resolve;
    });
    this.#sendToSandbox({ type: 'settle' });
    this.totals = await settled;
  }

  /** Reads a path of the REST API to the end of its answer. @throws Error if the answer is not 200 */
  async read(path: string): Promise<void> {
    const response = await fetch(`${this.apiUrl}${path}`, { headers: { Authorization: `Bearer ${API_KEY}` } });
    await response.arrayBuffer();
    if (response.status !== 200) throw new Error(`${path} got ${response.status}`);
  }

  /** What does not add up between the messages, the replies and the double's totals. */
  problems(): string[] {
    const { accepted, refused, unanswered, lostWebhooks } = this.totals;
    return [
      ...(accepted === this.replies ? [] : [`the Kapso double accepted ${accepted} sends, but reported ${this.replies} replies`]),
      ...(refused + unanswered === 0 ? [] : [`the Kapso double rejected ${refused} sends and left ${unanswered} without a response`]),
      ...(lostWebhooks === 0 ? [] : [`${lostWebhooks} status webhooks were not accepted`]),
    ].map((problem) => `${this.name}: ${problem}`);
  }

  /** Closes the connections to the API. */
  close(): void {
    this.#webhooks.close();
  }

  get #webhookUrl(): string {
    return `${this.apiUrl}/webhook/kapso`;
  }

  async #start({ name, databaseUrl, temporal, profileDir, launch }: ProductOptions, port: number): Promise<void> {
    this.#sandbox = await launch(`sandbox of ${name}`, {
      entry: 'test/bench/sandbox-process.ts',
      environment: { BENCH_WEBHOOK_URL: this.#webhookUrl, BENCH_WEBHOOK_SECRET: SECRET, BENCH_PHONE_NUMBER_ID: PHONE_NUMBER_ID },
      onMessage: (message) => this.#onSandboxMessage(message as FromSandbox),
    });
    const environment = {
      ...settings(this.#sandboxUrl),
      PORT: String(port),
      DATABASE_URL: databaseUrl,
      TEMPORAL_ADDRESS: temporal.address,
      TEMPORAL_TASK_QUEUE: `bench-${name}`,
    };
    const profile = (process: string) =>
      profileDir === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${join(profileDir, name, process)}`];
    const api = await launch(`API of ${name}`, {
      ...{ entry: 'src/processes/server.ts', environment, readyLine: 'api ready', execArgs: profile('api') },
    });
    const worker = await launch(`worker of ${name}`, {
      ...{ entry: 'src/processes/worker.ts', environment, readyLine: 'worker ready', execArgs: profile('worker') },
    });
    Object.assign(this.pids, { entrance: api.pid, worker: worker.pid, sandbox: this.#sandbox.pid });
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
        for (const mark of message.marks) this.#ledger.done(mark, message.atMs);
        return;
      case 'settled':
        this.#settled(message);
    }
  }
}

/** Sets every other setting to empty, which counts as not set and overrides the user's `.env`, so that none of their keys is used. */
function settings(sandboxUrl: string): Record<string, string> {
  return {
    ...Object.fromEntries(Object.keys(settingsSchema.shape).map((name) => [name, ''])),
    KAPSO_BASE_URL: sandboxUrl,
    KAPSO_API_KEY: 'bench-key',
    KAPSO_WEBHOOK_SECRET: SECRET,
    KAPSO_PHONE_NUMBER_ID: PHONE_NUMBER_ID,
    CHATBOT_ENABLED: 'true',
    AI_ENABLED: 'true',
    SANDBOX_URL: sandboxUrl,
    API_KEYS: API_KEY,
    API_RATE_LIMIT_PER_MINUTE: '1000000',
    REPLY_QUIET_MS: '0',
    // A pass over all messages of the load would be measured along.
    REPAIR_MINUTES: '0',
  };
}
