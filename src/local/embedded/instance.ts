/** What one `npm start` keeps in its DATA_DIR: that it runs, what it runs, and the secrets that it made. */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { isRunning, type RecordedProcess, stopLeftovers } from './leftovers';

const START_FILE = 'start.json';
const RUNNING_FILE = 'running.json';
const SANDBOX_FILE = 'sandbox.json';
const API_KEY_FILE = 'api-key';
const ONLY_OWNER = 0o600;
/** Others may pass through, as PostgreSQL's account must when we are root, and see nothing. */
const CLOSED_FOLDER = 0o711;
const LOG_LIMIT_BYTES = 10 * 1024 * 1024;
/** In the command line of every start. */
const START_MARKS = ['start.ts'];

/** What other commands, such as `npm run chat`, need to reach a running instance. */
export interface RunningInstance {
  apiUrl: string;
  /** Undefined when nothing is sandboxed. */
  sandboxUrl?: string | undefined;
  /** Both undefined when Temporal is not ours. */
  temporalAddress?: string | undefined;
  temporalUiUrl?: string | undefined;
  databaseUrl: string;
  apiKey: string;
  phoneNumberId?: string | undefined;
  /** True when the sandbox plays voice calls: dialling rings no real phone. */
  playsCalls: boolean;
  pid: number;
  pids: Record<string, number>;
}

const startSchema = z.object({
  pid: z.number(),
  processes: z.array(z.object({ name: z.string(), pid: z.number(), marks: z.array(z.string()) })),
});
type StartRecord = z.output<typeof startSchema>;

const secret = z.string().min(1);
const sandboxSchema = z.object({ webhookSecret: secret, webhookToken: secret, vapiWebhookSecret: secret });
export type SandboxSecrets = z.output<typeof sandboxSchema>;

/**
 * Makes this process the one start of `dataDir`, and stops what a killed earlier one left running. Resolves to the names of the stopped.
 * @throws Error when another start runs there
 */
export async function claimDataDir(dataDir: string): Promise<string[]> {
  if (mkdirSync(dataDir, { recursive: true }) !== undefined) chmodSync(dataDir, CLOSED_FOLDER);
  const file = join(dataDir, START_FILE);
  const stopped: string[] = [];
  while (!tryCreate(file)) {
    const earlier = readStart(file);
    // Our own number, in a container that gives the same ones at every start: the earlier one has ended.
    const runs = earlier !== undefined && earlier.pid !== process.pid && (await isRunning(earlier.pid, START_MARKS));
    if (runs)
      throw new Error(
        `Parley runs already with this DATA_DIR (${dataDir}, process ${earlier.pid}). Stop that one, or set another DATA_DIR.`,
      );
    stopped.push(...(await stopLeftovers(earlier?.processes ?? [])));
    removeStale(file, earlier);
  }
  rmSync(join(dataDir, RUNNING_FILE), { force: true });
  return stopped;
}

/** Writes down what runs, so that the next start can stop it if this one is killed. */
export function recordProcesses(dataDir: string, processes: RecordedProcess[]): void {
  writeWhole(join(dataDir, START_FILE), JSON.stringify({ pid: process.pid, processes }));
}

/** Tells other commands where everything is. */
export function publishInstance(dataDir: string, instance: RunningInstance): void {
  writeWhole(join(dataDir, RUNNING_FILE), `${JSON.stringify(instance, null, 2)}\n`);
}

/** Ends the claim of `claimDataDir`. */
export function releaseDataDir(dataDir: string): void {
  for (const name of [RUNNING_FILE, START_FILE]) rmSync(join(dataDir, name), { force: true });
}

/** The secrets of the sandbox's webhooks: the kept ones, and new ones, kept from now on, for what an earlier version did not have. */
export function sandboxSecrets(dataDir: string): SandboxSecrets {
  const file = join(dataDir, SANDBOX_FILE);
  const kept = sandboxSchema.partial().safeParse(readJson(file)).data;
  const made = {
    webhookSecret: kept?.webhookSecret ?? randomBytes(24).toString('hex'),
    webhookToken: kept?.webhookToken ?? randomBytes(12).toString('hex'),
    vapiWebhookSecret: kept?.vapiWebhookSecret ?? randomBytes(24).toString('hex'),
  };
  writeWhole(file, `${JSON.stringify(made, null, 2)}\n`);
  return made;
}

/** The generated key of the API: the kept one, or a new one that is kept from now on. */
export function generatedApiKey(dataDir: string): string {
  const file = join(dataDir, API_KEY_FILE);
  const kept = readText(file)?.trim();
  if (kept) return kept;
  const made = `pk_${randomBytes(18).toString('base64url')}`;
  writeWhole(file, `${made}\n`);
  return made;
}

/** Path of the log of `name`. One that has grown beyond 10 MB is set aside, over the one set aside before. */
export function logFile(dataDir: string, name: string): string {
  const folder = join(dataDir, 'logs');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.log`);
  const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  if (size > LOG_LIMIT_BYTES) renameSync(file, `${file}.1`);
  return file;
}

function tryCreate(file: string): boolean {
  try {
    writeFileSync(file, JSON.stringify({ pid: process.pid, processes: [] }), { flag: 'wx', mode: ONLY_OWNER });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Two may find it stale at once, and the slower must not remove what the faster has written since: a rename takes exactly one. */
function removeStale(file: string, stale: StartRecord | undefined): void {
  const aside = `${file}.${randomBytes(4).toString('hex')}`;
  try {
    renameSync(file, aside);
    if (readStart(aside)?.pid === stale?.pid) rmSync(aside);
    else renameSync(aside, file);
  } catch {
    // The other one was faster.
  }
}

function readStart(file: string): StartRecord | undefined {
  return startSchema.safeParse(readJson(file)).data;
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readText(file) ?? '');
  } catch {
    return undefined;
  }
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

/** By a rename: a reader, or a kill in between, finds the old content or the new. */
function writeWhole(file: string, content: string): void {
  const fresh = `${file}.${process.pid}.new`;
  writeFileSync(fresh, content, { mode: ONLY_OWNER });
  renameSync(fresh, file);
}
