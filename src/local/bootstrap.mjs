/**
 * `node src/local/bootstrap.mjs <command…>` runs a command of this project on a clone in any state: it installs the packages when they are
 * missing or are not those of package-lock.json, generates the Prisma client, and then runs the command. Only Node's own modules
 * here: there is nothing else yet.
 */
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { constants, tmpdir, userInfo } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const OLDEST_NODE = [20, 19];
const REPORT_EVERY_MS = 10_000;
const LINES_OF_ERROR = 15;
/** An owner writes its number into the lock right after making it; a lock without one for this long was left by a killed process. */
const NAMELESS_LOCK_MS = 5_000;

const rootDir = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const modulesDir = join(rootDir, 'node_modules');
const lockFile = join(rootDir, 'package-lock.json');
const installedMark = join(modulesDir, '.parley-lock');

/** Outside node_modules, which an install removes, and outside the clone, which it must not litter. */
const mutexDir = join(tmpdir(), `parley-install-${hash(`${userInfo().username} ${rootDir}`).slice(0, 16)}`);
const mutexOwner = join(mutexDir, 'owner');

// biome-ignore lint/style/noProcessEnv: handed on to the children; read for npm's own path and the PATH only
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
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return;
  throw new Error(`Parley needs Node ${OLDEST_NODE.join('.')} or newer; this is ${process.versions.node}.`);
}

// --- Packages ---

function isInstalled() {
  if (!existsSync(modulesDir)) return false;
  const wanted = hash(readFileSync(lockFile));
  if (readOr(installedMark, '') === wanted) return true;
  if (!modulesAgree()) return false;
  // `npm install` has done our work.
  writeFileSync(installedMark, wanted);
  return true;
}

/** Whether npm's own list of what it put into node_modules has every package of package-lock.json that every system needs. */
function modulesAgree() {
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
  const report = () => say(`Installing the packages, ${Math.round((Date.now() - started) / 1_000)} s so far.`);
  const timer = setInterval(report, REPORT_EVERY_MS);
  try {
    await installPackages();
  } finally {
    clearInterval(timer);
  }
  writeFileSync(installedMark, hash(readFileSync(lockFile)));
  say(`Installed the packages in ${Math.round((Date.now() - started) / 1_000)} s.`);
}

/**
 * `npm ci` refuses a lock file without an entry for each system's build of a package, which a registry that lacks some of them leads to.
 * `npm install` then takes the same versions, and leaves the lock file as it is.
 */
async function installPackages() {
  try {
    await runNpm(['ci']);
  } catch (error) {
    if (!/EUSAGE|from lock file/.test(error.message)) throw error;
    say('npm ci finds package-lock.json incomplete; using npm install with the same versions.');
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
    child.once('error', (error) => reject(new Error(`npm could not be run: ${error.message}`)));
    // What npm says first is the reason; its usage text follows.
    const reason = () => output.trim().split('\n').slice(0, LINES_OF_ERROR).join('\n');
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`npm ${command[0]} failed:\n${reason()}`))));
  });
}

// --- One at a time ---

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
  for (let said = false; ; await sleep(250)) {
    try {
      mkdirSync(mutexDir, { mode: 0o700 });
      writeFileSync(mutexOwner, token);
      return token;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    removeStaleMutex();
    if (!said) say(`Waiting: ${reason} by another process.`);
    said = true;
  }
}

function removeStaleMutex() {
  const owner = readOr(mutexOwner, '');
  if (owner === '' ? !isOlderThan(mutexDir, NAMELESS_LOCK_MS) : isAlive(Number(owner.split(' ')[0]))) return;
  // Two may find it stale at once, and the slower must not remove what the faster has made since: a rename takes exactly one.
  const aside = `${mutexDir}-${randomBytes(4).toString('hex')}`;
  try {
    renameSync(mutexDir, aside);
    if (readOr(join(aside, 'owner'), '') === owner) rmSync(aside, { recursive: true, force: true });
    else renameSync(aside, mutexDir);
  } catch {
    // The other one was faster.
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
    // Through the channel a Node process learns that this one was killed; another program would only pass it on by accident.
    stdio: isNode ? ['inherit', 'inherit', 'inherit', 'ipc'] : 'inherit',
    env: { ...environment, PATH: `${join(modulesDir, '.bin')}${delimiter}${environment.PATH ?? ''}` },
  });
  const forwarded = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  for (const signal of forwarded) process.on(signal, () => child.kill(signal));
  const [code, signal] = await new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new Error(`${command} could not be run: ${error.message}`)));
    child.once('exit', (...how) => resolve(how));
  });
  process.exit(signal === null ? code : 128 + (constants.signals[signal] ?? 0));
}

// --- Small things ---

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
