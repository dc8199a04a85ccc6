/**
 * What a test gets of the run's real servers. A test that has to restart one starts its own with `startPostgres` and
 * `startTemporalServer` of src/embedded.
 */
import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { TEMPLATE_DATABASE } from './servers';

export interface TestDatabase {
  url: string;
  /** Drops it, with the connections that are still open. */
  drop(): Promise<void>;
}

/** A fresh migrated database whose name begins with `name` (a-z, 0-9, _), in some 50 ms: a copy of the run's template. */
export async function testDatabase(name: string): Promise<TestDatabase> {
  const database = `${name}_${randomBytes(4).toString('hex')}`;
  await onServer((client) => client.query(`CREATE DATABASE ${client.escapeIdentifier(database)} TEMPLATE ${TEMPLATE_DATABASE}`));
  const url = new URL(serverUrl());
  url.pathname = `/${database}`;
  return {
    url: url.href,
    drop: () => onServer((client) => client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(database)} WITH (FORCE)`)),
  };
}

/** Address and namespace of the run's Temporal server. All tests share it: each takes its own task queue and workflow ids. */
export function testTemporal(): { address: string; namespace: string } {
  return { address: fromSetup('TEST_TEMPORAL_ADDRESS'), namespace: 'default' };
}

function serverUrl(): string {
  return fromSetup('TEST_POSTGRES_URL');
}

function fromSetup(name: string): string {
  // biome-ignore lint/style/noProcessEnv: written by global-setup.ts
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: this test runs under jest with test/jest.config.json`);
  return value;
}

async function onServer(use: (client: Client) => Promise<unknown>): Promise<void> {
  const client = new Client({ connectionString: serverUrl() });
  await client.connect();
  try {
    await use(client);
  } finally {
    await client.end();
  }
}
