/**
 * `node src/local/bootstrap.mjs && <command>` prepares any clone for the command: installs the packages if they are missing or do not match
 * package-lock.json, and generates the Prisma client. Uses only Node's built-in modules, because nothing else is installed yet.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateClient, isClientCurrent } from '../../prisma/generate.mjs';

const MINIMUM_NODE = [20, 19];
const rootDir = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

async function main() {
  checkSystem();
  if (isInstalled() && isClientCurrent()) return;
  await takeTurn();
  if (!isInstalled()) install();
  if (!isClientCurrent()) generateClient();
}

function checkSystem() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < MINIMUM_NODE[0] || (major === MINIMUM_NODE[0] && minor < MINIMUM_NODE[1])) {
    throw new Error(`Parley needs Node ${MINIMUM_NODE.join('.')} or newer; this is ${process.versions.node}.`);
  }
  if (process.platform !== 'linux' && process.platform !== 'darwin') {
    throw new Error(`Parley needs Linux, macOS or WSL; this is ${process.platform}. On Windows, run it in a WSL terminal.`);
  }
  if (process.platform === 'linux' && !process.report.getReport().header.glibcVersionRuntime) {
    throw new Error("Parley needs glibc, which Temporal's native module is built for. Use Debian or Ubuntu instead of Alpine.");
  }
}

/** Whether npm's list of what it installed has every package of package-lock.json that is required on every system. */
function isInstalled() {
  const packages = (path) => JSON.parse(readFileSync(join(rootDir, path), 'utf8')).packages;
  try {
    const installed = packages('node_modules/.package-lock.json');
    return Object.entries(packages('package-lock.json')).every(([path, { version, optional, devOptional, peer }]) => {
      if (path === '' || installed[path]?.version === version) return true;
      return installed[path] === undefined && (optional || devOptional || peer);
    });
  } catch {
    return false;
  }
}

function install() {
  say('Installing the packages of package-lock.json; this happens once.');
  // Standard output belongs to the command that follows.
  const stdio = ['ignore', process.stderr.fd, process.stderr.fd];
  // Without warnings: a tool inside Prisma that Parley does not use asks for Node 22.
  const args = ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
  const { error, status } = spawnSync('npm', args, { cwd: rootDir, stdio });
  if (status !== 0) throw new Error(`Installing the packages failed: npm ci ${error?.message ?? `exited with ${status}`}`);
}

/**
 * Waits until no other process prepares this clone. The lock is a socket that only one process can listen on; the system closes it when
 * the process ends, even after a kill.
 */
async function takeTurn() {
  const name = `parley-${createHash('sha256').update(`${userInfo().username} ${rootDir}`).digest('hex').slice(0, 16)}`;
  // Linux has sockets without a file. Elsewhere a killed process leaves its file.
  const address = process.platform === 'linux' ? `\0${name}` : join(tmpdir(), name);
  for (;;) {
    try {
      return await once(createServer().listen(address), 'listening');
    } catch (error) {
      if (error.code !== 'EADDRINUSE') throw error;
    }
    say('Waiting for another process that is installing the packages.');
    const failure = await connectionEnd(address);
    if (failure === 'ECONNREFUSED' && process.platform !== 'linux') rmSync(address, { force: true });
  }
}

/** Waits until the process that listens on `address` ends; resolves at once to ECONNREFUSED if there is none. */
function connectionEnd(address) {
  return new Promise((resolve) => {
    connect(address)
      .on('error', ({ code }) => resolve(code))
      .on('close', () => resolve())
      .resume();
  });
}

function say(line) {
  process.stderr.write(`${line}\n`);
}

main().then(
  () => process.exit(),
  (error) => {
    say(error.message);
    process.exit(1);
  },
);
