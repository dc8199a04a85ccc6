/**
 * `npm run balance` checks that every inbound message is accounted for: the total must equal the sum of all outcomes plus the pending
 * messages (prisma/balance.sql). Prints the counts; exits with 1 if they do not balance.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client } from 'pg';
import { readArguments, runCommand } from '../../platform/command-line';
import { loadEnvFile, readSettings } from '../../platform/config';
import { databaseProblem } from '../../platform/connection-problems';
import { connectionOptions } from '../../platform/database';
import { readInstanceFile } from '../instance-file';
import { say } from '../terminal';

const CONNECT_TIMEOUT_MS = 10_000;

const HELP = `usage: npm run balance

Checks that every inbound message is accounted for: the total must equal the sum of all outcomes and of what is pending. Prints the counts
of DATABASE_URL, or of the running instance (npm start). They are read in one statement, so it may run at any time.

  -h, --help  show this help

exit status: 0 if they balance; 1 if they do not, or on an error; 2 for wrong arguments; 78 for invalid settings`;

async function main(args: string[]): Promise<number> {
  if (readArguments(args, { help: HELP, options: {} }) === undefined) return 0;
  loadEnvFile();
  // biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
  const settings = readSettings(process.env);
  const databaseUrl = settings.DATABASE_URL ?? readInstanceFile(settings.DATA_DIR).databaseUrl;
  const client = await connect(databaseUrl).catch((error: unknown) => {
    throw databaseProblem(error, databaseUrl);
  });
  const { rows } = await client.query<Record<string, unknown>>(
    readFileSync(join(__dirname, '..', '..', '..', 'prisma', 'balance.sql'), 'utf8'),
  );
  await client.end();
  const row = rows[0] ?? {};
  for (const [name, value] of Object.entries(row)) say(`${name.padEnd(12)} ${value}`);
  return row.balanced === true ? 0 : 1;
}

async function connect(databaseUrl: string): Promise<Client> {
  const client = new Client({ ...connectionOptions(databaseUrl), connectionTimeoutMillis: CONNECT_TIMEOUT_MS });
  await client.connect();
  return client;
}

runCommand(main);
