/** The processes that are measured, with servers of their own, and the two sides of the comparison. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../src/local/embedded/ports';
import { type EmbeddedPostgres, startPostgres } from '../../src/local/embedded/postgres';
import { type EmbeddedTemporal, startTemporalServer } from '../../src/local/embedded/temporal-server';
import { applyMigrations } from '../../src/platform/migrations';
import { startBareWorkflow } from './bare';
import { type Launch, startChild } from './child';
import { countTableScans, fillRecord, type RecordSize } from './large-record';
import type { Ledger, Side } from './load';
import { Product } from './product';

/** Options of the stack. */
export interface StackOptions {
  cliPath: string;
  profileDir: string | undefined;
  /** The bare worker gets Parley's pollers and compression. */
  tunedBare: boolean;
  /** Compares Parley over a record of this size with Parley over an empty one, instead of Parley with the bare workflow. */
  largeRecord: RecordSize | undefined;
  /** Is notified of done messages on both sides. */
  ledger: Ledger;
  signal: AbortSignal;
  onProgress: (line: string) => void;
}

/** The sides of a comparison. */
export interface Sides {
  ours: Product;
  baseline: Side;
  /** Every Parley among the two. */
  products: Product[];
  /** How often each large table was read as a whole; of the large record only. */
  countTableScans?: () => Promise<Record<string, number>>;
}

/** Starts step by step; `close` undoes the completed steps, even after a failed or aborted start. */
export class Stack {
  readonly #options: StackOptions;
  readonly #stops: (() => Promise<void>)[] = [];
  #closing = false;
  #fail: (error: Error) => void = () => undefined;
  /** Rejects when a process exits unexpectedly. */
  readonly failed = new Promise<never>((_resolve, reject) => {
    this.#fail = reject;
  });

  constructor(options: StackOptions) {
    this.#options = options;
    // Only awaited during the measurement; at other times a rejection must not count as unhandled.
    this.failed.catch(() => undefined);
  }

  async start(): Promise<Sides> {
    const { onProgress, largeRecord } = this.#options;
    const dir = await mkdtemp(join(tmpdir(), 'parley-bench-'));
    this.#stops.push(() => rm(dir, { recursive: true, force: true }));
    // When we run as root, PostgreSQL runs under another account.
    await chmod(dir, 0o755);
    onProgress('starting PostgreSQL and Temporal');
    const postgres = await this.#startPostgres(dir);
    const temporal = await this.#startTemporal(dir);
    return largeRecord === undefined
      ? await this.#startWithBare(postgres, temporal)
      : await this.#startWithEmptyRecord(postgres, temporal, largeRecord);
  }

  /** Stops everything in reverse order. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const stop of this.#stops.splice(0).reverse()) await stop();
  }

  async #startWithBare(postgres: EmbeddedPostgres, temporal: EmbeddedTemporal): Promise<Sides> {
    const { onProgress, ledger, tunedBare } = this.#options;
    onProgress('starting the API, the worker, the sandbox and the bare side');
    const ours = await this.#startProduct('ours', await migrated(postgres, 'parley'), postgres, temporal);
    const baseline = await startBareWorkflow({ temporal, tunedBare, ledger, launch: this.#launch });
    return { ours, baseline, products: [ours] };
  }

  async #startWithEmptyRecord(postgres: EmbeddedPostgres, temporal: EmbeddedTemporal, size: RecordSize): Promise<Sides> {
    const { onProgress, signal } = this.#options;
    const [emptyUrl, largeUrl] = [await migrated(postgres, 'parley_empty'), await migrated(postgres, 'parley_large')];
    await fillRecord(largeUrl, { phoneNumberId: Product.phoneNumberId, size, signal, onProgress });
    onProgress('starting the API, the worker and the sandbox over each record');
    const ours = await this.#startProduct('large', largeUrl, postgres, temporal);
    const baseline = await this.#startProduct('empty', emptyUrl, postgres, temporal);
    return { ours, baseline, products: [ours, baseline], countTableScans: () => countTableScans(largeUrl) };
  }

  async #startProduct(name: string, databaseUrl: string, postgres: EmbeddedPostgres, temporal: EmbeddedTemporal): Promise<Product> {
    const { profileDir, ledger } = this.#options;
    const product = await Product.start({ name, databaseUrl, postgres, temporal, profileDir, ledger, launch: this.#launch });
    this.#stops.push(async () => product.close());
    return product;
  }

  async #startPostgres(dir: string): Promise<EmbeddedPostgres> {
    const postgres = await startPostgres({ dataDir: join(dir, 'postgres'), port: await freePort(0), logFile: join(dir, 'postgres.log') });
    this.#started('PostgreSQL', postgres);
    return postgres;
  }

  async #startTemporal(dir: string): Promise<EmbeddedTemporal> {
    const dataFile = join(dir, 'temporal', 'temporal.db');
    const temporal = await startTemporalServer({
      cliPath: this.#options.cliPath,
      dataFile,
      port: await freePort(0),
      logFile: join(dir, 'temporal.log'),
    });
    this.#started('Temporal', temporal);
    return temporal;
  }

  readonly #launch: Launch = async (name, options) => {
    const child = await startChild({ ...options, name, onStarted: (started) => this.#started(name, started) });
    this.#options.signal.throwIfAborted();
    return child;
  };

  #started(name: string, running: { ended: Promise<string>; stop(): Promise<void>; lastLines?(): string }): void {
    this.#stops.push(() => running.stop());
    void running.ended.then((how) => {
      if (!this.#closing) this.#fail(new Error(`${name} exited unexpectedly (${how}):\n${running.lastLines?.() ?? ''}`));
    });
    this.#options.signal.throwIfAborted();
  }
}

/** A database of its own on the server, with the tables. @returns its address */
async function migrated(postgres: EmbeddedPostgres, name: string): Promise<string> {
  const url = new URL(postgres.url);
  url.pathname = `/${name}`;
  await applyMigrations(url.href);
  return url.href;
}
