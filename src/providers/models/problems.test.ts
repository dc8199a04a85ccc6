import type { ModelList } from './model-list';
import { isFatal, modelProblem, modelProblems } from './problems';

const at = (day: string) => Date.parse(day);
const listed = (...names: string[]): ModelList => ({ kind: 'listed', names: new Set(names) });

test.each([
  ['2026-12-14T23:59:59Z', undefined],
  ['2026-12-15T00:00:00Z', 'openai (gpt-4.1-mini) ends on 2027-01-14: name another model in AI_PROVIDERS, such as openai:gpt-5.4-mini'],
  ['2027-01-13T23:59:59Z', expect.stringContaining('ends on')],
  ['2027-01-14T00:00:00Z', 'openai (gpt-4.1-mini) ended on 2027-01-14: name another model in AI_PROVIDERS, such as openai:gpt-5.4-mini'],
])('when it is %s, then the problem of a model that ends on 2027-01-14 is %s', (now, text) => {
  expect(modelProblem({ provider: 'openai', model: 'gpt-4.1-mini' }, at(now))?.text).toEqual(text);
});

test.each([
  ['the retired names of 0.2', 'deepseek', 'deepseek-chat', 'model_ended'],
  ['the retired names of 0.2', 'grok', 'grok-4-fast', 'model_ended'],
  ['an unknown model', 'openai', 'my-fine-tune', undefined],
] as const)('when %s are configured (%s:%s), then it is %s', (_what, provider, model, kind) => {
  expect(modelProblem({ provider, model }, at('2026-11-26'))?.kind).toBe(kind);
});

test.each([
  ['is listed', 'openai', 'gpt-5.4-mini', listed('gpt-5.4-mini'), undefined],
  ['is listed with its date', 'anthropic', 'claude-haiku-4-5', listed('claude-haiku-4-5-20251001'), undefined],
  [
    'is listed with the tag latest',
    'sealion',
    'aisingapore/Gemma-SEA-LION-v4-27B-IT',
    listed('aisingapore/gemma-sea-lion-v4-27b-it'),
    undefined,
  ],
  ['is not listed', 'openai', 'gpt-5.4-mini', listed('gpt-5.4'), 'model_not_listed'],
  ['has a longer listed name', 'openai', 'gpt-5.4', listed('gpt-5.4-mini'), 'model_not_listed'],
  ['has a provider without a list', 'openai', 'gpt-5.4-mini', { kind: 'no_list', status: 404 }, undefined],
  ['has a provider that is away for now', 'openai', 'gpt-5.4-mini', { kind: 'unreachable', reason: 'ENOTFOUND' }, undefined],
  ['has a provider that refuses the key', 'openai', 'gpt-5.4-mini', { kind: 'key_refused', status: 401 }, 'key_refused'],
] as const)('when a model %s (%s:%s), then it is reported accordingly', (_what, provider, model, list, kind) => {
  expect(modelProblem({ provider, model }, at('2026-11-26'), list)?.kind).toBe(kind);
});

test('when a model is not listed, then the text names provider and model', () => {
  const problem = modelProblem({ provider: 'openai', model: 'gpt-9' }, at('2026-11-26'), listed('gpt-5.4-mini'));
  expect(problem?.text).toBe(
    'openai (gpt-9) is not among the models that openai lists: name another model in AI_PROVIDERS, such as openai:gpt-5.4-mini',
  );
  expect(problem && isFatal(problem)).toBe(false);
});

test('when two workspaces use the same ended model, then it is reported once', () => {
  const choice = { provider: 'deepseek', model: 'deepseek-chat' } as const;
  expect(modelProblems([choice, choice], at('2026-11-26'), () => undefined)).toHaveLength(1);
});
