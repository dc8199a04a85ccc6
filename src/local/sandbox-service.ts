/** The sandbox as a service of `npm start`: simulates the providers that the settings have no key for. */
import type { Settings } from '../platform/config';
import { createLanguageModels } from '../providers/models/client';
import { SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID } from '../sandbox/vapi/bodies';
import { sandboxSecrets } from './embedded/instance';
import { runProcess, waitUntil } from './project-process';
import { simulatedCallTimings } from './simulated-calls';
import { choosePort, type Environment, type StartContext } from './start-context';
import { sayRow } from './terminal';

const SANDBOX_PHONE_NUMBER_ID = '100000000000001';

interface SandboxSetup {
  environment: Environment;
  sandboxUrl: string | undefined;
  phoneNumberId: string | undefined;
  simulatesCalls: boolean;
  /** What the sandbox simulates, each with the setting that replaces it with the real service. */
  simulated: string[];
}

/** Starts the sandbox if a provider has no key. Returns the environment that directs the API and the worker to it. */
export async function startSandbox(context: StartContext, apiUrl: string): Promise<SandboxSetup> {
  const { settings } = context;
  const simulatesKapso = settings.KAPSO_API_KEY === undefined;
  const simulatesModel = settings.SANDBOX_URL === undefined && createLanguageModels(settings).available.length === 0;
  const simulatesCalls = settings.VAPI_API_KEY === undefined;
  if (!simulatesKapso && !simulatesModel && !simulatesCalls) {
    const { SANDBOX_URL: sandboxUrl, KAPSO_PHONE_NUMBER_ID: phoneNumberId } = settings;
    return { environment: {}, sandboxUrl, phoneNumberId, simulatesCalls, simulated: [] };
  }
  const kapso = simulatesKapso ? kapsoEnvironment(settings) : {};
  const phoneNumberId = kapso.KAPSO_PHONE_NUMBER_ID ?? settings.KAPSO_PHONE_NUMBER_ID ?? SANDBOX_PHONE_NUMBER_ID;
  const vapi = simulatesCalls ? { ...vapiEnvironment(settings, apiUrl), ...simulatedCallTimings(context.environment) } : {};
  const sandboxUrl =
    settings.SANDBOX_URL ?? (await runSandbox(context, { ...kapso, ...vapi, KAPSO_PHONE_NUMBER_ID: phoneNumberId }, apiUrl));
  const simulated = [
    ...(simulatesKapso ? ['WhatsApp (set KAPSO_API_KEY to use the real one)'] : []),
    ...(simulatesCalls ? ['voice calls (set VAPI_API_KEY to make real ones)'] : []),
    ...(simulatesModel ? ['the model (set a key such as OPENAI_API_KEY to use a real one)'] : []),
  ];
  const environment = {
    ...kapso,
    ...vapi,
    ...(simulatesKapso && { KAPSO_BASE_URL: sandboxUrl }),
    ...(simulatesCalls && { VAPI_BASE_URL: `${sandboxUrl}/vapi` }),
    ...(simulatesModel && { SANDBOX_URL: sandboxUrl }),
  };
  return { environment, sandboxUrl, phoneNumberId, simulatesCalls, simulated };
}

/** The settings that the API, the worker and the sandbox share when Kapso is simulated. */
function kapsoEnvironment(settings: Settings): Environment {
  const secrets = sandboxSecrets(settings.DATA_DIR);
  return {
    KAPSO_API_KEY: 'sandbox',
    KAPSO_PHONE_NUMBER_ID: settings.KAPSO_PHONE_NUMBER_ID ?? SANDBOX_PHONE_NUMBER_ID,
    KAPSO_WEBHOOK_SECRET: settings.KAPSO_WEBHOOK_SECRET.length > 0 ? settings.KAPSO_WEBHOOK_SECRET.join(',') : secrets.webhookSecret,
    KAPSO_WEBHOOK_TOKEN: settings.KAPSO_WEBHOOK_TOKEN ?? secrets.webhookToken,
    CHATBOT_ENABLED: String(settings.CHATBOT_ENABLED ?? true),
    AI_ENABLED: String(settings.AI_ENABLED ?? true),
  };
}

/** The settings that the API, the worker and the sandbox share when Vapi is simulated. PUBLIC_URL is the API's local URL. */
function vapiEnvironment(settings: Settings, apiUrl: string): Environment {
  const { VAPI_WEBHOOK_SECRET: configured, DATA_DIR } = settings;
  return {
    VAPI_API_KEY: 'sandbox',
    VAPI_ASSISTANT_ID: SANDBOX_ASSISTANT_ID,
    VAPI_PHONE_NUMBER_ID: SANDBOX_VAPI_NUMBER_ID,
    VAPI_WEBHOOK_SECRET: configured.length > 0 ? configured.join(',') : sandboxSecrets(DATA_DIR).vapiWebhookSecret,
    PUBLIC_URL: apiUrl,
  };
}

async function runSandbox(context: StartContext, providerSettings: Environment, apiUrl: string): Promise<string> {
  const port = await choosePort(context.settings.SANDBOX_PORT, context.ports);
  const environment = {
    ...context.environment,
    ...providerSettings,
    SANDBOX_PORT: String(port),
    WEBHOOK_TARGET_URL: `${apiUrl}/webhook/kapso`,
  };
  await runProcess(context, {
    name: 'Sandbox',
    entry: 'src/sandbox/main.ts',
    environment,
    waitUntilReady: (child, signal) => waitUntil(() => child.hasLogged('sandbox ready'), signal),
  });
  const url = `http://127.0.0.1:${port}`;
  sayRow('Sandbox', url);
  return url;
}
