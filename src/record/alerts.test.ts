/** Alerts that are raised, claimed and sent, on a real database. An hour passes by moving `not_before` back. */
import { randomUUID } from 'node:crypto';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { eventually } from '../../test/support/expectations';
import { type Database, openDatabase, sql } from '../platform/database';
import { causeOf, claimAlert, deleteOldAlerts, doubtAlert, modelCause, postponeAlert, raiseAlert, settleAlert } from './alerts';
import { raiseAttention } from './attention';
import { keepDeadLetters } from './dead-letters';
import { failTurn } from './replies';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('alerts');
  db = openDatabase(database.url);
});

beforeEach(async () => {
  await db.orm.alert.deleteMany();
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const claim = (channel = 'webhook') => claimAlert(db, channel);
const timePasses = () => db.orm.alertDelivery.updateMany({ data: { notBefore: new Date(Date.now() - 1) } });

async function claimed(channel = 'webhook') {
  const alert = await claim(channel);
  if (alert === undefined) throw new Error('nothing is due');
  return alert;
}

async function conversation(): Promise<string> {
  const { id: workspaceId } = await db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: randomUUID() } });
  const contact = await db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID(), phone: '15550100' } });
  const data = { workspaceId, contactId: contact.id, workflowId: randomUUID() };
  return (await db.orm.conversation.create({ data })).id;
}

test('when ten workers claim at once, then one of them gets the alert, and another one once that claim has expired', async () => {
  await raiseAlert(db, { cause: 'c', text: 'what happened', subject: 'conversation 1' });
  const claims = (await Promise.all(Array.from({ length: 10 }, () => claim()))).filter((alert) => alert !== undefined);
  expect(claims).toEqual([
    {
      cause: 'c',
      text: 'what happened',
      subject: 'conversation 1',
      occurrences: 1,
      unreported: 1,
      messageId: expect.any(String),
      attempts: 1,
    },
  ]);
  await timePasses();
  expect(await claim()).toEqual({ ...claims[0], attempts: 2 });
});

