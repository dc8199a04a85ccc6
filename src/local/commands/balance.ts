/**
 * `npm run balance` checks that every inbound message is accounted for: the total must equal the sum of all outcomes plus the pending
 * messages (prisma/balance.sql). Prints the counts; exits with 1 if they do not balance.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client } from 'pg';
import { loadEnvFile, readSettings } from '../../platform/config';
import { messageOf, readInstanceFile } from '../instance-file';
import { endWithReader, say } from '../terminal';

async function main(): Promise<void> {
  loadEnvFile();
  // biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
  const settings = readSettings(process.env);
  const client = new Client({ connectionString: settings.DATABASE_URL ?? readInstanceFile(settings.DATA_DIR).databaseUrl });
  await client.connect();
  const { rows } = await client.query<Record<string, unknown>>(
    readFileSync(join(__dirname, '..', '..', '..', 'prisma', 'balance.sql'), 'utf8'),
  );
  await client.end();
  const row = rows[0] ?? {};
  for (const [name, value] of Object.entries(row)) say(`${name.padEnd(12)} ${value}`);
  if (row.balanced !== true) process.exitCode = 1;
}

endWithReader();
main().catch((error: unknown) => {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
});
