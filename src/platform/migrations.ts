/**
 * Applies the migrations of prisma/migrations. Their files, the table `_prisma_migrations` and the checksums are those of
 * `prisma migrate deploy`, so either can continue what the other began. Here a migration and its row are one transaction, so a killed
 * process leaves no trace, and the next one starts over.
 */
import { createHash, randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Client, DatabaseError } from 'pg';
import { connectionOptions } from './database';

export const MIGRATIONS_DIR = resolve(__dirname, '../../prisma/migrations');

/** Advisory locks that exclude Parley before 0.3 (an arbitrary key) and Prisma's own tool. Taken in this order, as Parley 0.2 does. */
const MIGRATION_LOCK_KEYS = [4_021_507_233, 72_707_369];

const CONNECT_TIMEOUT_MS = 10_000;

const DATABASE_MISSING = '3D000';
/** When two processes create the same database, the second gets "already exists" or violates the catalog's unique index. */
const DATABASE_EXISTS = ['42P04', '23505'];
const CANNOT_RUN_IN_TRANSACTION = '25001';
/** A column, function, table, schema or other object already exists, or no longer does: the errors of a script that runs again. */
const ALREADY_DONE = ['42701', '42703', '42723', '42P07', '42P01', '42P06', '42710', '42704'];

interface MigrateOptions {
  /** Where the migrations are. */
  dir?: string;
  /** Called after each step. */
  onProgress?: (line: string) => void;
  /** Called with notices for a person: a wait, or a difference between the database and the files. */
  onNotice?: (line: string) => void;
}

interface Migration {
  name: string;
  sql: string;
  checksum: string;
}

/** A row of `_prisma_migrations`. */
interface MigrationRow {
  id: string;
  name: string;
  checksum: string;
  /** False if Prisma's tool or Parley before 0.3 was killed or failed; this version only writes finished rows. */
  isFinished: boolean;
  /** The script's error. Null if the process was killed. */
  logs: string | null;
}

/**
 * Applies all pending migrations to the database at `databaseUrl`; creates the database if it does not exist.
 * Safe to call from several processes at once: one applies, the others wait. Resolves to the migrations that this call applied.
 * @throws Error if the server is unreachable, the database belongs to another program, or a migration fails; that one leaves no trace
 */
export async function applyMigrations(databaseUrl: string, options: MigrateOptions = {}): Promise<string[]> {
  const { dir = MIGRATIONS_DIR, onProgress = ignore, onNotice = ignore } = options;
  if (await createDatabaseIfMissing(databaseUrl)) onProgress('created the database');
  const migrations = await readMigrations(dir);
  return withConnection(databaseUrl, async (client) => {
    await takeMigrationLocks(client, onNotice);
    await createTableIfMissing(client);
    const rows = await readRows(client);
    if (rows.length > 0 && !rows.some(({ name }) => migrations.some((migration) => migration.name === name))) throw foreignDatabase();
    reportDifferences(migrations, rows, onNotice);
    const applied: string[] = [];
    for (const migration of migrations) {
      const own = rows.filter((row) => row.name === migration.name);
      if (own.some((row) => row.isFinished)) continue;
      const wasPending = await applyMigration(client, migration, own[0]);
      if (wasPending) applied.push(migration.name);
      if (wasPending) onProgress(`applied ${migration.name}`);
      else onNotice(`${migration.name} had been applied by a process that was killed before recording it; recorded now`);
    }
    return applied;
  });
}

/** The migrations that the database at `databaseUrl` does not have yet. @throws Error if it cannot be reached */
export async function pendingMigrations(databaseUrl: string): Promise<string[]> {
  const migrations = await readMigrations(MIGRATIONS_DIR);
  return withConnection(databaseUrl, async (client) => {
    const { rows: tables } = await client.query<{ exists: boolean }>(`SELECT to_regclass('_prisma_migrations') IS NOT NULL AS exists`);
    const rows = tables[0]?.exists ? await readRows(client) : [];
    const applied = new Set(rows.filter(({ isFinished }) => isFinished).map(({ name }) => name));
    return migrations.map(({ name }) => name).filter((name) => !applied.has(name));
  });
}

