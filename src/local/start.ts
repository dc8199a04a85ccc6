/**
 * `npm start`: everything on one machine. Runs what the settings do not name (PostgreSQL, Temporal, a sandbox for Kapso, Vapi and the model),
 * and the two production processes as they run in production, as processes of their own.
 */
import { relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { loadEnvFile, readSettings, requireSettings, type Settings } from '../platform/config';
import { openDatabase } from '../platform/database';
import { EXIT_SETTINGS } from '../platform/lifecycle';
import { applyMigrations } from '../platform/migrations';
import { createLanguageModels } from '../providers/models/client';
import { workspaceState } from '../record/workspaces';
import { SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID } from '../sandbox/vapi/bodies';
import {
  claimDataDir,
  generatedApiKey,
  logFile,
  publishInstance,
  type RunningInstance,
  recordProcesses,
  releaseDataDir,
  sandboxSecrets,
} from './embedded/instance';
import type { RecordedProcess } from './embedded/leftovers';
import { freePort, isFree } from './embedded/ports';
import { startPostgres } from './embedded/postgres';
import { spawnServer } from './embedded/process';
import { createSupervisor, type Running, type Supervisor } from './embedded/supervisor';
import { findTemporalCli } from './embedded/temporal-cli';
import { startTemporalServer } from './embedded/temporal-server';
import { messageOf } from './instance-file';
import { playedCallTimings } from './played-calls';

const SANDBOX_PHONE_NUMBER_ID = '100000000000001';
const READY_WITHIN_MS = 60_000;
/** Longer than the processes themselves allow their last requests and activities. */
const STOP_WITHIN_MS = 20_000;
const ASK_EVERY_MS = 100;
/** Ctrl-C reaches us from the terminal, from npm and from the bootstrap, all for one press of the keys. */
const ONE_PRESS_MS = 700;
const SHORT_LINE = 200;

type Environment = Record<string, string | undefined>;

interface Start {
  settings: Settings;
  environment: Environment;
  supervisor: Supervisor;
  /** Promised to a service; free or not. */
  ports: number[];
  /** Tells other commands where everything is. */
  publish(found: FoundInstance): void;
}

type FoundInstance = Omit<RunningInstance, 'pid' | 'pids'>;

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

// --- Parts that the settings may name instead ---

async function startDatabase({ settings, supervisor, ports }: Start): Promise<string> {
  const { DATA_DIR } = settings;
  const port = await choosePort(settings.POSTGRES_PORT, ports);
  const options = { dataDir: `${DATA_DIR}/postgres`, port, logFile: logFile(DATA_DIR, 'postgres'), onNotice: say };
  const postgres = await supervisor.run({
    name: 'PostgreSQL',
    marks: ['postgres', '-D', String(port)],
    start: (onSpawn) => startPostgres({ ...options, onSpawn }),
  });
  step('PostgreSQL', `127.0.0.1:${port}`);
  return postgres.url;
}

async function migrate(databaseUrl: string): Promise<void> {
  const applied = await applyMigrations(databaseUrl).catch((error: Error) => {
    throw new Error(`the database could not be migrated: ${error.message || error.name}`, { cause: error });
  });
  step('Migrations', applied.length === 0 ? 'up to date' : `applied ${applied.join(', ')}`);
}

async function startTemporal(start: Start): Promise<{ environment: Environment; uiUrl: string | undefined }> {
  const { settings, environment, supervisor, ports } = start;
  if (settings.TEMPORAL_ADDRESS !== undefined) return { environment: {}, uiUrl: undefined };
  const cliPath = await findTemporalCli({ setting: settings.TEMPORAL_CLI_PATH, environment, onProgress: say });
  const port = await choosePort(settings.TEMPORAL_PORT, ports);
  const uiPort = await choosePort(settings.TEMPORAL_UI_PORT, ports);
  const dataFile = `${settings.DATA_DIR}/temporal.sqlite`;
  const namespaces = settings.TEMPORAL_NAMESPACE === undefined ? [] : [settings.TEMPORAL_NAMESPACE];
  const options = { cliPath, dataFile, port, uiPort, namespaces, logFile: logFile(settings.DATA_DIR, 'temporal') };
  const temporal = await supervisor.run({
    name: 'Temporal',
    marks: ['server start-dev', dataFile],
    start: (onSpawn) => startTemporalServer({ ...options, onSpawn }),
  });
  step('Temporal', `${temporal.address}, UI ${temporal.uiUrl}`);
  // What leads to another server must not reach this one. Empty counts as not set, also where .env has a value.
  const remote = Object.keys(environment).filter((name) => /^TEMPORAL_(API_KEY|TLS|GRPC_META)/.test(name));
  const cleared = Object.fromEntries(remote.map((name) => [name, '']));
  return { environment: { ...cleared, TEMPORAL_ADDRESS: temporal.address }, uiUrl: temporal.uiUrl };
}

interface Outside {
  environment: Environment;
  sandboxUrl: string | undefined;
  phoneNumberId: string | undefined;
  playsCalls: boolean;
  /** Each part that the sandbox plays, with the setting that would end that. */
  sandboxed: string[];
}

async function startSandbox(start: Start, apiUrl: string): Promise<Outside> {
  const { settings } = start;
  const playsKapso = settings.KAPSO_API_KEY === undefined;
  const playsModel = settings.SANDBOX_URL === undefined && createLanguageModels(settings).available.length === 0;
  const playsCalls = settings.VAPI_API_KEY === undefined;
  if (!playsKapso && !playsModel && !playsCalls) {
    const { SANDBOX_URL: sandboxUrl, KAPSO_PHONE_NUMBER_ID: phoneNumberId } = settings;
    return { environment: {}, sandboxUrl, phoneNumberId, playsCalls, sandboxed: [] };
  }
  const kapso = playsKapso ? kapsoEnvironment(settings) : {};
  const phoneNumberId = kapso.KAPSO_PHONE_NUMBER_ID ?? settings.KAPSO_PHONE_NUMBER_ID ?? SANDBOX_PHONE_NUMBER_ID;
  const vapi = playsCalls ? { ...vapiEnvironment(settings, apiUrl), ...playedCallTimings(start.environment) } : {};
  const sandboxUrl = settings.SANDBOX_URL ?? (await runSandbox(start, { ...kapso, ...vapi, KAPSO_PHONE_NUMBER_ID: phoneNumberId }, apiUrl));
  const sandboxed = [
    ...(playsKapso ? ['WhatsApp (set KAPSO_API_KEY for the real one)'] : []),
    ...(playsCalls ? ['voice calls (set VAPI_API_KEY for real ones)'] : []),
    ...(playsModel ? ['the model (set a key such as OPENAI_API_KEY for a real one)'] : []),
  ];
  const environment = {
    ...kapso,
    ...vapi,
    ...(playsKapso && { KAPSO_BASE_URL: sandboxUrl }),
    ...(playsCalls && { VAPI_BASE_URL: `${sandboxUrl}/vapi` }),
    ...(playsModel && { SANDBOX_URL: sandboxUrl }),
  };
  return { environment, sandboxUrl, phoneNumberId, playsCalls, sandboxed };
}

/** What the API, the worker and the sandbox share when the sandbox plays Kapso. */
function kapsoEnvironment(settings: Settings): Environment {
  const kept = sandboxSecrets(settings.DATA_DIR);
  return {
    KAPSO_API_KEY: 'sandbox',
    KAPSO_PHONE_NUMBER_ID: settings.KAPSO_PHONE_NUMBER_ID ?? SANDBOX_PHONE_NUMBER_ID,
    KAPSO_WEBHOOK_SECRET: settings.KAPSO_WEBHOOK_SECRET.length > 0 ? settings.KAPSO_WEBHOOK_SECRET.join(',') : kept.webhookSecret,
    KAPSO_WEBHOOK_TOKEN: settings.KAPSO_WEBHOOK_TOKEN ?? kept.webhookToken,
    CHATBOT_ENABLED: String(settings.CHATBOT_ENABLED ?? true),
    AI_ENABLED: String(settings.AI_ENABLED ?? true),
  };
}

/** What the API, the worker and the sandbox share when the sandbox plays Vapi; it reaches the API on this machine. */
function vapiEnvironment(settings: Settings, apiUrl: string): Environment {
  const { VAPI_WEBHOOK_SECRET: own, DATA_DIR } = settings;
  return {
    VAPI_API_KEY: 'sandbox',
    VAPI_ASSISTANT_ID: SANDBOX_ASSISTANT_ID,
    VAPI_PHONE_NUMBER_ID: SANDBOX_VAPI_NUMBER_ID,
    VAPI_WEBHOOK_SECRET: own.length > 0 ? own.join(',') : sandboxSecrets(DATA_DIR).vapiWebhookSecret,
    PUBLIC_URL: apiUrl,
  };
}

async function runSandbox(start: Start, played: Environment, apiUrl: string): Promise<string> {
  const port = await choosePort(start.settings.SANDBOX_PORT, start.ports);
  const environment = {
    ...start.environment,
    ...played,
    SANDBOX_PORT: String(port),
    WEBHOOK_TARGET_URL: `${apiUrl}/webhook/kapso`,
  };
  await runProcess(start, {
    name: 'Sandbox',
    entry: 'src/sandbox/main.ts',
    environment,
    untilReady: (child, signal) => until(() => child.said('sandbox ready'), signal),
  });
  const url = `http://127.0.0.1:${port}`;
  step('Sandbox', url);
  return url;
}

// --- The two production processes ---

async function startApi(start: Start, environment: Environment, apiUrl: string): Promise<void> {
  const untilReady = (_child: ProjectProcess, signal: AbortSignal) => until(() => answersOk(`${apiUrl}/readyz`), signal);
  await runProcess(start, { name: 'API', entry: 'src/processes/server.ts', environment, untilReady });
  step('API', apiUrl);
}

async function startWorker(start: Start, environment: Environment): Promise<void> {
  // Its ready line is an "info": with a stricter level there is nothing to wait for.
  const silent = ['warn', 'error', 'silent'].includes(start.settings.LOG_LEVEL);
  const untilReady = (child: ProjectProcess, signal: AbortSignal) => until(() => silent || child.said('worker ready'), signal);
  await runProcess(start, { name: 'Worker', entry: 'src/processes/worker.ts', environment, untilReady });
  step('Worker', silent ? 'started' : 'ready');
}

interface ProjectProcess extends Running {
  /** Whether it has logged a line with `message`. */
  said(message: string): boolean;
}

interface ProjectProcessOptions {
  name: string;
  entry: string;
  environment: Environment;
  untilReady(child: ProjectProcess, signal: AbortSignal): Promise<void>;
}

async function runProcess(start: Start, options: ProjectProcessOptions): Promise<void> {
  const { name, entry } = options;
  const file = logFile(start.settings.DATA_DIR, name.toLowerCase());
  await start.supervisor.run({
    name,
    marks: [entry],
    isHopeless: (how) => how.includes(`exit code ${EXIT_SETTINGS}`),
    start: (onSpawn) => spawnProcess(options, file, onSpawn),
  });
}

async function spawnProcess(options: ProjectProcessOptions, file: string, onSpawn: (pid: number) => void): Promise<ProjectProcess> {
  const { name, entry, environment } = options;
  const said = new Set<string>();
  const server = await spawnServer({
    command: process.execPath,
    args: ['--import', 'tsx', entry],
    environment,
    channel: true,
    logFile: file,
    onSpawn,
    onLog: (line) => {
      const { message, isTrouble, text } = readLogLine(line);
      said.add(message);
      if (isTrouble) say(`${name}: ${text.slice(0, SHORT_LINE)}`);
    },
  });
  const child: ProjectProcess = {
    pid: server.pid,
    ended: server.ended,
    stop: () => server.stop('SIGTERM', STOP_WITHIN_MS),
    said: (message) => said.has(message),
  };
  try {
    await ready(options, child);
    return child;
  } catch (error) {
    await child.stop();
    throw new Error(
      `${error instanceof Error ? error.message : error}; its last lines (all in ${shortPath(file)}):\n${server.lastLines()}`,
    );
  }
}

/** @throws Error when it ends first, or is not ready in time */
async function ready({ name, untilReady }: ProjectProcessOptions, child: ProjectProcess): Promise<void> {
  const decided = new AbortController();
  const early = child.ended.then((how) => {
    throw new Error(`${name} ended before it was ready (${how})`);
  });
  const late = sleep(READY_WITHIN_MS, undefined, { signal: decided.signal }).then(() => {
    throw new Error(`${name} was not ready within ${READY_WITHIN_MS / 1_000} s`);
  });
  // The one that comes after the decision has nobody left to tell.
  for (const outcome of [early, late]) outcome.catch(() => undefined);
  try {
    await Promise.race([untilReady(child, decided.signal), early, late]);
  } finally {
    decided.abort();
  }
}

async function until(condition: () => boolean | Promise<boolean>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && !(await condition())) await sleep(ASK_EVERY_MS);
}

