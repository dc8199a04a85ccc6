/**
 * Runs Prisma migrations without downloading Prisma's schema-engine binary: uses the same engine compiled to WebAssembly, over the
 * PostgreSQL driver. Table (`_prisma_migrations`), checksums and folder are those of `prisma migrate deploy`, so the two are
 * interchangeable.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { PrismaPg } from '@prisma/adapter-pg';
import {
  bindMigrationAwareSqlAdapterFactory,
  ColumnTypeEnum,
  type SqlMigrationAwareDriverAdapterFactory,
  type SqlQuery,
} from '@prisma/driver-adapter-utils';
import type { MigrationDirectory, MigrationList, SchemaContainer } from '@prisma/schema-engine-wasm/schema_engine_bg';
import * as engineGlue from '@prisma/schema-engine-wasm/schema_engine_bg';
import { Client, DatabaseError, Pool, type QueryResult } from 'pg';

const PRISMA_DIR = resolve(__dirname, '../../prisma');
const SCHEMA_PATH = join(PRISMA_DIR, 'schema.prisma');
const MIGRATIONS_DIR = join(PRISMA_DIR, 'migrations');
const NO_FILTERS = { externalTables: [], externalEnums: [] };

/** An arbitrary advisory-lock key. Must differ from Prisma's (72707369), which the engine takes while we hold ours. */
const MIGRATION_LOCK_KEY = 4_021_507_233;

const CONNECT_TIMEOUT_MS = 10_000;

const DATABASE_MISSING = '3D000';
/** When two processes create the same database, the second gets "already exists" or violates the catalog's unique index. */
const DATABASE_EXISTS = ['42P04', '23505'];

interface MigrateOptions {
  onProgress?: (line: string) => void;
}

/**
 * Applies all pending migrations to the database at `databaseUrl`; creates the database if it does not exist.
 * Safe to call from several processes at once: one applies, the others wait. Resolves to the migrations that this call applied.
 * @throws Error if the server is unreachable or a migration fails (it stays marked as failed, as with Prisma's own tool)
 */
export async function applyMigrations(databaseUrl: string, { onProgress }: MigrateOptions = {}): Promise<string[]> {
  if (await createDatabaseIfMissing(databaseUrl)) onProgress?.('created the database');
  return withMigrationLock(databaseUrl, async () => {
    const migrationsList = await readMigrations();
    const applied = await withEngine(databaseUrl, (engine) => engine.applyMigrations({ migrationsList, filters: NO_FILTERS }));
    for (const name of applied.appliedMigrationNames) onProgress?.(`applied ${name}`);
    return applied.appliedMigrationNames;
  });
}

/** The migrations that the database at `databaseUrl` does not have yet. @throws Error if it cannot be reached */
export async function pendingMigrations(databaseUrl: string): Promise<string[]> {
  const client = await connect(databaseUrl);
  try {
    const { rows: tables } = await client.query<{ name: string | null }>(`SELECT to_regclass('_prisma_migrations')::text AS name`);
    const done = tables[0]?.name
      ? await client.query<{ migration_name: string }>('SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL')
      : { rows: [] };
    const applied = new Set(done.rows.map(({ migration_name }) => migration_name));
    const entries = await readdir(MIGRATIONS_DIR, { withFileTypes: true });
    const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
    return names.sort().filter((name) => !applied.has(name));
  } finally {
    await client.end();
  }
}

/**
 * The SQL that takes the migrated schema to `schema.prisma`; empty if they match.
 * Runs the migrations in a temporary database on the server of `databaseUrl`; does not touch the database named in the URL.
 */
