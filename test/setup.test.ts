/** The webhook at Kapso is created or corrected, by `npm run setup` and by the API, and nothing is changed unasked. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import pino from 'pino';
import { type Sandbox, startSandbox } from '../src/sandbox/sandbox';
import { startTestApi, type TestApi } from './support/api';
import { API_KEY, inherited } from './support/system';

const NUMBER = '200000000000001';
const SECRET = 'a-secret-of-the-setup';
const PUBLIC_URL = 'https://parley.example.com';

let sandbox: Sandbox;
let dataDir: string;
let api: TestApi;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'parley-setup-'));
  const log = pino({ level: 'silent' });
  sandbox = await startSandbox({ port: 0, webhookUrls: [], webhookSecret: SECRET, phoneNumberId: NUMBER, apiKey: 'k', log });
  api = await startTestApi('setup');
});

afterAll(async () => {
  await api?.close();
  await sandbox?.close();
  await rm(dataDir, { recursive: true, force: true });
});

beforeEach(() => {
  sandbox.kapso.platform.webhooks = [];
});

const settings = (): Record<string, string> => ({
  KAPSO_API_KEY: 'k',
  KAPSO_BASE_URL: sandbox.url,
  KAPSO_PHONE_NUMBER_ID: NUMBER,
  KAPSO_WEBHOOK_SECRET: SECRET,
  PUBLIC_URL,
});

const webhooks = () => sandbox.kapso.platform.webhooks;

/** Types `input` into the command. */
async function setup(environment: Record<string, string>, input: string, ...args: string[]): Promise<{ code: number; output: string }> {
  const env = { ...inherited(), DATA_DIR: dataDir, ...settings(), ...environment };
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/local/commands/setup.ts', ...args], { env });
  child.stdin.end(input);
  const [output, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
  expect(output + errors).not.toContain(SECRET);
  return { code: code as number, output: output + errors };
}

const RIGHT = {
  url: `${PUBLIC_URL}/webhook/kapso`,
  kind: 'kapso',
  active: true,
  secret_key: SECRET,
  payload_version: 'v2',
  buffer_enabled: false,
  events: expect.arrayContaining(['received', 'sent', 'delivered', 'read', 'failed'].map((name) => `whatsapp.message.${name}`)),
};

test('when there is no webhook, then the command shows what it found, asks, and creates it only after yes', async () => {
  const refused = await setup({}, 'n\n');
  expect(refused).toMatchObject({
    code: 1,
    output: expect.stringMatching(/no webhook to Parley[\s\S]*create a webhook[\s\S]*Nothing was changed/),
  });
  expect(refused.output).toContain(`${NUMBER}  Sandbox number`);
  expect(webhooks()).toEqual([]);
  expect(await setup({}, '')).toMatchObject({ code: 1 });
  expect(webhooks()).toEqual([]);
  expect(await setup({}, 'y\n')).toMatchObject({ code: 0, output: expect.stringContaining('Done.') });
  expect(webhooks()).toMatchObject([RIGHT]);
  expect(await setup({}, '')).toMatchObject({ code: 0, output: expect.stringContaining('nothing to change') });
});

test('when a webhook is wrong in all that it can be, then --yes corrects it, and leaves other webhooks alone', async () => {
  await setup({}, '', '--yes');
  const [webhook] = webhooks();
  const wrong = {
    active: false,
    secret_key: 'another',
    payload_version: 'v1',
    buffer_enabled: true,
    events: ['whatsapp.conversation.ended'],
  };
  Object.assign(webhook ?? {}, wrong);
  const other = { ...webhook, id: 'other', url: 'https://old.example.com/webhook/kapso' } as (typeof sandbox.kapso.platform.webhooks)[0];
  webhooks().push(other);
  const { code, output } = await setup({}, '', '--yes');
  expect(code).toBe(0);
  for (const words of ['PAUSED', 'switch it on', 'payload version to v2', 'buffering off', 'its secret', 'whatsapp.message.received'])
    expect(output).toContain(words);
  expect(webhooks()).toMatchObject([
    { ...RIGHT, events: expect.arrayContaining(['whatsapp.conversation.ended']) },
    { ...wrong, id: 'other' },
  ]);
});

test.each<[string, RegExp, Record<string, string>]>([
  ['the key is missing', /KAPSO_API_KEY is not set/, { KAPSO_API_KEY: '' }],
  ['the key is wrong', /refuses the key \(401\)/, { KAPSO_API_KEY: 'wrong' }],
  ['the number is missing', /200000000000001 {2}Sandbox number[\s\S]*KAPSO_PHONE_NUMBER_ID is not set/, { KAPSO_PHONE_NUMBER_ID: '' }],
  ['the number is unknown', /KAPSO_PHONE_NUMBER_ID is 300, which is none of these ids/, { KAPSO_PHONE_NUMBER_ID: '300' }],
  ['the address is missing', /PUBLIC_URL is not set/, { PUBLIC_URL: '' }],
  ['the address is not https', /PUBLIC_URL is not https/, { PUBLIC_URL: 'http://parley.example.com' }],
  ['the secret is missing', /KAPSO_WEBHOOK_SECRET is not set: .* such as [0-9a-f]{48},/, { KAPSO_WEBHOOK_SECRET: '' }],
])('when %s, then the command says what to set, and changes nothing', async (_what, expected, environment) => {
  expect(await setup(environment, '', '--yes')).toMatchObject({ code: 1, output: expect.stringMatching(expected) });
  expect(webhooks()).toEqual([]);
});

async function ask(apiUrl: string, method: string, id: string) {
  const headers = { Authorization: `Bearer ${API_KEY}` };
  const response = await fetch(`${apiUrl}/api/v1/workspaces/${id}/webhook`, { method, headers });
  const body = (await response.json()) as { detail: string; changes: string[]; webhook: { isActive: boolean } | null };
  expect(JSON.stringify(body)).not.toContain(SECRET);
  return { status: response.status, body };
}

test('when the API is asked, then it shows what would change, and changes it only on POST', async () => {
  const { id } = await api.db.orm.workspace.create({ data: { name: 'Own', kapsoPhoneNumberId: NUMBER } });
  const url = await api.another(settings());
  expect((await ask(url, 'GET', id)).body).toMatchObject({ webhook: null, changes: [expect.stringContaining('create a webhook')] });
  expect(webhooks()).toEqual([]);
  expect(await ask(url, 'POST', id)).toMatchObject({ status: 200, body: { webhook: { isActive: true }, changes: [expect.any(String)] } });
  expect(webhooks()).toMatchObject([RIGHT]);
  expect((await ask(url, 'POST', id)).body.changes).toEqual([]);
  expect(await api.db.orm.auditEntry.findMany({ where: { workspaceId: id } })).toMatchObject([
    { action: 'webhook.set_up', actor: 'API_KEYS #1', after: { changes: [expect.stringContaining('create a webhook')] } },
  ]);
  Object.assign(webhooks()[0] ?? {}, { active: false });
  expect((await ask(url, 'GET', id)).body).toMatchObject({ webhook: { isActive: false }, changes: ['switch it on: it is paused'] });
  expect((await ask(url, 'POST', id)).body).toMatchObject({ webhook: { isActive: true }, changes: ['switch it on: it is paused'] });
});

test('when something is missing, then the API says what to set', async () => {
  const { id } = await api.db.orm.workspace.create({ data: { name: 'Unknown', kapsoPhoneNumberId: '300' } });
  const own = await api.db.orm.workspace.findFirstOrThrow({ where: { kapsoPhoneNumberId: NUMBER } });
  const detail = async (environment: Record<string, string>, workspaceId = own.id) => {
    const { status, body } = await ask(await api.another({ ...settings(), ...environment }), 'POST', workspaceId);
    return `${status} ${body.detail}`;
  };
  expect(await detail({}, id)).toMatch(/^409 .*number id 300.*200000000000001 \(Sandbox number\)/);
  expect(await detail({ PUBLIC_URL: '' })).toMatch(/^409 PUBLIC_URL is not set/);
  expect(await detail({ PUBLIC_URL: 'http://parley.example.com' })).toMatch(/^409 PUBLIC_URL is not https/);
  expect(await detail({ KAPSO_API_KEY: 'wrong' })).toMatch(/^409 Kapso refuses the key/);
  expect(await detail({ KAPSO_BASE_URL: 'http://127.0.0.1:1' })).toMatch(/^503 Kapso is unreachable/);
  expect(await detail({}, '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10')).toMatch(/^404/);
  expect(webhooks()).toEqual([]);
});
