/**
 * `node src/local/bootstrap.mjs <command…>` runs a command of this project in any clone: it installs the packages if they are missing or
 * do not match package-lock.json, generates the Prisma client, and then runs the command. May only use Node's built-in modules,
 * because nothing else is installed yet.
 */
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { constants, tmpdir, userInfo } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const MINIMUM_NODE = [20, 19];
const REPORT_INTERVAL_MS = 10_000;
const MAX_ERROR_LINES = 15;
/** The owner writes its pid right after creating the mutex. A mutex that has none for this long was left behind by a killed process. */
const OWNERLESS_MUTEX_MS = 5_000;

const rootDir = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const modulesDir = join(rootDir, 'node_modules');
const lockFile = join(rootDir, 'package-lock.json');
const installedStamp = join(modulesDir, '.parley-lock');

/** Not in node_modules, which an install deletes, and not elsewhere in the clone, to keep it clean. */
const mutexDir = join(tmpdir(), `parley-install-${hash(`${userInfo().username} ${rootDir}`).slice(0, 16)}`);
const mutexOwner = join(mutexDir, 'owner');

// biome-ignore lint/style/noProcessEnv: passed to child processes; only the path of npm and PATH are read
const environment = process.env;

async function main([command, ...args]) {
  if (command === undefined) throw new Error('usage: node src/local/bootstrap.mjs <command…>');
  checkNode();
  if (!isInstalled()) await withMutex('the packages are being installed', installIfNeeded);
  const { isClientCurrent, generateClient } = await import('../../prisma/generate.mjs');
  if (!isClientCurrent()) {
    await withMutex('the Prisma client is being generated', () => {
      if (!isClientCurrent()) generateClient();
    });
  }
  await runCommand(command, args);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > MINIMUM_NODE[0] || (major === MINIMUM_NODE[0] && minor >= MINIMUM_NODE[1])) return;
  throw new Error(`Parley needs Node ${MINIMUM_NODE.join('.')} or newer; this is ${process.versions.node}.`);
}

// --- Packages ---

function isInstalled() {
  if (!existsSync(modulesDir)) return false;
  const wanted = hash(readFileSync(lockFile));
  if (readOr(installedStamp, '') === wanted) return true;
  if (!modulesMatchLockFile()) return false;
  // The user has run `npm install`.
  writeFileSync(installedStamp, wanted);
  return true;
}

/** Whether npm's list of what it installed has every package of package-lock.json that is required on every system. */
function modulesMatchLockFile() {
  try {
    const wanted = JSON.parse(readFileSync(lockFile, 'utf8')).packages;
    const present = JSON.parse(readFileSync(join(modulesDir, '.package-lock.json'), 'utf8')).packages;
    return Object.entries(wanted).every(([path, { version, optional, devOptional, peer }]) => {
      if (path === '' || present[path]?.version === version) return true;
      return present[path] === undefined && (optional || devOptional || peer);
    });
  } catch {
    return false;
  }
}

async function installIfNeeded() {
  if (isInstalled()) return;
  const started = Date.now();
  say('Installing the packages of package-lock.json; this happens once.');
  const report = () => say(`Still installing the packages (${Math.round((Date.now() - started) / 1_000)} s).`);
  const timer = setInterval(report, REPORT_INTERVAL_MS);
  try {
    await installPackages();
  } finally {
    clearInterval(timer);
  }
  writeFileSync(installedStamp, hash(readFileSync(lockFile)));
  say(`Installed the packages in ${Math.round((Date.now() - started) / 1_000)} s.`);
}

/**
 * `npm ci` rejects a lock file that lacks entries for other systems' builds of a package, as one made with an incomplete registry does.
 * `npm install` then installs the same versions and leaves the lock file unchanged.
 */
async function installPackages() {
  try {
    await runNpm(['ci']);
  } catch (error) {
    if (!/EUSAGE|from lock file/.test(error.message)) throw error;
    say('npm ci rejects package-lock.json as incomplete; using npm install with the same versions.');
    await runNpm(['install', '--no-save']);
  }
}

function runNpm(command) {
  const npm = environment.npm_execpath;
  const isScript = npm?.endsWith('.js');
  const args = [...command, '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
  const child = spawn(isScript ? process.execPath : 'npm', isScript ? [npm, ...args] : args, { cwd: rootDir, env: environment });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk;
    });
  }
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new Error(`running npm failed: ${error.message}`)));
    // npm prints the reason first, then its usage text.
    const reason = () => output.trim().split('\n').slice(0, MAX_ERROR_LINES).join('\n');
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`npm ${command[0]} failed:\n${reason()}`))));
  });
}

// --- Mutual exclusion between processes ---

async function withMutex(reason, work) {
  const token = await takeMutex(reason);
  try {
    await work();
  } finally {
    if (readOr(mutexOwner, '') === token) rmSync(mutexDir, { recursive: true, force: true });
  }
}

async function takeMutex(reason) {
  const token = `${process.pid} ${randomBytes(8).toString('hex')}`;
  for (let announced = false; ; await sleep(250)) {
    try {
      mkdirSync(mutexDir, { mode: 0o700 });
      writeFileSync(mutexOwner, token);
      return token;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    removeStaleMutex();
    if (!announced) say(`Waiting: ${reason} by another process.`);
    announced = true;
  }
}

function removeStaleMutex() {
  const owner = readOr(mutexOwner, '');
  if (owner === '' ? !isOlderThan(mutexDir, OWNERLESS_MUTEX_MS) : isAlive(Number(owner.split(' ')[0]))) return;
  // Two processes may find it stale at once; the rename ensures that the second does not remove what the first has just created.
  const aside = `${mutexDir}-${randomBytes(4).toString('hex')}`;
  try {
    renameSync(mutexDir, aside);
    if (readOr(join(aside, 'owner'), '') === owner) rmSync(aside, { recursive: true, force: true });
    else renameSync(aside, mutexDir);
  } catch {
    // The other process was first.
  }
}

function isOlderThan(path, ageMs) {
  try {
    return Date.now() - statSync(path).mtimeMs > ageMs;
  } catch {
    return false;
  }
}

function isAlive(pid) {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

// --- The command ---

async function runCommand(command, args) {
  const isNode = command === 'node';
  const child = spawn(isNode ? process.execPath : command, args, {
    // The IPC channel tells a Node child if this process is killed. Other programs would leak it to their own children.
    stdio: isNode ? ['inherit', 'inherit', 'inherit', 'ipc'] : 'inherit',
    env: { ...environment, PATH: `${join(modulesDir, '.bin')}${delimiter}${environment.PATH ?? ''}` },
  });
  const forwarded = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  for (const signal of forwarded) process.on(signal, () => child.kill(signal));
  const [code, signal] = await new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new Error(`running ${command} failed: ${error.message}`)));
    child.once('exit', (...how) => resolve(how));
  });
  process.exit(signal === null ? code : 128 + (constants.signals[signal] ?? 0));
}

// --- Helpers ---

function say(line) {
  process.stderr.write(`${line}\n`);
}

function readOr(path, fallback) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return fallback;
  }
}

function hash(content) {
  return createHash('sha256').update(content).digest('hex');
}

main(process.argv.slice(2)).catch((error) => {
  say(error.message);
  process.exit(1);
});
