/**
 * Generates the Prisma client if it is missing or outdated; otherwise returns within milliseconds.
 * Runs after every `npm install`, and before every command through src/local/bootstrap.mjs.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const scriptFile = fileURLToPath(import.meta.url);
const prismaDir = dirname(scriptFile);
const clientFile = join(prismaDir, 'generated', 'client.ts');
const stampFile = join(prismaDir, 'generated', '.made-from');

/** Whether the generated client matches the schema and the installed Prisma version. Also true if Prisma is not installed. */
export function isClientCurrent() {
  const prisma = findPrisma();
  if (prisma === undefined) return true;
  return existsSync(clientFile) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp(prisma);
}

/** Generates the client. @throws Error with Prisma's output */
export function generateClient() {
  const prisma = findPrisma();
  if (prisma === undefined) throw new Error('cannot generate the Prisma client: prisma is not installed');
  const result = spawnSync(process.execPath, [prisma.cli, 'generate', '--schema', join(prismaDir, 'schema.prisma'), '--no-hints'], {
    cwd: dirname(prismaDir),
    encoding: 'utf8',
    env: {
      // biome-ignore lint/style/noProcessEnv: passed to the child process unchanged, never read
      ...process.env,
      // `generate` requires the schema-engine binary and would download it, but never runs it: any existing executable will do.
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
      CHECKPOINT_DISABLE: '1',
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
    },
  });
  if (result.status !== 0) throw new Error(`prisma generate failed:\n${result.error?.message ?? `${result.stdout}${result.stderr}`}`);
  writeFileSync(stampFile, stamp(prisma));
}

/** Hashes the content instead of comparing file times, because a checkout sets new times. */
function stamp({ version }) {
  const schema = readFileSync(join(prismaDir, 'schema.prisma'));
  return createHash('sha256').update(`${version}\n`).update(schema).digest('hex');
}

/** Undefined after an install without development dependencies; the client then comes from a build step that had them. */
function findPrisma() {
  try {
    const packageFile = createRequire(import.meta.url).resolve('prisma/package.json');
    const { version } = JSON.parse(readFileSync(packageFile, 'utf8'));
    return { version, cli: join(dirname(packageFile), 'build', 'index.js') };
  } catch {
    return undefined;
  }
}

if (process.argv[1] === scriptFile && !isClientCurrent()) {
  try {
    generateClient();
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
}
