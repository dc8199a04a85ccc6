/** What the processes print while people write, vendors fail and bodies are broken: JSON lines with ids, and nothing of anybody. */
import { newPhone, outcomesOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('logs', {
    environment: ({ modelsUrl }) => ({
      LOG_LEVEL: 'trace',
      DEBUG_WEBHOOK: 'true',
      DEEPSEEK_API_KEY: 'marker-model-key',
      DEEPSEEK_BASE_URL: modelsUrl,
      AI_PROVIDERS: 'deepseek:flaky,sandbox',
      AI_SYSTEM_PROMPT: 'marker-prompt',
    }),
  });
});

afterAll(async () => {
  await system?.close();
});

test('when markers are planted in name, number, text, reply, caption, keys and broken bodies, then no log line has them', async () => {
  const { kapso, models } = system.sandbox;
  const [phone, failing] = [newPhone(), newPhone()];
  models.program({ model: 'flaky', error: { status: 500, message: `marker-error about ${phone}` } });
  models.program({ model: 'sandbox-model', reply: 'marker-reply' });
  await kapso.customerSends({ from: phone, name: 'Marker-Name', text: `marker-text, call ${phone}` });
  await kapso.waitForVisible(phone, 1, 20_000);
  await kapso.customerSends({ from: phone, kind: 'image', text: 'marker-caption' });
  await outcomesOf(system, phone, 2);
  kapso.fault({ on: 'send', match: { to: failing }, answer: '131026', accepted: false });
  await kapso.customerSends({ from: failing, text: 'marker-text' });
  await outcomesOf(system, failing, 1);
  await kapso.deliver(`{"messages":[{"from":"${phone}","text":{"body":"marker-broken"}`);
  await kapso.deliver({ message: { id: 5, text: { body: 'marker-odd' } }, phone });
  await kapso.deliver({ message: 'marker-odd', from: phone }, { 'X-Webhook-Signature': 'bad' });
  await fetch(`${system.apiUrl}/api/v1/conversations`, { headers: { Authorization: 'Bearer marker-api-key' } });
  await system.api.line('could not be read');

  const lines = [...system.api.lines, ...system.workers.flatMap((worker) => worker.lines)];
  expect(lines.length).toBeGreaterThan(10);
  const wrong = lines.filter(
    (line) =>
      /marker/i.test(line) ||
      line.includes(phone) ||
      line.includes(failing) ||
      line.includes('test-kapso-key') ||
      line.includes('test-secret'),
  );
  expect(wrong).toEqual([]);
  const notJson = lines.filter((line) => {
    try {
      return typeof JSON.parse(line) !== 'object';
    } catch {
      return true;
    }
  });
  expect(notJson).toEqual([]);
});

test('when one message is followed through the lines, then its id and its workflow’s id lead from the webhook to the reply’s ticks', async () => {
  const phone = newPhone();
  await system.sandbox.kapso.customerSends({ from: phone, text: 'hi' });
  await system.sandbox.kapso.waitForVisible(phone, 1, 20_000);
  await outcomesOf(system, phone, 1);
  const inbound = await system.db.message.findFirstOrThrow({
    where: { direction: 'inbound', conversation: { contact: { phone } } },
    include: { conversation: true, reply: true },
  });
  const taken = JSON.parse(await system.api.line('messages handed over', inbound.id));
  expect(taken.conversations).toEqual([{ workflowId: inbound.conversation.workflowId, messageIds: [inbound.id] }]);
  const [worker] = system.workers;
  for (const step of ['reply drafted', 'reply send']) {
    const line = JSON.parse((await worker?.line(step, inbound.reply?.id ?? 'no reply')) ?? '{}');
    expect(line.workflowId).toBe(inbound.conversation.workflowId);
  }
  await system.api.line('reply statuses stored', inbound.reply?.id ?? 'no reply', 'read');
});
