/** The state files of `npm start` in DATA_DIR: the claim of the folder, the running processes, and generated secrets. */
import { randomBytes } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  constants,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { SettingFingerprints } from '../setting-fingerprints';
import { isRunning, type RecordedProcess, stopLeftovers } from './leftovers';

const START_FILE = 'start.json';
const RUNNING_FILE = 'running.json';
const SANDBOX_FILE = 'sandbox.json';
const API_KEY_FILE = 'api-key';
const ENCRYPTION_KEY_FILE = 'encryption-key';
const ONLY_OWNER = 0o600;
/** Other users may traverse the folder but not list it: PostgreSQL's account has to when we run as root. */
const TRAVERSE_ONLY = 0o711;
/** The command line of every `npm start` contains this. */
const START_MARKS = ['start.ts'];

/** What other commands, such as `npm run chat`, need to know about a running instance. */
export interface RunningInstance {
  apiUrl: string;
  /** Undefined if nothing is simulated. */
  sandboxUrl?: string | undefined;
  /** Both undefined with an external Temporal server. */
  temporalAddress?: string | undefined;
  temporalUiUrl?: string | undefined;
  databaseUrl: string;
  apiKey: string;
  phoneNumberId?: string | undefined;
  /** True if the sandbox simulates WhatsApp, so that no message reaches a real person. */
  simulatesWhatsApp: boolean;
  /** True if the sandbox simulates voice calls, so that no real phone rings. */
  simulatesCalls: boolean;
  /** False if calls are neither real nor simulated. */
  hasCalls: boolean;
  /** What `npm start` was started with. */
  settingFingerprints: SettingFingerprints;
  /** Settings of its processes that replace the configured ones, with the sandbox's secrets. */
  environment: Record<string, string | undefined>;
  pid: number;
  pids: Record<string, number>;
}

const startSchema = z.object({
  pid: z.number(),
  processes: z.array(z.object({ name: z.string(), pid: z.number(), marks: z.array(z.string()) })),
});
type StartFile = z.output<typeof startSchema>;

const secret = z.string().min(1);
const sandboxSchema = z.object({ webhookSecret: secret, webhookToken: secret, vapiWebhookSecret: secret });
export type SandboxSecrets = z.output<typeof sandboxSchema>;

/**
 * Claims `dataDir` for this process, and stops what an earlier, killed start left running there. Resolves to the names of those
 * processes.
 * @throws Error if another start is running with this folder, or if it cannot be used
 */
export async function claimDataDir(dataDir: string): Promise<string[]> {
  makeDataDir(dataDir);
  const file = join(dataDir, START_FILE);
  const stopped: string[] = [];
  while (!tryCreateStartFile(file)) {
    const earlier = readStartFile(file);
    // Containers reuse pids: if the recorded pid is our own, the earlier start has exited.
    const isActive = earlier !== undefined && earlier.pid !== process.pid && (await isRunning(earlier.pid, START_MARKS));
    if (isActive)
      throw new Error(
        `Parley is already running with this DATA_DIR (${dataDir}, process ${earlier.pid}). Stop it, or set another DATA_DIR.`,
      );
    stopped.push(...(await stopLeftovers(earlier?.processes ?? [])));
    removeStale(file, earlier);
  }
  rmSync(join(dataDir, RUNNING_FILE), { force: true });
  return stopped;
}

/** Records the running processes, so that the next start can stop them if this one is killed. */
export function recordProcesses(dataDir: string, processes: RecordedProcess[]): void {
  writeAtomically(join(dataDir, START_FILE), JSON.stringify({ pid: process.pid, processes }));
}

/** Makes the instance known to the other commands. */
export function publishInstance(dataDir: string, instance: RunningInstance): void {
  writeAtomically(join(dataDir, RUNNING_FILE), `${JSON.stringify(instance, null, 2)}\n`);
}

/** Releases the claim of `claimDataDir`. */
export function releaseDataDir(dataDir: string): void {
  for (const name of [RUNNING_FILE, START_FILE]) rmSync(join(dataDir, name), { force: true });
}

