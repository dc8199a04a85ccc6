/**
 * A test's access to the shared PostgreSQL and Temporal servers. A test that restarts a server starts its own with `startPostgres`
 * or `startTemporalServer` of src/local/embedded.
 */
import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { TEMPLATE_DATABASE } from './servers';

/** A database of one test. */
export interface TestDatabase {
  url: string;
  /** Drops the database and closes its connections. */
  drop(): Promise<void>;
}

/** Creates a migrated database whose name begins with `name` (a-z, 0-9, _), by copying the run's template (about 50 ms). */
export async function testDatabase(name: string): Promise<TestDatabase> {
  const database = `${name}_${randomBytes(4).toString('hex')}`;
  await withServerConnection((client) =>
    client.query(`CREATE DATABASE ${client.escapeIdentifier(database)} TEMPLATE ${TEMPLATE_DATABASE}`),
  );
  const url = new URL(serverUrl());
  url.pathname = `/${database}`;
  return {
    url: url.href,
    drop: () => withServerConnection((client) => client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(database)} WITH (FORCE)`)),
  };
}

/** Address and namespace of the shared Temporal server, and the CLI that runs it. Each test must use its own task queue and workflow ids. */
export function testTemporal(): { address: string; namespace: string; cliPath: string } {
  return { address: fromSetup('TEST_TEMPORAL_ADDRESS'), namespace: 'default', cliPath: fromSetup('TEST_TEMPORAL_CLI') };
}

function serverUrl(): string {
  return fromSetup('TEST_POSTGRES_URL');
}

function fromSetup(name: string): string {
  // biome-ignore lint/style/noProcessEnv: set by global-setup.ts
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: this test runs under jest with test/jest.config.json`);
  return value;
}

async function withServerConnection(use: (client: Client) => Promise<unknown>): Promise<void> {
  const client = new Client({ connectionString: serverUrl() });
  await client.connect();
  try {
    await use(client);
  } finally {
    await client.end();
  }
}
