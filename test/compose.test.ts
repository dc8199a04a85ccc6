/**
 * docker-compose.yml and Dockerfile, held to what docs/production.md promises. They are not run here: the file is parsed, and handed to
 * `docker compose config` (or `docker-compose config`) where there is one. In CI there must be one.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { parse } from 'yaml';
import { searchAttributes } from '../workflows/contract';

interface Service {
  image: string;
  build?: string;
  command?: string[];
  user?: string;
  restart?: string;
  ports?: string[];
  volumes?: string[];
  environment?: Record<string, string | null>;
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test?: string[]; disable?: boolean };
  stop_grace_period?: string;
}

const ROOT = join(__dirname, '..');
const readRoot = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const file = parse(readRoot('docker-compose.yml'), { merge: true }) as { services: Record<string, Service> };
const services = Object.entries(file.services);
const dockerfile = readRoot('Dockerfile');
const production = readRoot('docs/production.md');
const namesIn = (text = '') => [...text.matchAll(/^([A-Z][A-Z0-9_]*)=/gm)].map((match) => match[1] ?? '');
const [forParley, forCompose] = readRoot('.env.example').split('# --- Docker Compose only');
const settings = namesIn(forParley);

const LONG_RUNNING = ['api', 'postgres', 'temporal', 'temporal-ui', 'worker'];
const ONE_SHOT = ['databases', 'migrate', 'temporal-namespace', 'temporal-schema'];
/** Compose does not start without them. */
const SECRETS = ['API_KEYS', 'PARLEY_DB_PASSWORD', 'POSTGRES_PASSWORD', 'TEMPORAL_DB_PASSWORD'];
const NAMES_OF_SECRETS = /(PASSWORD|PWD|SECRET|TOKEN|API_KEY|API_KEYS)$/;

/** Settings that the containers do not take from `.env`. */
const NOT_HANDED_ON = [
  // `npm start` only.
  ...[
    'DATA_DIR',
    'LOG_FILE_MAX_MB',
    'POSTGRES_PORT',
    'SANDBOX_PORT',
    'SANDBOX_URL',
    'WEBHOOK_TARGET_URL',
    'TEMPORAL_CLI_PATH',
    'TEMPORAL_PORT',
    'TEMPORAL_UI_PORT',
  ],
  // The new worker takes the old one's place; what is pinned to a version without workers would wait for ever.
  ...['WORKER_VERSIONING', 'WORKER_DEPLOYMENT_NAME', 'WORKER_BUILD_ID'],
  // A container listens on each of its addresses.
  'HOST',
  // A key would switch TLS on, which the server of this file does not speak.
  'TEMPORAL_API_KEY',
];

/** Every string below `node`, without the keys. */
function strings(node: unknown): string[] {
  if (typeof node === 'string') return [node];
  return typeof node === 'object' && node !== null ? Object.values(node).flatMap(strings) : [];
}

const interpolations = [...new Set(strings(file))].flatMap((text) => [...text.matchAll(/(?<!\$)\$\{?(\w+)(:[-?])?([^}]*)\}?/g)]);

function service(name: string): Service {
  const found = file.services[name];
  if (!found) throw new Error(`there is no service ${name}`);
  return found;
}