/** The sandbox's webhook secrets. Generates and stores those that are missing, including ones that earlier versions did not have. */
export function sandboxSecrets(dataDir: string): SandboxSecrets {
  const file = join(dataDir, SANDBOX_FILE);
  const stored = sandboxSchema.partial().safeParse(readJson(file)).data;
  const generated = {
    webhookSecret: stored?.webhookSecret ?? randomBytes(24).toString('hex'),
    webhookToken: stored?.webhookToken ?? randomBytes(12).toString('hex'),
    vapiWebhookSecret: stored?.vapiWebhookSecret ?? randomBytes(24).toString('hex'),
  };
  writeAtomically(file, `${JSON.stringify(generated, null, 2)}\n`);
  return generated;
}

/** The generated API key; generates and stores it if there is none. */
export function generatedApiKey(dataDir: string): string {
  const file = join(dataDir, API_KEY_FILE);
  const stored = readText(file)?.trim();
  if (stored) return stored;
  const generated = `pk_${randomBytes(18).toString('base64url')}`;
  writeAtomically(file, `${generated}\n`);
  return generated;
}

/** The generated encryption key, in base64; generates and stores it if there is none. */
export function generatedEncryptionKey(dataDir: string): string {
  const file = join(dataDir, ENCRYPTION_KEY_FILE);
  const stored = readText(file)?.trim();
  if (stored) return stored;
  const generated = randomBytes(32).toString('base64');
  writeAtomically(file, `${generated}\n`);
  return generated;
}

/** Path of the log file of `name`. */
export function logFile(dataDir: string, name: string): string {
  const folder = join(dataDir, 'logs');
  mkdirSync(folder, { recursive: true });
  return join(folder, `${name}.log`);
}

/**
 * Moves the content of every log file larger than `maxBytes` to `.log.1`, which is overwritten. Copies and truncates the file, because the
 * process that writes to it keeps it open. Lines written in between are lost.
 */
export function rotateLogs(dataDir: string, maxBytes: number): void {
  const folder = join(dataDir, 'logs');
  for (const name of readdirSync(folder).filter((each) => each.endsWith('.log'))) {
    const file = join(folder, name);
    if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) <= maxBytes) continue;
    try {
      copyFileSync(file, `${file}.1`);
    } finally {
      // Even if the copy fails, such as on a full disk: truncating frees space.
      truncateSync(file);
    }
  }
}

function makeDataDir(dataDir: string): void {
  try {
    if (createFolder(dataDir)) chmodSync(dataDir, TRAVERSE_ONLY);
    accessSync(dataDir, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw unusable(dataDir, error);
  }
}

/**
 * Creates the folder and those above it. Returns whether it was missing. Node's own `recursive` never returns for a folder in which
 * the system creates none, such as /proc.
 */
function createFolder(path: string): boolean {
  try {
    mkdirSync(path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && statSync(path).isDirectory()) return false;
    if (code !== 'ENOENT' || dirname(path) === path) throw error;
    createFolder(dirname(path));
    mkdirSync(path);
    return true;
  }
}

function unusable(dataDir: string, error: unknown): Error {
  const { code } = error as NodeJS.ErrnoException;
  const why = code === 'EEXIST' || code === 'ENOTDIR' ? 'is not a folder' : 'cannot be used';
  return new Error(`DATA_DIR: ${dataDir} ${why} (${code}); name a folder that you may write to`, { cause: error });
}

function tryCreateStartFile(file: string): boolean {
  try {
    writeFileSync(file, JSON.stringify({ pid: process.pid, processes: [] }), { flag: 'wx', mode: ONLY_OWNER });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw unusable(dirname(file), error);
  }
}

/** Two starts may find it stale at once; the rename ensures that the second does not remove the file that the first has just created. */
function removeStale(file: string, stale: StartFile | undefined): void {
  const aside = `${file}.${randomBytes(4).toString('hex')}`;
  try {
    renameSync(file, aside);
    if (readStartFile(aside)?.pid === stale?.pid) rmSync(aside);
    else renameSync(aside, file);
  } catch {
    // The other start was first.
  }
}

function readStartFile(file: string): StartFile | undefined {
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

/** Writes a temporary file and renames it, so that readers (and a crash) see either the old or the new content. */
function writeAtomically(file: string, content: string): void {
  const fresh = `${file}.${process.pid}.new`;
  writeFileSync(fresh, content, { mode: ONLY_OWNER });
  renameSync(fresh, file);
}
