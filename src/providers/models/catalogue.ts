/**
 * What is known about the models: prices, end dates, capabilities, and how to turn off their thinking. Only this module reads
 * `models.json`, which has the facts.
 */
import { z } from 'zod';
import { PROVIDER_NAMES, type ProviderName } from '../../platform/config';
import rows from './models.json';

const usd = z.number().min(0).nullable();

/** A row of `models.json`. Null: unknown, or for `endsOn`: no end has been announced. */
const modelSchema = z.strictObject({
  provider: z.enum(PROVIDER_NAMES).exclude(['sandbox']),
  name: z.string().min(1),
  /** Whether it is the provider's default, used if the settings name no model. */
  isDefault: z.literal(true).optional(),
  /** USD per million tokens. */
  inputPerMillion: usd,
  outputPerMillion: usd,
  /** Tokens of prompt and reply. */
  contextTokens: z.int().positive().nullable(),
  /** The first day (UTC) on which it is no longer served. */
  endsOn: z.iso.date().nullable(),
  /** JSON by a schema that the provider enforces, JSON of any form, or neither. */
  structured: z.enum(['strict', 'json', 'none']),
  tools: z.enum(['strict', 'loose', 'none']),
  vision: z.boolean(),
  /** Request fields that turn off thinking; empty for a model that does not think by default. */
  disableThinking: z.record(z.string(), z.json()),
  source: z.string().min(1),
  /** Date on which the source was read. */
  asOf: z.iso.date(),
});
export type Model = z.output<typeof modelSchema>;

/** Every known model; those that have ended are kept, so that Parley can say so. */
export const MODELS: readonly Model[] = z.array(modelSchema).parse(rows);

/** The simulated model, which `models.json` does not have: it answers to any name. */
const SANDBOX_MODEL = 'sandbox-model';

/** The provider's default model, called if the settings name none. */
export function defaultModelOf(provider: ProviderName): string {
  if (provider === 'sandbox') return SANDBOX_MODEL;
  const found = MODELS.find((model) => model.provider === provider && model.isDefault);
  if (!found) throw new Error(`models.json has no default model of ${provider}`);
  return found.name;
}

/** What is known about a model; undefined if `models.json` lacks it. A dated name (`gpt-5.4-mini-2026-03-17`) stands for its model. */
export function findModel(provider: ProviderName, name: string): Model | undefined {
  const known = (wanted: string) => MODELS.find((model) => model.provider === provider && model.name === wanted);
  return known(name) ?? known(withoutDate(name));
}

/** Request fields that turn off thinking, which costs time and money, and which no reply needs. */
export function thinkingOff(provider: ProviderName, name: string): Model['disableThinking'] {
  return findModel(provider, name)?.disableThinking ?? {};
}

/** `gpt-5.4-mini` of `gpt-5.4-mini-2026-03-17`, `claude-haiku-4-5` of `claude-haiku-4-5-20251001`. */
export function withoutDate(name: string): string {
  return name.replace(/-(\d{8}|\d{4}-\d{2}-\d{2})$/, '');
}
