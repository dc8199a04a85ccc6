/**
 * What an error of PostgreSQL means to the caller: it is away (the same statement works later), it refused the statement (it
 * always will), or neither (a deadlock, a lock: try again now). The one place that knows PostgreSQL's, Prisma's and the driver's codes.
 */

/** Timeout of a query on behalf of a waiting caller. A connection's own bounds are longer (src/platform/database.ts). */
const ANSWER_TIMEOUT_MS = 4_000;

/** The database did not answer in time. */
export class DatabaseAwayError extends Error {
  override name = 'DatabaseAwayError';
}

/**
 * Waits for a query for at most `timeoutMs` (default 4000). A late statement may still be executed, so it must be idempotent.
 * @throws DatabaseAwayError after the timeout, or what the query throws
 */
export async function fromRecord<T>(query: PromiseLike<T>, timeoutMs = ANSWER_TIMEOUT_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const tooSlow = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new DatabaseAwayError('the database did not answer in time')), timeoutMs);
  });
  try {
    return await Promise.race([query, tooSlow]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether the database could not be reached or could not work: the same statement may succeed later. */
export function isDatabaseAway(error: unknown): boolean {
  return verdictOf(error) === 'away';
}

/** Whether the database understood the statement and rejects it, now and later: a constraint, a type, a syntax error. */
export function isRefused(error: unknown): boolean {
  return verdictOf(error) === 'refused';
}

/** Whether two statements met (a deadlock, a lock that was not to be had): the same one works when it is repeated. */
export function isConflict(error: unknown): boolean {
  return verdictOf(error) === 'conflict';
}

/** Whether another row has a key that must be unique. For statements, not for Prisma's models. */
export function isUniqueViolation(error: unknown): boolean {
  return (error as DatabaseErrorLike | null)?.code === '23505';
}

/** Whether the row that a foreign key names is not there. For statements, not for Prisma's models. */
export function isForeignKeyViolation(error: unknown): boolean {
  return (error as DatabaseErrorLike | null)?.code === '23503';
}

/** `conflict`: two statements met, and one of them has to be repeated. Undefined: not an error of the database. */
type Verdict = 'away' | 'refused' | 'conflict' | undefined;

/**
 * SQLSTATE classes (PostgreSQL's appendix A) of an error that says nothing about the statement: connection lost, login refused, no such
 * database, out of resources, operator intervention (with statement timeouts), system error; and a server that is a read-only standby.
 */
const SQLSTATE_AWAY = /^(?:(?:08|28|3D|53|57|58)...|25006)$/;
/** Transaction rolled back (serialization, deadlock), object in use. */
const SQLSTATE_CONFLICT = /^(?:40|55)...$/;
/** Node's codes can have five letters too (`EPERM`). */
const SQLSTATE = /^(?:[0-9][0-9A-Z]|F0|HV|P0|XX)[0-9A-Z]{3}$/;
/** Prisma's own codes look like an SQLSTATE, but PostgreSQL has no class P1 to P6. */
const PRISMA = /^P[1-6]\d{3}$/;
/** P1xxx: the connection; P2024: none from the pool in time; P2037: too many of them. */
const PRISMA_AWAY = /^P(?:1\d{3}|2024|2037)$/;
/** P2028: the transaction is over or could not begin; P2034: conflict or deadlock. */
const PRISMA_CONFLICT = /^P20(?:28|34)$/;
const NETWORK_AWAY = /^E(?:CONNREFUSED|CONNRESET|PIPE|HOSTUNREACH|NETUNREACH|TIMEDOUT|NOTFOUND|AI_AGAIN)$/;
/** The driver's own errors have no code. */
const DRIVER_AWAY = /^(?:Connection terminated|Query read timeout|timeout exceeded when trying to connect)/;

/** A cause further inside is not the reason any more. */
const MAX_CAUSES = 5;

function verdictOf(error: unknown, depth = 0): Verdict {
  if (depth > MAX_CAUSES || typeof error !== 'object' || error === null) return undefined;
  if (error instanceof DatabaseAwayError) return 'away';
  const { name, code, originalCode, message, meta, cause } = error as DatabaseErrorLike;
  // PostgreSQL's own code, where it stands inside, is more exact than the one that Prisma made of it.
  const inner = verdictOf(meta?.driverAdapterError, depth + 1) ?? verdictOf(cause, depth + 1);
  if (inner !== undefined) return inner;
  const own = typeof originalCode === 'string' ? originalCode : code;
  if (typeof own === 'string') return verdictOfCode(own);
  if (name === 'PrismaClientValidationError') return 'refused';
  return typeof message === 'string' && DRIVER_AWAY.test(message) ? 'away' : undefined;
}

function verdictOfCode(code: string): Verdict {
  if (PRISMA_AWAY.test(code) || NETWORK_AWAY.test(code)) return 'away';
  if (PRISMA_CONFLICT.test(code)) return 'conflict';
  if (PRISMA.test(code)) return 'refused';
  if (!SQLSTATE.test(code)) return undefined;
  if (SQLSTATE_AWAY.test(code)) return 'away';
  return SQLSTATE_CONFLICT.test(code) ? 'conflict' : 'refused';
}

/** As pg (`code`), its Prisma adapter (`originalCode`) and Prisma (`meta`) make them. */
interface DatabaseErrorLike {
  name?: unknown;
  code?: unknown;
  originalCode?: unknown;
  message?: unknown;
  meta?: { driverAdapterError?: unknown };
  cause?: unknown;
}
