/** The sandbox as a service of `npm start`, for what the settings have no key for. */
import type { Settings } from '../platform/config';
import { createLanguageModels } from '../providers/models/client';
import { SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID } from '../sandbox/vapi/bodies';
import { sandboxSecrets } from './embedded/instance';
import { playedCallTimings } from './played-calls';
import { runProcess, until } from './project-process';
import { choosePort, type Environment, type Start } from './start-context';
import { step } from './terminal';

const SANDBOX_PHONE_NUMBER_ID = '100000000000001';

interface Outside {
  environment: Environment;
  sandboxUrl: string | undefined;
  phoneNumberId: string | undefined;
  playsCalls: boolean;
  /** Each part that the sandbox plays, with the setting that would end that. */
  sandboxed: string[];
}

export async function startSandbox(start: Start, apiUrl: string): Promise<Outside> {
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
