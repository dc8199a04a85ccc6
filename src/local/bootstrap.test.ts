/** The bootstrap on a clone without packages: it installs them once and then runs the command. Uses the real npm on a small project. */
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

let clone: string;

beforeEach(async () => {
  clone = await mkdtemp(join(tmpdir(), 'parley-clone-'));
  const project = { name: 'clone', version: '1.0.0', dependencies: { dep: 'file:dep' } };
  const lock = { name: 'clone', version: '1.0.0', lockfileVersion: 3, requires: true };
  const packages = { '': project, dep: { version: '1.0.0' }, 'node_modules/dep': { resolved: 'dep', link: true } };
  await Promise.all(['src/local', 'prisma', 'dep'].map((name) => mkdir(join(clone, name), { recursive: true })));
  const write = (name: string, content: object) => writeFile(join(clone, name), JSON.stringify(content));
  await Promise.all([
    cp(join(__dirname, 'bootstrap.mjs'), join(clone, 'src/local/bootstrap.mjs')),
    write('package.json', project),
    write('package-lock.json', { ...lock, packages }),
    write('dep/package.json', { name: 'dep', version: '1.0.0', main: 'index.js' }),
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

const bootstrap = (code: string) => run(process.execPath, ['src/local/bootstrap.mjs', 'node', '-e', code], { cwd: clone });
const USE_DEP = "console.log(require('dep'))";

test('when a fresh clone runs its first command, then the packages are installed first; the second command reuses them', async () => {
  const first = await bootstrap(USE_DEP);
  expect(first.stdout).toBe('client generated\ndep is here\n');
  expect(first.stderr).toContain('this happens once');
  const second = await bootstrap(USE_DEP);
  expect(second.stdout).toBe('client generated\ndep is here\n');
  expect(second.stderr).not.toContain('Installing');
});

test('when two commands start on a fresh clone at once, then one installs and the other waits', async () => {
  const both = await Promise.all([bootstrap(USE_DEP), bootstrap(USE_DEP)]);
  for (const { stdout } of both) expect(stdout).toContain('dep is here');
  expect(both.filter(({ stderr }) => stderr.includes('Installed the packages'))).toHaveLength(1);
});

test('when the command fails, then its exit code is passed on', async () => {
  await expect(bootstrap('process.exit(7)')).rejects.toMatchObject({ code: 7 });
});