describe('docker-compose.yml', () => {
  it('when it is read, then it has every service of the installation', () => {
    expect(Object.keys(file.services).sort()).toEqual([...LONG_RUNNING, ...ONE_SHOT].sort());
  });

  it.each(LONG_RUNNING)('when %s runs, then it has a health check, is started again, and has its own time to stop', (name) => {
    expect(service(name).healthcheck?.test?.[0]).toBe('CMD');
    // Not ready is no reason for a restart: both processes wait for their servers.
    expect(service(name).healthcheck?.test?.join()).not.toContain('readyz');
    expect(service(name).restart).toBe('unless-stopped');
  });

  it.each(ONE_SHOT)('when %s has done its work, then it is over and others wait for its success', (name) => {
    expect(service(name).restart).toBeUndefined();
    expect(service(name).healthcheck?.test).toBeUndefined();
    const waiting = services.flatMap(([, { depends_on }]) => (depends_on?.[name] ? [depends_on[name].condition] : []));
    expect(waiting.length).toBeGreaterThan(0);
    expect(new Set(waiting)).toEqual(new Set(['service_completed_successfully']));
  });

  it('when a service needs a running one, then it waits until that is healthy', () => {
    const conditions = services.flatMap(([, { depends_on }]) =>
      Object.entries(depends_on ?? {}).flatMap(([name, { condition }]) => (LONG_RUNNING.includes(name) ? [condition] : [])),
    );
    expect(new Set(conditions)).toEqual(new Set(['service_healthy']));
  });

  it.each(['api', 'worker'])('when %s starts, then the record is migrated and the namespace is there', (name) => {
    expect(Object.keys(service(name).depends_on ?? {})).toEqual(expect.arrayContaining(['migrate', 'temporal-namespace']));
  });

  it.each(services)('when %s is pulled, then its image has an exact version', (_name, { image, build }) => {
    if (build) expect(image).toMatch(/^parley:/);
    else expect(image).toMatch(/^[a-z][a-z/-]*:\d+\.\d+[\w.-]*$/);
  });

  it('when a port is published, then it is on the loopback address', () => {
    const published = services.flatMap(([, { ports }]) => ports ?? []).sort();
    expect(published).toEqual(['$'.concat('{API_PUBLISH:-127.0.0.1:3000}:3000'), '127.0.0.1:8233:8080']);
  });

  it.each(services)('when %s gets a secret, then it comes from outside, and an empty one is refused', (_name, { environment }) => {
    for (const [name, value] of Object.entries(environment ?? {})) {
      if (NAMES_OF_SECRETS.test(name) && value !== null) expect(value).toMatch(/^\$\{[A-Z_]+:\?[^}]+\}$/);
      const inAddress = /:\/\/[^:/]+:(?<password>.*)@/.exec(value ?? '')?.groups?.password;
      if (inAddress !== undefined) expect(inAddress).toMatch(/^\$\{[A-Z_]+:\?[^}]+\}$/);
    }
  });

  it('when a variable is used, then it is required or has a default', () => {
    expect(interpolations.length).toBeGreaterThan(0);
    for (const [text, name = '', operator, rest] of interpolations) {
      expect({ text, operator }).toEqual({ text, operator: SECRETS.includes(name) ? ':?' : ':-' });
      expect(rest).not.toBe('');
    }
    expect(SECRETS.filter((name) => !interpolations.some((match) => match[1] === name))).toEqual([]);
  });

  it('when a variable is used, then .env.example or docs/production.md explains it', () => {
    const names = [...new Set(interpolations.map((match) => match[1] ?? ''))];
    const unexplained = names.filter((name) => !settings.includes(name) && !new RegExp(`\\| \`${name}\` +\\|`).test(production));
    expect(unexplained).toEqual([]);
  });

  it('when a name is for Compose only, then .env.example has it, and docs/production.md explains it', () => {
    const own = [...new Set(interpolations.map((match) => match[1] ?? ''))].filter((name) => !settings.includes(name));
    expect(namesIn(forCompose).sort()).toEqual(own.sort());
  });

  it('when a setting stands in .env.example, then the containers get it', () => {
    const given = [service('api'), service('worker')].flatMap(({ environment }) => Object.keys(environment ?? {}));
    expect(settings.filter((name) => !given.includes(name) && !NOT_HANDED_ON.includes(name))).toEqual([]);
    expect(given.filter((name) => !settings.includes(name))).toEqual([]);
  });

  it('when a file is mounted, then it exists', () => {
    const mounted = services.flatMap(([, { volumes }]) => volumes ?? []).filter((volume) => volume.startsWith('.'));
    expect(mounted).toHaveLength(1);
    for (const volume of mounted) expect(existsSync(join(ROOT, volume.split(':')[0] ?? ''))).toBe(true);
  });

  it('when the Temporal server reads its dynamic configuration, then activities start eagerly', () => {
    const dynamic = parse(readRoot('docs/temporal-dynamic-config.yaml')) as Record<string, { value: unknown }[]>;
    expect(dynamic['system.enableActivityEagerExecution']).toEqual([{ value: true }]);
  });

  it('when a process is told to stop, then it has longer than its own limit', () => {
    const constant = (path: string, name: string) =>
      Number(new RegExp(`const ${name} = ([\\d_]+)`).exec(readRoot(path))?.[1]?.replaceAll('_', ''));
    const graceMs = (name: string) => Number(/^(\d+)s$/.exec(service(name).stop_grace_period ?? '')?.[1]) * 1_000;
    expect(graceMs('api')).toBeGreaterThan(constant('src/processes/server.ts', 'SHUTDOWN_LIMIT_MS'));
    // The worker adds 5 s to its grace time.
    expect(graceMs('worker')).toBeGreaterThan(constant('src/processes/worker.ts', 'SHUTDOWN_GRACE_MS') + 5_000);
    expect(graceMs('worker')).toBeGreaterThanOrEqual(20_000);
  });

  it.each(['api', 'worker', 'migrate'])('when %s is started, then its entry is there and no npm or shell stands before it', (name) => {
    const [node, ...rest] = service(name).command ?? [];
    expect(node).toBe('node');
    expect(existsSync(join(ROOT, rest.at(-1) ?? ''))).toBe(true);
  });
});

