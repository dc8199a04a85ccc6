/** The summary that `npm start` prints when everything is running. */
import { openDatabase } from '../platform/database';
import { workspaceState } from '../record/workspaces';
import { say, sayRow } from './terminal';

interface Summary {
  apiUrl: string;
  temporalUiUrl: string | undefined;
  simulatesWhatsApp: boolean;
  simulatesCalls: boolean;
  apiKey: string;
  simulated: string[];
  off: string[];
  /** Whether the workspace replies to messages, according to the database. */
  repliesEnabled: boolean;
  providerChain: string[];
  /** Providers that have a key. */
  availableProviders: string[];
}

/** Reads the workspace of `phoneNumberId` from the database; without one, replies are off. */
export async function readWorkspace(
  databaseUrl: string,
  phoneNumberId: string | undefined,
): Promise<{ repliesEnabled: boolean; providerChain: string[] }> {
  const database = openDatabase(databaseUrl);
  try {
    const state = phoneNumberId === undefined ? undefined : await workspaceState(database.orm, phoneNumberId);
    return { repliesEnabled: state?.answers ?? false, providerChain: state?.providerChain ?? [] };
  } finally {
    await database.close();
  }
}

/** The provider chain as it is used; names the entries that are skipped for lack of a key. */
function describeModels(providerChain: string[], availableProviders: string[]): string {
  const chain = providerChain.length > 0 ? providerChain : availableProviders;
  const isUsable = (entry: string) => availableProviders.includes(entry.split(':')[0] ?? '');
  const usable = chain.filter(isUsable);
  const skipped = chain.filter((entry) => !isUsable(entry));
  const note = skipped.length > 0 ? ` (skipped, no key: ${skipped.join(', ')}; AI_PROVIDERS=default uses every provider with a key)` : '';
  return `${usable.length > 0 ? usable.join(', ') : 'NONE: no replies will be written'}${note}`;
}

/** Prints the summary. */
export function saySummary(summary: Summary): void {
  const { apiUrl, temporalUiUrl, simulatesWhatsApp, simulatesCalls, apiKey, simulated, off, repliesEnabled } = summary;
  say('');
  say('Parley is ready.');
  sayRow('API', `${apiUrl} (documentation: ${apiUrl}/docs)`);
  sayRow('API key', apiKey);
  if (temporalUiUrl !== undefined) sayRow('Temporal UI', temporalUiUrl);
  sayRow('Models', describeModels(summary.providerChain, summary.availableProviders));
  sayRow(
    'Replies',
    repliesEnabled ? 'on' : 'OFF: messages are only stored; set KAPSO_PHONE_NUMBER_ID, CHATBOT_ENABLED=true and AI_ENABLED=true',
  );
  sayRow('Simulated', simulated.length > 0 ? simulated.join('; ') : 'nothing');
  if (off.length > 0) sayRow('Off', off.join('; '));
  if (simulatesWhatsApp) sayRow('Try it', '`npm run chat` in another terminal: write as a customer');
  if (simulatesCalls) sayRow('', '`npm run call -- +15550100`: a simulated voice call');
  sayRow('Stop', 'Ctrl-C');
}
