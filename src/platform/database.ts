/**
 * Access to PostgreSQL: Prisma's models and single statements. Whoever opens it closes it.
 */
import { PrismaPg } from '@prisma/adapter-pg';
import { Pool, type QueryResultRow } from 'pg';
import { Prisma, PrismaClient } from '../../prisma/generated/client';

/** Bounds of one process's connections. Every field has a default. */
export interface DatabaseOptions {
  /** Most connections at once (default 10: five such processes stay below PostgreSQL's own default of 100). */
  poolSize?: number;
  /** Milliseconds to wait for a connection, new or from the pool, before a query fails (default 5000). */
  connectTimeoutMs?: number;
  /**
   * Milliseconds after which PostgreSQL cancels a statement (default 15000); keeps a stuck lock from holding the pool. One that has
   * not even said so 2 s later cannot be reached any more, and its connection is given up.
   */
  statementTimeoutMs?: number;
  /** Milliseconds after which an unused connection is closed (default 60000). */
  idleTimeoutMs?: number;
  /** Told how long each query took, with the wait for a connection, whether it failed or not. Must not throw. */
  onQuery?: (kind: 'sql' | 'orm', seconds: number) => void;
  /** Told when an idle connection breaks; the pool replaces it by itself. */
  onConnectionLost?: (error: Error) => void;
}

/** The database. Models and single statements share one pool of connections. */
export interface Database {
  /** The models of the schema, for everything that is not asked for with each message. */
  orm: PrismaClient;
  /**
   * Runs one statement, prepared once per connection. For the statements of a message's way: they are single, atomic,
   * and the ORM would cost more than PostgreSQL does (docs/decisions/0005). Rows come as the driver reads them.
   */
  query<T>(statement: Prisma.Sql): Promise<T[]>;
  close(): Promise<void>;
}

/** PostgreSQL's own cancellation comes first, because it says what it cancelled. */
const CANCEL_GRACE_MS = 2_000;

/** Makes a statement of a template; values become parameters, and statements may be nested. */
export const sql = Prisma.sql;

/** Opens the record at `url`. Connects with the first query, so an unreachable server shows there, not here. */
export function openDatabase(url: string, options: DatabaseOptions = {}): Database {
  const statementTimeoutMs = options.statementTimeoutMs ?? 15_000;
  const pool = new Pool({
    connectionString: url,
    max: options.poolSize ?? 10,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 5_000,
    idleTimeoutMillis: options.idleTimeoutMs ?? 60_000,
    statement_timeout: statementTimeoutMs,
    // Without it, a network that swallows packets would hold every connection of the pool for ever.
    query_timeout: statementTimeoutMs + CANCEL_GRACE_MS,
    application_name: 'parley',
  });
  // A broken idle connection would end the process; the pool replaces it by itself.
  pool.on('error', (error) => options.onConnectionLost?.(error));
  const { onQuery } = options;
  const orm = new PrismaClient({ adapter: new PrismaPg(pool), log: [{ emit: 'event', level: 'query' }] });
  // Only the duration is read: the event also has the values.
  if (onQuery) orm.$on('query', ({ duration }) => onQuery('orm', duration / 1_000));
  const nameOf = statementNames();
  return {
    orm,
    async query<T>(statement: Prisma.Sql) {
      const { text, values } = statement;
      const startedAt = performance.now();
      try {
        const { rows } = await pool.query<T & QueryResultRow>({ name: nameOf(text), text, values });
        return rows;
      } finally {
        onQuery?.('sql', (performance.now() - startedAt) / 1_000);
      }
    },
    async close() {
      await orm.$disconnect();
      await pool.end();
    },
  };
}

/** More different statements than our own code has; a text beyond them is planned each time. */
const MAX_PREPARED = 200;

/**
 * Names for prepared statements, so that PostgreSQL parses and plans each text once per connection. Bounded, because a
 * text that varies would fill the server's memory.
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

/** Whether PostgreSQL answers within `timeoutMs`. */
export async function isDatabaseReachable(db: Database, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const tooSlow = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  const answered = db.query(sql`SELECT 1`).then(
    () => true,
    () => false,
  );
  const reachable = await Promise.race([answered, tooSlow]);
  clearTimeout(timer);
  return reachable;
}
