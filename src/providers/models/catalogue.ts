/**
 * What is known of the models: prices, end dates, capabilities, and how to switch their thinking off. The facts are in `models.json`; this
 * module is the only one that reads it.
 */
import { z } from 'zod';
import { PROVIDER_NAMES, type ProviderName } from '../../platform/config';
import rows from './models.json';

const usd = z.number().min(0).nullable();

/** A row of `models.json`. Null: unknown, or for `endsOn`: no end has been announced. */
const modelSchema = z.strictObject({
  provider: z.enum(PROVIDER_NAMES).exclude(['sandbox']),
  name: z.string().min(1),
  /** The model of a provider for which the settings name none. */
  isDefault: z.literal(true).optional(),
  /** USD for a million tokens. */
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
  /** Fields of the request that switch thinking off; empty for a model that does not think by default. */
  disableThinking: z.record(z.string(), z.json()),
  source: z.string().min(1),
  /** When the source was read. */
  asOf: z.iso.date(),
});
export type Model = z.output<typeof modelSchema>;

/** Every known model; those that have ended are kept, so that Parley can say so. */
export const MODELS: readonly Model[] = z.array(modelSchema).parse(rows);

/** The simulated model, which `models.json` does not have: it answers to any name. */
const SANDBOX_MODEL = 'sandbox-model';

/** The model that is called at a provider for which the settings name none. */
export function defaultModelOf(provider: ProviderName): string {
  if (provider === 'sandbox') return SANDBOX_MODEL;
  const found = MODELS.find((model) => model.provider === provider && model.isDefault);
  if (!found) throw new Error(`models.json has no default model of ${provider}`);
  return found.name;
}

/** What is known of a model; undefined for one that `models.json` does not have. A dated name is its model's (`gpt-5.4-mini-2026-03-17`). */
export function findModel(provider: ProviderName, name: string): Model | undefined {
  const known = (wanted: string) => MODELS.find((model) => model.provider === provider && model.name === wanted);
  return known(name) ?? known(withoutDate(name));
}

/** Fields of a request that switch off the thinking of a model that thinks by default: it costs time and money, and no reply needs it. */
export function thinkingOff(provider: ProviderName, name: string): Model['disableThinking'] {
  return findModel(provider, name)?.disableThinking ?? {};
}

/** `gpt-5.4-mini` of `gpt-5.4-mini-2026-03-17`, `claude-haiku-4-5` of `claude-haiku-4-5-20251001`. */
export function withoutDate(name: string): string {
  return name.replace(/-(\d{8}|\d{4}-\d{2}-\d{2})$/, '');
}
