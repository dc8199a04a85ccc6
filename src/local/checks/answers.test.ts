/** The checks of the models against providers that respond, have no list, or are unreachable. */

import { startTestSandbox } from '../../../test/support/sandbox';
import { readSettings } from '../../platform/config';
import type { Sandbox } from '../../sandbox/sandbox';
import { checkModels } from './answers';

let sandbox: Sandbox;

beforeAll(async () => {
  sandbox = await startTestSandbox();
});
afterAll(() => sandbox.close());

const AWAY = 'http://127.0.0.1:1';
const openaiAt = (url: string) => ({ OPENAI_API_KEY: 'k', OPENAI_BASE_URL: url });
const check = async (environment: Record<string, string>) =>
  (await checkModels(readSettings(environment), undefined)).map(({ level, text }) => `${level}: ${text}`);

test('when a provider lists the model, then it is served', async () => {
  sandbox.models.list({ names: ['gpt-5.4-mini'] });
  expect(await check(openaiAt(sandbox.modelsUrl))).toEqual(['ok: openai (gpt-5.4-mini) is served']);
});

test('when a provider has no list, then that is no problem, and the line says what was not checked', async () => {
  sandbox.models.list(undefined);
  expect(await check(openaiAt(sandbox.modelsUrl))).toEqual([
    expect.stringMatching(/^ok: openai \(gpt-5\.4-mini\) is configured; .* \(404\), so neither the key nor the name was checked$/),
  ]);
});

test('when the only provider is unreachable, then there is one problem, with its cause and setting', async () => {
  const AI_PROVIDERS = 'openai:gpt-5.4-mini,openai:gpt-5.4';
  expect(await check({ ...openaiAt(AWAY), AI_PROVIDERS })).toEqual([
    'problem: openai could not be queried (ECONNREFUSED): check its address (OPENAI_BASE_URL) and the network',
  ]);
});

test('when one of two providers is unreachable, then that is only a warning', async () => {
  sandbox.models.list({ names: ['gpt-5.4-mini'] });
  const environment = { ...openaiAt(sandbox.modelsUrl), SEALION_URL: AWAY, AI_PROVIDERS: 'sealion,openai' };
  expect(await check(environment)).toEqual([
    'warning: sealion could not be queried (ECONNREFUSED): check its address (SEALION_URL) and the network',
    'ok: openai (gpt-5.4-mini) is served',
  ]);
});
