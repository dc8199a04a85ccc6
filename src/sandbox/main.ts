/** The sandbox as a process, for `npm start` without keys. */
import { join } from 'node:path';
import {
  loadEnvFile,
  readSettings,
  requireSettings,
  SANDBOX_API_KEY,
  SANDBOX_PHONE_NUMBER_ID,
  type Settings,
  SettingsError,
} from '../platform/config';
import { onShutdown, runProcess } from '../platform/lifecycle';
import { createLogger } from '../platform/logger';
import { startSandbox } from './sandbox';
import type { VapiDoubleOptions } from './vapi/double';
import type { VapiWebhookAuth } from './vapi/webhooks';

const SHUTDOWN_LIMIT_MS = 5_000;

async function main(environment: NodeJS.ProcessEnv): Promise<void> {
  const settings = requireSettings(readSettings(environment), {
    WEBHOOK_TARGET_URL: 'the sandbox delivers its webhooks to it',
    KAPSO_WEBHOOK_SECRET: 'the sandbox signs its webhooks with the first secret',
  });
  refuseRealKeys(settings);
  const logger = createLogger('sandbox', settings.LOG_LEVEL);
  const sandbox = await startSandbox({
    port: settings.SANDBOX_PORT,
    webhookUrls: [settings.WEBHOOK_TARGET_URL],
    webhookSecret: settings.KAPSO_WEBHOOK_SECRET[0] ?? '',
    phoneNumberId: settings.KAPSO_PHONE_NUMBER_ID ?? SANDBOX_PHONE_NUMBER_ID,
    vapi: vapiOptions(settings),
    memoryDir: join(settings.DATA_DIR, 'sandbox'),
    log: logger,
  });
  onShutdown(logger, SHUTDOWN_LIMIT_MS, () => sandbox.close());
  // The parent process waits for this line, so log it at any LOG_LEVEL.
  createLogger('sandbox', 'info').info({ url: sandbox.url }, 'sandbox ready');
}

/**
 * Refuses to start with a real key: the sandbox would sign its customers' messages with the real secret, and Parley would answer them on
 * real phones.
 * @throws SettingsError
 */
function refuseRealKeys(settings: Settings): void {
  const real = (['KAPSO_API_KEY', 'VAPI_API_KEY'] as const).filter((name) => ![undefined, SANDBOX_API_KEY].includes(settings[name]));
  if (real.length > 0) throw new SettingsError(real.map((name) => `${name}: is set, so nothing is simulated`));
}

/** Events of calls that have no server of their own go to Parley's PUBLIC_URL. */
function vapiOptions(settings: Settings): Partial<VapiDoubleOptions> {
  const { PUBLIC_URL } = settings;
  return { auth: vapiAuth(settings), ...(PUBLIC_URL !== undefined && { serverUrl: `${PUBLIC_URL}/api/v1/vapi/webhooks/vapi` }) };
}

/** Authenticates the double's webhooks with the first secret, in the scheme that the API expects. */
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

// biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
runProcess('sandbox', main, process.env);
