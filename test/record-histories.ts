/**
 * Records the histories that CI replays (`npm run record-histories`): one file per road through a workflow, made by
 * real runs. Recorded anew when a workflow changes on purpose; old files stay as long as such runs may be alive.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { historyToJSON } from '@temporalio/common/lib/proto-utils';
import { failedAfterSent } from '../src/sandbox/kapso-requests';
import { testDatabase, testTemporal } from './support/engine';
import { eventually, inboundOf, newPhone, outcomesOf, workflowIdOf } from './support/expectations';
import { startEngine, stopEngine } from './support/servers';
import { type System, startSystem } from './support/system';

const FOLDER = join(__dirname, '..', 'workflows', 'histories');

/** Each drives one conversation along its road and returns the customer's number. */
const roads: Record<string, (system: System) => Promise<string>> = {
  async 'answered-and-ended'(system) {
    const phone = newPhone();
    for (const [index, text] of ['hello', 'one more thing', 'thanks'].entries()) {
      await system.sandbox.kapso.customerSends({ from: phone, text });
      await outcomesOf(system, phone, index + 1);
    }
    await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).result();
    return phone;
  },
  async 'burst-merged'(system) {
    const phone = newPhone();
    for (const text of ['a', 'b', 'c']) await system.sandbox.kapso.customerSends({ from: phone, text });
    await outcomesOf(system, phone, 3);
    return phone;
  },
  async 'provider-fallback'(system) {
    const phone = newPhone();
    system.sandbox.models.program({ model: 'flaky', times: 3, error: { status: 500 } });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    return phone;
  },
  async 'all-providers-fail'(system) {
    const phone = newPhone();
    const removals = ['flaky', 'sandbox-model'].map((model) => system.sandbox.models.program({ model, error: { status: 401 } }));
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    for (const remove of removals) remove();
    return phone;
  },
  async 'send-unconfirmed-then-settled'(system) {
    const phone = newPhone();
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, answer: 'cut', accepted: true });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    return phone;
  },
  async 'send-lost-then-repeated'(system) {
    const phone = newPhone();
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, times: 1, answer: 'cut', accepted: false });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1, 30_000);
    return phone;
  },
  async 'send-throttled'(system) {
    const phone = newPhone();
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, times: 1, answer: '429', accepted: false, retryAfterSeconds: 1 });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    return phone;
  },
  async 'human-mode'(system) {
    const phone = newPhone();
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    await system.db.conversation.updateMany({ where: { contact: { phone } }, data: { mode: 'human' } });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'are you there?' });
    await outcomesOf(system, phone, 2);
    return phone;
  },
  async cancelled(system) {
    const phone = newPhone();
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).cancel();
    await outcomesOf(system, phone, 1);
    return phone;
  },
  async 'waited-for-workspace'(system) {
    const phone = newPhone();
    const phoneNumberId = `7${Date.now()}`;
    const post = (id: string) =>
      system.sandbox.kapso.deliver({ phone_number_id: phoneNumberId, messages: [{ from: phone, id, text: { body: id } }] });
    await post('wamid.waited.1');
    await post('wamid.waited.2');
    const settings = { create: { chatbotEnabled: true, aiEnabled: true, quietMs: 100, sessionTimeoutMs: 3_000 } };
    await system.db.workspace.create({ data: { name: 'late', kapsoPhoneNumberId: phoneNumberId, settings } });
    await eventually(async () => {
      const answered = await system.db.message.count({ where: { outcome: { not: null }, conversation: { contact: { phone } } } });
      if (answered !== 2) throw new Error(`${answered} of 2 answered`);
    }, 60_000);
    return phone;
  },
  async 'failed-later'(system) {
    const phone = newPhone();
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, statuses: failedAfterSent(131047, 300) });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await eventually(async () => {
      const [message] = await inboundOf(system, phone);
      if (message?.outcome !== 'failed') throw new Error('not failed yet');
    });
    return phone;
  },
};

async function main(): Promise<void> {
  await startEngine();
  const database = await testDatabase('histories');
  const system = await startSystem({
    databaseUrl: database.url,
    temporalAddress: testTemporal().address,
    environment: ({ modelsUrl }) => ({
      DEEPSEEK_API_KEY: 'k',
      DEEPSEEK_BASE_URL: modelsUrl,
      AI_PROVIDERS: 'deepseek:flaky,sandbox',
      REPLY_QUIET_MS: '300',
      SESSION_TIMEOUT_MS: '3000',
      SEND_CONFIRM_MS: '3000',
    }),
  });
  try {
    await mkdir(FOLDER, { recursive: true });
    for (const [name, drive] of Object.entries(roads)) {
      const workflowId = await workflowIdOf(system, await drive(system));
      const handle = system.temporal.workflow.getHandle(workflowId);
      // A cancelled one ends with an error; what matters is that it has ended.
      await handle.result().catch(() => undefined);
      const file = join(FOLDER, `conversation-${name}.json`);
      await writeFile(file, `${JSON.stringify(withoutMachine(JSON.parse(historyToJSON(await handle.fetchHistory()))), null, 1)}\n`);
      process.stdout.write(`recorded ${file}\n`);
    }
  } finally {
    await system.close();
    await database.drop();
    await stopEngine();
  }
}

/** Replay looks at neither of these, and they name the machine that recorded. */
function withoutMachine(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutMachine);
  // The queue of one worker process is named after its process id and host.
  if (typeof value === 'string') return /^\d+@/.test(value) ? 'worker' : value;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [name, name === 'identity' || name === 'stackTrace' ? undefined : withoutMachine(inner)]),
  );
}

void main();
