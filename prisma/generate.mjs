/**
 * Generates the Prisma client when it is missing or made from another schema; otherwise does nothing, in milliseconds.
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

/** Whether the generated client belongs to the schema and the installed Prisma; also true where Prisma is not installed to do better. */
export function isClientCurrent() {
  const prisma = findPrisma();
  if (prisma === undefined) return true;
  return existsSync(clientFile) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp(prisma);
}

/** Generates the client. Throws an Error with Prisma's output when that fails. */
export function generateClient() {
  const prisma = findPrisma();
  if (prisma === undefined) throw new Error('prisma is not installed: the Prisma client cannot be generated');
  const result = spawnSync(process.execPath, [prisma.cli, 'generate', '--schema', join(prismaDir, 'schema.prisma'), '--no-hints'], {
    cwd: dirname(prismaDir),
    encoding: 'utf8',
    env: {
      // biome-ignore lint/style/noProcessEnv: handed on to the child as it is, never read
      ...process.env,
      // `generate` looks for the schema-engine binary, downloads it if need be, and never runs it: any existing executable contents it.
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
      CHECKPOINT_DISABLE: '1',
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
    },
  });
  if (result.status !== 0) throw new Error(`prisma generate failed:\n${result.error?.message ?? `${result.stdout}${result.stderr}`}`);
  writeFileSync(stampFile, stamp(prisma));
}

/** Content, not file times: a checkout gives every file the same new time. */
function stamp({ version }) {
  const schema = readFileSync(join(prismaDir, 'schema.prisma'));
  return createHash('sha256').update(`${version}\n`).update(schema).digest('hex');
}

/** Undefined after an install without development packages: the client then comes from the build step that had them. */
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
