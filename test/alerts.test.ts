/** Alerts about what needs a person, by webhook and by WhatsApp, even if a worker dies in between or the receiver is down. */
import { readFileSync } from 'node:fs';
import { Webhook } from 'standardwebhooks';
import { type ReceivedWebhook, type Receiver, startReceiver } from '../src/sandbox/receiver';
import { eventually, newPhone, outcomesOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
const OWNER = '+15550199001';
/** Posted alerts have no header with an event. */
const ALERT = 'undefined';
const WAIT_MS = 20_000;
let receiver: Receiver;
let system: System;

beforeAll(async () => {
  receiver = await startReceiver();
  system = await startSuite('alerts', {
    environment: ({ modelsUrl }) => ({
      DEEPSEEK_API_KEY: 'k1',
      DEEPSEEK_BASE_URL: modelsUrl,
      AI_PROVIDERS: 'deepseek:m-one',
      REPAIR_MINUTES: '60',
      ALERT_WEBHOOK_URL: receiver.url,
      ALERT_WEBHOOK_INTERNAL: 'true',
      ALERT_SIGNING_SECRET: SECRET,
      ALERT_WHATSAPP_TO: OWNER,
      ALERT_WHATSAPP_TEMPLATE: 'owner_alert',
      ALERT_WHATSAPP_LANGUAGE: 'pt_BR',
    }),
  });
});

beforeEach(async () => {
  await system.db.alert.deleteMany();
  receiver.webhooks.length = 0;
});

afterAll(async () => {
  await system?.close();
  await receiver?.close();
});

/** As if the claims, pauses and hours that were running were over. */
const timePasses = () => system.db.alertDelivery.updateMany({ data: { notBefore: new Date(Date.now() - 1) } });

function textOf({ raw, headers }: ReceivedWebhook): string {
  return (new Webhook(SECRET).verify(raw, headers as Record<string, string>) as { text: string }).text;
}

const toldBy = async (channel: string) => (await system.db.alertDelivery.findFirstOrThrow({ where: { channel } })).told;

async function failTurn(): Promise<string> {
  const phone = newPhone();
  system.sandbox.models.program({ model: 'm-one', times: 1, error: { status: 401, message: `marker about ${phone}` } });
  await system.sandbox.kapso.customerSends({ from: phone, name: 'Marker', text: 'marker' });
  expect(await outcomesOf(system, phone, 1)).toEqual(['failed']);
  return (await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } })).id;
}

test('when turns fail for one cause, then the webhook and the owner get one alert, and another one after the hour', async () => {
  const first = await failTurn();
  const [alert] = await receiver.waitFor(ALERT, 1, WAIT_MS);
  const text = alert === undefined ? '' : textOf(alert);
  expect(text).toMatch(/^Parley: turn failed: no model can answer: deepseek \(m-one\) responded with 401/);
  expect(text).toContain(`conversation ${first}\n${system.apiUrl}/api/v1/conversations/${first}`);
  expect(text).not.toMatch(/[Mm]arker|\d{11}/);

  const owners = await eventually(async () => {
    const sends = system.sandbox.kapso.sends().filter(({ to }) => to === OWNER.slice(1));
    expect(sends).toHaveLength(1);
    return sends;
  }, WAIT_MS);
  expect(owners[0]?.body).toMatchObject({
    type: 'template',
    template: {
      name: 'owner_alert',
      language: { code: 'pt_BR' },
      components: [{ type: 'body', parameters: [{ type: 'text', text: text.replaceAll('\n', ' ') }] }],
    },
  });
  await eventually(async () => expect([await toldBy('webhook'), await toldBy('whatsapp')]).toEqual([1, 1]), WAIT_MS);

  const [second, third] = [await failTurn(), await failTurn()];
  expect(second).not.toBe(third);
  await timePasses();
  const [, again] = await receiver.waitFor(ALERT, 2, WAIT_MS);
  expect(again === undefined ? '' : textOf(again)).toMatch(new RegExp(`\\(2 times since the last alert\\)\nlast: conversation ${third}`));
  await eventually(async () => expect(await toldBy('webhook')).toBe(3), WAIT_MS);
  expect(receiver.webhooks).toHaveLength(2);
  // The owner's phone is nobody's conversation.
  expect(await system.db.contact.count({ where: { phone: OWNER.slice(1) } })).toBe(0);
}, 90_000);

test('when the receiver is down for a while, then it gets the alert once it is back, under the same id', async () => {
  receiver.answers.push(503, 503);
  await failTurn();
  const tries = await receiver.waitFor(ALERT, 3, 60_000);
  expect(new Set(tries.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
  await eventually(async () => expect(await toldBy('webhook')).toBe(1), WAIT_MS);
}, 90_000);

test('when the worker dies while it sends, then another one sends the same message again', async () => {
  receiver.answers.push(0);
  await failTurn();
  await receiver.waitFor(ALERT, 1, WAIT_MS);
  await system.workers[0]?.kill();
  await timePasses();
  const next = await system.startWorker();
  const [lost, again] = await receiver.waitFor(ALERT, 2, WAIT_MS);
  expect(again?.headers['webhook-id']).toBe(lost?.headers['webhook-id']);
  await next.line('alert sent', '"channel":"webhook"');
  expect(await toldBy('webhook')).toBe(1);
  expect(receiver.webhooks).toHaveLength(2);
}, 90_000);

test('when Kapso has paused the webhook, then a worker finds out and sends an alert', async () => {
  const [webhook] = system.sandbox.kapso.platform.webhooks;
  if (webhook === undefined) throw new Error('the sandbox has no webhook');
  webhook.active = false;
  await system.startWorker();
  const [alert] = await receiver.waitFor(ALERT, 1, WAIT_MS);
  expect(alert === undefined ? '' : textOf(alert)).toMatch(new RegExp(`^Parley: webhook paused: .*\nwebhook ${webhook.id}$`));
  webhook.active = true;
}, 60_000);

test('when a call needs a person, then an alert is sent', async () => {
  const ended = readFileSync('test/fixtures/vapi/status-update.ended.start-error.json', 'utf8');
  expect((await system.sandbox.vapi.deliver(ended)).status).toBe(200);
  const [alert] = await receiver.waitFor(ALERT, 1, 40_000);
  const { id } = await system.db.vapiCallResult.findFirstOrThrow({ where: { needsAttention: true } });
  expect(alert === undefined ? '' : textOf(alert)).toMatch(
    new RegExp(`^Parley: call needs attention: failed, call\\.start\\..*\ncall ${id}\n${system.apiUrl}/api/v1/vapi/calls/${id}$`),
  );
}, 60_000);
