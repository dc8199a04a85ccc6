/** `npm run doctor` against a system in production's form: processes of their own, settings from the environment. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { fingerprintSettings } from '../src/local/setting-fingerprints';
import { startSuite } from './support/suite';
import { inherited, type System, VAPI_WEBHOOK_SECRET, WEBHOOK_SECRET } from './support/system';

let system: System;
let dataDir: string;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'parley-doctor-'));
  system = await startSuite('doctor', {
    environment: ({ modelsUrl }) => ({ OPENAI_API_KEY: 'test-openai-key', OPENAI_BASE_URL: modelsUrl }),
  });
});

afterAll(async () => {
  await system?.close();
  await rm(dataDir, { recursive: true, force: true });
});

interface Report {
  code: number | null;
  lines: string[];
}

async function doctor(environment: Record<string, string> = {}, ...args: string[]): Promise<Report> {
  return doctorIn('.', environment, ...args);
}

async function doctorIn(cwd: string, environment: Record<string, string>, ...args: string[]): Promise<Report> {
  const env = { ...inherited(), ...system.environment, DATA_DIR: dataDir, ...environment };
  const child = spawn(process.execPath, ['--import', require.resolve('tsx'), resolve('src/local/commands/doctor.ts'), ...args], {
    cwd,
    env,
  });
  const [output, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
  const secrets = [WEBHOOK_SECRET, VAPI_WEBHOOK_SECRET, 'test-kapso-key', 'test-openai-key', 'test-vapi-key'];
  for (const secret of secrets) expect(output + errors).not.toContain(secret);
  return { code: code as number | null, lines: `${output}${errors}`.trimEnd().split('\n') };
}

const count = async () => [await system.db.message.count(), await system.db.deadLetter.count(), await system.db.parkedMessage.count()];

test('when all is well, then each line says so, and the test webhook leaves nothing behind', async () => {
  const { code, lines } = await doctor();
  expect(lines.filter((line) => !line.startsWith('ok '))).toEqual(['', 'Nothing is wrong.']);
  const subjects = ['Settings', 'Database', 'Temporal', 'Worker', 'API', 'Kapso', 'Webhook', 'Test webhook', 'Models', 'Calls', 'Replies'];
  for (const subject of subjects) expect(lines).toContainEqual(expect.stringMatching(new RegExp(`^ok +${subject} `)));
  expect(lines).toContainEqual(expect.stringContaining('openai (gpt-5.4-mini)'));
  expect(code).toBe(0);
  expect(await count()).toEqual([0, 0, 0]);
});

test('when .env has a name that is no setting, then a warning names it, but not its value', async () => {
  await writeFile(join(dataDir, '.env'), 'OPENAI_APIKEY=misplaced\n');
  const { code, lines } = await doctorIn(dataDir, {});
  await rm(join(dataDir, '.env'));
  expect(lines[0]).toMatch(/^warning +Settings +\.env: OPENAI_APIKEY is not a setting .* did you mean OPENAI_API_KEY\?$/);
  expect([lines.join().includes('misplaced'), lines.at(-1), code]).toEqual([false, 'Nothing is wrong.', 0]);
});

test('when several things are wrong, then each has a line, the verdict names them, and the exit status is 1', async () => {
  await system.db.chatbotSettings.updateMany({ data: { aiEnabled: false, providerChain: ['deepseek:deepseek-chat', 'grok'] } });
  for (const row of system.sandbox.kapso.platform.webhooks) row.active = false;
  const { code, lines } = await doctor({ TEMPORAL_TASK_QUEUE: 'nobody-polls-this', DEEPSEEK_API_KEY: 'k' });
  await system.db.chatbotSettings.updateMany({ data: { aiEnabled: true, providerChain: [] } });
  for (const row of system.sandbox.kapso.platform.webhooks) row.active = true;
  expect(code).toBe(1);
  expect(lines).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^PROBLEM +Worker +no worker polls the task queue/),
      expect.stringMatching(/^PROBLEM +Webhook +the webhook is paused/),
      expect.stringMatching(/^PROBLEM +Models +deepseek \(deepseek-chat\) ended on 2026-07-24/),
      expect.stringMatching(/^warning +Models +grok \(grok-4\.3\) has no API key/),
      expect.stringMatching(/^PROBLEM +Replies +OFF: AI_ENABLED is not true; .*webhook is paused.*deepseek-chat/),
      '4 things are wrong.'.replace('4', String(lines.filter((line) => line.startsWith('PROBLEM')).length)),
    ]),
  );
});

test.each<[string, Record<string, string>, RegExp]>([
  ['a setting is invalid', { AI_ENABLED: 'perhaps' }, /^PROBLEM +Settings +AI_ENABLED: must be true or false$/m],
  ['WhatsApp is half configured', { KAPSO_WEBHOOK_SECRET: '' }, /^PROBLEM +Settings +KAPSO_WEBHOOK_SECRET: is not set, but/m],
  [
    'the database is unreachable',
    { DATABASE_URL: 'postgres://parley:hidden-password@127.0.0.1:1/parley' },
    /^PROBLEM +Database +cannot be used .*DATABASE_URL/m,
  ],
  ['Temporal is unreachable', { TEMPORAL_ADDRESS: '127.0.0.1:1' }, /^PROBLEM +Temporal +cannot be reached/m],
  ['the namespace is unknown', { TEMPORAL_NAMESPACE: 'nowhere' }, /^PROBLEM +Temporal +has no namespace nowhere/m],
  [
    'a model provider is unreachable',
    { OPENAI_BASE_URL: 'http://127.0.0.1:1' },
    /^PROBLEM +Models +openai could not be queried \(ECONNREFUSED\)[\s\S]*^PROBLEM +Replies +OFF: openai could not be queried/m,
  ],
  ['Vapi is unreachable', { VAPI_BASE_URL: 'http://127.0.0.1:1' }, /^PROBLEM +Calls +nothing responds at http:\/\/127\.0\.0\.1:1/m],
  ['there is no database', { DATABASE_URL: '' }, /^PROBLEM +Database +DATABASE_URL is not set, and npm start/m],
])('when %s, then it says what to do', async (_what, environment, expected) => {
  const { code, lines } = await doctor(environment);
  expect(lines.join('\n')).toMatch(expected);
  expect(lines.join()).not.toContain('hidden-password');
  expect(code).toBe(1);
});

test('when Vapi refuses the key, then it says which setting to check', async () => {
  system.sandbox.vapi.fault({ on: 'list', answer: '401', times: 1 });
  // Not the sandbox's address: then Vapi counts as real.
  const { code, lines } = await doctor({ SANDBOX_URL: '' });
  expect(lines).toContainEqual(expect.stringMatching(/^PROBLEM +Calls +Vapi responded with 401: check VAPI_API_KEY/));
  expect(code).toBe(1);
});

const NO_KEYS = {
  ...{ DATABASE_URL: '', OPENAI_API_KEY: '', VAPI_API_KEY: '', VAPI_WEBHOOK_SECRET: '' },
  ...{ KAPSO_API_KEY: '', KAPSO_WEBHOOK_SECRET: '', KAPSO_PHONE_NUMBER_ID: '' },
};

test('when nothing runs and no key is set, then the only problem is the missing npm start; while that is starting, the line says so', async () => {
  const stopped = await doctor(NO_KEYS);
  expect(stopped.lines).toContainEqual(expect.stringMatching(/^PROBLEM +Database .* is not running: start it$/));
  expect(stopped.lines.at(-1)).toBe('1 thing is wrong.');
  const start = spawn(process.execPath, ['-e', 'setInterval(() => undefined, 1_000)', 'start.ts']);
  try {
    await writeFile(join(dataDir, 'start.json'), JSON.stringify({ pid: start.pid, processes: [] }));
    expect((await doctor(NO_KEYS)).lines).toContainEqual(expect.stringMatching(/^PROBLEM +Database .* is still starting/));
  } finally {
    start.kill();
    await rm(join(dataDir, 'start.json'));
  }
});

test('when npm start is running with other settings, then they are named, and a key that only the terminal has is not checked', async () => {
  const file = join(dataDir, 'running.json');
  const { DATABASE_URL = '', ...started } = { ...system.environment, GROK_API_KEY: 'test-grok-key' };
  const settingFingerprints = fingerprintSettings({ ...started, OPENAI_API_KEY: '' });
  const running = { apiUrl: system.apiUrl, apiKey: 'k', databaseUrl: DATABASE_URL, settingFingerprints, pid: process.pid };
  await writeFile(file, JSON.stringify(running));
  const { code, lines } = await doctor();
  await rm(file);
  expect(lines).toContainEqual(
    expect.stringMatching(/^PROBLEM +Settings +npm start is running with other values of OPENAI_API_KEY, GROK_API_KEY: /),
  );
  expect(lines.join()).not.toMatch(/openai \(/);
  expect(code).toBe(1);
});

test('when it is asked for help or given an unknown option, then it checks nothing', async () => {
  expect(await doctor({}, '--help')).toMatchObject({ code: 0, lines: expect.arrayContaining(['usage: npm run doctor']) });
  expect(await doctor({}, '--fix')).toMatchObject({
    code: 2,
    lines: [expect.stringContaining("Unknown option '--fix'"), expect.any(String)],
  });
});