async function answersOk(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false;
  }
}

interface LogLine {
  message: string;
  /** A warning, an error, or what a crash prints. */
  isTrouble: boolean;
  text: string;
}

function readLogLine(line: string): LogLine {
  const parsed = parseJson(line);
  if (parsed === undefined) return { message: '', isTrouble: /error/i.test(line), text: line };
  const { level, msg, error, err, problems } = parsed as Record<string, unknown> & {
    error?: { message?: string };
    err?: { message?: string };
  };
  const message = typeof msg === 'string' ? msg : '';
  const details = [error?.message ?? err?.message, problems].filter(Boolean).map(String);
  return { message, isTrouble: ['warn', 'error', 'fatal'].includes(String(level)), text: [`${level}: ${message}`, ...details].join(': ') };
}

function parseJson(line: string): object | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as object;
  } catch {
    return undefined;
  }
}

// --- Ports ---

/** The port that webhooks are sent to is configured elsewhere: one that was asked for is taken or refused, never replaced. */
async function chooseApiPort({ settings, environment, ports }: Start): Promise<number> {
  if (environment.PORT?.trim() && !(await isFree(settings.PORT))) {
    throw new Error(`PORT: another program listens on ${settings.PORT} already. Stop it, or set PORT to a free one.`);
  }
  return choosePort(settings.PORT, ports);
}

async function choosePort(preferred: number, taken: number[]): Promise<number> {
  const port = await freePort(preferred, taken);
  if (port !== preferred) say(`port ${preferred} is taken: ${port} instead`);
  taken.push(port);
  return port;
}

// --- The terminal ---

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

async function readWorkspace(
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

function summarise(summary: Summary): void {
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

function step(name: string, value: string): void {
  say(`  ${name.padEnd(12)} ${value}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function complain(error: unknown): void {
  process.stderr.write(`${messageOf(error)}\n`);
}

function shortPath(path: string): string {
  const short = relative(process.cwd(), path);
  return short.startsWith('..') ? path : short;
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: the entry of a process hands its environment to the one reader of settings
main(process.argv.slice(2), process.env).catch((error: unknown) => {
  complain(error);
  process.exitCode = 1;
});
