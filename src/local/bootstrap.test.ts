/** The bootstrap on a clone without packages: it installs them once. Uses the real npm on a small project. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { scripts } from '../../package.json';

const run = promisify(execFile);

let clone: string;

beforeEach(async () => {
  clone = await mkdtemp(join(tmpdir(), 'parley-clone-'));
  await Promise.all(['src/local', 'prisma', 'dep'].map((name) => mkdir(join(clone, name), { recursive: true })));
  await Promise.all([
    cp(join(__dirname, 'bootstrap.mjs'), join(clone, 'src/local/bootstrap.mjs')),
    writeProject('1.0.0'),
    writeFile(join(clone, 'dep/index.js'), "module.exports = 'dep is here';"),
    // Replaces the generation of the Prisma client, which runs once, before the command.
    writeFile(
      join(clone, 'prisma/generate.mjs'),
      `let isCurrent = false;
      export const isClientCurrent = () => isCurrent;
      export const generateClient = () => { isCurrent = true; console.log('client generated'); };`,
    ),
  ]);
});

afterEach(async () => {
  await rm(clone, { recursive: true, force: true });
});

async function writeProject(version: string, scripts?: Record<string, string>): Promise<void> {
  const project = { name: 'clone', version: '1.0.0', dependencies: { dep: 'file:dep' } };
  const packages = { '': project, dep: { version }, 'node_modules/dep': { resolved: 'dep', link: true } };
  const lock = { name: 'clone', version: '1.0.0', lockfileVersion: 3, requires: true, packages };
  const write = (name: string, content: object) => writeFile(join(clone, name), JSON.stringify(content));
  await Promise.all([
    write('package.json', project),
    write('package-lock.json', lock),
    write('dep/package.json', { name: 'dep', version, main: 'index.js', scripts }),
  ]);
}

const bootstrap = (code: string) => run('sh', ['-c', 'node src/local/bootstrap.mjs && exec node -e "$0"', code], { cwd: clone });
const USE_DEP = "console.log(require('dep'))";

test('when a fresh clone runs its first command, then the packages are installed first; the second command reuses them', async () => {
  const first = await bootstrap(USE_DEP);
  expect(first.stdout).toBe('client generated\ndep is here\n');
  expect(first.stderr).toContain('this happens once');
  const second = await bootstrap(USE_DEP);
  expect(second.stdout).toBe('client generated\ndep is here\n');
  expect(second.stderr).not.toContain('Installing');
});

test('when node_modules matches the lock file, then what a developer added stays; otherwise the packages are reinstalled', async () => {
  await bootstrap(USE_DEP);
  const added = join(clone, 'node_modules/added.txt');
  await writeFile(added, 'mine');
  await bootstrap(USE_DEP);
  expect(await readFile(added, 'utf8')).toBe('mine');
  await writeProject('1.0.1');
  expect((await bootstrap(USE_DEP)).stderr).toContain('Installing');
  await expect(readFile(added)).rejects.toThrow('ENOENT');
});

test('when two commands start on a fresh clone at once, then one installs and the other waits', async () => {
  const both = await Promise.all([bootstrap(USE_DEP), bootstrap(USE_DEP)]);
  for (const { stdout } of both) expect(stdout).toContain('dep is here');
  expect(both.filter(({ stderr }) => stderr.includes('Installing'))).toHaveLength(1);
});

test('when an installation is killed, then a process that waits for it installs', async () => {
  // The package's own script shows that npm is in the middle of its work, and keeps it there.
  await writeProject('1.0.0', { preinstall: 'touch ../installing && exec sleep 60' });
  const first = spawn('node', ['src/local/bootstrap.mjs'], { cwd: clone, detached: true, stdio: 'ignore' });
  await untilExists(join(clone, 'installing'));
  const second = spawn('node', ['src/local/bootstrap.mjs'], { cwd: clone, stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = once(second, 'exit');
  let said = '';
  second.stderr.on('data', (chunk) => {
    said += String(chunk);
  });
  await once(second.stderr, 'data');
  expect(said).toBe('Waiting for another process that is installing the packages.\n');
  await writeProject('1.0.0');
  // The whole group, as it ends with its terminal.
  process.kill(-(first.pid ?? 0), 'SIGKILL');
  expect(await exited).toEqual([0, null]);
  expect(said).toContain('Installing the packages');
  expect((await bootstrap(USE_DEP)).stderr).toBe('');
});

test('when the packages cannot be installed, then the command does not run', async () => {
  await writeFile(join(clone, 'package-lock.json'), '{}');
  await expect(bootstrap(USE_DEP)).rejects.toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('npm ci exited with 1') });
});

const pretend = (property: string, value: string) => `Object.defineProperty(${property}, { value: ${value} })`;

test.each([
  [
    'Windows',
    pretend("process, 'platform'", "'win32'"),
    'Parley needs Linux, macOS or WSL; this is win32. On Windows, run it in a WSL terminal.',
  ],
  [
    'Alpine',
    pretend("process.report, 'getReport'", '() => ({ header: {} })'),
    /^Parley needs glibc, .* Use Debian or Ubuntu instead of Alpine\.$/,
  ],
  ['an old Node', pretend("process.versions, 'node'", "'20.18.3'"), 'Parley needs Node 20.19 or newer; this is 20.18.3.'],
])('when it runs on %s, then it says in one line what it needs', async (_name, code, line) => {
  const preload = `data:text/javascript,${encodeURIComponent(code)}`;
  const failure = await run('node', ['--import', preload, 'src/local/bootstrap.mjs'], { cwd: clone }).catch((error) => error);
  expect(failure).toMatchObject({ code: 1, stdout: '' });
  expect(failure.stderr.split('\n')).toEqual([expect.stringMatching(line), '']);
});

test('when cmd runs a script of a fresh clone, then the bootstrap can say what it needs', () => {
  const direct = ['api', 'worker', 'check', 'test:jest', 'format', 'lock', 'postinstall'];
  const prepared = Object.entries(scripts).filter(([name]) => !direct.includes(name));
  for (const [, command] of prepared) expect(command).toMatch(/^node src\/local\/bootstrap\.mjs && /);
});

async function untilExists(file: string): Promise<void> {
  while (
    !(await readFile(file).then(
      () => true,
      () => false,
    ))
  )
    await new Promise(setImmediate);
}
