/**
 * `npm run migrate` applies pending migrations to DATABASE_URL; `npm run migrate -- new <name>` writes one for changes in `schema.prisma`.
 */
import { readArguments, runCommand, UsageError } from '../platform/command-line';
import { loadEnvFile, readSettings, requireSettings } from '../platform/config';
import { databaseProblem } from '../platform/connection-problems';
import { applyMigrations } from '../platform/migrations';

const HELP = `usage: npm run migrate
       npm run migrate -- new <name>

Applies the pending migrations to DATABASE_URL. With "new", writes a migration for the changes in prisma/schema.prisma instead.

  -h, --help  show this help

exit status: 0; 1 on an error; 2 for wrong arguments; 78 for invalid settings`;

async function main(args: string[]): Promise<number> {
  const line = readArguments(args, { help: HELP, options: {}, maxPositionals: 2 });
  if (line === undefined) return 0;
  const [command, name] = line.positionals;
  if (command !== undefined && command !== 'new') throw new UsageError(`unexpected argument: ${command}`);
  if (command === 'new' && name === undefined) throw new UsageError('the name of the new migration is missing');
  loadEnvFile();
  // biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
  const settings = requireSettings(readSettings(process.env), { DATABASE_URL: 'it is the database to migrate' });
  try {
    if (name === undefined) await apply(settings.DATABASE_URL);
    else await write(settings.DATABASE_URL, name);
  } catch (error) {
    throw databaseProblem(error, settings.DATABASE_URL);
  }
  return 0;
}

async function apply(databaseUrl: string): Promise<void> {
  const applied = await applyMigrations(databaseUrl, { onProgress: say, onNotice: say });
  if (applied.length === 0) say('nothing to apply');
}

async function write(databaseUrl: string, name: string): Promise<void> {
  const { writeMigration } = await import('../../prisma/schema-engine').catch((error: unknown) => {
    throw new Error('writing a migration needs the development dependencies: run npm install', { cause: error });
  });
  const path = await writeMigration(databaseUrl, name);
  say(path === undefined ? 'schema.prisma and the migrations match: nothing to write' : `wrote ${path}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

runCommand(main);
