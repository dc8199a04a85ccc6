/** People beside the bot: who answers, what is thrown away, and what is answered afterwards. The whole system. */
import { balance, eventually, inboundOf, newPhone, outcomesOf, repliesOf } from './support/expectations';
import { answerByHand, ask, change, conversationIdOf } from './support/people';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('modes', { environment: () => ({ AI_PROVIDERS: 'sandbox', SEND_CONFIRM_MS: '2000' }) });
});

afterAll(async () => {
  await system?.close();
});

beforeEach(() => {
  models().clear();
  kapso().clearFaults();
});

afterEach(async () => {
  await balance(system.db);
});

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;
const textsOf = (phone: string) =>
  kapso()
    .visibleTo(phone)
    .map(({ text }) => text);

/** Holds the next answer of the model back until `open` is called. `asked` resolves when the model is asked. */
function heldModel(reply: string) {
  let open: () => void = () => undefined;
  let ask: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  const asked = new Promise<void>((resolve) => {
    ask = resolve;
  });
  const remove = models().program({
    model: 'sandbox-model',
    times: 1,
    reply: async () => {
      ask();
      await opened;
      return reply;
    },
  });
  return { open, asked, remove };
}

/** A customer who has written, and has been answered. */
async function knownCustomer(): Promise<string> {
  const phone = newPhone();
  await kapso().customerSends({ from: phone, text: 'hello' });
  await outcomesOf(system, phone, 1);
  return phone;
}

describe('a person takes over', () => {
  test('when nobody is answering, then what comes waits for the person, and is answered once after the release', async () => {
    const phone = await knownCustomer();
    const taken = await change(system, phone, 'take-over', { by: 'Ann' });
    expect(taken).toMatchObject({ status: 200, body: { mode: 'human', heldBy: 'Ann', withheldIds: [], onTheirWayIds: [] } });
    await kapso().customerSends({ from: phone, text: 'are you there?' });
    await kapso().customerSends({ from: phone, text: 'hm?' });
    await eventually(async () => expect(await inboundOf(system, phone)).toHaveLength(3));
    const waiting = await ask(system, 'GET', `/conversations/${await conversationIdOf(system, phone)}`);
    expect(waiting.body).toMatchObject({ mode: 'human', heldBy: 'Ann', unreadCount: 2, waitingSince: expect.any(String) });
    models().program({ model: 'sandbox-model', times: 1, reply: 'one reply for both' });
    expect(await change(system, phone, 'release', { by: 'Ann' })).toMatchObject({ status: 200, body: { mode: 'ai', heldBy: null } });
    expect(await outcomesOf(system, phone, 3)).toEqual(['answered', 'merged', 'answered']);
    expect(textsOf(phone).slice(1)).toEqual(['one reply for both']);
  });

  test('when a model is writing, then its draft is thrown away, and the bot says nothing until the release', async () => {
    const phone = await knownCustomer();
    const model = heldModel('too late');
    await kapso().customerSends({ from: phone, text: 'question' });
    await model.asked;
    expect(await change(system, phone, 'take-over', { by: 'Ann' })).toMatchObject({ status: 200, body: { mode: 'human' } });
    model.open();
    expect((await answerByHand(system, phone, 'I am Ann.')).status).toBe(202);
    expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'human']);
    await change(system, phone, 'release', { by: 'Ann' });
    await kapso().customerSends({ from: phone, text: 'thanks' });
    expect(await outcomesOf(system, phone, 3)).toEqual(['answered', 'human', 'answered']);
    expect(textsOf(phone)).toHaveLength(3);
    expect(textsOf(phone)[1]).toBe('I am Ann.');
    expect(textsOf(phone)).not.toContain('too late');
  });

  test('when two people take over at once, then one of them has it, and the other is told who', async () => {
    const phone = await knownCustomer();
    const answers = await Promise.all(['Ann', 'Ben'].map((by) => change(system, phone, 'take-over', { by })));
    const [winner, loser] = answers.toSorted((one, other) => one.status - other.status);
    expect([winner?.status, loser?.status]).toEqual([200, 409]);
    expect(loser?.body.detail).toContain(`${winner?.body.heldBy} has the conversation since`);
    const other = winner?.body.heldBy === 'Ann' ? 'Ben' : 'Ann';
    expect(await change(system, phone, 'release', { by: other })).toMatchObject({ status: 409 });
    expect(await change(system, phone, 'take-over', { by: other, from: winner?.body.heldBy })).toMatchObject({ status: 200 });
  });
});

describe('by hand', () => {
  test('when a person writes twice with the same key, then the customer gets it once, and nobody waits for the bot', async () => {
    const phone = await knownCustomer();
    const [first, again] = [await answerByHand(system, phone, 'by hand', 'key-1'), await answerByHand(system, phone, 'by hand', 'key-1')];
    expect(first).toMatchObject({ status: 202, body: { author: 'person', authorName: 'Ann', text: 'by hand' } });
    expect(again.body.id).toBe(first.body.id);
    expect(await answerByHand(system, phone, 'something else', 'key-1')).toMatchObject({ status: 409 });
    await eventually(async () => expect((await repliesOf(system, phone)).at(-1)?.status).toBe('read'));
    expect(textsOf(phone).filter((text) => text === 'by hand')).toHaveLength(1);
  });
});
