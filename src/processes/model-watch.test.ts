/** The daily check of the configured models, with the real database and a provider that has a list. */
import { randomUUID } from 'node:crypto';
import { testDatabase } from '../../test/support/engine';
import { eventually } from '../../test/support/expectations';
import { startTestSandbox } from '../../test/support/sandbox';
import { readSettings, SANDBOX_PHONE_NUMBER_ID, type Settings } from '../platform/config';
import { type Database, openDatabase } from '../platform/database';
import type { Logger } from '../platform/logger';
import { createLanguageModels } from '../providers/models/client';
import type { Sandbox } from '../sandbox/sandbox';
import { type ModelWatchOptions, watchModels } from './model-watch';

let database: Awaited<ReturnType<typeof testDatabase>>;
let db: Database;
let sandbox: Sandbox;
let stop: AbortController;

beforeAll(async () => {
  database = await testDatabase('models');
  db = openDatabase(database.url);
  sandbox = await startTestSandbox();
});

afterAll(async () => {
  await sandbox?.close();
  await db?.close();
  await database?.drop();
});

beforeEach(async () => {
  stop = new AbortController();
  await db.orm.workspace.deleteMany();
  sandbox.models.list({ names: ['gpt-5.4-mini', 'gpt-4.1-mini'] });
});

afterEach(() => stop.abort());

async function workspace(providerChain: string[], answers = true, kapsoPhoneNumberId = randomUUID() as string): Promise<string> {
  const settings = { create: { chatbotEnabled: answers, aiEnabled: true, providerChain } };
  await db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId, settings } });
  return kapsoPhoneNumberId;
}

/** Every workspace has the environment's keys. */
function withKeysOf(settings: Settings): ModelWatchOptions['workspaceOf'] {
  const workspace = { models: createLanguageModels(settings), hasOwnWhatsApp: false };
  return async () => workspace;
}

function watch(options: Partial<ModelWatchOptions> = {}) {
  const settings = readSettings({ KAPSO_API_KEY: 'k', OPENAI_API_KEY: 'k', OPENAI_BASE_URL: sandbox.modelsUrl });
  const logged: string[] = [];
  const logger = { warn: (_fields: object, text: string) => logged.push(text) } as unknown as Logger;
  const now = () => Date.parse('2026-12-20');
  const common = { settings, workspaceOf: withKeysOf(settings), db, logger, signal: stop.signal, callsModels: true };
  return { logged, ...watchModels({ ...common, now, intervalMs: 25, retryMs: 25, ...options }) };
}

test('when workspaces name models, then those in use that have ended, end soon or are not listed are reported and logged', async () => {
  await workspace(['openai:gpt-4.1-mini', 'openai:gpt-9', 'openai']);
  await workspace(['deepseek:deepseek-chat']);
  await workspace(['openai:not-in-use'], false);
  const { warnings, logged } = watch();
  await eventually(async () =>
    expect(
      warnings()
        .map(({ kind }) => kind)
        .sort(),
    ).toEqual(['model_ends_soon', 'model_not_listed', 'no_model']),
  );
  expect(warnings().find(({ kind }) => kind === 'no_model')?.text).toContain('deepseek:deepseek-chat: no API key');
  // Each is logged after the one before it has raised its alert.
  await eventually(async () => expect(new Set(logged)).toEqual(new Set(warnings().map(({ text }) => text))));
  const alert = warnings().find(({ kind }) => kind === 'model_ends_soon')?.text;
  expect(alert).toContain('openai (gpt-4.1-mini) ends on 2027-01-14');
  await eventually(async () => expect(await db.orm.alert.count({ where: { text: `model: ${alert}` } })).toBe(1));
});

test.each<[string, Record<string, string>, string[]]>([
  [
    'simulated',
    { KAPSO_API_KEY: 'k', KAPSO_BASE_URL: 'http://127.0.0.1:1', SANDBOX_URL: 'http://127.0.0.1:1' },
    [SANDBOX_PHONE_NUMBER_ID, '2'],
  ],
  ['real', { KAPSO_API_KEY: 'k' }, ['2']],
  ['off', { VAPI_API_KEY: 'k' }, []],
])(
  'when WhatsApp is %s, then the numbers without a model are reported, if customers can write to them',
  async (_state, environment, numbers) => {
    await workspace(['grok'], true, SANDBOX_PHONE_NUMBER_ID);
    await workspace(['grok'], true, '2');
    const settings = readSettings({ ...environment, OPENAI_API_KEY: 'k', OPENAI_BASE_URL: sandbox.modelsUrl });
    let looks = 0;
    const now = () => (looks += 1);
    const { warnings } = watch({ settings, workspaceOf: withKeysOf(settings), now });
    await eventually(async () => expect(looks).toBeGreaterThan(0));
    expect(
      warnings()
        .map(({ text }) => /^nobody who writes to (\d+) is/.exec(text)?.[1])
        .sort(),
    ).toEqual(numbers);
  },
);

test('when a model leaves the list, then the next check reports it; checks repeat at the interval', async () => {
  await workspace(['openai']);
  const { warnings } = watch();
  await eventually(async () => expect(sandbox.models.listed()).toBeGreaterThanOrEqual(1));
  expect(warnings()).toEqual([]);
  sandbox.models.list({ names: ['gpt-9'] });
  await eventually(async () => expect(warnings()).toMatchObject([{ kind: 'model_not_listed' }]));
  sandbox.models.list({ names: ['gpt-5.4-mini'] });
  await eventually(async () => expect(warnings()).toEqual([]));
});

test('when the interval is long, then the list is requested once, and the watch ends with its signal', async () => {
  await workspace(['openai']);
  const before = sandbox.models.listed();
  const { warnings } = watch({ intervalMs: 60_000, now: () => Date.parse('2026-11-26') });
  await eventually(async () => expect(sandbox.models.listed()).toBe(before + 1));
  expect(warnings()).toEqual([]);
  stop.abort();
  const { warnings: other } = watch({ signal: AbortSignal.abort() });
  expect(other()).toEqual([]);
  expect(sandbox.models.listed()).toBe(before + 1);
});

test('when the API has no keys, then it reports the end dates of named models, but no missing key', async () => {
  await workspace(['deepseek:deepseek-chat']);
  await workspace([]);
  const settings = readSettings({ KAPSO_WEBHOOK_SECRET: 's' });
  const { warnings, logged } = watch({ settings, workspaceOf: withKeysOf(settings), callsModels: false });
  await eventually(async () =>
    expect(warnings()).toMatchObject([{ kind: 'model_ended', text: expect.stringContaining('deepseek (deepseek-chat)') }]),
  );
  expect(logged).toEqual([]);
});

test('when the database is down at first, then the models are checked again', async () => {
  await workspace(['openai:gpt-9']);
  let isAway = true;
  const query: Database['query'] = async (statement) => {
    if (!isAway) return await db.query(statement);
    isAway = false;
    throw new Error('away');
  };
  const { warnings, logged } = watch({ db: { ...db, query } });
  await eventually(async () => expect(warnings()).toMatchObject([{ kind: 'model_not_listed' }]));
  expect(logged[0]).toContain('could not be checked');
});
