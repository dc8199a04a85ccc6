/** The models that a provider serves, according to its own list (`GET /models`). */
import { z } from 'zod';
import type { ProviderName, Settings } from '../../platform/config';
import { connectionFailure } from '../../platform/connection-failure';
import { withDeadline } from '../../platform/deadline';
import { sendRequest } from '../../platform/http-request';
import { withoutDate } from './catalogue';
import { configuredEndpoints, type Endpoint } from './client';

/** `no_list`: the provider has no list, which says nothing about the model. `unreachable`: it did not respond, perhaps only temporarily. */
export type ModelList =
  | { kind: 'listed'; names: ReadonlySet<string> }
  | { kind: 'no_list'; status: number }
  | { kind: 'key_refused'; status: number }
  | { kind: 'unreachable'; reason: string };

const text = z.string().min(1);
const listSchema = z.object({ data: z.array(z.looseObject({ id: text, aliases: z.array(text).optional().catch(undefined) })).min(1) });

const TIMEOUT_MS = 10_000;

/** Anthropic's list has its own headers, and 20 rows per page unless more are requested (its API reference, "List Models"). */
const ANTHROPIC_VERSION = '2023-06-01';

/** Queries each provider once, all at the same time. A provider without a key is left out. */
export async function listModels(settings: Settings, providers: Iterable<ProviderName>): Promise<Map<ProviderName, ModelList>> {
  const endpoints = configuredEndpoints(settings);
  // The sandbox answers to every name.
  const asked = [...new Set(providers)].filter((name) => name !== 'sandbox');
  const lists = asked.map(async (name) => {
    const endpoint = endpoints.get(name);
    return endpoint ? [[name, await listOf(name, endpoint)] as const] : [];
  });
  return new Map((await Promise.all(lists)).flat());
}

async function listOf(provider: ProviderName, { baseURL, apiKey }: Endpoint): Promise<ModelList> {
  const isAnthropic = provider === 'anthropic';
  const headers: Record<string, string> = isAnthropic
    ? { 'x-api-key': apiKey, 'anthropic-version': ANTHROPIC_VERSION }
    : { authorization: `Bearer ${apiKey}` };
  try {
    return await withDeadline(TIMEOUT_MS, async (signal) => {
      const answer = await sendRequest(`${baseURL}/models${isAnthropic ? '?limit=1000' : ''}`, { method: 'GET', headers, signal });
      // A 403 does not mean that the key is bad: it may be allowed to chat but not to list.
      if (answer.status === 401) return { kind: 'key_refused', status: answer.status };
      const list = answer.status === 200 ? listSchema.safeParse(parseJson(answer.text)).data : undefined;
      return list ? { kind: 'listed', names: namesIn(list.data) } : { kind: 'no_list', status: answer.status };
    });
  } catch (error) {
    return { kind: 'unreachable', reason: reasonOf(error) };
  }
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

function reasonOf(error: unknown): string {
  const failure = connectionFailure(error);
  if (failure.kind === 'not_sent') return failure.code;
  return failure.reason === 'AbortError' ? `no response within ${TIMEOUT_MS / 1_000} s` : failure.reason;
}

function namesIn(rows: z.output<typeof listSchema>['data']): Set<string> {
  return new Set(rows.flatMap(({ id, aliases = [] }) => [id, ...aliases].map(plainName)));
}

/** Whether a list has a model. A name without a date matches the dated one, and at Ollama one without a tag matches `latest`. */
export function isListed({ names }: { names: ReadonlySet<string> }, model: string): boolean {
  const wanted = plainName(model);
  return names.has(wanted) || [...names].some((name) => withoutDate(name) === wanted);
}

function plainName(name: string): string {
  return name
    .toLowerCase()
    .replace(/^models\//, '')
    .replace(/(:|-)latest$/, '');
}
