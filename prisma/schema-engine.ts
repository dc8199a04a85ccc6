/**
 * Development tool: compares the migrations with schema.prisma and writes new ones. Uses Prisma's schema engine compiled to WebAssembly,
 * over the PostgreSQL driver, so that no engine has to be downloaded. Not used in production (see src/platform/migrations.ts).
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PrismaPg } from '@prisma/adapter-pg';
import {
  bindMigrationAwareSqlAdapterFactory,
  ColumnTypeEnum,
  type SqlMigrationAwareDriverAdapterFactory,
  type SqlQuery,
} from '@prisma/driver-adapter-utils';
import type { SchemaContainer } from '@prisma/schema-engine-wasm/schema_engine_bg';
import * as engineGlue from '@prisma/schema-engine-wasm/schema_engine_bg';
import { Pool, type QueryResult } from 'pg';
import { connectionOptions } from '../src/platform/database';
import { applyMigrations, dropDatabase, MIGRATIONS_DIR } from '../src/platform/migrations';

const SCHEMA_PATH = join(__dirname, 'schema.prisma');
export const NO_FILTERS = { externalTables: [], externalEnums: [] };
const CONNECT_TIMEOUT_MS = 10_000;

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
    await dropDatabase(scratch.href);
  }
}

/** The SQL that takes the database at `databaseUrl` to `schema.prisma`; empty if they match. */
export async function diffFromDatabase(databaseUrl: string): Promise<string> {
  const schema = await readSchema();
  const from = { tag: 'schemaDatasource' as const, files: [schema], configDir: __dirname };
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

/** Runs `use` with the engine connected to `databaseUrl`. */
export async function withEngine<T>(databaseUrl: string, use: (engine: Engine) => Promise<T>): Promise<T> {
  const { SchemaEngine } = await loadEngine();
  // One connection: the engine takes a session lock and expects later statements in the same session.
  const pool = new Pool({ ...connectionOptions(databaseUrl), max: 1, connectionTimeoutMillis: CONNECT_TIMEOUT_MS });
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
