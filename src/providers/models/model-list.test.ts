import { startTestSandbox } from '../../../test/support/sandbox';
import { readSettings } from '../../platform/config';
import type { Sandbox } from '../../sandbox/sandbox';
import { isListed, listModels } from './model-list';

let sandbox: Sandbox;

beforeAll(async () => {
  sandbox = await startTestSandbox();
});
afterAll(() => sandbox.close());

const ask = async (
  environment: Record<string, string>,
  ...providers: Parameters<typeof listModels>[1] extends Iterable<infer P> ? P[] : never
) => await listModels(readSettings(environment), providers);

test.each([
  ['openai', 'OPENAI'],
  ['anthropic', 'ANTHROPIC'],
] as const)('when %s has a list, then it is read with the key', async (provider, name) => {
  sandbox.models.list({ names: ['gpt-5.4-mini', 'gemma:latest'], apiKey: 'right' });
  const environment = { [`${name}_BASE_URL`]: sandbox.modelsUrl, [`${name}_API_KEY`]: 'right' };
  const list = (await ask(environment, provider)).get(provider);
  expect(list).toMatchObject({ kind: 'listed' });
  if (list?.kind === 'listed')
    expect([isListed(list, 'GPT-5.4-mini'), isListed(list, 'gemma'), isListed(list, 'gpt-5')]).toEqual([true, true, false]);
  expect((await ask({ ...environment, [`${name}_API_KEY`]: 'wrong' }, provider)).get(provider)).toEqual({
    kind: 'key_refused',
    status: 401,
  });
});

test('when a provider has no list, is unreachable, or is not configured, then the results differ', async () => {
  sandbox.models.list(undefined);
  const lists = await ask(
    {
      OPENAI_API_KEY: 'k',
      OPENAI_BASE_URL: sandbox.modelsUrl,
      GROK_API_KEY: 'k',
      GROK_BASE_URL: 'http://127.0.0.1:1',
      SANDBOX_URL: sandbox.url,
    },
    'openai',
    'grok',
    'deepseek',
    'sandbox',
  );
  expect([...lists]).toEqual([
    ['openai', { kind: 'no_list', status: 404 }],
    ['grok', { kind: 'unreachable', reason: 'ECONNREFUSED' }],
  ]);
});
