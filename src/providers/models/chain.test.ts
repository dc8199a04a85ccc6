import { type ProviderName, readSettings } from '../../platform/config';
import { usableChain } from './chain';
import { createLanguageModels } from './client';

const chain = (providerChain: string[], available: ProviderName[], model: string | null = null) =>
  usableChain({ providerChain, model }, { available }).map((choice) => `${choice.provider}:${choice.model}`);

test('when no chain is set, then every provider with a key is called, and the simulated model only if there is no other', () => {
  expect(chain([], ['deepseek', 'openai', 'sandbox'])).toEqual(['deepseek:deepseek-flash', 'openai:gpt-5.4-mini']);
  expect(chain([], ['sandbox'])).toEqual(['sandbox:sandbox-model']);
  expect(chain([], [])).toEqual([]);
});

test('when a chain is set, then entries without a key or of an unknown provider are left out, and names are kept', () => {
  expect(chain(['grok:grok-9', 'openai', 'skynet:1', 'sealion:a:b'], ['openai', 'sealion'], 'mine')).toEqual([
    'openai:mine',
    'sealion:a:b',
  ]);
});

const sandbox = { SANDBOX_URL: 'http://127.0.0.1:3900' };
test.each([
  ['WhatsApp is off', {}, true],
  ['WhatsApp is simulated', { KAPSO_API_KEY: 'sandbox', KAPSO_BASE_URL: 'http://127.0.0.1:3900/' }, true],
  ['Kapso is real', { KAPSO_API_KEY: 'real' }, false],
  ['Kapso is a proxy on the same machine', { KAPSO_API_KEY: 'real', KAPSO_BASE_URL: 'http://127.0.0.1:3901' }, false],
])('when %s, then the simulated model is available: %s', (_what, environment, isAvailable) => {
  expect(createLanguageModels(readSettings({ ...sandbox, ...environment })).available.includes('sandbox')).toBe(isAvailable);
});
