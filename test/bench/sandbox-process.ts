/**
 * The doubles of Kapso and of the models in a process of their own, so that their CPU is nobody else's. The model answers at once with
 * the marks of the messages that it was asked about; accepted replies are reported with their time.
 */
import { once } from 'node:events';
import { createLogger } from '../../src/platform/logger';
import type { ModelRequest } from '../../src/sandbox/models/double';
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox';
import { type FromSandbox, MARK, nowMs, type ToSandbox } from './protocol';

/** Statuses are part of the real load: three webhooks per reply, soon, so that a measurement need not wait for them. */
const STATUS_DELAYS_MS = { sent: 20, delivered: 40, read: 60 };

function tell(message: FromSandbox): void {
  process.send?.(message);
}

/** Names what was written since the last answer: that is what the turn answers. */
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
    tell({ type: 'reply', marks: event.text.match(MARK) ?? [], atMs: nowMs() });
  });
}

async function settle({ kapso }: Sandbox): Promise<void> {
  await kapso.settled();
  const { accepted, refused, unanswered, webhooks } = kapso.counts();
  tell({ type: 'settled', accepted, refused, unanswered, lostWebhooks: webhooks.lost });
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
      tell({ type: 'watched' });
    } else {
      settle(sandbox).catch(fail);
    }
  });
  tell({ type: 'ready', url: sandbox.url });
  await Promise.race([once(process, 'SIGTERM'), once(process, 'disconnect')]);
  await sandbox.close();
  process.exit(0);
}

function fail(error: unknown): void {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
}

// biome-ignore lint/style/noProcessEnv: the entry of a process of the benchmark; its values are no settings of the product
main(process.env).catch(fail);
