/**
 * Runs the doubles of Kapso and the models in a separate process, so that their CPU time is measured separately. The model replies
 * instantly with the marks of the messages; accepted replies are reported with their time.
 */
import { once } from 'node:events';
import { createLogger } from '../../src/platform/logger';
import type { ModelRequest } from '../../src/sandbox/models/double';
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox';
import { type FromSandbox, MARK, nowMs, type ToSandbox } from './protocol';

/** The three status webhooks per reply are part of the real load; short delays keep a measurement from waiting for them. */
const STATUS_DELAYS_MS = { sent: 20, delivered: 40, read: 60 };

function sendToParent(message: FromSandbox): void {
  process.send?.(message);
}

/** Replies with the marks of the messages since the last reply, which are those that the turn answers. */
function markReply({ messages }: ModelRequest): string {
  const lastAnswer = messages.findLastIndex(({ role }) => role === 'assistant');
  return messages
    .slice(lastAnswer + 1)
    .filter(({ role }) => role === 'user')
    .map(({ content }) => content)
    .join(' ');
}

function watch({ kapso }: Sandbox, customer: string): void {
  kapso.subscribe(customer, (event) => {
    if (event.type !== 'reply') return;
    sendToParent({ type: 'reply', marks: event.text.match(MARK) ?? [], atMs: nowMs() });
  });
}

async function settle({ kapso }: Sandbox): Promise<void> {
  await kapso.settled();
  const { accepted, refused, unanswered, webhooks } = kapso.counts();
  sendToParent({ type: 'settled', accepted, refused, unanswered, lostWebhooks: webhooks.lost });
}

async function main(environment: Record<string, string | undefined>): Promise<void> {
  const { BENCH_WEBHOOK_URL = '', BENCH_WEBHOOK_SECRET = '', BENCH_PHONE_NUMBER_ID = '' } = environment;
  const sandbox = await startSandbox({
    port: 0,
    webhookUrls: [BENCH_WEBHOOK_URL],
    webhookSecret: BENCH_WEBHOOK_SECRET,
    phoneNumberId: BENCH_PHONE_NUMBER_ID,
    statusDelaysMs: STATUS_DELAYS_MS,
    log: createLogger('sandbox', 'warn'),
  });
  sandbox.models.program({ reply: markReply });
  process.on('message', (message: ToSandbox) => {
    if (message.type === 'watch') {
      for (const customer of message.customers) watch(sandbox, customer);
      sendToParent({ type: 'watched' });
    } else {
      settle(sandbox).catch(fail);
    }
  });
  sendToParent({ type: 'ready', url: sandbox.url });
  await Promise.race([once(process, 'SIGTERM'), once(process, 'disconnect')]);
  await sandbox.close();
  process.exit(0);
}

function fail(error: unknown): void {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
}

// biome-ignore lint/style/noProcessEnv: an entry point of the benchmark; the variables are not Parley's settings
main(process.env).catch(fail);
