/** How long one request to a provider may take. */
import type { ProviderName, Settings } from '../../platform/config';

type LimitedProvider = Exclude<ProviderName, 'sandbox'>;

/** The setting with the timeout of a request to the provider. */
export function timeoutSetting(provider: ProviderName): 'MODEL_TIMEOUT_MS' | `${Uppercase<LimitedProvider>}_TIMEOUT_MS` {
  return provider === 'sandbox' ? 'MODEL_TIMEOUT_MS' : `${provider.toUpperCase() as Uppercase<LimitedProvider>}_TIMEOUT_MS`;
}

/**
 * SEA-LION's models usually run on the operator's own machine. Ollama loads a large one at its first request, which takes 45 s or more, and
 * starts again when the request is aborted.
 */
const LOCAL_MODEL_MS = 120_000;

/** Timeout of a request to each provider, in ms. */
export function requestTimeouts(settings: Settings): Record<ProviderName, number> {
  const { MODEL_TIMEOUT_MS: common } = settings;
  return {
    deepseek: settings.DEEPSEEK_TIMEOUT_MS ?? common,
    openai: settings.OPENAI_TIMEOUT_MS ?? common,
    anthropic: settings.ANTHROPIC_TIMEOUT_MS ?? common,
    grok: settings.GROK_TIMEOUT_MS ?? common,
    sealion: settings.SEALION_TIMEOUT_MS ?? Math.max(common, LOCAL_MODEL_MS),
    sandbox: common,
  };
}
