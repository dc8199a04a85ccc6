/** The sandbox as a process of its own, for `npm start` without keys and for the benchmark. */
import { loadEnvFile, readSettings, requireSettings, type Settings } from '../platform/config';
import { onShutdown, runProcess } from '../platform/lifecycle';
import { createLogger } from '../platform/logger';
import { startSandbox } from './sandbox';
import type { VapiDoubleOptions } from './vapi/double';
import type { VapiWebhookAuth } from './vapi/webhooks';

const SANDBOX_PHONE_NUMBER_ID = '100000000000001';
const SHUTDOWN_LIMIT_MS = 5_000;

async function main(environment: NodeJS.ProcessEnv): Promise<void> {
  const settings = requireSettings(readSettings(environment), {
    WEBHOOK_TARGET_URL: 'the sandbox delivers its webhooks there',
    KAPSO_WEBHOOK_SECRET: 'the sandbox signs its webhooks with the first one',
  });
  const logger = createLogger('sandbox', settings.LOG_LEVEL);
  const sandbox = await startSandbox({
    port: settings.SANDBOX_PORT,
    webhookUrls: [settings.WEBHOOK_TARGET_URL],
    webhookSecret: settings.KAPSO_WEBHOOK_SECRET[0] ?? '',
    phoneNumberId: settings.KAPSO_PHONE_NUMBER_ID ?? SANDBOX_PHONE_NUMBER_ID,
    vapi: vapiOptions(settings),
    log: logger,
  });
  onShutdown(logger, SHUTDOWN_LIMIT_MS, () => sandbox.close());
  // For whoever started this process: the line comes at any LOG_LEVEL.
  createLogger('sandbox', 'info').info({ url: sandbox.url }, 'sandbox ready');
}

/** Events of calls that name no server of their own go where Parley says that it is reached. */
function vapiOptions(settings: Settings): Partial<VapiDoubleOptions> {
  const { PUBLIC_URL } = settings;
  return { auth: vapiAuth(settings), ...(PUBLIC_URL !== undefined && { serverUrl: `${PUBLIC_URL}/api/v1/vapi/webhooks/vapi` }) };
}

/** The double proves itself with the first secret, in the way that the API demands. */
function vapiAuth(settings: Settings): VapiWebhookAuth {
  const secret = settings.VAPI_WEBHOOK_SECRET[0] ?? '';
  if (settings.VAPI_WEBHOOK_AUTH !== 'hmac') return { scheme: settings.VAPI_WEBHOOK_AUTH, secret };
  return {
    scheme: 'hmac',
    secret,
    header: settings.VAPI_HMAC_HEADER,
    timestampHeader: settings.VAPI_HMAC_TIMESTAMP_HEADER,
    prefix: settings.VAPI_HMAC_PREFIX,
    encoding: settings.VAPI_HMAC_ENCODING,
    algorithm: settings.VAPI_HMAC_ALGORITHM,
    secretEncoding: settings.VAPI_HMAC_SECRET_ENCODING,
  };
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: the entry of a process hands its environment to the one reader of settings
runProcess('sandbox', main, process.env);
