/**
 * `npm run migrate` applies pending migrations to DATABASE_URL; `npm run migrate -- new <name>` writes one for changes in `schema.prisma`.
 */
import { loadEnvFile, readSettings, requireSettings, SettingsError } from '../platform/config';
import { EXIT_SETTINGS } from '../platform/lifecycle';
import { applyMigrations, writeMigration } from '../platform/migrations';

async function main(args: string[]): Promise<void> {
  loadEnvFile();
  // biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
  const settings = requireSettings(readSettings(process.env), { DATABASE_URL: 'it is the database to migrate' });
  const [command, name] = args;
  if (command === undefined) return apply(settings.DATABASE_URL);
  if (command === 'new' && name !== undefined) return write(settings.DATABASE_URL, name);
  throw new Error('usage: npm run migrate [-- new <name>]');
}

async function apply(databaseUrl: string): Promise<void> {
  const applied = await applyMigrations(databaseUrl, { onProgress: say });
  if (applied.length === 0) say('nothing to apply');
}

async function write(databaseUrl: string, name: string): Promise<void> {
  const path = await writeMigration(databaseUrl, name);
  say(path === undefined ? 'schema.prisma and the migrations match: nothing to write' : `wrote ${path}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  const known = error instanceof SettingsError || error instanceof Error;
  process.stderr.write(`${known ? error.message : String(error)}\n`);
  process.exitCode = error instanceof SettingsError ? EXIT_SETTINGS : 1;
});
