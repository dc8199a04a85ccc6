/** The only provider refuses what strict chat templates refuse. Through the whole system, each turn is answered at the first attempt. */
import { newNumber, placeCall, resultOf } from './support/calls';
import { balance, newPhone, outcomesOf, repliesOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('strict', {
    environment: ({ modelsUrl }) => ({ DEEPSEEK_API_KEY: 'k', DEEPSEEK_BASE_URL: modelsUrl, AI_PROVIDERS: 'deepseek:strict' }),
  });
});

afterAll(async () => {
  await system?.close();
});

beforeEach(async () => {
  models().clear();
  models().program({ model: 'strict', strict: true, reply: 'ok' });
  await configure({ quietMs: 0, historyLimit: 20 });
});

afterEach(async () => {
  await balance(system.db);
});

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;
/** The messages of the last request to the model, without the system message. */
const lastTalk = () => models().requests('strict').at(-1)?.messages.slice(1) ?? [];

async function configure(data: { quietMs?: number; historyLimit?: number }): Promise<void> {
  const { id: workspaceId } = await system.db.workspace.findUniqueOrThrow({ where: { kapsoPhoneNumberId: system.phoneNumberId } });
  await system.db.chatbotSettings.update({ where: { workspaceId }, data });
}

async function say(phone: string, ...texts: string[]): Promise<void> {
  for (const text of texts) expect((await kapso().customerSends({ from: phone, text, name: 'Mira' })).status).toBe(200);
}

test('when five messages come in a burst, then one reply answers them', async () => {
  const phone = newPhone();
  await configure({ quietMs: 1_000 });
  await say(phone, 'hello', 'do you repair bicycles', 'it has a flat tyre', 'the front one', 'today?');
  expect(await outcomesOf(system, phone, 5)).toEqual(['merged', 'merged', 'merged', 'merged', 'answered']);
  expect(await repliesOf(system, phone)).toMatchObject([{ attempts: 1 }]);
  expect(lastTalk()).toHaveLength(1);
});

test('when earlier messages were never answered, then the next one is', async () => {
  const phone = newPhone();
  models().program({ model: 'strict', times: 2, error: { status: 400 } });
  for (const [index, text] of ['one', 'two'].entries()) {
    await say(phone, text);
    expect(await outcomesOf(system, phone, index + 1)).toEqual(Array(index + 1).fill('failed'));
  }
  await say(phone, 'are you there?');
  expect(await outcomesOf(system, phone, 3)).toEqual(['failed', 'failed', 'answered']);
  expect(await repliesOf(system, phone)).toMatchObject([{ attempts: 1 }]);
  expect(lastTalk()).toEqual([{ role: 'user', content: 'one\ntwo\nare you there?' }]);
});

test('when a call happened in between, then its note is fenced data, and the next message is answered', async () => {
  const phone = newNumber().slice(1);
  await say(phone, 'please call me');
  await outcomesOf(system, phone, 1);
  const { body } = await placeCall(system, { to: `+${phone}` });
  const { summary } = await resultOf(system, body.callId);
  await say(phone, 'thanks, one more question');
  expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  const [first, second, third] = lastTalk();
  expect([first, second]).toEqual([
    { role: 'user', content: 'please call me' },
    { role: 'assistant', content: 'ok' },
  ]);
  const [, marker = ''] = /^--- data (\w+) \(voice call\)\n/.exec(third?.content ?? '') ?? [];
  expect(marker).toMatch(/^[0-9a-f]{12}$/);
  expect(third?.content).toBe(`--- data ${marker} (voice call)\n${summary}\n--- end of data ${marker}\nthanks, one more question`);
  expect(models().requests('strict').at(-1)?.messages[0]?.content).toContain(`"--- data ${marker}"`);
  const earlier = models().requests('strict').at(-2)?.messages[0]?.content ?? '';
  expect(earlier).not.toContain(marker);
});

test.each([1, 2, 3])(
  'when the window has %i earlier messages, and so begins in the middle of a talk, then all are answered',
  async (historyLimit) => {
    const phone = newPhone();
    await configure({ historyLimit });
    for (const [index, text] of ['one', 'two', 'three'].entries()) {
      await say(phone, text);
      await outcomesOf(system, phone, index + 1);
    }
    expect(await outcomesOf(system, phone, 3)).toEqual(['answered', 'answered', 'answered']);
    expect((await repliesOf(system, phone)).map(({ attempts }) => attempts)).toEqual([1, 1, 1]);
  },
);

test('when a customer writes, then the model gets the date, the time and the name that the customer uses', async () => {
  const phone = newPhone();
  await say(phone, 'hi');
  await outcomesOf(system, phone, 1);
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const system0 = models().requests('strict').at(-1)?.messages[0]?.content;
  expect(system0).toContain(`\nNow: ${new Intl.DateTimeFormat('en-GB', { dateStyle: 'full', timeZone }).format()}`);
  expect(system0).toContain(`(${timeZone})\nThe customer's name: "Mira"\n--- end of data `);
});
