/** The sandbox as a service of `npm start`: simulates WhatsApp, voice calls and a model as long as neither channel is real. */
import { SANDBOX_API_KEY, SANDBOX_PHONE_NUMBER_ID, type Settings } from '../platform/config';
import { createLanguageModels } from '../providers/models/client';
import { SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID } from '../sandbox/vapi/bodies';
import { sandboxSecrets } from './embedded/instance';
import { runProcess } from './project-process';
import { simulatedCallTimings } from './simulated-calls';
import { choosePort, type Environment, type StartContext } from './start-context';
import { sayRow } from './terminal';

interface SandboxSetup {
  environment: Environment;
  sandboxUrl: string | undefined;
  phoneNumberId: string | undefined;
  simulatesWhatsApp: boolean;
  simulatesCalls: boolean;
  /** What the sandbox simulates, each with the setting that replaces it with the real service. */
  simulated: string[];
  /** Channels that are neither real nor simulated, each with the setting that switches it on. */
  off: string[];
}

/**
 * Starts the sandbox only if no channel is real. Otherwise a simulated customer could have the number of a real one: a simulated call would
 * leave a note in the real conversation, and a message on the real phone.
 */
export async function startSandbox(context: StartContext, apiUrl: string): Promise<SandboxSetup> {
  const { settings } = context;
  const isReal = settings.KAPSO_API_KEY !== undefined || settings.VAPI_API_KEY !== undefined;
  return isReal ? withoutSandbox(settings) : await withSandbox(context, apiUrl);
}

function withoutSandbox(settings: Settings): SandboxSetup {
  return {
    // A sandbox set from outside must have no part in a real conversation.
    environment: { SANDBOX_URL: '' },
    sandboxUrl: undefined,
    phoneNumberId: settings.KAPSO_PHONE_NUMBER_ID,
    simulatesWhatsApp: false,
    simulatesCalls: false,
    simulated: [],
    off: [
      ...(settings.KAPSO_API_KEY === undefined ? ['WhatsApp (set KAPSO_API_KEY)'] : []),
      ...(settings.VAPI_API_KEY === undefined ? ['voice calls (set VAPI_API_KEY)'] : []),
    ],
  };
}

async function withSandbox(context: StartContext, apiUrl: string): Promise<SandboxSetup> {
  const { settings } = context;
  const shared = { ...kapsoEnvironment(settings), ...vapiEnvironment(settings, apiUrl), ...simulatedCallTimings(context.environment) };
  const sandboxUrl = await runSandbox(context, shared, apiUrl);
  const simulatesModel = createLanguageModels({ ...settings, SANDBOX_URL: undefined }).available.length === 0;
  return {
    environment: { ...shared, KAPSO_BASE_URL: sandboxUrl, VAPI_BASE_URL: `${sandboxUrl}/vapi`, SANDBOX_URL: sandboxUrl },
    sandboxUrl,
    phoneNumberId: SANDBOX_PHONE_NUMBER_ID,
    simulatesWhatsApp: true,
    simulatesCalls: true,
    simulated: [
      'WhatsApp (set KAPSO_API_KEY to use the real one)',
      'voice calls (set VAPI_API_KEY to make real ones)',
      ...(simulatesModel ? ['the model (set a key such as OPENAI_API_KEY to use a real one)'] : []),
    ],
    off: [],
  };
}

/**
 * The settings that the API, the worker and the sandbox share when Kapso is simulated. The number and the secret are not the real ones:
 * simulated customers must not be recorded under the real number, and real webhooks must not get replies through the sandbox.
 */
function kapsoEnvironment(settings: Settings): Environment {
  const secrets = sandboxSecrets(settings.DATA_DIR);
  return {
    KAPSO_API_KEY: SANDBOX_API_KEY,
    KAPSO_PHONE_NUMBER_ID: SANDBOX_PHONE_NUMBER_ID,
    KAPSO_WEBHOOK_SECRET: secrets.webhookSecret,
    KAPSO_WEBHOOK_TOKEN: secrets.webhookToken,
    CHATBOT_ENABLED: String(settings.CHATBOT_ENABLED ?? true),
    AI_ENABLED: String(settings.AI_ENABLED ?? true),
  };
}

/** The settings that the API, the worker and the sandbox share when Vapi is simulated. PUBLIC_URL is the API's local URL. */
function vapiEnvironment({ DATA_DIR }: Settings, apiUrl: string): Environment {
  return {
    VAPI_API_KEY: SANDBOX_API_KEY,
    VAPI_ASSISTANT_ID: SANDBOX_ASSISTANT_ID,
    VAPI_PHONE_NUMBER_ID: SANDBOX_VAPI_NUMBER_ID,
    VAPI_WEBHOOK_SECRET: sandboxSecrets(DATA_DIR).vapiWebhookSecret,
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
    isReady: (hasLogged) => hasLogged('sandbox ready'),
  });
  const url = `http://127.0.0.1:${port}`;
  sayRow('Sandbox', url);
  return url;
}