describe('docs/production.md', () => {
  it.each(Object.values(searchAttributes))('when an operator prepares a namespace, then they read of %s', (name) => {
    expect(production).toContain(name);
  });
});

describe('Dockerfile', () => {
  it('when an orchestrator checks the image, then it asks whether the process is alive, not whether it is ready', () => {
    const [check = ''] = /^HEALTHCHECK[\s\S]*?CMD .*$/m.exec(dockerfile) ?? [];
    expect([check.includes('/healthz'), check.includes('/readyz')]).toEqual([true, false]);
  });

  it('when the image runs, then not as root, with an exact Node version, and Node gets the signals', () => {
    expect(dockerfile).toMatch(/^ARG NODE_IMAGE=node:26\.\d+\.\d+-\w+-slim$/m);
    expect(dockerfile.match(/^FROM .*/gm)).toEqual([
      expect.stringMatching(/^FROM \$\{NODE_IMAGE\} /),
      ...Array(3).fill(expect.stringMatching(/^FROM base /)),
    ]);
    expect(dockerfile.match(/^USER .*/gm)).toEqual(['USER node']);
    expect(dockerfile).toMatch(/^STOPSIGNAL SIGTERM$/m);
    expect(dockerfile).toMatch(/^HEALTHCHECK /m);
    expect(dockerfile.trimEnd().split('\n').at(-1)).toBe('CMD ["node", "--import", "tsx", "src/processes/server.ts"]');
  });

  it('when CI runs the main suites on newer versions of Node, then on the version of the image too', () => {
    const version = /^ARG NODE_IMAGE=node:([\d.]+)-/m.exec(dockerfile)?.[1];
    const versions = /^for version in ([\d. ]+); do/m.exec(readRoot('.ci/run'))?.[1]?.split(' ');
    expect(versions).toContain(version);
    expect(versions).toContainEqual(expect.stringMatching(/^24\./));
  });

  it('when a process of the image runs, then every package it imports is a production dependency and every file is in the image', () => {
    const { dependencies } = JSON.parse(readRoot('package.json')) as { dependencies: Record<string, string> };
    const { packages, files } = imports([
      'src/processes/server.ts',
      'src/processes/worker.ts',
      'src/processes/migrate.ts',
      'src/local/commands/doctor.ts',
    ]);
    expect(files).toContain('src/platform/config.ts');
    expect(packages.filter((name) => !(name in dependencies))).toEqual([]);
    const leftOut = ['src/sandbox/', 'src/local/embedded/', 'test/'];
    expect(files.filter((path) => leftOut.some((dir) => path.startsWith(dir)))).toEqual([]);
  });
});

