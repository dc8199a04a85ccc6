/** The record as the API asks it: in bounded time, and told from other failures when it is away, because then coming again helps. */

/** A caller waits this long for one answer of the record. A connection's own bounds are longer (src/platform/database.ts). */
const ANSWER_TIMEOUT_MS = 4_000;

/** The record did not answer in time. */
export class RecordAwayError extends Error {
  override name = 'RecordAwayError';
}

/** What comes late may still be written: the same request again finds it. @throws RecordAwayError, or what the query throws */
export async function fromRecord<T>(query: PromiseLike<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const tooSlow = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new RecordAwayError('the record did not answer in time')), ANSWER_TIMEOUT_MS);
  });
  try {
    return await Promise.race([query, tooSlow]);
  } finally {
    clearTimeout(timer);
  }
}

/** Prisma's: P10xx are the connection's; no connection in time; too many connections. */
const PRISMA_AWAY = /^P(10\d\d|2024|2037)$/;
/** PostgreSQL's classes: connection lost, nothing left to work with, told to stop (or to give a statement up). */
const SQLSTATE_AWAY = /^(08|53|57)[0-9A-Z]{3}$/;
const NETWORK_AWAY = /^E(CONNREFUSED|CONNRESET|HOSTUNREACH|NETUNREACH|TIMEDOUT|NOTFOUND|AI_AGAIN)$/;
/** Those of pg have no code. */
const DRIVER_AWAY = /^(Connection terminated|Query read timeout|timeout exceeded when trying to connect)/;

/** Whether an error of the record says that it is away, not that the query was wrong. */
export function isRecordAway(error: unknown): boolean {
  if (error instanceof RecordAwayError) return true;
  const { code, message, meta } = (error ?? {}) as ErrorOfRecord;
  const codes = [code, meta?.driverAdapterError?.cause?.originalCode].filter((each) => typeof each === 'string');
  if (codes.length === 0) return typeof message === 'string' && DRIVER_AWAY.test(message);
  return codes.some((each) => PRISMA_AWAY.test(each) || SQLSTATE_AWAY.test(each) || NETWORK_AWAY.test(each));
}

/** As Prisma and pg make them. */
interface ErrorOfRecord {
  code?: unknown;
  message?: unknown;
  meta?: { driverAdapterError?: { cause?: { originalCode?: unknown } } };
}
