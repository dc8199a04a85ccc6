/** `npm start` and `npm run chat` as a stranger uses them: no key, no database, no engine, one folder for the data. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../src/embedded/ports';

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

/** Ctrl-C in the terminal reaches every process of the group. */
async function pressCtrlC(running: ReturnType<typeof run>): Promise<void> {
  process.kill(-(running.child.pid ?? 0), 'SIGINT');
  await running.exited;
}

interface RunningFile {
  apiUrl: string;
  apiKey: string;
  temporalUiUrl: string;
}

async function conversations(): Promise<{ id: string; unreadCount: number }[]> {
  const { apiUrl, apiKey }: RunningFile = JSON.parse(await readFile(join(dataDir, 'running.json'), 'utf8'));
  const answer = await fetch(`${apiUrl}/api/v1/conversations`, { headers: { Authorization: `Bearer ${apiKey}` } });
  return ((await answer.json()) as { data: { id: string; unreadCount: number }[] }).data;
}

async function chat(text: string): Promise<string> {
  const customer = run('chat', '--quiet', '1000');
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
  const { temporalUiUrl }: RunningFile = JSON.parse(await readFile(join(dataDir, 'running.json'), 'utf8'));
  expect((await fetch(temporalUiUrl)).status).toBe(200);
  await pressCtrlC(first);
  expect(first.output()).toContain('stopped; the next start finds the data again');

  const second = run('start');
  await second.says('npm run chat');
  expect((await conversations()).map(({ id }) => id)).toEqual([conversation?.id]);
  expect(await chat('Hello again')).toContain('Hello again');
  await pressCtrlC(second);
}, 180_000);

test('when nothing runs, then chat says what to do', async () => {
  const customer = run('chat');
  customer.child.stdin.end();
  const [code] = await customer.exited;
  expect([code, customer.output()]).toEqual([1, expect.stringContaining('npm start')]);
});

test('when a setting is wrong, then start names it and ends', async () => {
  environment.AI_ENABLED = 'perhaps';
  const wrong = run('start');
  const [code] = await wrong.exited;
  delete environment.AI_ENABLED;
  expect([code, wrong.output()]).toEqual([1, expect.stringContaining('AI_ENABLED')]);
});
