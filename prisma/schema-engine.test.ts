import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client } from 'pg';
import { applyMigrations, dropDatabase, MIGRATIONS_DIR } from '../src/platform/migrations';
import { type TestDatabase, testDatabase } from '../test/support/engine';
import { diffFromDatabase, diffFromMigrations, NO_FILTERS, withEngine } from './schema-engine';

const names = readdirSync(MIGRATIONS_DIR).filter((name) => /^\d{14}_/.test(name));
const path = 'migration.sql';
const migrationsList = {
  baseDir: MIGRATIONS_DIR,
  lockfile: { path: 'migration_lock.toml', content: readFileSync(join(MIGRATIONS_DIR, 'migration_lock.toml'), 'utf8') },
  shadowDbInitScript: '',
  migrationDirectories: names.map((name) => ({
    path: name,
    migrationFile: { path, content: { tag: 'ok' as const, value: readFileSync(join(MIGRATIONS_DIR, name, path), 'utf8') } },
  })),
};

let database: TestDatabase;

beforeEach(async () => {
  database = await testDatabase('schema_engine');
});
afterEach(() => database.drop());

async function execute(sql: string): Promise<void> {
  const client = new Client({ connectionString: database.url });
  await client.connect();
  await client.query(sql);
  await client.end();
}

test('when all migrations have been applied, then the database matches schema.prisma', async () => {
  expect(await diffFromDatabase(database.url)).toBe('');
  expect(await diffFromMigrations(database.url)).toBe('');
});

test('when the database differs from schema.prisma, then the diff has the SQL to fix it', async () => {
  await execute('ALTER TABLE workspaces DROP COLUMN name');
  expect(await diffFromDatabase(database.url)).toContain('ADD COLUMN     "name"');
});

test("when Parley has migrated, then Prisma's engine finds nothing to do and nothing wrong", async () => {
  await withEngine(database.url, async (engine) => {
    const history = await engine.diagnoseMigrationHistory({ migrationsList, optInToShadowDatabase: false, filters: NO_FILTERS });
    expect(history).toMatchObject({ history: null, editedMigrationNames: [], failedMigrationNames: [], hasMigrationsTable: true });
    expect(await engine.applyMigrations({ migrationsList, filters: NO_FILTERS })).toEqual({ appliedMigrationNames: [] });
  });
});

test("when Prisma's engine has migrated, as Parley did before 0.3, then Parley finds nothing to do and nothing wrong", async () => {
  await dropDatabase(database.url);
  const half = { ...migrationsList, migrationDirectories: migrationsList.migrationDirectories.slice(0, 4) };
  const server = new URL(database.url);
  const created = server.pathname.slice(1);
  server.pathname = '/postgres';
  const client = new Client({ connectionString: server.href });
  await client.connect();
  await client.query(`CREATE DATABASE ${created}`);
  await client.end();
  await withEngine(database.url, (engine) => engine.applyMigrations({ migrationsList: half, filters: NO_FILTERS }));
  const onNotice = jest.fn();
  expect(await applyMigrations(database.url, { onNotice })).toEqual(names.slice(4));
  expect(onNotice).not.toHaveBeenCalled();
  expect(await diffFromDatabase(database.url)).toBe('');
});
