import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { testDatabase } from '../../test/support/engine';
import { applyMigrations, dropDatabase } from './migrations';

const CREATES_DATABASE = 'created the database';

function sibling(url: string, name: string): string {
  const other = new URL(url);
  other.pathname = `/${name}`;
  return other.href;
}

async function connect(url: string): Promise<Client> {
  const client = new Client({ connectionString: url });
  await client.connect();
  return client;
}

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = await connect(url);
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

describe("Parley's migrations", () => {
  let database: Awaited<ReturnType<typeof testDatabase>>;

  beforeAll(async () => {
    database = await testDatabase('migrations');
  });
  afterAll(() => database.drop());

  test('when they run again, then there is nothing to apply and no notice', async () => {
    const onNotice = jest.fn();
    expect(await applyMigrations(database.url, { onNotice })).toEqual([]);
    expect(onNotice).not.toHaveBeenCalled();
  });

  test('when two processes migrate a database that does not exist yet, then each migration is applied once and both succeed', async () => {
    const url = sibling(database.url, 'test_migrated_by_two');
    const lines: string[] = [];
    try {
      const applied = await Promise.all([1, 2].map(() => applyMigrations(url, { onProgress: (line) => lines.push(line) })));
      const recorded = await query(url, 'SELECT migration_name FROM _prisma_migrations ORDER BY 1');
      expect(applied.flat().sort()).toEqual(recorded.map((row) => row.migration_name));
      expect(lines.filter((line) => line === CREATES_DATABASE)).toHaveLength(1);
    } finally {
      await dropDatabase(url);
    }
  });

  test('when the first migration has run, then the installation has a random key of 64 hex digits', async () => {
    const rows = await query(database.url, 'SELECT identity_key FROM installation');
    expect(rows).toEqual([{ identity_key: expect.stringMatching(/^[0-9a-f]{64}$/) }]);
  });
});

