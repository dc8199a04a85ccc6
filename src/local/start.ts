/**
 * `npm start`: runs everything on one machine. Starts what the settings do not configure (PostgreSQL, Temporal, a sandbox for Kapso,
 * Vapi and the model), and the API and the worker as separate processes, as in production.
 */
import { exitWithError, readArguments } from '../platform/command-line';
import {
  callsState,
  loadEnvFile,
  readSettings,
  requireSettings,
  requireWhatsAppSettings,
  type Settings,
  straySettings,
} from '../platform/config';
import { checkModels, checkReplies, readWorkspace } from './checks/answers';
import { checkCalls } from './checks/services';
import { checkWhatsApp } from './checks/whatsapp';
import {
  claimDataDir,
  generatedApiKey,
  generatedEncryptionKey,
  publishInstance,
  recordProcesses,
  releaseDataDir,
  rotateLogs,
} from './embedded/instance';
import type { RecordedProcess } from './embedded/leftovers';
import { createSupervisor, type Supervisor } from './embedded/supervisor';
import { localHost } from './local-host';
import { startSandbox } from './sandbox-service';
import { migrate, startApi, startDatabase, startTemporal, startWorker } from './services';
import { fingerprintSettings } from './setting-fingerprints';
import { chooseApiPort, type Environment, type InstanceInfo, type StartContext } from './start-context';
import { saySummary } from './summary';
import { onSignals, say, sayError, shortPath } from './terminal';

const LOG_CHECK_INTERVAL_MS = 10_000;

const HELP = `usage: npm start

Starts everything on this machine and prints where it is; Ctrl-C stops it. It has no options: settings come from the environment or .env,
and .env.example documents them.

  -h, --help  show this help

exit status: 0 when it was stopped; 1 on an error; 2 for wrong arguments; 78 for invalid settings`;

async function main(args: string[], environment: Environment): Promise<void> {
  if (readArguments(args, { help: HELP, options: {} }) === undefined) return;
  for (const sentence of straySettings()) say(`warning: ${sentence}`);
  const settings = checkSettings(environment);
  const { DATA_DIR } = settings;
  const leftovers = await claimDataDir(DATA_DIR);
  // Keep conversations, calls and logs private to this user.
  process.umask(0o077);
  say(`Parley is starting. Data: ${shortPath(DATA_DIR)}, logs: ${shortPath(DATA_DIR)}/logs`);
  if (leftovers.length > 0) say(`an earlier start was killed; stopped the processes that it left running: ${leftovers.join(', ')}`);
  boundLogs(settings);
  const publisher = createPublisher(DATA_DIR);
  const supervisor = createSupervisor({
    say,
    onProcesses: publisher.setProcesses,
    onGivenUp: (reason) => {
      say(`${reason}; stopping everything`);
      void end(1);
    },
  });
  let ending: Promise<void> | undefined;
  const end = (exitCode: number) => {
    ending ??= stopEverything(supervisor, DATA_DIR).finally(() => process.exit(exitCode));
    return ending;
  };
  endOnSignals(end, () => supervisor.killAll());
  try {
    await startAll({ settings, environment, supervisor, ports: [], publish: publisher.publish });
  } catch (error) {
    if (ending === undefined) sayError(error);
    await end(1);
  }
}

/** Keeps the log files bounded even if everything runs for months. */
function boundLogs({ DATA_DIR, LOG_FILE_MAX_MB }: Settings): void {
  const rotate = () => {
    try {
      rotateLogs(DATA_DIR, LOG_FILE_MAX_MB * 1_048_576);
    } catch {
      // There is no folder yet, or the disk is full: tried again next time.
    }
  };
  rotate();
  setInterval(rotate, LOG_CHECK_INTERVAL_MS).unref();
}

/** Keeps the two state files in DATA_DIR up to date as processes start and exit. */
function createPublisher(dataDir: string): { setProcesses(processes: RecordedProcess[]): void; publish(info: InstanceInfo): void } {
  let instance: InstanceInfo | undefined;
  let running: RecordedProcess[] = [];
  const write = () => {
    const pids = Object.fromEntries(running.map(({ name, pid }) => [name.toLowerCase(), pid]));
    if (instance !== undefined) publishInstance(dataDir, { ...instance, pid: process.pid, pids });
  };
  return {
    setProcesses(processes) {
      running = processes;
      recordProcesses(dataDir, processes);
      write();
    },
    publish(info) {
      instance = info;
      write();
    },
  };
}

