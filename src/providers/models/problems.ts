/** Present and upcoming problems of the configured models. */
import type { ProviderName } from '../../platform/config';
import { defaultModelOf, findModel } from './catalogue';
import { type ModelChoice, modelLabel } from './client';
import { isListed, type ModelList } from './model-list';

/** A problem of one model, for operators. */
export interface ModelProblem {
  kind: 'model_ended' | 'model_ends_soon' | 'model_not_listed' | 'key_refused';
  /** Names provider and model, and says what to do. */
  text: string;
}

const DAY_MS = 86_400_000;
/** How long before its end a model is reported, in days. */
const NOTICE_DAYS = 30;

/** The problem with a model at `nowMs` (milliseconds since 1970); undefined if none. `list`: what its provider serves, if known. */
export function modelProblem(choice: ModelChoice, nowMs: number, list?: ModelList): ModelProblem | undefined {
  const { provider, model } = choice;
  const label = modelLabel(choice);
  const end = findModel(provider, model)?.endsOn;
  const daysLeft = end ? Math.ceil((Date.parse(end) - nowMs) / DAY_MS) : Number.POSITIVE_INFINITY;
  if (daysLeft <= 0) return { kind: 'model_ended', text: `${label} ended on ${end}: ${replacement(choice, nowMs)}` };
  if (list?.kind === 'key_refused') return { kind: 'key_refused', text: `${provider} refuses the API key (${list.status}): check it` };
  if (list?.kind === 'listed' && !isListed(list, model))
    return { kind: 'model_not_listed', text: `${label} is not among the models that ${provider} lists: ${replacement(choice, nowMs)}` };
  if (daysLeft <= NOTICE_DAYS) return { kind: 'model_ends_soon', text: `${label} ends on ${end}: ${replacement(choice, nowMs)}` };
  return undefined;
}

/** Whether the model will not answer. */
export function isFatal({ kind }: ModelProblem): boolean {
  return kind === 'model_ended' || kind === 'key_refused';
}

function replacement({ provider, model }: ModelChoice, nowMs: number): string {
  const name = defaultModelOf(provider);
  const isServed = name !== model && modelProblem({ provider, model: name }, nowMs) === undefined;
  return `name another model in AI_PROVIDERS${isServed ? `, such as ${provider}:${name}` : ''}`;
}

/** The problems of several models, each once. `listOf`: what a provider serves, if known. */
export function modelProblems(
  choices: readonly ModelChoice[],
  nowMs: number,
  listOf: (provider: ProviderName) => ModelList | undefined,
): ModelProblem[] {
  const problems = choices.flatMap((choice) => modelProblem(choice, nowMs, listOf(choice.provider)) ?? []);
  return [...new Map(problems.map((problem) => [problem.text, problem])).values()];
}