export async function diffFromMigrations(databaseUrl: string): Promise<string> {
  const scratch = new URL(databaseUrl);
  scratch.pathname = `/parley_scratch_${randomBytes(4).toString('hex')}`;
  try {
    await applyMigrations(scratch.href);
    return await diffFromDatabase(scratch.href);
  } finally {
    await withServerConnection(databaseUrl, (client) =>
      client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(databaseName(scratch.href))}`),
    );
  }
}

/** The SQL that takes the database at `databaseUrl` to `schema.prisma`; empty if they match. */
export async function diffFromDatabase(databaseUrl: string): Promise<string> {
  const schema = await readSchema();
  const from = { tag: 'schemaDatasource' as const, files: [schema], configDir: PRISMA_DIR };
  const to = { tag: 'schemaDatamodel' as const, files: [schema] };
  // Check the exit code: for "no difference" the engine still prints a comment.
  const result = await withEngine(databaseUrl, (engine) => engine.diff({ from, to, script: true, exitCode: true, filters: NO_FILTERS }));
  return result.exitCode === 0 ? '' : (result.stdout ?? '');
}

/**
 * Writes the diff to `prisma/migrations/<UTC time>_<name>/migration.sql`.
 * Resolves to the path, or to undefined if there is no difference.
 * @throws Error if `name` has characters other than a-z, 0-9 and _
 */
export async function writeMigration(databaseUrl: string, name: string): Promise<string | undefined> {
  if (!/^[a-z0-9_]+$/.test(name)) throw new Error(`the name of a migration may only contain a-z, 0-9 and _: "${name}"`);
  const sql = await diffFromMigrations(databaseUrl);
  if (sql === '') return undefined;
  const stamp = new Date().toISOString().replace(/\D/g, '').slice(0, 14);
  const path = join(MIGRATIONS_DIR, `${stamp}_${name}`, 'migration.sql');
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, sql);
  return path;
}

type Engine = Awaited<ReturnType<typeof engineGlue.SchemaEngine.new>>;

async function withEngine<T>(databaseUrl: string, use: (engine: Engine) => Promise<T>): Promise<T> {
  const { SchemaEngine } = await loadEngine();
  // One connection: the engine takes a session lock and expects later statements in the same session.
  const pool = new Pool({ connectionString: databaseUrl, max: 1, connectionTimeoutMillis: CONNECT_TIMEOUT_MS });
  const { path, content } = await readSchema();
  const ignoreLog = () => undefined;
  try {
    const adapter = bindMigrationAwareSqlAdapterFactory(migrationAdapter(pool));
    const engine = await SchemaEngine.new({ datamodels: [[path, content]] }, ignoreLog, adapter);
    try {
      return await use(engine);
    } finally {
      engine.free();
    }
  } catch (error) {
    throw engineError(error);
  } finally {
    await pool.end();
  }
}

/** PostgreSQL's type OIDs of "char" (the catalogs' one-letter type) and text. */
const CHAR_TYPE = 18;
const TEXT_TYPE = 25;

/** The indexes of a result's "char" columns, keyed by its rows: the only object that the driver and the adapter share. */
type CharColumns = WeakMap<object, number[]>;

/**
 * Prisma's adapter with two fixes for migrations. It splits a script at every semicolon, even inside strings, comments and function
 * bodies; PostgreSQL accepts the script as a whole. And it rejects "char" columns, which the engine reads as characters.
 */
function migrationAdapter(pool: Pool): SqlMigrationAwareDriverAdapterFactory {
  const charColumns: CharColumns = new WeakMap();
  reportCharAsText(pool, charColumns);
  const factory = new PrismaPg(pool);
  const connect = async () => {
    const adapter = await factory.connect();
    const executeScript = async (script: string) => {
      await pool.query(script);
    };
    const queryRaw = async (query: SqlQuery) => {
      const result = await adapter.queryRaw(query);
      for (const column of charColumns.get(result.rows) ?? []) result.columnTypes[column] = ColumnTypeEnum.Character;
      return result;
    };
    return Object.assign(Object.create(adapter) as typeof adapter, { executeScript, queryRaw });
  };
  return { provider: factory.provider, adapterName: factory.adapterName, connect, connectToShadowDb: connect };
}

function reportCharAsText(pool: Pool, charColumns: CharColumns): void {
  const query = pool.query.bind(pool) as (...args: unknown[]) => Promise<QueryResult>;
  const queryWithText = async (...args: unknown[]) => {
    const result = await query(...args);
    const fields = result.fields ?? [];
    const columns = fields.flatMap((field, index) => (field.dataTypeID === CHAR_TYPE ? [index] : []));
    for (const column of columns) Object.assign(fields[column] ?? {}, { dataTypeID: TEXT_TYPE });
    if (columns.length > 0) charColumns.set(result.rows, columns);
    return result;
  };
  Object.assign(pool, { query: queryWithText as Pool['query'] });
}

function engineError(error: unknown): Error {
  const message = error instanceof Error ? error.message : String(error);
  return new Error(`the migration engine failed: ${message.trim()}`, { cause: error });
}

/** The generated WebAssembly bindings' entry points that their types omit. */
interface GlueInternals {
  __wbg_set_wasm(exports: object): void;
}
/** Built into Node, but not part of this project's type libraries. */
declare const WebAssembly: {
  instantiate(bytes: Uint8Array, imports: Record<string, object>): Promise<{ instance: { exports: { __wbindgen_start(): void } } }>;
};

let engineLoaded: Promise<typeof engineGlue> | undefined;

/** The package expects a bundler that can import .wasm files; this instantiates the module by hand. */
function loadEngine(): Promise<typeof engineGlue> {
  engineLoaded ??= (async () => {
    const gluePath = require.resolve('@prisma/schema-engine-wasm/schema_engine_bg');
    const bytes = await readFile(join(dirname(gluePath), 'schema_engine_bg.wasm'));
    const { instance } = await WebAssembly.instantiate(bytes, { './schema_engine_bg.js': withUnrefTimers() });
    (engineGlue as unknown as GlueInternals).__wbg_set_wasm(instance.exports);
    instance.exports.__wbindgen_start();
    return engineGlue;
  })();
  return engineLoaded;
}

/** The engine leaves the 10 s timer of its lock running when it is done; it must not keep the process alive. */
function withUnrefTimers(): Record<string, unknown> {
  const entries = Object.entries(engineGlue).map(([name, value]: [string, unknown]) => {
    if (!name.startsWith('__wbg_setTimeout_') || typeof value !== 'function') return [name, value];
    return [name, (...args: unknown[]) => (value(...args) as NodeJS.Timeout).unref()];
  });
  return Object.fromEntries(entries);
}

async function readSchema(): Promise<SchemaContainer> {
  return { path: SCHEMA_PATH, content: await readFile(SCHEMA_PATH, 'utf8') };
}

async function readMigrations(): Promise<MigrationList> {
  const entries = await readdir(MIGRATIONS_DIR, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  return {
    baseDir: MIGRATIONS_DIR,
    lockfile: {
      path: 'migration_lock.toml',
      content: await readFile(join(MIGRATIONS_DIR, 'migration_lock.toml'), 'utf8').catch(() => null),
    },
    shadowDbInitScript: '',
    migrationDirectories: await Promise.all(names.sort().map(readMigration)),
  };
}

async function readMigration(name: string): Promise<MigrationDirectory> {
  const path = 'migration.sql';
  try {
    const value = await readFile(join(MIGRATIONS_DIR, name, path), 'utf8');
    return { path: name, migrationFile: { path, content: { tag: 'ok', value } } };
  } catch (error) {
    return { path: name, migrationFile: { path, content: { tag: 'error', value: String(error) } } };
  }
}

async function withMigrationLock<T>(databaseUrl: string, work: () => Promise<T>): Promise<T> {
  const client = await connect(databaseUrl);
  try {
    // A session lock: PostgreSQL releases it when the connection closes, even if the process crashes.
    await client.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK_KEY]);
    return await work();
  } finally {
    await client.end();
  }
}

async function createDatabaseIfMissing(databaseUrl: string): Promise<boolean> {
  try {
    await (await connect(databaseUrl)).end();
    return false;
  } catch (error) {
    if (!(error instanceof DatabaseError) || error.code !== DATABASE_MISSING) throw error;
  }
  return createDatabase(databaseUrl);
}

async function createDatabase(databaseUrl: string): Promise<boolean> {
  try {
    await withServerConnection(databaseUrl, (client) =>
      client.query(`CREATE DATABASE ${client.escapeIdentifier(databaseName(databaseUrl))}`),
    );
    return true;
  } catch (error) {
    if (error instanceof DatabaseError && DATABASE_EXISTS.includes(error.code ?? '')) return false;
    throw error;
  }
}

function databaseName(databaseUrl: string): string {
  return decodeURIComponent(new URL(databaseUrl).pathname.slice(1));
}

/** Connects to the server's `postgres` database, so that no database of ours is in use. */
async function withServerConnection(databaseUrl: string, use: (client: Client) => Promise<unknown>): Promise<void> {
  const url = new URL(databaseUrl);
  url.pathname = '/postgres';
  const client = await connect(url.href);
  try {
    await use(client);
  } finally {
    await client.end();
  }
}

async function connect(url: string): Promise<Client> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: CONNECT_TIMEOUT_MS, application_name: 'parley-migrate' });
  // Without a listener, a connection that breaks between two queries would crash the process. The next query reports it.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