test.each([
  ['never', 0],
  ['once', 1],
])('when two workers claim at the same moment, and the alert was claimed %s before, then one of them gets it', async (_when, claims) => {
  await raiseAlert(db, { cause: 'c', text: 'what happened' });
  for (let index = 0; index < claims; index++) await claimed();
  await timePasses();
  const { first, other } = await db.transaction(async (statements) => {
    const first = await claimAlert(statements, 'webhook');
    const other = claim();
    // Both have seen that it is due; the other one waits for this transaction.
    await eventually(async () => {
      const waiting = sql`SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
      expect(await db.query(waiting)).toHaveLength(1);
    });
    return { first, other };
  });
  expect([first?.attempts, await other]).toEqual([claims + 1, undefined]);
});

test('when a cause recurs within the hour, then it is reported after the hour, with the number of occurrences', async () => {
  await raiseAlert(db, { cause: 'c', text: 'first' });
  const first = await claimed();
  // Raised while it is being sent, so this message does not report it.
  await raiseAlert(db, { cause: 'c', text: 'second' });
  await settleAlert(db, 'webhook', first);
  await raiseAlert(db, { cause: 'c', text: 'third' });
  expect(await claim()).toBeUndefined();
  await timePasses();
  const next = await claimed();
  expect(next).toMatchObject({ text: 'third', unreported: 2, attempts: 1 });
  expect(next.messageId).not.toBe(first.messageId);
  await settleAlert(db, 'webhook', next);
  await timePasses();
  expect(await claim()).toBeUndefined();
});

test('when one channel has sent an alert, then the other one still sends it', async () => {
  await raiseAlert(db, { cause: 'c', text: 'what happened' });
  await settleAlert(db, 'webhook', await claimed());
  expect(await claim('whatsapp')).toMatchObject({ cause: 'c' });
});

test('when a message failed or is in doubt, then it is due again under the same id, and not before its time', async () => {
  await raiseAlert(db, { cause: 'c', text: 'what happened' });
  const { messageId } = await claimed();
  for (const setBack of [
    async () => postponeAlert(db, 'webhook', await claimed(), 30),
    async () => doubtAlert(db, 'webhook', await claimed()),
  ]) {
    await timePasses();
    await setBack();
    expect(await claim()).toBeUndefined();
  }
  await timePasses();
  expect(await claim()).toMatchObject({ messageId, attempts: 4 });
});

test('when a sender finishes late, after another one has sent the message, then it changes nothing', async () => {
  await raiseAlert(db, { cause: 'c', text: 'what happened' });
  const late = await claimed();
  await timePasses();
  await settleAlert(db, 'webhook', await claimed());
  await postponeAlert(db, 'webhook', late, 0);
  await raiseAlert(db, { cause: 'c', text: 'again' });
  expect(await claim()).toBeUndefined();
});

test('when two conversations fail for the same cause, then there is one alert, without a phone number', async () => {
  const ids = [await conversation(), await conversation()];
  for (const [index, conversationId] of ids.entries()) {
    const reason = `no model can answer: deepseek responded with 500 about +15550100123 (${index + 2} attempts)`;
    await failTurn(db, { conversationId, workflowId: 'w', messageIds: [randomUUID()], reason });
  }
  const alert = await claimed();
  expect(alert).toMatchObject({ subject: `conversation ${ids[1]}`, unreported: 2 });
  expect(alert.text).toMatch(/^turn failed: no model can answer: deepseek responded with 500 about …23 \(3 attempts\)$/);
  expect(await claim()).toBeUndefined();
  expect(causeOf('deepseek responded with 401')).not.toBe(causeOf('deepseek responded with 500'));
});

test('when providers fail in many ways during an outage, then that is one cause; what somebody must fix is another', () => {
  const report = (...ways: string[]) => `no model can answer: ${ways.map((way, index) => `p${index} (m) ${way}`).join('; ')}`;
  const ways = ['could not be reached', 'responded with 503: it is down or overloaded', 'did not answer in time (3 attempts)'];
  const causes = ways.flatMap((one) => ways.map((other) => modelCause('turn_failed', report(one, other))));
  expect([...new Set(causes)]).toEqual(['turn_failed: p0 (m) unavailable, p1 (m) unavailable']);
  expect(modelCause('turn_failed', 'no model can answer: no credit at p0 (m), which responded with 402: top the account up')).toBe(
    'turn_failed: p0 (m) no credit',
  );
  expect(modelCause('turn_failed', 'no provider of the chain has an API key: set one')).toMatch(/^turn_failed: no provider/);
});

test('when attention is requested, or something cannot be read, then there is an alert for each', async () => {
  const conversationId = await conversation();
  await raiseAttention(db, { conversationId, kind: 'waiting_for_model', text: 'waiting for a model: deepseek' });
  await keepDeadLetters(db, [{ source: 'kapso', reason: 'no_sender', detail: 'A message without a sender.', body: Buffer.from('{}') }]);
  const texts = [await claimed(), await claimed()].map(({ text }) => text);
  expect(texts).toEqual(['waiting for a model: deepseek', 'dead letter: A message without a sender.']);
  expect(await claim()).toBeUndefined();
});

test('when a text cannot be stored as it is, then the storable part of it is sent', async () => {
  await raiseAlert(db, { cause: 'a\0b', text: `odd\0 \ud800${'x'.repeat(1_000)}` });
  const { cause, text } = await claimed();
  expect([cause, text.length, text.slice(0, 3)]).toEqual(['ab', 499, 'odd']);
});

test('when an alert is old, then it is no longer sent, and is deleted with its deliveries', async () => {
  await raiseAlert(db, { cause: 'c', text: 'what happened' });
  await settleAlert(db, 'webhook', await claimed());
  await raiseAlert(db, { cause: 'c', text: 'again' });
  await db.orm.alert.updateMany({ data: { raisedAt: new Date(Date.now() - 25 * 60 * 60_000) } });
  await timePasses();
  expect(await claim()).toBeUndefined();
  await deleteOldAlerts(db, 2);
  expect(await db.orm.alertDelivery.count()).toBe(1);
  await deleteOldAlerts(db, 1);
  expect([await db.orm.alert.count(), await db.orm.alertDelivery.count()]).toEqual([0, 0]);
});