/** Drops the database that `databaseUrl` names, if it exists. */
export async function dropDatabase(databaseUrl: string): Promise<void> {
  await withServerConnection(databaseUrl, (client) =>
    client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(databaseName(databaseUrl))}`),
  );
}

function ignore(): void {}

async function readMigrations(dir: string): Promise<Migration[]> {
  const entries = await readdir(dir, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  return Promise.all(names.sort().map((name) => readMigration(dir, name)));
}

async function readMigration(dir: string, name: string): Promise<Migration> {
  const text = await readFile(join(dir, name, 'migration.sql'), 'utf8');
  // A checkout may have changed the line endings.
  const sql = text.replaceAll('\r\n', '\n');
  return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
}

/** Waits for another process that is migrating. The session holds the locks, so PostgreSQL frees them once a killed process's work ends. */
async function takeMigrationLocks(client: Client, onNotice: (line: string) => void): Promise<void> {
  for (const key of MIGRATION_LOCK_KEYS) {
    const { rows } = await client.query<{ taken: boolean }>('SELECT pg_try_advisory_lock($1) AS taken', [key]);
    if (rows[0]?.taken) continue;
    onNotice('waiting for another process that is migrating this database');
    await client.query('SELECT pg_advisory_lock($1)', [key]);
  }
}

/** @throws Error if the database has tables, but not this one */
async function createTableIfMissing(client: Client): Promise<void> {
  const { rows } = await client.query<{ isMissing: boolean; isEmpty: boolean }>(`
    SELECT to_regclass('_prisma_migrations') IS NULL AS "isMissing",
           NOT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                        WHERE nspname = current_schema() AND relkind IN ('r', 'p', 'v', 'm')
                          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
           ) AS "isEmpty"`);
  if (!rows[0]?.isMissing) return;
  if (!rows[0].isEmpty) throw foreignDatabase();
  // As Prisma creates it. IF NOT EXISTS is not needed, because the lock is held.
  await client.query(`
    CREATE TABLE _prisma_migrations (
      id VARCHAR(36) PRIMARY KEY NOT NULL,
      checksum VARCHAR(64) NOT NULL,
      finished_at TIMESTAMPTZ,
      migration_name VARCHAR(255) NOT NULL,
      logs TEXT,
      rolled_back_at TIMESTAMPTZ,
      started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
      applied_steps_count INTEGER NOT NULL DEFAULT 0
    )`);
}

/** Thrown because another program's tables must not be mixed with ours. */
function foreignDatabase(): Error {
  return new Error("the database belongs to another program: it has tables, but none of Parley's migrations; use an empty database");
}

async function readRows(client: Client): Promise<MigrationRow[]> {
  const { rows } = await client.query<MigrationRow>(`
    SELECT id, migration_name AS name, checksum, finished_at IS NOT NULL AS "isFinished", logs
      FROM _prisma_migrations WHERE rolled_back_at IS NULL ORDER BY started_at`);
  return rows;
}

/** Neither difference stops a migration: a release must be able to run on the schema of the next one. */
function reportDifferences(migrations: Migration[], rows: MigrationRow[], onNotice: (line: string) => void): void {
  for (const { name, checksum } of rows.filter((row) => row.isFinished)) {
    const migration = migrations.find((candidate) => candidate.name === name);
    if (migration === undefined)
      onNotice(`warning: the database has ${name}, which this version does not know; a newer version applied it`);
    else if (migration.checksum !== checksum) {
      onNotice(`warning: ${name} was changed after it had been applied; this database does not have the change`);
    }
  }
}

/**
 * Applies one migration in one transaction. `unfinished` is its row that Parley before 0.3 or Prisma's tool left.
 * Resolves to false if that process had applied it and was killed before it finished the row.
 */
async function applyMigration(client: Client, migration: Migration, unfinished: MigrationRow | undefined): Promise<boolean> {
  const { name, sql, checksum } = migration;
  try {
    await client.query('BEGIN');
    await client.query('UPDATE _prisma_migrations SET rolled_back_at = now() WHERE migration_name = $1 AND rolled_back_at IS NULL', [name]);
    await client.query(sql);
    if (client.getTransactionStatus() !== 'T')
      throw new Error('its script ends the transaction; remove BEGIN, COMMIT and ROLLBACK from it');
    await client.query(
      `INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)
       VALUES ($1, $2, $3, clock_timestamp(), 1)`,
      [randomUUID(), checksum, name],
    );
    await client.query('COMMIT');
    return true;
  } catch (error) {
    // Fails if the connection is lost, which also rolls back.
    await client.query('ROLLBACK').catch(ignore);
    if (unfinished === undefined || !wasApplied(error, unfinished, checksum)) throw migrationError(name, error);
    await client.query('UPDATE _prisma_migrations SET finished_at = now(), applied_steps_count = 1 WHERE id = $1', [unfinished.id]);
    return false;
  }
}

/**
 * Whether a killed process had applied the script. PostgreSQL ran the whole script as one transaction, and nothing has changed the
 * schema since, so it would now succeed if it had been rolled back.
 */
function wasApplied(error: unknown, { logs, checksum }: MigrationRow, currentChecksum: string): boolean {
  const foundItsWorkDone = error instanceof DatabaseError && ALREADY_DONE.includes(error.code ?? '');
  return foundItsWorkDone && logs === null && checksum === currentChecksum;
}

function migrationError(name: string, error: unknown): Error {
  const { message, hint, code } = error as { message: string; hint?: string; code?: string };
  const advice =
    code === CANNOT_RUN_IN_TRANSACTION ? 'Each migration is one transaction, so it must use a statement that can run in one' : hint;
  return new Error(`${name} failed and left no trace: ${message}${advice === undefined ? '' : `. ${advice}`}`, { cause: error });
}

async function createDatabaseIfMissing(databaseUrl: string): Promise<boolean> {
  try {
    await withConnection(databaseUrl, async () => undefined);
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
  await withConnection(url.href, use);
}

async function withConnection<T>(url: string, use: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ ...connectionOptions(url), connectionTimeoutMillis: CONNECT_TIMEOUT_MS, application_name: 'parley-migrate' });
  // Without a listener, a connection that breaks between two queries would crash the process. The next query reports it.
  client.on('error', ignore);
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}
