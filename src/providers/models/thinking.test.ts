import { startTestSandbox } from '../../../test/support/sandbox';
import { readSettings } from '../../platform/config';
import type { Sandbox } from '../../sandbox/sandbox';
import { defaultModelOf } from './catalogue';
import { createLanguageModels } from './client';

let sandbox: Sandbox;

beforeAll(async () => {
  sandbox = await startTestSandbox();
});
afterAll(() => sandbox.close());

test.each([
  ['deepseek', 'DEEPSEEK', { thinking: { type: 'disabled' } }],
  ['openai', 'OPENAI', { reasoning_effort: 'none' }],
  ['grok', 'GROK', { reasoning_effort: 'none' }],
  ['anthropic', 'ANTHROPIC', {}],
] as const)(
  'when the default model of %s is called, then the request has the fields that turn off its thinking, and no others',
  async (provider, name, fields) => {
    const models = createLanguageModels(readSettings({ [`${name}_API_KEY`]: 'k', [`${name}_BASE_URL`]: sandbox.modelsUrl }));
    const model = defaultModelOf(provider);
    const messages = [{ role: 'user' as const, content: 'Hi' }];
    await models.chat({ provider, model }, messages, AbortSignal.timeout(5_000));
    expect(sandbox.models.requests(model).at(-1)?.body).toMatchObject({ model, ...fields });
    const { thinking, reasoning_effort } = { ...sandbox.models.requests(model).at(-1)?.body } as Record<string, unknown>;
    expect({ ...(thinking ? { thinking } : {}), ...(reasoning_effort ? { reasoning_effort } : {}) }).toEqual(fields);
  },
);
