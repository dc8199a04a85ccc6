/** What PostgreSQL refuses for good: it becomes a dead letter or a failed turn, a person is asked for, and the conversation goes on. */

import { balance, eventually, inboundOf, newPhone, outcomesOf, repliesOf } from './support/expectations';
import { startSuite } from './support/suite';
import { API_KEY, type System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('database_refusal');
});

afterAll(async () => {
  await system?.close();
});

afterEach(async () => {
  system.sandbox.models.clear();
  for (const name of ['refuses_text', 'refuses_status', 'refuses_reply'])
    await system.db.$executeRawUnsafe(`ALTER TABLE messages DROP CONSTRAINT IF EXISTS ${name}`);
  await balance(system.db);
});

const kapso = () => system.sandbox.kapso;

const refuse = (name: string, condition: string) =>
  system.db.$executeRawUnsafe(`ALTER TABLE messages ADD CONSTRAINT ${name} CHECK (${condition}) NOT VALID`);

const attentionOf = async (phone: string) => {
  const { attention } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
  return (attention as { kind: string }[]).map(({ kind }) => kind);
};

test('when a message is refused for good, then it is a dead letter, the next one is answered, and a replay works once the cause is gone', async () => {
  const phone = newPhone();
  await kapso().customerSends({ from: phone, text: 'hello' });
  expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  await refuse('refuses_text', `text IS DISTINCT FROM 'poison'`);
  await kapso().customerSends({ from: phone, text: 'poison' });
  const letter = await eventually(() => system.db.deadLetter.findFirstOrThrow({ where: { reason: 'record_refused' } }));
  expect(letter).toMatchObject({ source: 'conversation', detail: expect.stringContaining('23514'), replayedAt: null });
  await kapso().customerSends({ from: phone, text: 'and now?' });
  expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  expect((await inboundOf(system, phone)).map(({ text }) => text)).toEqual(['hello', 'and now?']);
  // A reply does not cure what was lost.
  expect(await attentionOf(phone)).toEqual(['dead_letter']);
  await system.db.$executeRawUnsafe('ALTER TABLE messages DROP CONSTRAINT refuses_text');
  const replayed = await fetch(`${system.apiUrl}/api/v1/dead-letters/${letter.id}/replay`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${API_KEY}` },
  });
  expect(replayed.status).toBe(200);
  expect(await outcomesOf(system, phone, 3)).toEqual(['answered', 'answered', 'answered']);
  await eventually(async () => expect(await attentionOf(phone)).toEqual([]));
});

test('when one message of a burst is refused, then the others are recorded and answered together', async () => {
  const phone = newPhone();
  await refuse('refuses_text', `text IS DISTINCT FROM 'poison'`);
  await kapso().customerSendsBatch(['one', 'poison', 'three'].map((text) => ({ from: phone, text })));
  expect((await outcomesOf(system, phone, 2)).sort()).toEqual(['answered', 'merged']);
  expect(kapso().visibleTo(phone)).toHaveLength(1);
});

test('when the very first message of a person is refused, then the next one is answered all the same', async () => {
  const phone = newPhone();
  await refuse('refuses_text', `text IS DISTINCT FROM 'poison'`);
  await kapso().customerSends({ from: phone, text: 'poison' });
  await eventually(async () =>
    expect(await system.db.deadLetter.count({ where: { body: { path: ['contact', 'phone'], equals: phone } } })).toBe(1),
  );
  await kapso().customerSends({ from: phone, text: 'hello' });
  expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
});

test('when the row of a reply refuses to be claimed, then the turn has failed, and the next message is answered', async () => {
  const phone = newPhone();
  await refuse('refuses_status', `NOT (status = 'sending' AND text ~ 'one”.Set')`);
  await kapso().customerSends({ from: phone, text: 'one' });
  expect(await outcomesOf(system, phone, 1)).toEqual(['failed']);
  expect(await repliesOf(system, phone)).toMatchObject([{ status: 'failed', sendAttempts: 0 }]);
  expect(await attentionOf(phone)).toEqual(['turn_failed']);
  await kapso().customerSends({ from: phone, text: 'two' });
  expect(await outcomesOf(system, phone, 2)).toEqual(['failed', 'answered']);
  expect(await attentionOf(phone)).toEqual([]);
});

test('when a reply cannot be stored, then the turn has failed after one call of the model, and the next message is answered', async () => {
  const phone = newPhone();
  await refuse('refuses_reply', `NOT (direction = 'outbound' AND text ~ 'number one”.Set')`);
  await kapso().customerSends({ from: phone, text: 'number one' });
  expect(await outcomesOf(system, phone, 1)).toEqual(['failed']);
  expect(system.sandbox.models.requests('sandbox-model').filter(({ messages }) => messages.at(-1)?.content === 'number one')).toHaveLength(
    1,
  );
  await kapso().customerSends({ from: phone, text: 'two' });
  expect(await outcomesOf(system, phone, 2)).toEqual(['failed', 'answered']);
});