async function stopEverything(supervisor: Supervisor, dataDir: string): Promise<void> {
  await supervisor.stopAll();
  releaseDataDir(dataDir);
  say('stopped; the data is kept for the next start');
}

function endOnSignals(end: (exitCode: number) => Promise<void>, killAll: () => void): void {
  const stop = () => {
    say('stopping; press Ctrl-C again to kill');
    void end(0);
  };
  const kill = () => {
    killAll();
    process.exit(1);
  };
  onSignals(['SIGINT', 'SIGTERM', 'SIGHUP'], stop, kill);
  // A closed terminal must not crash this process while it is stopping.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
}

/** @throws SettingsError */
function checkSettings(environment: Environment): Settings {
  const settings = readSettings(environment);
  // Without a key of either, everything is simulated, and the other settings of Kapso are not used.
  if (settings.KAPSO_API_KEY !== undefined || settings.VAPI_API_KEY !== undefined) requireWhatsAppSettings(settings);
  if (settings.VAPI_API_KEY !== undefined) {
    requireSettings(settings, {
      VAPI_WEBHOOK_SECRET: 'VAPI_API_KEY is set, so Vapi sends the webhooks and authenticates them with this secret',
    });
  }
  return settings;
}

async function startAll(context: StartContext): Promise<void> {
  const apiPort = await chooseApiPort(context);
  const databaseUrl = context.settings.DATABASE_URL ?? (await startDatabase(context));
  await migrate(databaseUrl);
  const temporal = await startTemporal(context);
  const host = context.settings.HOST ?? '127.0.0.1';
  const apiUrl = `http://${localHost(host)}:${apiPort}`;
  const sandbox = await startSandbox(context, apiUrl);
  const apiKey = context.settings.API_KEYS[0] ?? generatedApiKey(context.settings.DATA_DIR);
  const environment: Environment = {
    ...context.environment,
    ...temporal.environment,
    ...sandbox.environment,
    PORT: String(apiPort),
    HOST: host,
    // The next start's only worker takes over what this one leaves, whatever its version.
    WORKER_VERSIONING: 'false',
    DATABASE_URL: databaseUrl,
    API_KEYS: context.settings.API_KEYS.length > 0 ? context.settings.API_KEYS.join(',') : apiKey,
    ...encryptionKey(context.settings),
  };
  // Services stop in the reverse of this order: the API first, so that nothing new comes in.
  await Promise.all([startWorker(context, environment), startApi(context, environment, apiUrl)]);
  const { sandboxUrl, phoneNumberId, simulatesWhatsApp, simulatesCalls, simulated, off } = sandbox;
  const running = readSettings(environment);
  const instance = {
    apiUrl,
    sandboxUrl,
    temporalAddress: temporal.environment.TEMPORAL_ADDRESS,
    temporalUiUrl: temporal.uiUrl,
    databaseUrl,
    apiKey,
    phoneNumberId,
    simulatesWhatsApp,
    simulatesCalls,
    hasCalls: callsState(running) !== 'off',
    settingFingerprints: fingerprintSettings(context.environment),
    environment: { ...temporal.environment, ...sandbox.environment },
  };
  context.publish(instance);
  const workspace = await readWorkspace(databaseUrl, phoneNumberId);
  const [models, whatsApp] = await Promise.all([checkModels(running, workspace), checkWhatsApp(running, apiUrl)]);
  const replies = checkReplies(running, workspace, [...models, ...whatsApp]);
  const calls = callsState(running) === 'real' ? await checkCalls(running) : undefined;
  saySummary({ ...instance, simulated, off, calls, findings: [...models, ...whatsApp, replies] });
}

/** Not in the published instance: no command needs this secret. */
function encryptionKey({ ENCRYPTION_KEY, DATA_DIR }: Settings): Environment {
  return ENCRYPTION_KEY.length > 0 ? {} : { ENCRYPTION_KEY: generatedEncryptionKey(DATA_DIR) };
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
main(process.argv.slice(2), process.env).catch(exitWithError);
