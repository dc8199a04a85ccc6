/** PostgreSQL access: Prisma's models and prepared SQL statements over one pool. The caller that opens it closes it. */
import { PrismaPg } from '@prisma/adapter-pg';
import { type ClientConfig, Pool, type PoolClient, type QueryResultRow } from 'pg';
import { Prisma, PrismaClient } from '../../prisma/generated/client';
import { databaseProblem } from './connection-problems';

/** Limits for the connections of one process. Every field has a default. */
export interface DatabaseOptions {
  /** Maximum number of connections (default 10: five such processes stay below PostgreSQL's default limit of 100). */
  poolSize?: number;
  /** Timeout in ms for getting a connection, new or pooled (default 5000). */
  connectTimeoutMs?: number;
  /**
   * Statement timeout in ms, enforced by PostgreSQL (default 15000), so that a stuck lock cannot exhaust the pool. If the server
   * has not reported the timeout 2 s later, it is considered unreachable, and the connection is dropped.
   */
  statementTimeoutMs?: number;
  /** Idle time in ms after which a connection is closed (default 60000). */
  idleTimeoutMs?: number;
  /** Called after each query, failed or not, with its duration including the wait for a connection. Must not throw. */
  onQuery?: (kind: 'sql' | 'orm', seconds: number) => void;
  /** Called when an idle connection breaks; the pool replaces it. */
  onConnectionLost?: (error: Error) => void;
}

/** Runs statements: each on a connection of the pool, or all in one transaction. */
export interface Statements {
  /**
   * Runs one statement, prepared once per connection. For the per-message path, whose statements are single and atomic, and
   * where the ORM would use more CPU than PostgreSQL itself (docs/decisions/0005). Returns rows as the driver parses them.
   */
  query<T>(statement: Prisma.Sql): Promise<T[]>;
}

/** An open database. Models and SQL statements share one connection pool. */
export interface Database extends Statements {
  /** Prisma's models, for everything off the per-message path. */
  orm: PrismaClient;
  /** Runs `work` in one READ COMMITTED transaction, which is rolled back if `work` throws. */
  transaction<T>(work: (statements: Statements) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** How long PostgreSQL's own statement timeout gets to report first: its error says what was cancelled. */
const CANCEL_GRACE_MS = 2_000;

/** Builds a statement from a template literal; values become parameters, and statements can be nested. */
export const sql = Prisma.sql;

/**
 * Condition that a UUID column has one of the values. A single value, which is the rule, is compared with `=`: for that PostgreSQL uses the
 * unique index even in a new database, whose tables it takes for too small to look anything up.
 */
export function isOneOf(column: Prisma.Sql, ids: readonly string[]): Prisma.Sql {
  return ids.length === 1 ? sql`${column} = ${ids[0]}::uuid` : sql`${column} = ANY(${ids}::uuid[])`;
}

/** Modes that the driver treats like verify-full unless the URL has `uselibpqcompat=true`. */
const CHECKING_MODES = ['prefer', 'require', 'verify-ca'];

/**
 * The options that every connection to `databaseUrl` must use. Writes `verify-full` if the driver would do the same anyway, because it
 * would otherwise warn on standard error, and check less in its next major version.
 */
export function connectionOptions(databaseUrl: string): Pick<ClientConfig, 'connectionString'> {
  const url = new URL(databaseUrl);
  const isLenient = url.searchParams.get('uselibpqcompat') === 'true';
  if (isLenient || !CHECKING_MODES.includes(url.searchParams.get('sslmode') ?? '')) return { connectionString: databaseUrl };
  url.searchParams.set('sslmode', 'verify-full');
  return { connectionString: url.href };
}

/** Opens the database at `url`. It connects on the first query, so an unreachable server fails there, not here. */
export function openDatabase(url: string, options: DatabaseOptions = {}): Database {
  const statementTimeoutMs = options.statementTimeoutMs ?? 15_000;
  const pool = new Pool({
    ...connectionOptions(url),
    max: options.poolSize ?? 10,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 5_000,
    idleTimeoutMillis: options.idleTimeoutMs ?? 60_000,
    statement_timeout: statementTimeoutMs,
    // Without this, a network that drops packets would block every connection of the pool forever.
    query_timeout: statementTimeoutMs + CANCEL_GRACE_MS,
    application_name: 'parley',
  });
  // Without a listener, a broken idle connection would crash the process; the pool replaces it anyway.
  pool.on('error', (error) => options.onConnectionLost?.(error));
  const { onQuery } = options;
  const orm = new PrismaClient({ adapter: new PrismaPg(pool), log: [{ emit: 'event', level: 'query' }] });
  // Read the duration only: the event also carries the query's values.
  if (onQuery) orm.$on('query', ({ duration }) => onQuery('orm', duration / 1_000));
  const nameOf = statementNames();
  const on = (connection: Pool | PoolClient): Statements => ({
    async query<T>({ text, values }: Prisma.Sql) {
      const startedAt = performance.now();
      try {
        const { rows } = await connection.query<T & QueryResultRow>({ name: nameOf(text), text, values });
        return rows;
      } finally {
        onQuery?.('sql', (performance.now() - startedAt) / 1_000);
      }
    },
  });
  return {
    orm,
    ...on(pool),
    transaction: (work) => inTransaction(pool, (connection) => work(on(connection))),
    async close() {
      await orm.$disconnect();
      await pool.end();
    },
  };
}

async function inTransaction<T>(pool: Pool, work: (connection: PoolClient) => Promise<T>): Promise<T> {
  const connection = await pool.connect();
  // Without a listener, a connection that breaks between two statements would crash the process. The next statement fails anyway.
  const ignore = () => undefined;
  connection.on('error', ignore);
  let isBroken = false;
  try {
    await connection.query('BEGIN');
    const result = await work(connection);
    await connection.query('COMMIT');
    return result;
  } catch (error) {
    await connection.query('ROLLBACK').catch(() => {
      isBroken = true;
    });
    throw error;
  } finally {
    connection.removeListener('error', ignore);
    // If the rollback fails, drop the connection: PostgreSQL then aborts the transaction.
    connection.release(isBroken);
  }
}

/** More distinct statements than our code has. Statements beyond this limit are not prepared. */
const MAX_PREPARED = 200;

/**
 * Assigns names to prepared statements, so that PostgreSQL parses and plans each text once per connection. Limited, because
 * a text that varies would fill the server's memory.
 */
function statementNames(): (text: string) => string | undefined {
  const names = new Map<string, string>();
  return (text) => {
    const known = names.get(text);
    if (known !== undefined || names.size >= MAX_PREPARED) return known;
    const name = `parley_${names.size}`;
    names.set(text, name);
    return name;
  };
}

/** Whether PostgreSQL responds within `timeoutMs`. */
export async function isDatabaseReachable(db: Database, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  const responded = db.query(sql`SELECT 1`).then(
    () => true,
    () => false,
  );
  const reachable = await Promise.race([responded, timeout]);
  clearTimeout(timer);
  return reachable;
}

/** Checks that the database at `databaseUrl` answers a query. @throws ConnectionProblem, or any other error unchanged */
export async function reachDatabase(db: Database, databaseUrl: string): Promise<void> {
  try {
    await db.query(sql`SELECT 1`);
  } catch (error) {
    throw databaseProblem(error, databaseUrl);
  }
}
