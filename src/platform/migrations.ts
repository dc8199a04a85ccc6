/**
 * Prisma migrations without Prisma's schema-engine binary, which would have to be downloaded: the same engine as WebAssembly, over
 * the PostgreSQL driver. The table (`_prisma_migrations`), the checksums and the folder are those of `prisma migrate deploy`, so either
 * may go on where the other stopped.
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

/** Any constant that nothing else locks in this database; not Prisma's own (72707369), which its engine takes inside ours. */
const MIGRATION_LOCK_KEY = 4_021_507_233;

const CONNECT_TIMEOUT_MS = 10_000;

const DATABASE_MISSING = '3D000';
/** Two processes that create one database at once: the slower sees it exist, or breaks the catalog's unique index. */
const DATABASE_EXISTS = ['42P04', '23505'];

interface MigrateOptions {
  onProgress?: (line: string) => void;
}

/**
 * Brings the database at `databaseUrl` to the newest migration, and creates it when the server has none of that name.
 * Any number of processes may call it at once: one works, the others wait. Resolves to the names that this call applied.
 * @throws Error when the server cannot be reached or a migration fails (it then stays marked as failed, as with Prisma's own tool)
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

/**
 * The SQL that leads from all migrations to `schema.prisma`; empty when they agree.
 * Runs the migrations in a scratch database on the server of `databaseUrl`, which it creates and drops; the named database is not touched.
 */
export async function diffFromMigrations(databaseUrl: string): Promise<string> {
  const scratch = new URL(databaseUrl);
  scratch.pathname = `/parley_scratch_${randomBytes(4).toString('hex')}`;
  try {
    await applyMigrations(scratch.href);
    return await diffFromDatabase(scratch.href);
  } finally {
    await onServer(databaseUrl, (client) => client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(databaseName(scratch.href))}`));
  }
}

/** The SQL that leads from the live database at `databaseUrl` to `schema.prisma`; empty when they agree. */
export async function diffFromDatabase(databaseUrl: string): Promise<string> {
  const schema = await readSchema();
  const from = { tag: 'schemaDatasource' as const, files: [schema], configDir: PRISMA_DIR };
  const to = { tag: 'schemaDatamodel' as const, files: [schema] };
  // The exit code is the engine's only sign of "no difference"; its text for that case is a comment.
  const result = await withEngine(databaseUrl, (engine) => engine.diff({ from, to, script: true, exitCode: true, filters: NO_FILTERS }));
  return result.exitCode === 0 ? '' : (result.stdout ?? '');
}

/**
 * Writes `prisma/migrations/<UTC time>_<name>/migration.sql` from the diff.
 * Resolves to its path, or to undefined when there is nothing to write.
 * @throws Error when `name` has other characters than a-z, 0-9 and _
 */
export async function writeMigration(databaseUrl: string, name: string): Promise<string | undefined> {
  if (!/^[a-z0-9_]+$/.test(name)) throw new Error(`a migration's name has only a-z, 0-9 and _: "${name}"`);
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
    throw readableError(error);
  } finally {
    await pool.end();
  }
}

/** PostgreSQL's number of "char", the one-letter type of its catalogs, and of text. */
const CHAR_TYPE = 18;
const TEXT_TYPE = 25;

/** Which columns of a result are "char", by the result's rows: the one object that the driver and the adapter share. */
type CharColumns = WeakMap<object, number[]>;

/**
 * The adapter, mended where it was not made for this work: it would cut a migration at every semicolon, also inside strings, comments and
 * function bodies, which PostgreSQL takes whole; and it refuses "char" columns, which the engine reads as characters.
 */
function migrationAdapter(pool: Pool): SqlMigrationAwareDriverAdapterFactory {
  const charColumns: CharColumns = new WeakMap();
  announceCharAsText(pool, charColumns);
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

function announceCharAsText(pool: Pool, charColumns: CharColumns): void {
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

/** The engine throws Rust's rendering of an error, with the useful sentence in the middle. */
function readableError(error: unknown): Error {
  const message = error instanceof Error ? error.message : String(error);
  return new Error(`the migration engine failed: ${message.trim()}`, { cause: error });
}

/** The two entry points of the glue that its types leave out. */
interface GlueInternals {
  __wbg_set_wasm(exports: object): void;
}
/** Node has it; the type libraries of this project do not. */
declare const WebAssembly: {
  instantiate(bytes: Uint8Array, imports: Record<string, object>): Promise<{ instance: { exports: { __wbindgen_start(): void } } }>;
};

let engineLoaded: Promise<typeof engineGlue> | undefined;

/** The package expects a bundler that imports .wasm files; this does by hand what that would do. */
function loadEngine(): Promise<typeof engineGlue> {
  engineLoaded ??= (async () => {
    const gluePath = require.resolve('@prisma/schema-engine-wasm/schema_engine_bg');
    const bytes = await readFile(join(dirname(gluePath), 'schema_engine_bg.wasm'));
    const { instance } = await WebAssembly.instantiate(bytes, { './schema_engine_bg.js': withPassingTimers() });
    (engineGlue as unknown as GlueInternals).__wbg_set_wasm(instance.exports);
    instance.exports.__wbindgen_start();
    return engineGlue;
  })();
  return engineLoaded;
}

/** The engine leaves the 10 s timer of its lock running when it is done: it must not keep a process from ending. */
function withPassingTimers(): Record<string, unknown> {
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
    // A session lock: PostgreSQL frees it when this connection ends, however the process ends.
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
    await onServer(databaseUrl, (client) => client.query(`CREATE DATABASE ${client.escapeIdentifier(databaseName(databaseUrl))}`));
    return true;
  } catch (error) {
    if (error instanceof DatabaseError && DATABASE_EXISTS.includes(error.code ?? '')) return false;
    throw error;
  }
}

function databaseName(databaseUrl: string): string {
  return decodeURIComponent(new URL(databaseUrl).pathname.slice(1));
}

/** A connection to the server of `databaseUrl` that holds no database of ours open. */
async function onServer(databaseUrl: string, use: (client: Client) => Promise<unknown>): Promise<void> {
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
  // A connection that breaks between two queries would otherwise end the process; the next query reports it.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
