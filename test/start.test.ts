/** `npm start`, `npm run chat` and `npm run call` as a stranger uses them: no key, no database, no engine, one folder for the data. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../src/local/embedded/ports';
import { createLogger } from '../src/platform/logger';
import { startSandbox } from '../src/sandbox/sandbox';

let dataDir: string;
let environment: Record<string, string>;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'parley-start-'));
  // biome-ignore lint/style/noProcessEnv: a stranger's shell, without any setting of ours but the run's choice of the CLI
  const { PATH = '', HOME = '', XDG_CACHE_HOME = '', TEMPORAL_CLI_PATH = '' } = process.env;
  const ports = [await freePort(51_000), await freePort(52_000), await freePort(53_000), await freePort(54_000), await freePort(55_000)];
  const [PORT, POSTGRES_PORT, SANDBOX_PORT, TEMPORAL_PORT, TEMPORAL_UI_PORT] = ports.map(String) as [
    string,
    string,
    string,
    string,
    string,
  ];
  environment = { PATH, HOME, TEMPORAL_CLI_PATH, DATA_DIR: dataDir, PORT, POSTGRES_PORT, SANDBOX_PORT, TEMPORAL_PORT, TEMPORAL_UI_PORT };
  // A proxy that does not exist: neither we nor a child process may use it for anything on this machine.
  for (const name of ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY', 'grpc_proxy']) environment[name] = 'http://127.0.0.1:9';
  if (XDG_CACHE_HOME) environment.XDG_CACHE_HOME = XDG_CACHE_HOME;
});

afterAll(async () => {
  await rm(dataDir, { recursive: true, force: true });
});

/** Runs a script of package.json in a process group of its own, as a terminal does. */
function run(script: string, ...args: string[]) {
  const child = spawn('npm', ['run', '--silent', script, '--', ...args], {
    env: environment,
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let output = '';
  const waiting = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk;
      for (const look of waiting) look();
    });
  }
  const exited = once(child, 'exit');
  return {
    child,
    exited,
    output: () => output,
    says: (words: string) =>
      new Promise<void>((resolve, reject) => {
        const look = () => {
          if (!output.includes(words)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        void exited.then(() => reject(new Error(`it ended before it said "${words}":\n${output}`)));
        look();
      }),
  };
}

/** Holds ports as other programs do; `release` lets them go. */
async function holdPorts(ports: string[]): Promise<{ release(): Promise<void> }> {
  const servers = ports.map((port) => createServer().listen(Number(port), '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  return {
    async release() {
      await Promise.all(servers.map((server) => once(server.close(), 'close')));
    },
  };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Ctrl-C in the terminal reaches every process of the group. */
async function pressCtrlC(running: ReturnType<typeof run>): Promise<void> {
  process.kill(-(running.child.pid ?? 0), 'SIGINT');
  await running.exited;
}

interface RunningFile {
  apiUrl: string;
  apiKey: string;
  temporalUiUrl: string;
  sandboxUrl: string;
  /** Of the start itself. */
  pid: number;
  pids: Record<string, number>;
}

async function runningFile(): Promise<RunningFile> {
  return JSON.parse(await readFile(join(dataDir, 'running.json'), 'utf8')) as RunningFile;
}

interface ListedConversation {
  id: string;
  workflowId: string;
  contact: { name: string | null };
}

async function conversations(): Promise<ListedConversation[]> {
  const { apiUrl, apiKey } = await runningFile();
  const answer = await fetch(`${apiUrl}/api/v1/conversations`, { headers: { Authorization: `Bearer ${apiKey}` } });
  return ((await answer.json()) as { data: ListedConversation[] }).data;
}

async function chat(text: string, ...args: string[]): Promise<string> {
  const customer = run('chat', '--quiet', '1000', ...args);
  customer.child.stdin.end(`${text}\n`);
  const [code] = await customer.exited;
  expect([code, customer.output()]).toEqual([0, expect.any(String)]);
  return customer.output();
}

test('when a stranger starts, chats, stops and starts again, then a reply comes each time and the data is still there', async () => {
  const first = run('start');
  await first.says('npm run chat');
  const said = await chat('Where is my order?');
  expect(said).toContain('sandbox model, no AI');
  expect(said).toContain('Where is my order?');
  expect(said).toMatch(/delivered|read/);
  const [conversation] = await conversations();
  const workflowOf = (output: string) => /Your conversation is the workflow (conversation-\d+-[0-9a-f]{24})$/m.exec(output)?.[1];
  expect(workflowOf(said)).toBe(conversation?.workflowId);
  const { temporalUiUrl } = await runningFile();
  expect((await fetch(temporalUiUrl)).status).toBe(200);
  await pressCtrlC(first);
  expect(first.output()).toContain('stopped; the data is kept for the next start');

  // Other programs have taken the ports meanwhile, but for the API's, which senders know.
  const { PORT, POSTGRES_PORT = '', SANDBOX_PORT = '', TEMPORAL_PORT = '', TEMPORAL_UI_PORT = '' } = environment;
  const taken = [POSTGRES_PORT, SANDBOX_PORT, TEMPORAL_PORT, TEMPORAL_UI_PORT];
  const others = await holdPorts(taken);
  const second = run('start');
  await second.says('npm run chat');
  for (const port of taken) expect(second.output()).toMatch(new RegExp(`port ${port} is taken; using \\d+`));
  expect((await runningFile()).apiUrl).toBe(`http://127.0.0.1:${PORT}`);
  expect((await conversations()).map(({ id }) => id)).toEqual([conversation?.id]);
  const { sandboxUrl } = await runningFile();
  const remembered = await fetch(`${sandboxUrl}/sandbox/customers/15550100001/messages`);
  expect(((await remembered.json()) as { data: { text: string }[] }).data[0]?.text).toBe('Where is my order?');
  expect(await chat('Hello again', '--name', 'Ann')).toMatch(
    /You are Ann \(.*\nYou: Where is my order\?\nParley: \(sandbox model[\s\S]*\n {2}\(until now\)\nYou: Hello again\n/,
  );

  // A part that dies is started again.
  const { worker = 0 } = (await runningFile()).pids;
  process.kill(worker, 'SIGKILL');
  await second.says('Worker exited unexpectedly (signal SIGKILL); restarting it');
  await second.says('Worker is running again');
  expect((await runningFile()).pids.worker).not.toBe(worker);
  expect(await chat('Still there?')).toMatch(/You are Ann \([\s\S]*Parley: .*“Still there\?”/);
  expect((await conversations())[0]?.contact.name).toBe('Ann');

  // The start itself is killed, and everything that it would have stopped with it is left to the next one.
  const left = await runningFile();
  process.kill(left.pid, 'SIGKILL');
  await second.exited;
  await others.release();
  const third = run('start');
  await third.says('npm run chat');
  expect(third.output()).toContain('an earlier start was killed; stopped the processes that it left running:');
  expect(third.output()).toMatch(/left running:.*Temporal/);
  expect(Object.values(left.pids).filter(isAlive)).toEqual([]);
  expect(third.output()).not.toContain('is taken');
  expect((await conversations()).map(({ id }) => id)).toEqual([conversation?.id]);

  // Each customer is told the own conversation, also when the other one is newer.
  const bob = workflowOf(await chat('I am new', '--phone', '15550100002'));
  expect((await conversations())[0]?.workflowId).toBe(bob);
  expect(workflowOf(await chat('It is me again'))).toBe(conversation?.workflowId);

  // A simulated call that ends by itself, one that the caller ends, and one without a report, during which the API dies.
  const unreported = run('call', '+15550105');
  const busy = run('call', '+15550101');
  const live = run('call', '+15550100');
  expect(await busy.exited).toEqual([11, null]);
  expect(busy.output()).toMatch(/phone: {2}ended.*Outcome: {2}busy/s);
  await live.says('Assistant:');
  await pressCtrlC(live);
  expect(live.output()).toMatch(/ending the call.*Outcome: {2}canceled\nReason: {3}manually-canceled\n(Duration: \d+ s\n)?/s);
  expect(await live.exited).toEqual([14, null]);
  const { api = 0 } = (await runningFile()).pids;
  process.kill(api, 'SIGKILL');
  await unreported.says('the API does not respond; retrying for a minute');
  expect(await unreported.exited).toEqual([0, null]);
  expect(unreported.output()).toMatch(/the API is responding again[\s\S]*Outcome: {2}completed/);
  expect(unreported.output()).toContain("ended; waiting for Vapi's report (up to 10 s, then Parley queries Vapi)");

  // What an operator asks of it, without naming an address.
  const doctor = run('doctor');
  expect([await doctor.exited, doctor.output()]).toEqual([[0, null], expect.stringMatching(/^ok +Test webhook [\s\S]*^ok +Replies +on:/m)]);
  const balance = run('balance');
  expect(await balance.exited).toEqual([0, null]);
  expect(balance.output()).toMatch(/total +5\nanswered +5\n.*balanced +true/s);
  const retention = run('retention', '--dry-run');
  expect(await retention.exited).toEqual([0, null]);
  expect(retention.output()).toContain('dry run: nothing was changed');

  // Nobody else on the machine may read what people wrote.
  for (const file of await readdir(dataDir, { recursive: true })) {
    const { mode } = await stat(join(dataDir, file));
    expect([file, mode & 0o066]).toEqual([file, 0]);
  }

  // Ended by its process number, as a supervisor does.
  third.child.kill('SIGTERM');
  await third.exited;
  expect(third.output()).toContain('stopped; the data is kept for the next start');
}, 240_000);

test('when Kapso is real, then nothing is simulated, start names what is missing, and chat sends nothing', async () => {
  const log = createLogger('kapso', 'silent');
  const kapso = await startSandbox({ port: 0, webhookUrls: [], webhookSecret: 'secret', phoneNumberId: '200000000000002', log });
  const keys = {
    KAPSO_API_KEY: 'a-real-key',
    KAPSO_BASE_URL: kapso.url,
    KAPSO_PHONE_NUMBER_ID: '200000000000002',
    KAPSO_WEBHOOK_SECRET: 'secret',
  };
  Object.assign(environment, keys);
  const start = run('start');
  try {
    await start.says('Stop         Ctrl-C');
    expect(start.output()).toMatch(
      /Replies +OFF: CHATBOT_ENABLED is not true; AI_ENABLED is not true; no model has an API key.*webhooks leads to Parley/,
    );
    expect(start.output()).toMatch(/Simulated +nothing\n +Off +voice calls \(set VAPI_API_KEY\)/);
    expect(start.output()).not.toContain('npm run chat');
    const customer = run('chat');
    customer.child.stdin.end('Where is my order?\n');
    expect([await customer.exited, customer.output()]).toEqual([[1, null], expect.stringContaining('WhatsApp is not simulated here')]);
    expect(kapso.kapso.counts()).toMatchObject({ inbound: 0, sends: 0 });
  } finally {
    await pressCtrlC(start);
    await kapso.close();
    for (const name of Object.keys(keys)) delete environment[name];
  }
}, 120_000);

test('when an npm start of 0.2 runs, with a sandbox next to the real Kapso, then chat sends nothing', async () => {
  const running = { apiUrl: 'http://127.0.0.1:1', apiKey: 'k', sandboxUrl: 'http://127.0.0.1:1', databaseUrl: 'd', pid: process.pid };
  const file = join(dataDir, 'running.json');
  await writeFile(file, JSON.stringify(running));
  const customer = run('chat');
  customer.child.stdin.end('Where is my order?\n');
  expect([await customer.exited, customer.output()]).toEqual([[1, null], expect.stringContaining('WhatsApp is not simulated here')]);
  await rm(file);
});

test('when voice calls are off, then call says so at once', async () => {
  const running = { apiUrl: 'http://127.0.0.1:1', apiKey: 'k', databaseUrl: 'd', hasCalls: false, pid: process.pid };
  const file = join(dataDir, 'running.json');
  await writeFile(file, JSON.stringify(running));
  const call = run('call', '+15550100', '--real');
  expect([await call.exited, call.output()]).toEqual([[1, null], expect.stringContaining('voice calls are off: set VAPI_API_KEY')]);
  await rm(file);
});

test('when only Vapi is real, then start names the settings that calls lack', async () => {
  // Nobody answers there.
  Object.assign(environment, { VAPI_API_KEY: 'a-real-key', VAPI_WEBHOOK_SECRET: 'a-secret', VAPI_BASE_URL: 'http://127.0.0.1:9' });
  const start = run('start');
  try {
    await start.says('Stop         Ctrl-C');
    expect(start.output()).toMatch(
      /Calls +incomplete: nothing responds at .*; not set: VAPI_ASSISTANT_ID, VAPI_PHONE_NUMBER_ID, PUBLIC_URL/,
    );
    expect(start.output()).toContain('`npm run doctor`');
    expect(start.output()).not.toContain('nobody who writes to');
  } finally {
    await pressCtrlC(start);
    for (const name of ['VAPI_API_KEY', 'VAPI_WEBHOOK_SECRET', 'VAPI_BASE_URL']) delete environment[name];
  }
}, 120_000);

test.each([
  ['answers are off', { AI_ENABLED: 'false' }, 'no reply: answers are off (CHATBOT_ENABLED, AI_ENABLED)'],
  ['no provider has a key', { AI_ENABLED: 'true', AI_PROVIDERS: 'openai' }, 'or no model has a key'],
  [
    'a model does not answer',
    { AI_PROVIDERS: 'openai', OPENAI_API_KEY: 'key', OPENAI_BASE_URL: 'http://127.0.0.1:9/v1' },
    'no reply yet: Parley is still working on it',
  ],
])(
  'when %s, then chat says why there is no reply',
  async (_when, settings, reason) => {
    const own = Object.keys(settings);
    Object.assign(environment, settings, { AI_PROVIDERS: 'AI_PROVIDERS' in settings ? settings.AI_PROVIDERS : 'default' });
    const start = run('start');
    await start.says('npm run chat');
    const customer = run('chat', '--timeout', '12000');
    customer.child.stdin.end('Hello?\n');
    const [code] = await customer.exited;
    await pressCtrlC(start);
    for (const name of [...own, 'AI_PROVIDERS']) delete environment[name];
    expect([code, customer.output()]).toEqual([1, expect.stringContaining(reason)]);
  },
  60_000,
);

const COMMANDS = [
  'start',
  'chat',
  'call',
  'balance',
  'retention',
  'migrate',
  'bench',
  'doctor',
  'setup',
  'record-histories',
  'api',
  'worker',
];

test.each(COMMANDS)(
  'when %s is asked for help, then it prints what it does, its options and where its settings come from',
  async (script) => {
    const terminal = run(script, '--help');
    terminal.child.stdin.end();
    expect(await terminal.exited).toEqual([0, null]);
    expect(terminal.output()).toMatch(/^(usage: npm (run )?[\w-]+|Runs Parley's)/);
    expect(terminal.output()).toMatch(/--help|no options/);
  },
);

test.each(COMMANDS)('when %s is given an option that it does not know, then it names the option and does nothing', async (script) => {
  const terminal = run(script, '--bogus=4000');
  terminal.child.stdin.end();
  expect(await terminal.exited).toEqual([2, null]);
  expect(terminal.output()).toContain("Unknown option '--bogus'");
  expect(terminal.output().trim().split('\n').length).toBeLessThan(3);
});

test.each([
  ['start', ['4000'], 'unexpected argument: 4000'],
  ['call', [], 'the number to call is missing'],
  ['call', ['+15550100', '+15550101'], 'unexpected argument: +15550101'],
  ['chat', ['--phone', 'Bob'], '--phone must be a phone number'],
  ['chat', ['--quiet', 'soon'], '--quiet must be a number of milliseconds'],
  ['migrate', ['new'], 'the name of the new migration is missing'],
  ['migrate', ['status'], 'unexpected argument: status'],
])('when %s is given the arguments %j, then it says what is wrong', async (script, parameters, message) => {
  const terminal = run(script, ...parameters);
  terminal.child.stdin.end();
  expect(await terminal.exited).toEqual([2, null]);
  expect(terminal.output()).toContain(message);
});

test('when the port of the API is taken, then start names the setting and ends', async () => {
  const other = await holdPorts([environment.PORT ?? '']);
  const start = run('start');
  const [code] = await start.exited;
  await other.release();
  expect([code, start.output()]).toEqual([1, expect.stringMatching(/^PORT: another program is listening on \d+\. .*set PORT/m)]);
});

test.each([
  ['chat', []],
  ['call', ['+15550100']],
  ['retention', ['--dry-run']],
  ['balance', []],
])('when nothing runs, then %s says what to do', async (script, parameters) => {
  const terminal = run(script, ...parameters);
  terminal.child.stdin.end();
  const [code] = await terminal.exited;
  expect([code, terminal.output()]).toEqual([1, expect.stringContaining('npm start')]);
});

test('when a setting is wrong, then start names it and ends', async () => {
  environment.AI_ENABLED = 'perhaps';
  const wrong = run('start');
  const [code] = await wrong.exited;
  delete environment.AI_ENABLED;
  expect([code, wrong.output()]).toEqual([78, expect.stringContaining('AI_ENABLED')]);
});

test('when Kapso has a key only, then start names everything else that it needs, and exits', async () => {
  environment.KAPSO_API_KEY = 'a-real-key';
  const start = run('start');
  const [code] = await start.exited;
  delete environment.KAPSO_API_KEY;
  expect([code, start.output()]).toEqual([
    78,
    expect.stringMatching(/KAPSO_WEBHOOK_SECRET: is not set.*\n.*KAPSO_PHONE_NUMBER_ID: is not set/),
  ]);
});

test.each([
  ['DATABASE_URL', 'postgresql://127.0.0.1:1/parley', /^DATABASE_URL: no PostgreSQL answers at 127\.0\.0\.1:1 \(ECONNREFUSED\)$/m],
  ['TEMPORAL_ADDRESS', '127.0.0.1:1', /^TEMPORAL_ADDRESS: no Temporal server answers at 127\.0\.0\.1:1/m],
  ['DATA_DIR', 'package.json', /^DATA_DIR: .*package\.json is not a folder \(EEXIST\)/m],
  ['DATA_DIR', '/proc/parley/data', /^DATA_DIR: \/proc\/parley\/data cannot be used \(\w+\)/m],
  ['DATA_DIR', '/proc', /^DATA_DIR: \/proc cannot be used \(\w+\)/m],
])('when %s leads nowhere, then start names the setting in one line and ends', async (name, value, words) => {
  const before = environment[name];
  environment[name] = value;
  const start = run('start');
  const [code] = await start.exited;
  if (before === undefined) delete environment[name];
  else environment[name] = before;
  expect([code, start.output()]).toEqual([1, expect.stringMatching(words)]);
  expect(start.output()).not.toContain('{"level"');
});
