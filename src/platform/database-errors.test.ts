/** Errors as PostgreSQL, its driver and Prisma really make them; only what cannot be provoked is written down here. */
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { type Database, openDatabase, sql } from './database';
import { DatabaseAwayError, fromRecord, isDatabaseAway, isRefused } from './database-errors';

const NOBODY = '00000000-0000-4000-8000-000000000000';

let database: TestDatabase;
let db: Database;
const opened: Database[] = [];

beforeAll(async () => {
  database = await testDatabase('database_errors');
  db = openDatabase(database.url, { statementTimeoutMs: 300 });
  opened.push(db);
  await db.query(sql`ALTER TABLE workspaces ADD CONSTRAINT not_bad CHECK (name <> 'bad')`);
  await db.orm.workspace.create({ data: { name: 'one', kapsoPhoneNumberId: '1' } });
});

afterAll(async () => {
  await Promise.all(opened.map((each) => each.close()));
  await database?.drop();
});

/** Another connection to the test's database, with a part of its address changed. */
function otherDatabase(change: (url: URL) => void, poolSize = 1): Database {
  const url = new URL(database.url);
  change(url);
  const other = openDatabase(url.href, { connectTimeoutMs: 300, poolSize });
  opened.push(other);
  return other;
}

async function errorOf(run: () => Promise<unknown>): Promise<unknown> {
  try {
    await run();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

const verdict = (error: unknown) => ({ away: isDatabaseAway(error), refused: isRefused(error) });
const REFUSED = { away: false, refused: true };
const AWAY = { away: true, refused: false };
const NEITHER = { away: false, refused: false };

const refusals: [string, () => Promise<unknown>][] = [
  ['a unique key', () => db.query(sql`INSERT INTO workspaces (name, kapso_phone_number_id) VALUES ('two', '1')`)],
  ['a check', () => db.query(sql`INSERT INTO workspaces (name, kapso_phone_number_id) VALUES ('bad', '2')`)],
  ['a type', () => db.query(sql`SELECT ${'x'}::uuid`)],
  ['a NUL in a text', () => db.query(sql`SELECT ${'a\0b'}::text`)],
  ['the syntax', () => db.query(sql`SELEC 1`)],
  ['a missing table', () => db.query(sql`SELECT 1 FROM nowhere`)],
  ['an exception of a function', () => db.query(sql`DO $$ BEGIN RAISE EXCEPTION 'no'; END $$`)],
  ['a unique key (Prisma)', () => db.orm.workspace.create({ data: { name: 'two', kapsoPhoneNumberId: '1' } })],
  ['a check (Prisma)', () => db.orm.workspace.create({ data: { name: 'bad', kapsoPhoneNumberId: '2' } })],
  ['a foreign key (Prisma)', () => db.orm.contact.create({ data: { workspaceId: NOBODY, contactKey: 'x' } })],
  ['a NUL in JSON (Prisma)', () => db.orm.parkedMessage.create({ data: parked({ text: 'a\0b' }) })],
  ['a raw statement (Prisma)', async () => await db.orm.$queryRaw`SELECT 'x'::uuid`],
  ['a value of another type (Prisma)', () => db.orm.workspace.findMany({ where: { name: 5 as unknown as string } })],
  ['a row that is not there (Prisma)', () => db.orm.workspace.findUniqueOrThrow({ where: { id: NOBODY } })],
];

function parked(message: object) {
  return { phoneNumberId: '1', providerMessageId: 'w', workflowId: 'c', reason: 'test', message };
}

const absences: [string, () => Promise<unknown>][] = [
  ['nobody listens', () => otherDatabase((url) => (url.port = '1')).query(sql`SELECT 1`)],
  ['nobody listens (Prisma)', () => otherDatabase((url) => (url.port = '1')).orm.workspace.findFirst()],
  ['the login is refused', () => otherDatabase((url) => (url.username = 'nobody')).query(sql`SELECT 1`)],
  ['the login is refused (Prisma)', () => otherDatabase((url) => (url.username = 'nobody')).orm.workspace.findFirst()],
  ['the database does not exist', () => otherDatabase((url) => (url.pathname = '/nowhere')).query(sql`SELECT 1`)],
  ['a statement takes too long', () => db.query(sql`SELECT pg_sleep(5)`)],
  ['a statement takes too long (Prisma)', async () => await db.orm.$queryRaw`SELECT pg_sleep(5)`],
  [
    'the server is a standby',
    () => db.orm.$transaction([db.orm.$executeRaw`SET TRANSACTION READ ONLY`, db.orm.$executeRaw`DELETE FROM workspaces`]),
  ],
  ['no connection is free', () => withBusyPool((busy) => busy.query(sql`SELECT 1`))],
  ['no connection is free (Prisma)', () => withBusyPool((busy) => busy.orm.workspace.findFirst())],
  ['the connection is cut', cutConnection],
  ['the answer is not waited for any longer', () => fromRecord(db.query(sql`SELECT pg_sleep(0.2)`), 10)],
];

async function withBusyPool(use: (busy: Database) => Promise<unknown>): Promise<unknown> {
  const busy = otherDatabase(() => undefined);
  const [, result] = await Promise.allSettled([busy.query(sql`SELECT pg_sleep(0.6)`), use(busy)]);
  if (result.status === 'rejected') throw result.reason;
  return result.value;
}

async function cutConnection(): Promise<unknown> {
  const cut = otherDatabase(() => undefined, 2);
  const [row] = await cut.query<{ pid: number }>(sql`SELECT pg_backend_pid() AS pid`);
  // The same connection: the only one of the pool that is open. Its end is awaited from the beginning, or it might reject unseen.
  const [sleeping] = await Promise.allSettled([
    cut.query(sql`SELECT pg_sleep(5)`),
    db.query(sql`SELECT pg_terminate_backend(${row?.pid})`),
  ]);
  if (sleeping.status === 'rejected') throw sleeping.reason;
  return sleeping.value;
}

test.each(refusals)(
  'when PostgreSQL refuses a statement for %s, then it is refused, also as the cause of another error',
  async (_what, run) => {
    const error = await errorOf(run);
    expect(verdict(error)).toEqual(REFUSED);
    expect(verdict(new Error('the message was not recorded', { cause: error }))).toEqual(REFUSED);
  },
);

test.each(absences)('when %s, then the database is away', async (_what, run) => {
  const error = await errorOf(run);
  expect(verdict(error)).toEqual(AWAY);
  expect(verdict(new Error('the message was not recorded', { cause: error }))).toEqual(AWAY);
});

test('when a row is locked by another statement, then it is neither: the statement has to be repeated', async () => {
  const error = await db.orm.$transaction(async (transaction) => {
    await transaction.$queryRaw`SELECT 1 FROM workspaces FOR UPDATE`;
    return await errorOf(() => db.query(sql`SELECT 1 FROM workspaces FOR UPDATE NOWAIT`));
  });
  expect(error).toMatchObject({ code: '55P03' });
  expect(verdict(error)).toEqual(NEITHER);
});

test.each([
  ['PostgreSQL lost a serialization conflict', { code: '40001' }, NEITHER],
  ['PostgreSQL ended a deadlock', { code: '40P01' }, NEITHER],
  ['Prisma lost a conflict', { code: 'P2034' }, NEITHER],
  ['PostgreSQL has no memory', { code: '53200' }, AWAY],
  ['PostgreSQL starts', { code: '57P03' }, AWAY],
  ['PostgreSQL cannot read a file', { code: '58030' }, AWAY],
  ['Prisma found no free connection', { code: 'P2024' }, AWAY],
  ['the connection is reset', { code: 'ECONNRESET' }, AWAY],
  ['the pipe is broken', { code: 'EPIPE' }, AWAY],
  ['the driver lost its connection', { message: 'Connection terminated unexpectedly' }, AWAY],
  ['it is another error of Node', { code: 'EPERM' }, NEITHER],
  ['it is an error of gRPC', { code: 14 }, NEITHER],
  ['it is any other error', new Error('something else'), NEITHER],
  ['nothing was thrown', undefined, NEITHER],
  ['a text was thrown', 'away', NEITHER],
])('when %s, then the verdict is right', (_what, error, expected) => {
  expect(verdict(error)).toEqual(expected);
});

test('when an error is its own cause, then it has no verdict and no end is waited for', () => {
  const error = new Error('round and round');
  error.cause = error;
  expect(verdict(error)).toEqual(NEITHER);
});

test('when the query fails in time, then its own error comes through', async () => {
  await expect(fromRecord(db.query(sql`SELEC 1`))).rejects.toMatchObject({ code: '42601' });
  await expect(fromRecord(db.query(sql`SELECT pg_sleep(0.2)`), 10)).rejects.toBeInstanceOf(DatabaseAwayError);
});
