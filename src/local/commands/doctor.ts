/**
 * `npm run doctor` checks a set-up, from the settings to the delivery of WhatsApp's webhooks, and prints one line per check, with what to
 * do. Checks a running `npm start`, or the services that the settings name. Changes nothing. Exits with 1 if something does not work.
 */
import { readArguments, runCommand } from '../../platform/command-line';
import { loadEnvFile, requireWhatsAppSettings, type Settings, SettingsError, straySettings } from '../../platform/config';
import { createLanguageModels } from '../../providers/models/client';
import { checkModels, checkReplies, readWorkspace } from '../checks/answers';
import { about, type Finding, type Level } from '../checks/finding';
import { checkApi, checkCalls, checkDatabase, checkTemporal } from '../checks/services';
import { checkWhatsApp } from '../checks/whatsapp';
import { type Environment, readSetUp, type SetUp } from '../set-up';
import { say } from '../terminal';

const HELP = `usage: npm run doctor

Checks the settings, the database, Temporal, the API, the worker, Kapso's key, number and webhook (with one signed test webhook), the
models, and voice calls. Prints one line per check, with what to do. Changes nothing and sends nobody a message.

  -h, --help  show this help

exit status: 0 if nothing is wrong; 1 if something does not work; 2 for wrong arguments`;

const MARKS: Record<Level, string> = { ok: 'ok', note: '-', warning: 'warning', problem: 'PROBLEM' };

const STATES: Record<SetUp['state'], string> = {
  running: 'npm start is running',
  starting: 'npm start is still starting: run the doctor again when it is ready',
  stopped: 'npm start is not running here: checking the services that the settings name',
};

async function main(args: string[]): Promise<number> {
  if (readArguments(args, { help: HELP, options: {} }) === undefined) return 0;
  loadEnvFile();
  let problems = 0;
  // biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
  for await (const finding of examine(process.env)) {
    sayFinding(finding);
    if (finding.level === 'problem') problems += 1;
  }
  say(problems === 0 ? '\nNothing is wrong.' : `\n${problems} ${problems === 1 ? 'thing is' : 'things are'} wrong.`);
  return problems === 0 ? 0 : 1;
}

function sayFinding({ subject, level, text }: Finding): void {
  say(`${MARKS[level].padEnd(8)} ${subject.padEnd(12)} ${text}`);
}

/** Yields each finding as soon as it is known. */
async function* examine(environment: Environment): AsyncGenerator<Finding> {
  const settings = about('Settings');
  for (const sentence of straySettings()) yield settings.warning(sentence);
  let found: SetUp;
  try {
    found = readSetUp(environment);
    requireWhatsAppSettings(found.settings);
    yield settings.ok(`valid; ${STATES[found.state]}`);
    if (found.differing.length > 0)
      yield settings.problem(
        `npm start is running with other values of ${found.differing.join(', ')}: run the doctor with the same .env, or restart npm start`,
      );
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    for (const problem of error.problems) yield settings.problem(problem);
    return;
  }
  yield* examineServices(found);
}

async function* examineServices({ settings, environment, apiUrl, state }: SetUp): AsyncGenerator<Finding> {
  const { DATABASE_URL: databaseUrl, KAPSO_PHONE_NUMBER_ID: phoneNumberId } = settings;
  if (databaseUrl === undefined) {
    const start = state === 'starting' ? 'still starting: wait until it is ready' : 'not running: start it';
    yield about('Database').problem(`DATABASE_URL is not set, and npm start, which has a database of its own, is ${start}`);
    yield* await checkWhatsApp(settings, apiUrl);
    if (isAllSimulated(settings)) yield about('Models').note('none has an API key: npm start simulates one');
    else yield* await checkModels(settings, undefined);
    return;
  }
  const database = await checkDatabase(databaseUrl);
  const temporal = await checkTemporal(environment, settings.TEMPORAL_TASK_QUEUE);
  const services = [database, ...temporal, await checkApi(apiUrl)];
  yield* services;
  const whatsApp = await checkWhatsApp(settings, apiUrl);
  yield* whatsApp;
  const workspace = database.level === 'ok' ? await readWorkspace(databaseUrl, phoneNumberId) : undefined;
  const models = settings.KAPSO_API_KEY === undefined ? [] : await checkModels(settings, workspace);
  yield* models;
  yield await checkCalls(settings);
  yield checkReplies(settings, workspace, [...services, ...whatsApp, ...models]);
}

/** Whether `npm start` would simulate the model as well. */
function isAllSimulated(settings: Settings): boolean {
  const isReal = settings.KAPSO_API_KEY !== undefined || settings.VAPI_API_KEY !== undefined;
  return !isReal && createLanguageModels({ ...settings, SANDBOX_URL: undefined }).available.length === 0;
}

runCommand(main);
