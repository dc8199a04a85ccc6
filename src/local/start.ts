/**
 * `npm start`: everything on one machine. Runs what the settings do not name (PostgreSQL, Temporal, a sandbox for Kapso, Vapi and the model),
 * and the two production processes as they run in production, as processes of their own.
 */
import { parseArgs } from 'node:util';
import { loadEnvFile, readSettings, requireSettings, type Settings } from '../platform/config';
import { createLanguageModels } from '../providers/models/client';
import { claimDataDir, generatedApiKey, publishInstance, recordProcesses, releaseDataDir } from './embedded/instance';
import type { RecordedProcess } from './embedded/leftovers';
import { createSupervisor, type Supervisor } from './embedded/supervisor';
import { messageOf } from './instance-file';
import { startSandbox } from './sandbox-service';
import { migrate, startApi, startDatabase, startTemporal, startWorker } from './services';
import { chooseApiPort, type Environment, type FoundInstance, type Start } from './start-context';
import { readWorkspace, summarise } from './summary';
import { complain, say, shortPath } from './terminal';

/** Ctrl-C reaches us from the terminal, from npm and from the bootstrap, all for one press of the keys. */
const ONE_PRESS_MS = 700;

const USAGE = `usage: npm start
  Starts everything on this machine. Settings stand in .env or the environment; .env.example names them.`;

async function main(args: string[], environment: Environment): Promise<void> {
  if (wantsHelp(args)) return say(USAGE);
  const settings = checkSettings(environment);
  const { DATA_DIR } = settings;
  const leftovers = await claimDataDir(DATA_DIR);
  // Conversations, calls and logs are nobody else's on this machine.
  process.umask(0o077);
  say(`Parley is starting. Its data lies in ${shortPath(DATA_DIR)}, its logs in ${shortPath(DATA_DIR)}/logs`);
  if (leftovers.length > 0) say(`an earlier start was killed; stopped what it left running: ${leftovers.join(', ')}`);
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
    if (ending === undefined) complain(error);
    await end(1);
  }
}

/** @throws Error for anything but --help: a port that was asked for and not taken would be a surprise */
function wantsHelp(args: string[]): boolean {
  try {
    return parseArgs({ args, options: { help: { type: 'boolean', short: 'h', default: false } } }).values.help;
  } catch (error) {
    throw new Error(`${messageOf(error)}\n\n${USAGE}`);
  }
}

/** Keeps the two files of DATA_DIR true while processes come and go. */
function createPublisher(dataDir: string): { setProcesses(processes: RecordedProcess[]): void; publish(found: FoundInstance): void } {
  let found: FoundInstance | undefined;
  let running: RecordedProcess[] = [];
  const write = () => {
    const pids = Object.fromEntries(running.map(({ name, pid }) => [name.toLowerCase(), pid]));
    if (found !== undefined) publishInstance(dataDir, { ...found, pid: process.pid, pids });
  };
  return {
    setProcesses(processes) {
      running = processes;
      recordProcesses(dataDir, processes);
      write();
    },
    publish(instance) {
      found = instance;
      write();
    },
  };
}

async function stopEverything(supervisor: Supervisor, dataDir: string): Promise<void> {
  await supervisor.stopAll();
  releaseDataDir(dataDir);
  say('stopped; the next start finds the data again');
}

function endOnSignals(end: (exitCode: number) => Promise<void>, killAll: () => void): void {
  let firstAtMs: number | undefined;
  const onSignal = () => {
    if (firstAtMs === undefined) {
      firstAtMs = Date.now();
      say('stopping; press Ctrl-C again to kill');
      void end(0);
    } else if (Date.now() - firstAtMs > ONE_PRESS_MS) {
      killAll();
      process.exit(1);
    }
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, onSignal);
  // The bootstrap was killed: nobody is left to stop us.
  process.once('disconnect', () => void end(0));
  // A closed terminal must not end us in the middle of the stop.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
}

/** @throws SettingsError */
function checkSettings(environment: Environment): Settings {
  const settings = readSettings(environment);
  if (settings.KAPSO_API_KEY !== undefined) {
    requireSettings(settings, {
      KAPSO_WEBHOOK_SECRET: 'with KAPSO_API_KEY set, Kapso itself sends the webhooks, and this is what they are signed with',
    });
  }
  if (settings.VAPI_API_KEY !== undefined) {
    requireSettings(settings, {
      VAPI_WEBHOOK_SECRET: 'with VAPI_API_KEY set, Vapi itself sends the webhooks, and this is what they prove themselves with',
    });
  }
  return settings;
}

async function startAll(start: Start): Promise<void> {
  const apiPort = await chooseApiPort(start);
  const databaseUrl = start.settings.DATABASE_URL ?? (await startDatabase(start));
  await migrate(databaseUrl);
  const temporal = await startTemporal(start);
  const host = start.settings.HOST ?? '127.0.0.1';
  const apiUrl = `http://${ourAddressOf(host)}:${apiPort}`;
  const outside = await startSandbox(start, apiUrl);
  const apiKey = start.settings.API_KEYS[0] ?? generatedApiKey(start.settings.DATA_DIR);
  const environment: Environment = {
    ...start.environment,
    ...temporal.environment,
    ...outside.environment,
    PORT: String(apiPort),
    HOST: host,
    DATABASE_URL: databaseUrl,
    API_KEYS: start.settings.API_KEYS.length > 0 ? start.settings.API_KEYS.join(',') : apiKey,
  };
  // The one started last is stopped first: the API, so that nothing new comes in.
  await Promise.all([startWorker(start, environment), startApi(start, environment, apiUrl)]);
  const { sandboxUrl, phoneNumberId, playsCalls } = outside;
  const found = {
    apiUrl,
    sandboxUrl,
    temporalAddress: temporal.environment.TEMPORAL_ADDRESS,
    temporalUiUrl: temporal.uiUrl,
    databaseUrl,
    apiKey,
    phoneNumberId,
    playsCalls,
  };
  start.publish(found);
  const { available } = createLanguageModels(readSettings(environment));
  const workspace = await readWorkspace(databaseUrl, phoneNumberId);
  summarise({ ...found, sandboxed: outside.sandboxed, ...workspace, available });
}

/** Where a server that listens on `host` is reached from this machine. */
function ourAddressOf(host: string): string {
  if (['0.0.0.0', '::'].includes(host)) return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: the entry of a process hands its environment to the one reader of settings
main(process.argv.slice(2), process.env).catch((error: unknown) => {
  complain(error);
  process.exitCode = 1;
});
