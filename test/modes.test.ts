/** People beside the bot: who answers, what is thrown away, and what is answered afterwards. The whole system. */
import { randomUUID } from 'node:crypto';
import { balance, eventually, inboundOf, newPhone, outcomesOf, repliesOf } from './support/expectations';
import { answerByHand, ask, change, conversationIdOf } from './support/people';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('modes', {
    environment: () => ({
      AI_PROVIDERS: 'sandbox',
      SEND_CONFIRM_MS: '2000',
      HAND_OVER_TEXTS: '{"en": "A colleague will write to you.", "de": "Jemand meldet sich."}',
    }),
  });
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
    expect(
      await system.db.auditEntry.findFirst({ where: { subject: `conversation ${await conversationIdOf(system, phone)}` } }),
    ).toMatchObject({
      action: 'conversation.taken_over',
      before: { mode: 'ai', heldBy: null },
      after: { mode: 'human', heldBy: 'Ann', by: 'Ann' },
    });
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

describe('a person closes', () => {
  test('when a model is writing, then what is open is settled by the person, and nobody is asked for', async () => {
    const phone = await knownCustomer();
    const model = heldModel('too late');
    await kapso().customerSends({ from: phone, text: 'never mind' });
    await model.asked;
    expect(await change(system, phone, 'close', { by: 'Ann' })).toMatchObject({ status: 200, body: { mode: 'ai' } });
    model.open();
    expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'human']);
    await kapso().customerSends({ from: phone, text: 'next' });
    expect(await outcomesOf(system, phone, 3)).toEqual(['answered', 'human', 'answered']);
    expect(textsOf(phone)).not.toContain('too late');
    expect(await system.db.conversation.findFirst({ where: { contact: { phone } } })).toMatchObject({
      needsAttention: false,
      waitingSince: null,
    });
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

describe('what WhatsApp would refuse', () => {
  test('when the customer wrote more than a day ago, or the message to quote is not known, then the error says so', async () => {
    const phone = await knownCustomer();
    const path = `/conversations/${await conversationIdOf(system, phone)}/messages`;
    const send = (body: object) => ask(system, 'POST', path, body, { 'Idempotency-Key': randomUUID() });
    expect(await send({ text: 'hi', replyTo: '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10' })).toMatchObject({ status: 422 });
    expect(await send({ text: ' ' })).toMatchObject({ status: 400, body: { detail: 'text: must not be empty' } });
    expect(await send({ text: 'x'.repeat(4_097) })).toMatchObject({
      status: 400,
      body: { detail: 'text: must be at most 4096 characters' },
    });
    const question = await system.db.message.findFirstOrThrow({ where: { direction: 'inbound', conversation: { contact: { phone } } } });
    expect(await send({ text: 'about this', replyTo: question.id })).toMatchObject({ status: 202, body: { quotedId: question.id } });
    await kapso().waitForVisible(phone, 2, 10_000);
    const sent = kapso()
      .sends()
      .findLast(({ text }) => text === 'about this');
    expect(sent?.body).toMatchObject({ context: { message_id: question.providerMessageId } });
    await system.db.message.update({ where: { id: question.id }, data: { occurredAt: new Date(Date.now() - 25 * 3_600_000) } });
    const late = await send({ text: 'too late' });
    expect(late).toMatchObject({ status: 422, body: { detail: expect.stringMatching(/last wrote at .+ within 24 hours/) } });
  });
});

describe('above the conversation', () => {
  test.each(['workspace', 'installation'] as const)(
    'when the %s is paused, then a running conversation is silent, and answers once it may',
    async (place) => {
      const phone = await knownCustomer();
      const { workspaceId } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
      const path = place === 'workspace' ? `/workspaces/${workspaceId}/mode` : '/mode';
      const model = heldModel('too late');
      await kapso().customerSends({ from: phone, text: 'question' });
      await model.asked;
      expect(await ask(system, 'PUT', path, { mode: 'paused' })).toMatchObject({ status: 200, body: { mode: 'paused', modeUntil: null } });
      model.open();
      await eventually(async () =>
        expect(await system.db.conversation.count({ where: { contact: { phone }, waitingSince: { not: null } } })).toBe(1),
      );
      expect(textsOf(phone)).toHaveLength(1);
      expect(await ask(system, 'PUT', path, { mode: 'ai' })).toMatchObject({ status: 200, body: { mode: 'ai' } });
      expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
      expect(textsOf(phone)).toHaveLength(2);
      expect(textsOf(phone)).not.toContain('too late');
    },
  );

  test('when a pause is over, then what came meanwhile is answered, also if no session runs', async () => {
    const phone = await knownCustomer();
    await change(system, phone, 'pause', { minutes: 0.1 });
    await kapso().customerSends({ from: phone, text: 'anybody?' });
    await eventually(async () => expect(await inboundOf(system, phone)).toHaveLength(2));
    const { workflowId } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
    await system.temporal.workflow.getHandle(workflowId).terminate('a test without a session');
    expect(await outcomesOf(system, phone, 2, 30_000)).toEqual(['answered', 'answered']);
  });
});

describe('attention', () => {
  test('when a conversation is handed over, then the customer is told once, in the language asked for, and it waits for somebody', async () => {
    const phone = await knownCustomer();
    const handOver = { reason: 'customer_asked', summary: 'Wants to talk.', questions: ['When?'], language: 'de' };
    expect(await change(system, phone, 'attention', handOver)).toMatchObject({ status: 200, body: { mode: 'human', heldBy: null } });
    await change(system, phone, 'attention', handOver);
    await kapso().waitForVisible(phone, 2, 10_000);
    const shown = await ask(system, 'GET', `/conversations/${await conversationIdOf(system, phone)}`);
    expect(shown.body).toMatchObject({
      needsAttention: true,
      handOver: { reason: 'customer_asked', summary: 'Wants to talk.', questions: ['When?'] },
    });
    expect(textsOf(phone).slice(1)).toEqual(['Jemand meldet sich.']);
    expect(await change(system, phone, 'take-over', { by: 'Ann' })).toMatchObject({ status: 200 });
    await change(system, phone, 'release', { by: 'Ann' });
    expect((await ask(system, 'GET', `/conversations/${await conversationIdOf(system, phone)}`)).body).toMatchObject({
      needsAttention: false,
      handOver: null,
    });
  });

  test('when a customer waits too long for a person, then the conversation asks for attention, until the person has answered', async () => {
    const phone = await knownCustomer();
    await system.db.chatbotSettings.updateMany({ data: { personWaitMs: 500 } });
    try {
      await change(system, phone, 'take-over', { by: 'Ann' });
      await kapso().customerSends({ from: phone, text: 'hello?' });
      const kindsOf = async () => {
        const { attention } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
        return (attention as { kind: string }[]).map(({ kind }) => kind);
      };
      await eventually(async () => expect(await kindsOf()).toEqual(['waiting_for_person']));
      await answerByHand(system, phone, 'Sorry, here I am.');
      await eventually(async () => expect(await kindsOf()).toEqual([]));
      expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'human']);
    } finally {
      await system.db.chatbotSettings.updateMany({ data: { personWaitMs: 600_000 } });
    }
  });
});