describe('the runner', () => {
  let dir: string;
  let url: string;
  let notices: string[];

  beforeAll(async () => {
    const other = await testDatabase('runner');
    url = sibling(other.url, 'test_runner');
    await other.drop();
  });
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'parley-migrations-'));
    notices = [];
  });
  afterEach(async () => {
    await dropDatabase(url);
    await rm(dir, { recursive: true });
  });

  const apply = () => applyMigrations(url, { dir, onNotice: (line) => notices.push(line) });

  async function write(name: string, sql: string): Promise<void> {
    await mkdir(join(dir, name), { recursive: true });
    await writeFile(join(dir, name, 'migration.sql'), sql);
  }

  const tables = async () =>
    (await query(url, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1"))
      .map(({ relname }) => relname)
      .filter((name) => name !== '_prisma_migrations');

  const finished = async () =>
    (await query(url, 'SELECT migration_name AS name FROM _prisma_migrations WHERE finished_at IS NOT NULL ORDER BY 1')).map(
      ({ name }) => name,
    );

  test('when a migration fails, then it leaves no trace, those before it stay, and the next run continues with the corrected file', async () => {
    await write('1_good', 'CREATE TABLE one ()');
    await write('2_bad', "CREATE TABLE two (); SELECT 'oops'::integer");
    await expect(apply()).rejects.toThrow('2_bad failed and left no trace: invalid input syntax for type integer: "oops"');
    expect(await tables()).toEqual(['one']);
    expect(await finished()).toEqual(['1_good']);
    await write('2_bad', 'CREATE TABLE two ()');
    expect(await apply()).toEqual(['2_bad']);
    expect(await tables()).toEqual(['one', 'two']);
  });

  test('when a script has semicolons in strings and functions, then it is run as a whole', async () => {
    await write('1_function', `CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN ';'; END $$; CREATE TABLE one ()`);
    expect(await apply()).toEqual(['1_function']);
    expect(await query(url, 'SELECT f()')).toEqual([{ f: ';' }]);
  });

  test('when a script adds a value to an enum, then it works in the transaction', async () => {
    await write('1_enum', "CREATE TYPE mood AS ENUM ('good')");
    await write('2_value', "CREATE TABLE moods (mood mood); ALTER TYPE mood ADD VALUE 'bad'");
    expect(await apply()).toEqual(['1_enum', '2_value']);
  });

  test.each([
    [
      'cannot run in a transaction',
      'CREATE INDEX CONCURRENTLY one_idx ON one ((1))',
      /1_script failed.* must use a statement that can run in one/,
    ],
    ['ends the transaction', 'CREATE TABLE two (); COMMIT', /1_script failed.* its script ends the transaction; remove BEGIN, COMMIT/],
    [
      'uses a value that it adds',
      "ALTER TYPE mood ADD VALUE 'bad'; SELECT 'bad'::mood",
      /1_script failed.* New enum values must be committed/,
    ],
  ])('when a script %s, then the error says what to do, and it is not recorded as applied', async (_name, sql, message) => {
    await write('0_first', "CREATE TABLE one (); CREATE TYPE mood AS ENUM ('good')");
    await write('1_script', sql);
    await expect(apply()).rejects.toThrow(message);
    expect(await finished()).toEqual(['0_first']);
  });

  test('when an applied migration was changed or is missing, then the others are applied, with a warning', async () => {
    await write('1_changed', 'CREATE TABLE one ()');
    await write('2_missing', 'CREATE TABLE two ()');
    await write('3_same', 'CREATE TABLE three ()\n;');
    await apply();
    await write('1_changed', 'CREATE TABLE other ()');
    await rm(join(dir, '2_missing'), { recursive: true });
    // As a checkout on Windows writes it.
    await write('3_same', 'CREATE TABLE three ()\r\n;');
    await write('4_new', 'CREATE TABLE four ()');
    expect(await apply()).toEqual(['4_new']);
    expect(notices).toEqual([
      'warning: 1_changed was changed after it had been applied; this database does not have the change',
      'warning: the database has 2_missing, which this version does not know; a newer version applied it',
    ]);
    expect(await tables()).toEqual(['four', 'one', 'three', 'two']);
  });

  test.each([4_021_507_233, 72_707_369])('when another process holds the lock %d, then this one says that it waits', async (key) => {
    await apply();
    const other = await connect(url);
    await other.query('SELECT pg_advisory_lock($1)', [key]);
    await write('1_first', 'CREATE TABLE one ()');
    let applied: Promise<string[]> | undefined;
    const notice = await new Promise((resolve) => {
      applied = applyMigrations(url, { dir, onNotice: resolve });
    });
    expect(notice).toBe('waiting for another process that is migrating this database');
    expect(await tables()).toEqual([]);
    await other.end();
    expect(await applied).toEqual(['1_first']);
  });

  test('when the database has the tables of another program, then nothing is applied', async () => {
    await write('1_first', 'CREATE TABLE one ()');
    await write('2_second', 'CREATE TABLE two ()');
    await applyMigrations(url, { dir });
    const foreign = await mkdtemp(join(tmpdir(), 'parley-foreign-'));
    await mkdir(join(foreign, '1_theirs'));
    await writeFile(join(foreign, '1_theirs/migration.sql'), 'CREATE TABLE theirs ()');
    await expect(applyMigrations(url, { dir: foreign })).rejects.toThrow('the database belongs to another program');
    await query(url, 'DROP TABLE _prisma_migrations');
    await expect(apply()).rejects.toThrow('the database belongs to another program');
    expect(await tables()).toEqual(['one', 'two']);
    await rm(foreign, { recursive: true });
  });

  test('when the database has only an extension, then it counts as empty', async () => {
    await apply();
    await query(url, 'DROP TABLE _prisma_migrations; CREATE EXTENSION pg_stat_statements');
    await write('1_first', 'CREATE TABLE one ()');
    expect(await apply()).toEqual(['1_first']);
  });

  describe('after Parley 0.2 or `prisma migrate deploy`, whose row is written before the script and finished after it', () => {
    const SCRIPT = 'CREATE TABLE two ()';

    beforeEach(async () => {
      await write('1_first', 'CREATE TABLE one ()');
      await apply();
      await write('2_second', SCRIPT);
      await apply();
      await query(url, "UPDATE _prisma_migrations SET finished_at = NULL, applied_steps_count = 0 WHERE migration_name = '2_second'");
    });

    const row = async () =>
      (
        await query(
          url,
          "SELECT rolled_back_at, applied_steps_count FROM _prisma_migrations WHERE migration_name = '2_second' ORDER BY started_at",
        )
      ).map(({ rolled_back_at, applied_steps_count }) => [rolled_back_at === null ? 'valid' : 'rolled back', applied_steps_count]);

    test('when it was killed before its script was committed, then the migration is applied', async () => {
      await query(url, 'DROP TABLE two');
      expect(await apply()).toEqual(['2_second']);
      expect(await tables()).toEqual(['one', 'two']);
      expect(await row()).toEqual([
        ['rolled back', 0],
        ['valid', 1],
      ]);
      expect(await apply()).toEqual([]);
    });

    test('when it was killed after its script was committed, then the migration is recorded as applied', async () => {
      expect(await apply()).toEqual([]);
      expect(notices).toEqual(['2_second had been applied by a process that was killed before recording it; recorded now']);
      expect(await row()).toEqual([['valid', 1]]);
      expect(await finished()).toEqual(['1_first', '2_second']);
    });

    test('when its script failed and the cause is gone, then the migration is applied', async () => {
      await query(url, "DROP TABLE two; UPDATE _prisma_migrations SET logs = 'permission denied' WHERE finished_at IS NULL");
      expect(await apply()).toEqual(['2_second']);
    });

    test.each([
      ['its script failed', "UPDATE _prisma_migrations SET logs = 'already exists' WHERE finished_at IS NULL"],
      ['it had another file', "UPDATE _prisma_migrations SET checksum = 'other' WHERE finished_at IS NULL"],
    ])('when %s and it fails again, then that is an error and nothing is recorded', async (_name, sql) => {
      await query(url, sql);
      await expect(apply()).rejects.toThrow('2_second failed and left no trace: relation "two" already exists');
      expect(await finished()).toEqual(['1_first']);
    });
  });
});
