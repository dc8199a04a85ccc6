/**
 * The record's one door: a Prisma client on PostgreSQL. Who opens it closes it (`$disconnect`).
 */
import { PrismaPg } from '@prisma/adapter-pg';
import { PrismaClient } from '../prisma/generated/client';

/** Bounds of one process's connections. Every field has a default. */
export interface DatabaseOptions {
  /** Most connections at once (default 10: five such processes stay below PostgreSQL's own default of 100). */
  poolSize?: number;
  /** Milliseconds to wait for a connection, new or from the pool, before a query fails (default 5000). */
  connectTimeoutMs?: number;
  /** Milliseconds after which PostgreSQL cancels a statement (default 15000); keeps a stuck lock from holding the pool. */
  statementTimeoutMs?: number;
  /** Milliseconds after which an unused connection is closed (default 60000). */
  idleTimeoutMs?: number;
  /** Told when an idle connection breaks; the pool replaces it by itself. */
  onConnectionLost?: (error: Error) => void;
}

/** Opens the record at `url`. Connects with the first query, so an unreachable server shows there, not here. */
export function openDatabase(url: string, options: DatabaseOptions = {}): PrismaClient {
  const adapter = new PrismaPg(
    {
      connectionString: url,
      max: options.poolSize ?? 10,
      connectionTimeoutMillis: options.connectTimeoutMs ?? 5_000,
      idleTimeoutMillis: options.idleTimeoutMs ?? 60_000,
      statement_timeout: options.statementTimeoutMs ?? 15_000,
      application_name: 'parley',
    },
    // Without a listener the adapter prints a broken idle connection to the console, past the logger.
    {
      statementNameGenerator: statementNames(),
      onPoolError: (error) => options.onConnectionLost?.(error),
      onConnectionError: (error) => options.onConnectionLost?.(error),
    },
  );
  return new PrismaClient({ adapter });
}

/** More different statements than our own code has; a text beyond them is planned each time. */
const MAX_PREPARED = 200;

/**
 * Names for prepared statements, so that PostgreSQL parses and plans each text once per connection. Bounded, because a
 * text that varies with its number of values would fill the server's memory.
 */
function statementNames(): (query: { sql: string }) => string {
  const names = new Map<string, string>();
  return ({ sql }) => {
    const known = names.get(sql);
    if (known !== undefined) return known;
    const name = names.size < MAX_PREPARED ? `parley_${names.size}` : '';
    if (name !== '') names.set(sql, name);
    return name;
  };
}

/** Whether PostgreSQL answers within `timeoutMs`. */
export async function isDatabaseReachable(db: PrismaClient, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const tooSlow = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  const answered = db.$queryRaw`SELECT 1`.then(
    () => true,
    () => false,
  );
  const reachable = await Promise.race([answered, tooSlow]);
  clearTimeout(timer);
  return reachable;
}
