/**
 * One typed client for all models: the OpenAI chat protocol with a base URL per provider.
 * No retries and no fallback here: the workflow decides both, where operators can see it.
 */
import OpenAI, { type ClientOptions } from 'openai';
import type { ProviderName, Settings } from '../../platform/config';
import { sendRequest } from '../../platform/http-request';

export interface ModelChoice {
  provider: ProviderName;
  model: string;
}

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

export interface ChatAnswer {
  /** Trimmed; empty if the model returned no text. */
  text: string;
  /** The model, or a content filter, refused to answer. */
  isRefusal: boolean;
  promptTokens: number;
  completionTokens: number;
}

export interface LanguageModels {
  /** Providers that have a key or a URL, in the default order. */
  available: ProviderName[];
  /** The provider's default model; empty if the provider is not configured. */
  defaultModel(provider: ProviderName): string;
  /** @throws errors of the openai package, unchanged */
  chat(choice: ModelChoice, messages: ChatMessage[], signal: AbortSignal): Promise<ChatAnswer>;
}

interface Endpoint {
  baseURL: string;
  apiKey: string;
  defaultModel: string;
}

/** The configured providers. A provider without a key is left out. */
export function configuredEndpoints(settings: Settings): Map<ProviderName, Endpoint> {
  const endpoints = new Map<ProviderName, Endpoint>();
  const add = (name: ProviderName, apiKey: string | undefined, baseURL: string | undefined, defaultModel: string) => {
    if (apiKey && baseURL) endpoints.set(name, { apiKey, baseURL, defaultModel });
  };
  add('deepseek', settings.DEEPSEEK_API_KEY, settings.DEEPSEEK_BASE_URL, 'deepseek-chat');
  add('openai', settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL, 'gpt-4.1-mini');
  add('anthropic', settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL, 'claude-haiku-4-5');
  add('grok', settings.GROK_API_KEY, settings.GROK_BASE_URL, 'grok-4-fast');
  // Ollama needs no key, but the OpenAI client requires one.
  add('sealion', 'none', settings.SEALION_URL, 'aisingapore/Gemma-SEA-LION-v4-27B-IT');
  add('sandbox', 'sandbox', settings.SANDBOX_URL && `${settings.SANDBOX_URL}/v1`, 'sandbox-model');
  return endpoints;
}

/** Clients for the configured providers, created once per process. */
export function createLanguageModels(settings: Settings): LanguageModels {
  const endpoints = configuredEndpoints(settings);
  const clients = new Map<ProviderName, OpenAI>();
  for (const [name, { baseURL, apiKey }] of endpoints)
    clients.set(name, new OpenAI({ baseURL, apiKey, maxRetries: 0, fetch: sendByRequest }));
  return {
    available: [...endpoints.keys()],
    defaultModel: (provider) => endpoints.get(provider)?.defaultModel ?? '',
    async chat({ provider, model }, messages, signal) {
      const client = clients.get(provider);
      if (!client) throw new Error(`provider ${provider} is not configured`);
      const completion = await client.chat.completions.create({ model, messages }, { signal });
      const choice = completion.choices[0];
      return {
        text: choice?.message.content?.trim() ?? '',
        isRefusal: choice?.finish_reason === 'content_filter' || Boolean(choice?.message.refusal),
        promptTokens: tokenCount(completion.usage?.prompt_tokens),
        completionTokens: tokenCount(completion.usage?.completion_tokens),
      };
    },
  };
}

/** A `fetch` for the openai package on top of `sendRequest`. Supports what the package uses here: string bodies, no streaming. */
const sendByRequest: Fetch = async (url, { method, headers, body, signal } = {}) => {
  if (typeof body !== 'string' || method === undefined || !signal) throw new TypeError('unsupported kind of request');
  const answer = await sendRequest(String(url), {
    method: method.toUpperCase() as 'POST',
    headers: Object.fromEntries(new Headers(headers)),
    body,
    signal,
  });
  return new Response(answer.text, { status: answer.status, headers: answer.headers });
};

type Fetch = NonNullable<ClientOptions['fetch']>;

/** OpenAI-compatible servers may send any value; the database columns are 32-bit integers. */
function tokenCount(tokens: unknown): number {
  return typeof tokens === 'number' && tokens >= 0 && tokens < 2 ** 31 ? Math.round(tokens) : 0;
}
