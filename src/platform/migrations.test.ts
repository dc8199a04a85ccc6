import { Client } from 'pg';
import { testDatabase } from '../../test/support/engine';
import { applyMigrations, diffFromDatabase, diffFromMigrations } from './migrations';

const CREATES_DATABASE = 'created the database';

function sibling(url: string, name: string): string {
  const other = new URL(url);
  other.pathname = `/${name}`;
  return other.href;
}

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

describe('migrations', () => {
  let database: Awaited<ReturnType<typeof testDatabase>>;

  beforeAll(async () => {
    database = await testDatabase('migrations');
  });
  afterAll(() => database.drop());

  test('when all migrations have been applied, then the database matches schema.prisma', async () => {
    expect(await diffFromDatabase(database.url)).toBe('');
    expect(await diffFromMigrations(database.url)).toBe('');
  });

  test('when the database differs from schema.prisma, then the diff has the SQL to fix it', async () => {
    const other = await testDatabase('migrations_differ');
    try {
      await query(other.url, 'ALTER TABLE workspaces DROP COLUMN name');
      expect(await diffFromDatabase(other.url)).toContain('ADD COLUMN     "name"');
    } finally {
      await other.drop();
    }
  });

  test('when they run again, then there is nothing to apply', async () => {
    expect(await applyMigrations(database.url)).toEqual([]);
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
      await query(database.url, 'DROP DATABASE IF EXISTS test_migrated_by_two');
    }
  });

  test('when the first migration has run, then the installation has a random key of 64 hex digits', async () => {
    const rows = await query(database.url, 'SELECT identity_key FROM installation');
    expect(rows).toEqual([{ identity_key: expect.stringMatching(/^[0-9a-f]{64}$/) }]);
  });
});
