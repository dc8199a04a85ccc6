/** A sandbox for one suite. */
import { createLogger } from '../../src/platform/logger';
import { type Sandbox, type SandboxOptions, startSandbox } from '../../src/sandbox/sandbox';

/** Starts a sandbox on a free port that sends no webhooks and logs nothing, unless `options` say otherwise. */
export function startTestSandbox(options: Partial<SandboxOptions> = {}): Promise<Sandbox> {
  const log = createLogger('sandbox', 'silent');
  return startSandbox({ port: 0, webhookUrls: [], webhookSecret: 's', phoneNumberId: '1', log, ...options });
}