describe('a message while a model is writing', () => {
  afterEach(() => system.db.chatbotSettings.updateMany({ data: { onNewMessage: 'finish' } }));

  test.each([
    ['restart', ['answered', 'superseded', 'answered'], 1],
    ['finish', ['answered', 'answered', 'answered'], 2],
  ] as const)('when the setting is %s, then the outcomes say what became of each', async (onNewMessage, outcomes, replies) => {
    const phone = await knownCustomer();
    await system.db.chatbotSettings.updateMany({ data: { onNewMessage } });
    const model = heldModel('for the first');
    await kapso().customerSends({ from: phone, text: 'first' });
    await model.asked;
    await kapso().customerSends({ from: phone, text: 'second' });
    await eventually(async () => expect(await inboundOf(system, phone)).toHaveLength(3));
    if (onNewMessage === 'restart') await kapso().waitForVisible(phone, 2, 10_000);
    model.open();
    expect(await outcomesOf(system, phone, 3)).toEqual(outcomes);
    expect(textsOf(phone)).toHaveLength(1 + replies);
    if (onNewMessage === 'restart') expect(textsOf(phone)).not.toContain('for the first');
  });

  test('when the customer never stops, then the third draft is sent', async () => {
    const phone = await knownCustomer();
    await system.db.chatbotSettings.updateMany({ data: { onNewMessage: 'restart' } });
    const drafts = ['one', 'two', 'three'].map((reply) => ({ reply, ...heldModel(reply) }));
    for (const [index, { asked }] of drafts.entries()) {
      await kapso().customerSends({ from: phone, text: `message ${index + 1}` });
      await asked;
    }
    await kapso().customerSends({ from: phone, text: 'message 4' });
    await eventually(async () => expect(await inboundOf(system, phone)).toHaveLength(5));
    for (const { open } of drafts) open();
    expect(await outcomesOf(system, phone, 5)).toEqual(['answered', 'superseded', 'superseded', 'answered', 'answered']);
    expect(textsOf(phone)).toHaveLength(3);
    expect(textsOf(phone)[1]).toBe('three');
  });
});
