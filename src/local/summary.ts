/** What `npm start` says when everything runs. */
import { openDatabase } from '../platform/database';
import { workspaceState } from '../record/workspaces';
import { say, step } from './terminal';

interface Summary {
  apiUrl: string;
  temporalUiUrl: string | undefined;
  sandboxUrl: string | undefined;
  playsCalls: boolean;
  apiKey: string;
  sandboxed: string[];
  /** What the record says of the workspace. */
  answers: boolean;
  providerChain: string[];
  /** Providers that have a key. */
  available: string[];
}

export async function readWorkspace(
  databaseUrl: string,
  phoneNumberId: string | undefined,
): Promise<{ answers: boolean; providerChain: string[] }> {
  const database = openDatabase(databaseUrl);
  try {
    const state = phoneNumberId === undefined ? undefined : await workspaceState(database.orm, phoneNumberId);
    return state ?? { answers: false, providerChain: [] };
  } finally {
    await database.close();
  }
}

/** The chain as it is walked: entries without a key are left out, and are named. */
function describeModels(providerChain: string[], available: string[]): string {
  const chain = providerChain.length > 0 ? providerChain : available;
  const isUsable = (entry: string) => available.includes(entry.split(':')[0] ?? '');
  const usable = chain.filter(isUsable);
  const left = chain.filter((entry) => !isUsable(entry));
  const leftOut = left.length > 0 ? ` (left out, no key: ${left.join(', ')}; AI_PROVIDERS=default takes every provider with a key)` : '';
  return `${usable.length > 0 ? usable.join(', ') : 'NONE: no reply will be written'}${leftOut}`;
}

export function summarise(summary: Summary): void {
  const { apiUrl, temporalUiUrl, sandboxUrl, playsCalls, apiKey, sandboxed, answers, providerChain, available } = summary;
  say('');
  say('Parley is ready.');
  step('API', `${apiUrl} (its pages: ${apiUrl}/docs)`);
  step('API key', apiKey);
  if (temporalUiUrl !== undefined) step('Temporal UI', temporalUiUrl);
  step('Models', describeModels(providerChain, available));
  step('Answers', answers ? 'on' : 'OFF: messages are recorded only; set KAPSO_PHONE_NUMBER_ID, CHATBOT_ENABLED=true and AI_ENABLED=true');
  step('Sandboxed', sandboxed.length > 0 ? sandboxed.join('; ') : 'nothing');
  if (sandboxUrl !== undefined) step('Try it', '`npm run chat` in another terminal: you are the customer');
  if (playsCalls) step('', '`npm run call -- +15550100`: a played voice call');
  step('Stop', 'Ctrl-C');
}
