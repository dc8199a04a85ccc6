/** Checks at the start and daily whether the configured models are still served. */
import { hasWhatsApp, SANDBOX_PHONE_NUMBER_ID, type Settings, whatsAppState } from '../platform/config';
import type { Database } from '../platform/database';
import { pause } from '../platform/lifecycle';
import type { Logger } from '../platform/logger';
import { namedChain, usableChain } from '../providers/models/chain';
import type { LanguageModels } from '../providers/models/client';
import { listModels, type ModelList } from '../providers/models/model-list';
import { type ModelProblem, modelProblems } from '../providers/models/problems';
import { raiseAlert } from '../record/alerts';
import { chainsInUse, type NumberedChain } from '../record/workspaces';

/** A warning on `/readyz`. */
export interface ModelWarning {
  kind: ModelProblem['kind'] | 'no_model';
  text: string;
}

export interface ModelWatch {
  /** The problems found by the last check. */
  warnings(): ModelWarning[];
}

const DAY_MS = 24 * 60 * 60_000;
/** Pause after a check that failed because the database was down. */
const RETRY_MS = 60_000;

export interface ModelWatchOptions {
  settings: Settings;
  /** The workspace with this number at Kapso. */
  workspaceOf(phoneNumberId: string): Promise<WatchedWorkspace>;
  db: Database;
  logger: Logger;
  /** Ends the watch. */
  signal: AbortSignal;
  /**
   * True for the worker, which calls the models: it reports missing keys, and logs what is wrong. The API may run without keys.
   */
  callsModels: boolean;
  intervalMs?: number;
  retryMs?: number;
  now?: () => number;
}

/** The parts of a workspace that are watched. */
export interface WatchedWorkspace {
  /** Those that it has keys for. */
  models: Pick<LanguageModels, 'available'>;
  /** Whether it has a key of Kapso that is not the environment's. */
  hasOwnWhatsApp: boolean;
}

type WatchedChain = NumberedChain & WatchedWorkspace;

/** The models in use, and what their providers list. */
interface Look {
  chains: WatchedChain[];
  lists: Map<string, ModelList>;
}

/** Starts watching; returns at once. */
export function watchModels(options: ModelWatchOptions): ModelWatch {
  const { settings, workspaceOf, db, logger, signal, callsModels, intervalMs = DAY_MS, retryMs = RETRY_MS, now = Date.now } = options;
  let last: Look | undefined;
  void keepLooking();
  return { warnings: () => (last ? warningsOf(last) : []) };

  async function keepLooking(): Promise<void> {
    while (!signal.aborted) {
      const succeeded = await look().catch((error: unknown) => {
        if (!signal.aborted) logger.warn({ error }, 'the configured models could not be checked; trying again');
      });
      await pause(succeeded ? intervalMs : retryMs, signal);
    }
  }

  async function look(): Promise<true> {
    const inUse = (await chainsInUse(db)).filter(isReachable);
    const watched = await Promise.all(inUse.map(async (chain) => ({ ...chain, ...(await workspaceOf(chain.phoneNumberId)) })));
    const chains = watched.filter(({ hasOwnWhatsApp }) => hasOwnWhatsApp || hasWhatsApp(settings));
    const providers = chains.flatMap((chain) => usableChain(chain, chain.models)).map(({ provider }) => provider);
    last = { chains, lists: await listModels(settings, providers) };
    if (callsModels) for (const warning of warningsOf(last)) await report(warning);
    return true;
  }

  /** Nobody can write to the sandbox's number, which stays in the database, where WhatsApp is not simulated. */
  function isReachable({ phoneNumberId }: NumberedChain): boolean {
    return phoneNumberId !== SANDBOX_PHONE_NUMBER_ID || whatsAppState(settings) === 'simulated';
  }

  async function report({ kind, text }: ModelWarning): Promise<void> {
    logger.warn({ kind }, text);
    await raiseAlert(db, { cause: `model: ${text}`, text: `model: ${text}` });
  }

  function warningsOf({ chains, lists }: Look): ModelWarning[] {
    const choices = chains.flatMap((chain) => (callsModels ? usableChain(chain, chain.models) : namedChain(chain, chain.models.available)));
    const unanswered = callsModels ? chains.filter((chain) => usableChain(chain, chain.models).length === 0) : [];
    return [...unanswered.map(noModel), ...modelProblems(choices, now(), (provider) => lists.get(provider))];
  }
}

function noModel({ phoneNumberId, providerChain }: NumberedChain): ModelWarning {
  const why = providerChain.length > 0 ? `${providerChain.join(', ')}: no API key` : 'no model has an API key';
  return { kind: 'no_model', text: `nobody who writes to ${phoneNumberId} is answered: ${why}` };
}
