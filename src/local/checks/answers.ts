/** Whether a message to the configured number would be answered now: the number's settings, its models, and the way to it. */
import type { ProviderName, Settings } from '../../platform/config';
import { openDatabase } from '../../platform/database';
import { namedChain, usableChain } from '../../providers/models/chain';
import { createLanguageModels, type ModelChoice, modelLabel } from '../../providers/models/client';
import { listModels, type ModelList } from '../../providers/models/model-list';
import { isFatal, modelProblem } from '../../providers/models/problems';
import { type WorkspaceState, workspaceState } from '../../record/workspaces';
import { about, type Finding, problemsIn } from './finding';

const models = about('Models');
const replies = about('Replies');

/** The workspace of the configured number; undefined if there is none. @throws if the database cannot be used */
export async function readWorkspace(databaseUrl: string, phoneNumberId: string | undefined): Promise<WorkspaceState | undefined> {
  if (phoneNumberId === undefined) return undefined;
  const database = openDatabase(databaseUrl);
  try {
    return await workspaceState(database.orm, phoneNumberId);
  } finally {
    await database.close();
  }
}

/** Checks each model of the workspace's chain against its end date and its provider's own list. Queries the providers. */
export async function checkModels(settings: Settings, workspace: WorkspaceState | undefined, nowMs = Date.now()): Promise<Finding[]> {
  const chain = workspace ?? { providerChain: settings.AI_PROVIDERS ?? [], model: null };
  const languageModels = createLanguageModels(settings);
  const usable = usableChain(chain, languageModels);
  if (usable.length === 0) return [noModel(namedChain(chain, languageModels.available))];
  const lists = await listModels(
    settings,
    usable.map(({ provider }) => provider),
  );
  const checked = usable.map((choice) => checkModel(choice, lists.get(choice.provider), nowMs));
  // If the chain has another model, a missing one costs time but no reply.
  const answers = checked.some(({ level }) => level !== 'problem');
  const findings = checked.map((finding) => (finding.level === 'problem' && answers ? models.warning(finding.text) : finding));
  const skipped = namedChain(chain, languageModels.available).filter(({ provider }) => !languageModels.available.includes(provider));
  return [...uniqueByText(findings), ...skipped.map((choice) => models.warning(`${modelLabel(choice)} has no API key and is skipped`))];
}

/** A `problem` only if this model cannot answer. */
function checkModel(choice: ModelChoice, list: ModelList | undefined, nowMs: number): Finding {
  const { provider } = choice;
  const problem = modelProblem(choice, nowMs, list);
  if (problem && isFatal(problem)) return models.problem(problem.text);
  if (list?.kind === 'unreachable')
    return models.problem(
      `${provider} could not be queried (${list.reason}): check its address (${addressSetting(provider)}) and the network`,
    );
  if (problem) return models.warning(problem.text);
  return models.ok(`${modelLabel(choice)} ${stateOf(list)}`);
}

/** Only the sandbox is not queried for a list. */
function stateOf(list: Exclude<ModelList, { kind: 'unreachable' }> | undefined): string {
  if (list === undefined) return 'is simulated';
  if (list.kind === 'listed') return 'is served';
  return `is configured; its provider does not list its models (${list.status}), so neither the key nor the name was checked`;
}

function addressSetting(provider: ProviderName): string {
  return provider === 'sealion' ? 'SEALION_URL' : `${provider.toUpperCase()}_BASE_URL`;
}

/** A provider's problem concerns all its models, but is reported once. */
function uniqueByText(findings: readonly Finding[]): Finding[] {
  return [...new Map(findings.map((finding) => [finding.text, finding])).values()];
}

function noModel(named: ModelChoice[]): Finding {
  if (named.length === 0) return models.problem('no model has an API key: set one, such as OPENAI_API_KEY');
  return models.problem(`no model of the chain has an API key (${named.map(modelLabel).join(', ')}): set one, or AI_PROVIDERS=default`);
}

/** The verdict. `before`: the findings about everything that a reply needs. */
export function checkReplies(settings: Settings, workspace: WorkspaceState | undefined, before: readonly Finding[]): Finding {
  if (settings.KAPSO_API_KEY === undefined) return replies.note('off: WhatsApp is off (KAPSO_API_KEY)');
  const missing = [...switchesOf(settings, workspace), ...problemsIn(before)];
  if (missing.length === 0) return replies.ok('on: a message to the number would be answered now');
  return replies.problem(`OFF: ${missing.join('; ')}`);
}

function switchesOf({ KAPSO_PHONE_NUMBER_ID: phoneNumberId }: Settings, workspace: WorkspaceState | undefined): string[] {
  if (phoneNumberId === undefined) return [];
  if (!workspace) return [`the database does not know the number ${phoneNumberId} yet: start Parley with it once`];
  return [...(workspace.chatbotEnabled ? [] : ['CHATBOT_ENABLED is not true']), ...(workspace.aiEnabled ? [] : ['AI_ENABLED is not true'])];
}
