/**
 * One typed client for all models: the OpenAI chat protocol with a base URL per provider.
 * No retries and no fallback here: the workflow decides both, where operators can see it.
 */
import OpenAI, { APIConnectionError, APIError, type ClientOptions } from 'openai';
import { type ProviderName, type Settings, whatsAppState } from '../../platform/config';
import { ResponseTooLongError, sendRequest } from '../../platform/http-request';
import { type ChatAnswer, normalizedErrorBody, readAnswer } from './answer';
import { thinkingOff } from './catalogue';
import type { ChatMessage } from './prompt';

export interface ModelChoice {
  provider: ProviderName;
  model: string;
}

/** A provider and its model, for the texts that operators read. */
export function modelLabel({ provider, model }: ModelChoice): string {
  return `${provider} (${model})`;
}

/** The response has a success status, but no answer: for example a web page, or truncated JSON. */
export class UnreadableAnswerError extends Error {
  override name = 'UnreadableAnswerError';
}

/** Maximum size of a model's response: four times as much as 64,000 tokens of text, and little enough to be split in seconds. */
export const MAX_ANSWER_BYTES = 1024 * 1024;

/** The response is longer than `MAX_ANSWER_BYTES`. */
export class TooLongAnswerError extends Error {
  override name = 'TooLongAnswerError';
}

export interface LanguageModels {
  /** Providers that have a key or a URL, in the default order. */
  available: ProviderName[];
  /** @throws UnreadableAnswerError, TooLongAnswerError, or an error of the openai package, even for an error in the body of a response with a success status */
  chat(choice: ModelChoice, messages: ChatMessage[], signal: AbortSignal): Promise<ChatAnswer>;
}

/** Where a provider is, and the key for it. */
export interface Endpoint {
  baseURL: string;
  apiKey: string;
}

/** The configured providers. A provider without a key is left out. */
export function configuredEndpoints(settings: Settings): Map<ProviderName, Endpoint> {
  const endpoints = new Map<ProviderName, Endpoint>();
  const add = (name: ProviderName, apiKey: string | undefined, baseURL: string | undefined) => {
    if (apiKey && baseURL) endpoints.set(name, { apiKey, baseURL });
  };
  add('deepseek', settings.DEEPSEEK_API_KEY, settings.DEEPSEEK_BASE_URL);
  add('openai', settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL);
  add('anthropic', settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL);
  add('grok', settings.GROK_API_KEY, settings.GROK_BASE_URL);
  // Ollama needs no key, but the OpenAI client requires one.
  add('sealion', 'none', settings.SEALION_URL);
  // The simulated model's words must never reach a real person.
  if (whatsAppState(settings) !== 'real') add('sandbox', 'sandbox', settings.SANDBOX_URL && `${settings.SANDBOX_URL}/v1`);
  return endpoints;
}

/** Clients for the configured providers, created once per process. */
export function createLanguageModels(settings: Settings): LanguageModels {
  const endpoints = configuredEndpoints(settings);
  const clients = new Map<ProviderName, OpenAI>();
  for (const [name, { baseURL, apiKey }] of endpoints)
    clients.set(name, new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: NO_TIMEOUT_MS, fetch: sendByRequest }));
  return {
    available: [...endpoints.keys()],
    async chat({ provider, model }, messages, signal) {
      const client = clients.get(provider);
      if (!client) throw new Error(`provider ${provider} is not configured`);
      const request = { ...thinkingOff(provider, model), model, messages };
      const response = await client.chat.completions.create(request, { signal }).asResponse().catch(rethrown);
      return answerIn(await response.text(), response);
    },
  };
}

/** Only the caller's signal ends a request. This is Node's longest timer; the package's default would be 10 minutes. */
const NO_TIMEOUT_MS = 2 ** 31 - 1;

/** The package reports whatever fails in its `fetch` as a failed connection. */
function rethrown(error: unknown): never {
  const cause = error instanceof APIConnectionError ? error.cause : undefined;
  throw cause instanceof ResponseTooLongError ? new TooLongAnswerError(cause.message) : error;
}

function answerIn(body: string, { status, headers }: Response): ChatAnswer {
  const reading = readAnswer(body);
  switch (reading.kind) {
    case 'answer':
      return reading.answer;
    case 'error':
      throw new APIError(reading.status ?? status, reading.error, undefined, headers);
    case 'unreadable':
      throw new UnreadableAnswerError('the body is not a chat completion');
  }
}

/** A `fetch` for the openai package on top of `sendRequest`. Supports what the package uses here: string bodies, no streaming. */
const sendByRequest: Fetch = async (url, { method, headers, body, signal } = {}) => {
  if (typeof body !== 'string' || method === undefined || !signal) throw new TypeError('unsupported kind of request');
  const answer = await sendRequest(String(url), {
    method: method.toUpperCase() as 'POST',
    headers: Object.fromEntries(new Headers(headers)),
    body,
    signal,
    maxBytes: MAX_ANSWER_BYTES,
  });
  const text = answer.status < 400 ? answer.text : normalizedErrorBody(answer.text);
  return new Response(text, { status: answer.status, headers: answer.headers });
};

type Fetch = NonNullable<ClientOptions['fetch']>;
