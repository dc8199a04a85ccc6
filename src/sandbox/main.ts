/** The sandbox as a process of its own, for `npm start` without keys and for the benchmark. */
import { loadEnvFile, readSettings, requireSettings } from '../config';
import { onShutdown, runProcess } from '../lifecycle';
import { createLogger } from '../logger';
import { startSandbox } from './sandbox';

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
    log: logger,
  });
  onShutdown(logger, SHUTDOWN_LIMIT_MS, () => sandbox.close());
  // For whoever started this process: the line comes at any LOG_LEVEL.
  createLogger('sandbox', 'info').info({ url: sandbox.url }, 'sandbox ready');
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: the entry of a process hands its environment to the one reader of settings
runProcess('sandbox', main, process.env);
