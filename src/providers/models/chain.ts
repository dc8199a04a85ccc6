/** The provider chain of a workspace, in the order of its calls. */
import { PROVIDER_NAMES, type ProviderName } from '../../platform/config';
import { defaultModelOf } from './catalogue';
import type { LanguageModels, ModelChoice } from './client';

/** The model settings of a workspace. */
export interface ChainSettings {
  /** `provider:model` or `provider`; empty: every configured provider. */
  providerChain: readonly string[];
  /** Model for entries without one; null: the provider's default. */
  model: string | null;
}

/** The models to call, in order. Entries without a key are left out, so it may be empty. */
export function usableChain(settings: ChainSettings, models: Pick<LanguageModels, 'available'>): ModelChoice[] {
  return namedChain(settings, models.available).filter(({ provider }) => models.available.includes(provider));
}

/** The models that the settings name, with or without a key. `available`: the providers that have one. */
export function namedChain({ providerChain, model }: ChainSettings, available: readonly ProviderName[]): ModelChoice[] {
  const entries = providerChain.length > 0 ? providerChain : defaultChain(available);
  return entries.flatMap((entry): ModelChoice[] => {
    const [name, ...rest] = entry.split(':');
    const provider = PROVIDER_NAMES.find((known) => known === name);
    return provider ? [{ provider, model: rest.join(':') || model || defaultModelOf(provider) }] : [];
  });
}

/** The simulated model answers only if there is no real one. */
function defaultChain(available: readonly ProviderName[]): readonly ProviderName[] {
  const real = available.filter((name) => name !== 'sandbox');
  return real.length > 0 ? real : available;
}
