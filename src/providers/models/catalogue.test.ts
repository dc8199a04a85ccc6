import { PROVIDER_NAMES } from '../../platform/config';
import { defaultModelOf, findModel, MODELS, thinkingOff } from './catalogue';
import { modelProblem } from './problems';

const providers = PROVIDER_NAMES.filter((name) => name !== 'sandbox');
/** The newest source of models.json: on this day the defaults were known to be served. */
const asOf =
  MODELS.map((model) => model.asOf)
    .sort()
    .at(-1) ?? '';

test('when models.json is read, then no model is in it twice, and each provider has one default', () => {
  const names = MODELS.map(({ provider, name }) => `${provider}:${name}`);
  expect(new Set(names).size).toBe(names.length);
  for (const provider of providers) expect(MODELS.filter((model) => model.provider === provider && model.isDefault)).toHaveLength(1);
});

test.each(providers)('when the settings name no model of %s, then the default is served, and for longer than a month', (provider) => {
  expect(modelProblem({ provider, model: defaultModelOf(provider) }, Date.parse(asOf))).toBeUndefined();
});

test.each([
  ['deepseek', 'deepseek-flash', { thinking: { type: 'disabled' } }],
  ['deepseek', 'deepseek-v4-pro', { thinking: { type: 'disabled' } }],
  ['openai', 'gpt-5.4-mini', { reasoning_effort: 'none' }],
  ['openai', 'gpt-5.4-mini-2026-03-17', { reasoning_effort: 'none' }],
  ['grok', 'grok-4.3', { reasoning_effort: 'none' }],
  ['anthropic', 'claude-haiku-4-5-20251001', {}],
  ['openai', 'gpt-4.1-mini', {}],
  ['sealion', 'a model of my own', {}],
] as const)('when %s is asked for %s, then its thinking is switched off by %j', (provider, model, fields) => {
  expect(thinkingOff(provider, model)).toEqual(fields);
});

test('when a name has a date, then it stands for its model, but only of the same provider', () => {
  expect(findModel('anthropic', 'claude-haiku-4-5-20251001')?.name).toBe('claude-haiku-4-5');
  expect(findModel('openai', 'claude-haiku-4-5')).toBeUndefined();
  expect(findModel('openai', 'gpt-5.4-mini-preview')).toBeUndefined();
});