/** The packages and the files of this project that `entries` load. */
function imports(entries: string[]): { packages: string[]; files: string[] } {
  const packages = new Set<string>();
  const files = new Set<string>();
  const visit = (path: string) => {
    if (files.has(path) || path.startsWith('prisma/generated')) return;
    files.add(path);
    for (const [, typeOnly, source = ''] of readRoot(path).matchAll(/^(?:import|export) (type )?(?:[^';]* from )?'([^']+)'/gm)) {
      // npm needs package.json, so the image has it.
      if (typeOnly || source.startsWith('node:') || source.endsWith('../package.json')) continue;
      if (!source.startsWith('.')) packages.add(source.split('/', source.startsWith('@') ? 2 : 1).join('/'));
      else visit(resolveFile(relative(ROOT, resolve(ROOT, dirname(path), source))));
    }
  };
  for (const entry of entries) visit(entry);
  return { packages: [...packages].sort(), files: [...files] };
}

function resolveFile(path: string): string {
  if (path.startsWith('prisma/generated')) return path;
  const found = [path, `${path}.ts`, `${path}/index.ts`].find(
    (candidate) => /\.(ts|json)$/.test(candidate) && existsSync(join(ROOT, candidate)),
  );
  if (!found) throw new Error(`no file for ${path}`);
  return found;
}

/** The Compose commands, the modern one first. */
const composeCommands = [['docker', 'compose'], ['docker-compose']].filter(
  ([command = '', ...args]) => spawnSync(command, [...args, 'version']).status === 0,
);

describe('Compose itself', () => {
  // biome-ignore lint/style/noProcessEnv: whether this is CI is no setting of Parley
  const environment = process.env;

  it('when this is CI, then there is a Compose command to ask', () => {
    if (environment.CI) expect(composeCommands.length).toBeGreaterThan(0);
  });

  if (composeCommands.length === 0) return;

  // A folder of its own, and no settings of the shell: neither the developer's .env nor their environment decides.
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'parley-compose-'));
    copyFileSync(join(ROOT, 'docker-compose.yml'), join(folder, 'docker-compose.yml'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const config = ([command = '', ...args]: string[], values: Record<string, string>) =>
    spawnSync(command, [...args, 'config'], {
      cwd: folder,
      encoding: 'utf8',
      env: { PATH: environment.PATH, HOME: environment.HOME, ...values },
    });
  const withAll = Object.fromEntries(SECRETS.map((name, index) => [name, `value-${index}`]));

  describe.each(composeCommands.map((command) => [command.join(' '), command] as const))('%s', (_name, command) => {
    it('when every secret is set, then it accepts the file and fills them in', () => {
      const result = config(command, { ...withAll, KAPSO_API_KEY: 'value-of-kapso', OPENAI_API_KEY: 'value-of-openai' });
      expect({ status: result.status, stderr: result.stderr }).toMatchObject({ status: 0 });
      const { services: filled } = parse(result.stdout) as { services: Record<string, Service> };
      expect(filled.api?.environment).toMatchObject({ API_KEYS: withAll.API_KEYS, PORT: '3000' });
      expect(filled.worker?.environment).toMatchObject({ KAPSO_API_KEY: 'value-of-kapso', OPENAI_API_KEY: 'value-of-openai' });
      expect(filled.worker?.environment?.DATABASE_URL).toContain(`:${withAll.PARLEY_DB_PASSWORD}@postgres:`);
    });

    it.each(SECRETS)('when %s is missing, then it refuses the file and says so', (name) => {
      const result = config(command, Object.fromEntries(Object.entries(withAll).filter(([key]) => key !== name)));
      expect(result.status).not.toBe(0);
      expect(result.stderr).toContain(name);
    });
  });
});
