/** The owner answers in the WhatsApp Business app: the conversation is theirs for a while. The whole system. */
import { randomUUID } from 'node:crypto';
import { balance, eventually, inboundOf, newPhone, outcomesOf } from './support/expectations';
import { ask, change, conversationIdOf } from './support/people';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('owner', { environment: () => ({ AI_PROVIDERS: 'sandbox', OWNER_PAUSE_MINUTES: '30' }) });
});

afterAll(async () => {
  await system?.close();
});

afterEach(async () => {
  models().clear();
  kapso().clearFaults();
  await configure(30 * 60_000);
  await balance(system.db);
});

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;

async function configure(ownerPauseMs: number): Promise<void> {
  await system.db.chatbotSettings.updateMany({ data: { ownerPauseMs } });
}

async function knownCustomer(): Promise<string> {
  const phone = newPhone();
  await kapso().customerSends({ from: phone, text: 'hello' });
  await outcomesOf(system, phone, 1);
  return phone;
}

const conversationOf = (phone: string) => system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });

const ownersOf = (phone: string) =>
  system.db.message.findMany({ where: { author: 'phone', conversation: { contact: { phone } } }, orderBy: { position: 'asc' } });

/** Meta's own webhook of what the owner does in the app. */
async function echo(phone: string, message: object): Promise<void> {
  const value = {
    messaging_product: 'whatsapp',
    metadata: { phone_number_id: system.phoneNumberId },
    contacts: [{ wa_id: phone, profile: { name: 'Ann' } }],
    message_echoes: [{ from: '15550009999', to: phone, timestamp: String(Math.floor(Date.now() / 1_000)), ...message }],
  };
  const body = { object: 'whatsapp_business_account', entry: [{ id: '1', changes: [{ field: 'smb_message_echoes', value }] }] };
  expect((await kapso().deliver(body)).status).toBe(200);
}

test('when the owner writes, then it is in the conversation, the bot is silent, and after the release it knows what was said', async () => {
  const phone = await knownCustomer();
  expect((await kapso().personReplies(phone, 'I will take care of it.')).status).toBe(200);
  await eventually(async () => expect(await conversationOf(phone)).toMatchObject({ mode: 'human', heldBy: 'WhatsApp Business app' }));
  expect(await ownersOf(phone)).toMatchObject([{ text: 'I will take care of it.', status: 'sent', direction: 'outbound' }]);
  await kapso().customerSends({ from: phone, text: 'when?' });
  await eventually(async () => expect((await inboundOf(system, phone)).at(1)?.outcome).toBeNull());
  expect(await change(system, phone, 'release')).toMatchObject({ status: 200, body: { mode: 'ai' } });
  expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  const prompt = models().requests('sandbox-model').at(-1)?.messages ?? [];
  expect(prompt.map(({ content }) => content)).toContain('I will take care of it.');
  expect(prompt[0]?.content).toMatch(/wrote to the customer themselves .+ it is your turn again/);
  expect(prompt[0]?.content).not.toMatch(/silent/i);
});

test('when the pause after a message of the owner is over, then the bot answers by itself what came meanwhile', async () => {
  const phone = await knownCustomer();
  await configure(4_000);
  await kapso().personReplies(phone, 'Just a moment.');
  await eventually(async () => expect(await conversationOf(phone)).toMatchObject({ mode: 'human' }));
  await kapso().customerSends({ from: phone, text: 'still there?' });
  expect(await outcomesOf(system, phone, 2, 20_000)).toEqual(['answered', 'answered']);
  expect(await conversationOf(phone)).toMatchObject({ mode: 'ai', heldBy: null, waitingSince: null });
});

test('when the owner edits a message and deletes another one, then the conversation shows what is left, in any order', async () => {
  const phone = await knownCustomer();
  const [first, second, third] = [randomUUID(), randomUUID(), randomUUID()].map((id) => `wamid.${id}`);
  await echo(phone, { id: first, type: 'text', text: { body: 'at nine' } });
  await echo(phone, {
    id: 'wamid.e1',
    type: 'edit',
    edit: { original_message_id: first, message: { type: 'text', text: { body: 'at ten' } } },
  });
  await echo(phone, { id: second, type: 'text', text: { body: 'secret' } });
  await echo(phone, { id: 'wamid.r1', type: 'revoke', revoke: { original_message_id: second } });
  await echo(phone, { id: 'wamid.r2', type: 'revoke', revoke: { original_message_id: third } });
  await echo(phone, { id: third, type: 'text', text: { body: 'gone' } });
  await eventually(async () => {
    const rows = (await ownersOf(phone)).map(({ text, editedAt, deletedAt }) => [text, editedAt !== null, deletedAt !== null]);
    expect(rows).toEqual([
      ['at ten', true, false],
      [null, false, true],
      [null, false, true],
    ]);
  });
  expect(await conversationOf(phone)).toMatchObject({ mode: 'human' });
});

test('when our own send is reported, also before its response has come, then nobody has taken over', async () => {
  const phone = newPhone();
  kapso().fault({ on: 'send', match: { to: phone }, times: 1, statusBeforeAnswer: true });
  await kapso().customerSends({ from: phone, text: 'hello' });
  await outcomesOf(system, phone, 1);
  expect(await ownersOf(phone)).toEqual([]);
  expect(await conversationOf(phone)).toMatchObject({ mode: 'ai', heldBy: null });
  // The same message, as if it had been typed in the app.
  const [sent] = kapso().visibleTo(phone);
  await echo(phone, { id: sent?.wamid, type: 'text', text: { body: sent?.text } });
  await kapso().customerSends({ from: phone, text: 'more' });
  expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  expect(await ownersOf(phone)).toEqual([]);
});

test('when a person has the conversation, then the phone does not take it away', async () => {
  const phone = await knownCustomer();
  await change(system, phone, 'take-over', { by: 'Ann' });
  await kapso().personReplies(phone, 'from the phone');
  await eventually(async () => expect(await ownersOf(phone)).toHaveLength(1));
  expect((await ask(system, 'GET', `/conversations/${await conversationIdOf(system, phone)}`)).body).toMatchObject({
    heldBy: 'Ann',
    modeUntil: null,
  });
});
