/** Finds the Temporal CLI, which contains the development server; downloads or builds it once if there is none. */
import { execFile, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The newest release that `go install` can build: later ones have a `replace` directive. */
const CLI_VERSION = 'v1.5.1';
const GO_PACKAGE = `github.com/temporalio/cli/cmd/temporal@${CLI_VERSION}`;
const REPORT_INTERVAL_MS = 10_000;
/** For a download that a firewall drops silently; one that is rejected fails in milliseconds. */
const DOWNLOAD_TIMEOUT_MS = 180_000;
const WORK_PREFIX = 'new-';
const ABANDONED_AFTER_MS = 60 * 60_000;

/** Where to look for the Temporal CLI. */
export interface FindTemporalCliOptions {
  /** TEMPORAL_CLI_PATH. If set, no other CLI is considered. */
  setting?: string | undefined;
  /** Provides PATH, XDG_CACHE_HOME, and what Go and its proxy settings need. */
  environment: Record<string, string | undefined>;
  /** Where a downloaded or built CLI is stored (default: the user's cache folder, by version). */
  cacheDir?: string;
  onProgress: (line: string) => void;
}

/**
 * The path of a Temporal CLI: from the setting, the PATH, the cache, a download, or a build with Go, in this order.
 * Safe to call from several processes at once: a new CLI is moved into the cache by one rename.
 * @throws Error that says what to install if none is found
 */
export async function findTemporalCli(options: FindTemporalCliOptions): Promise<string> {
  const { setting, environment, onProgress } = options;
  if (setting !== undefined) return checkSetting(setting);
  const onPath = await findOnPath('temporal', environment);
  if (onPath !== undefined) return onPath;
  const cacheDir = options.cacheDir ?? defaultCacheDir(environment);
  const cached = join(cacheDir, 'temporal');
  if (await isExecutable(cached)) return cached;
  await mkdir(cacheDir, { recursive: true });
  await removeAbandoned(cacheDir);
  const problems: string[] = [];
  for (const fetch of [download, buildWithGo]) {
    // Inside the cache folder, because a rename is atomic only within one file system.
    const workDir = await mkdtemp(join(cacheDir, WORK_PREFIX));
    try {
      await rename(await fetch(workDir, environment, onProgress), cached);
      return cached;
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error));
    } finally {
      await rm(workDir, { recursive: true, force: true });
    }
  }
  throw new Error(
    `There is no Temporal CLI on this machine, and it could not be fetched:\n${problems.map((problem) => `  - ${problem}`).join('\n')}\n` +
      'Install it (https://docs.temporal.io/cli) so that `temporal` is on the PATH, set TEMPORAL_CLI_PATH to it, ' +
      'install Go so that it can be built, or set TEMPORAL_ADDRESS to an existing Temporal server.',
  );
}

/** Removes the folders of killed builds. Those of running builds are younger than `ABANDONED_AFTER_MS`. */
async function removeAbandoned(cacheDir: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    const folder = join(cacheDir, name);
    if (!name.startsWith(WORK_PREFIX)) continue;
    const age = await stat(folder).then(
      ({ mtimeMs }) => Date.now() - mtimeMs,
      () => 0,
    );
    if (age > ABANDONED_AFTER_MS) await rm(folder, { recursive: true, force: true });
  }
}

function defaultCacheDir(environment: Record<string, string | undefined>): string {
  return join(environment.XDG_CACHE_HOME || join(homedir(), '.cache'), 'parley', `temporal-cli-${CLI_VERSION}`);
}

async function checkSetting(path: string): Promise<string> {
  if (await isExecutable(path)) return path;
  throw new Error(`TEMPORAL_CLI_PATH: ${path} is not an executable file`);
}

async function findOnPath(name: string, environment: Record<string, string | undefined>): Promise<string | undefined> {
  for (const folder of (environment.PATH ?? '').split(delimiter)) {
    const path = join(folder, name);
    if (folder !== '' && (await isExecutable(path))) return path;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

type Fetch = (workDir: string, environment: Record<string, string | undefined>, onProgress: (line: string) => void) => Promise<string>;

/** The SDK downloads the CLI only when it starts a test server, so start one and stop it. */
const download: Fetch = async (workDir, _environment, onProgress) => {
  const { TestWorkflowEnvironment } = await import('@temporalio/testing');
  const started = Date.now();
  const timer = setInterval(
    () => onProgress(`downloading the Temporal CLI, ${secondsSince(started)} s so far; this happens once`),
    REPORT_INTERVAL_MS,
  );
  const executable = { type: 'cached-download' as const, downloadDir: workDir, version: CLI_VERSION };
  try {
    const environment = await withTimeout(DOWNLOAD_TIMEOUT_MS, TestWorkflowEnvironment.createLocal({ server: { executable } }));
    await environment.teardown();
  } catch (error) {
    throw new Error(`download: ${lastSentence(error)}`, { cause: error });
  } finally {
    clearInterval(timer);
  }
  for (const name of await readdir(workDir)) {
    if (await isExecutable(join(workDir, name))) return join(workDir, name);
  }
  throw new Error('download: no executable found');
};

const buildWithGo: Fetch = async (workDir, environment, onProgress) => {
  const go = await findOnPath('go', environment);
  if (go === undefined) throw new Error('build: Go is not installed');
  const started = Date.now();
  const report = () => onProgress(`building the Temporal CLI with Go, ${secondsSince(started)} s so far; this happens once`);
  onProgress('building the Temporal CLI with Go: this takes a few minutes and happens once');
  const timer = setInterval(report, REPORT_INTERVAL_MS);
  try {
    await runGo(go, { ...environment, GOBIN: workDir, CGO_ENABLED: '0' });
  } finally {
    clearInterval(timer);
  }
  const built = join(workDir, 'temporal');
  await run(built, ['--version']);
  onProgress(`built the Temporal CLI in ${secondsSince(started)} s`);
  return built;
};

function runGo(go: string, environment: Record<string, string | undefined>): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(go, ['install', GO_PACKAGE], { env: environment, cwd: environment.GOBIN, stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => {
      errors = (errors + chunk.toString()).slice(-1_000);
    });
    child.once('error', (error) => reject(new Error(`build: ${error.message}`)));
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`build: go install failed: ${errors.trim()}`))));
  });
}

async function withTimeout<T>(limitMs: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out after ${limitMs / 1_000} s`)), limitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}

function lastSentence(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.trim().split('\n').at(-1) ?? '';
}

function secondsSince(started: number): number {
  return Math.round((Date.now() - started) / 1_000);
}
