/** The set-up that a terminal command looks at: a running `npm start`, or the processes that the settings describe. */
import { readSettings, type Settings } from '../platform/config';
import { type Instance, isStarting, readInstanceFile, TerminalError } from './instance-file';
import { localHost } from './local-host';
import { differingSettings } from './setting-fingerprints';

/** Environment variables. */
export type Environment = Record<string, string | undefined>;

/** What is set up, and where. */
export interface SetUp {
  settings: Settings;
  environment: Environment;
  apiUrl: string;
  /** Names of the settings whose values differ between the running `npm start` and this terminal. */
  differing: string[];
  /** Whether `npm start` is running here. */
  state: 'running' | 'starting' | 'stopped';
}

/** Reads the settings as the running processes have them. @throws SettingsError */
export function readSetUp(environment: Environment): SetUp {
  const settings = readSettings(environment);
  return setUpOf(settings, environment, findInstance(settings));
}

function findInstance({ DATA_DIR }: Settings): Instance | undefined {
  try {
    return readInstanceFile(DATA_DIR);
  } catch (error) {
    if (error instanceof TerminalError) return undefined;
    throw error;
  }
}

/** The settings of the running processes, as far as they are known; those that only this terminal has are omitted. */
function setUpOf(settings: Settings, given: Environment, instance: Instance | undefined): SetUp {
  if (!instance) {
    const state = isStarting(settings.DATA_DIR) ? 'starting' : 'stopped';
    const apiUrl = `http://${localHost(settings.HOST ?? '0.0.0.0')}:${settings.PORT}`;
    return { settings, environment: given, apiUrl, differing: [], state };
  }
  const { apiUrl, databaseUrl, settingFingerprints: fingerprints } = instance;
  const differing = fingerprints ? differingSettings(fingerprints, given) : [];
  const unknownThere = differing.filter((name) => fingerprints?.hashes[name] === undefined);
  const environment = {
    ...given,
    ...Object.fromEntries(unknownThere.map((name) => [name, undefined])),
    ...instance.environment,
    DATABASE_URL: databaseUrl,
  };
  return { settings: readSettings(environment), environment, apiUrl, differing, state: 'running' };
}
