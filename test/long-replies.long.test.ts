/** Replies on their way to WhatsApp: Markdown, and more text than fits into one message. Real processes, some of which are killed. */

import { conversationState } from '../workflows/contract';
import { balance, eventually, newPhone, outcomesOf, repliesOf, workflowIdOf } from './support/expectations';
import { startSuite } from './support/suite';
import { API_KEY, type RunningProcess, type System } from './support/system';

const SENTENCES = Array.from({ length: 160 }, (_, index) => `Step ${index + 1}: turn the small wheel a little to the left and wait.`);
/** About 9,000 characters, three messages. */
const LONG = `${SENTENCES.join(' ')} LAST: never open the valve.`;

let system: System;
let worker: RunningProcess;

beforeAll(async () => {
  system = await startSuite('long_replies', { environment: () => ({ SEND_CONFIRM_MS: '6000' }) });
  [worker] = system.workers as [RunningProcess];
});

afterAll(async () => {
  await system?.close();
});

beforeEach(() => {
  system.sandbox.models.clear();
  system.sandbox.kapso.clearFaults();
});

afterEach(async () => {
  await balance(system.db);
});

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;
const textsTo = (phone: string) =>
  kapso()
    .visibleTo(phone)
    .map(({ text }) => text);

async function ask(phone: string, reply: string): Promise<void> {
  models().program({ model: 'sandbox-model', times: 1, reply });
  await kapso().customerSends({ from: phone, text: 'how does it work?' });
}

/** Resolves once the workflow has ended the turn, which takes a moment longer than the record of its outcome. */
async function waitsAgain(phone: string): Promise<void> {
  const workflow = system.temporal.workflow.getHandle(await workflowIdOf(system, phone));
  await eventually(async () => expect(await workflow.query(conversationState)).toMatchObject({ phase: 'waiting for a message' }));
}

/** How often the workflow has tried to send something to the customer. */
async function triesFor(phone: string): Promise<number> {
  const { events } = await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).fetchHistory();
  const summaries = (events ?? []).map(({ userMetadata }) => Buffer.from(userMetadata?.summary?.data ?? '').toString());
  return summaries.filter((summary) => summary === '"send reply"').length;
}

async function expectWhole(phone: string): Promise<void> {
  await kapso().waitForVisible(phone, 3, 30_000);
  expect(await outcomesOf(system, phone, 1, 30_000)).toEqual(['answered']);
  await kapso().settled();
  expect(textsTo(phone).join(' ')).toBe(LONG);
}

describe('a reply', () => {
  test('when a model writes Markdown, then the customer sees WhatsApp’s marks, and the record shows what was sent', async () => {
    const phone = newPhone();
    await ask(
      phone,
      '## Prices\n\n**Small**: 5 EUR\n* **Large**: 9 EUR\n\n| size | price |\n|---|---|\n| S | 5 |\n\n[Order here](https://shop.example.test/a_b_c)',
    );
    await outcomesOf(system, phone, 1);
    const shown = '*Prices*\n\n*Small*: 5 EUR\n- *Large*: 9 EUR\n\n*size | price*\nS | 5\n\nOrder here (https://shop.example.test/a_b_c)';
    expect(textsTo(phone)).toEqual([shown]);
    expect(await repliesOf(system, phone)).toMatchObject([{ text: shown }]);
  });

  test('when it has 9,000 characters, then three messages arrive in order, nothing is cut, and the API shows them', async () => {
    const phone = newPhone();
    await ask(phone, LONG);
    await expectWhole(phone);
    const replies = await repliesOf(system, phone);
    expect(replies.map(({ text }) => text)).toEqual(textsTo(phone));
    expect(textsTo(phone).every((text) => text.length <= 4_096 && text.endsWith('.'))).toBe(true);

    const { conversationId } = await system.db.message.findUniqueOrThrow({ where: { id: replies[0]?.id ?? '' } });
    const headers = { Authorization: `Bearer ${API_KEY}` };
    const response = await fetch(`${system.apiUrl}/api/v1/conversations/${conversationId}/messages`, { headers });
    const { data } = (await response.json()) as { data: object[] };
    const first = { part: 1, partOfId: null, replyToId: expect.any(String) };
    expect(data.slice(0, 3)).toMatchObject([{ part: 3, partOfId: replies[0]?.id }, { part: 2, partOfId: replies[0]?.id }, first]);
  });

  test('when it has 240,000 characters, then all 60 parts arrive in order, and Temporal’s limits are far away', async () => {
    const phone = newPhone();
    const text = Array.from({ length: 4_500 }, (_, index) => `Step ${index + 1}: turn the small wheel a little to the left.`).join(' ');
    await ask(phone, text);
    await kapso().waitForVisible(phone, 60, 120_000);
    expect(await outcomesOf(system, phone, 1, 30_000)).toEqual(['answered']);
    expect(textsTo(phone).join(' ')).toBe(text);
    const handle = system.temporal.workflow.getHandle(await workflowIdOf(system, phone));
    const { historyLength, historySize } = await handle.describe();
    // What docs/decisions/0017 says of 250 parts.
    expect(historyLength * (250 / 60)).toBeLessThan(2_000);
    expect(historySize).toBeLessThan(1_000_000);
  }, 180_000);

  test('when a part is permanently refused, then the one before it arrives once, and a person is needed', async () => {
    const phone = newPhone();
    await ask(phone, LONG);
    await kapso().waitForVisible(phone, 1, 20_000);
    kapso().fault({ on: 'send', match: { to: phone }, answer: '100' });
    expect(await outcomesOf(system, phone, 1, 30_000)).toEqual(['failed']);
    expect((await repliesOf(system, phone)).map(({ status }) => status)).toEqual([
      expect.stringMatching(/sent|delivered|read/),
      'failed',
      'failed',
    ]);
    expect(textsTo(phone)).toHaveLength(1);
    const conversation = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
    expect(conversation.attention).toMatchObject([{ kind: 'reply_failed' }]);
    await waitsAgain(phone);
    expect(await triesFor(phone)).toBe(2);

    kapso().clearFaults();
    await kapso().customerSends({ from: phone, text: 'hello?' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['failed', 'answered']);
  });

  test('when its first part is refused for good, then no other is tried', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, answer: '100' });
    await ask(phone, LONG);
    expect(await outcomesOf(system, phone, 1, 30_000)).toEqual(['failed']);
    expect((await repliesOf(system, phone)).map(({ status }) => status)).toEqual(['failed', 'failed', 'failed']);
    await waitsAgain(phone);
    expect(await triesFor(phone)).toBe(1);
  });

  test('when it is unknown whether a part was sent, then the next waits for proof, and all arrive once and in order', async () => {
    const phone = newPhone();
    kapso().fault({
      on: 'send',
      match: { to: phone },
      times: 1,
      answer: 'cut',
      accepted: true,
      dropStatuses: ['sent', 'delivered', 'read'],
    });
    await ask(phone, LONG);
    await expectWhole(phone);
    expect((await repliesOf(system, phone)).map(({ sendAttempts }) => sendAttempts)).toEqual([1, 1, 1]);
  });

  test('when a part was certainly not sent, then it is sent again before the next', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer: 'cut', accepted: false });
    await ask(phone, LONG);
    await expectWhole(phone);
    expect((await repliesOf(system, phone)).map(({ sendAttempts }) => sendAttempts)).toEqual([2, 1, 1]);
  });
});

describe('the worker is killed between two parts', () => {
  test.each([1, 2])('after part %s has arrived: all parts arrive once and in order', async (part) => {
    const phone = newPhone();
    await ask(phone, LONG);
    await kapso().waitForVisible(phone, part, 20_000);
    await worker.kill();
    worker = await system.startWorker();
    await expectWhole(phone);
    expect((await repliesOf(system, phone)).map(({ sendAttempts }) => sendAttempts)).toEqual([1, 1, 1]);
  });

  test('while a part is on its way: its status webhook settles it, and the rest follows', async () => {
    const phone = newPhone();
    await ask(phone, LONG);
    await kapso().waitForVisible(phone, 1, 20_000);
    kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer: 'hang', accepted: true });
    await kapso().waitForVisible(phone, 2, 20_000);
    await worker.kill();
    worker = await system.startWorker();
    await expectWhole(phone);
    expect((await repliesOf(system, phone)).map(({ sendAttempts }) => sendAttempts)).toEqual([1, 1, 1]);
  });

  test('when its workflow is terminated as well, then the next message is answered together with the first', async () => {
    const phone = newPhone();
    await ask(phone, LONG);
    await kapso().waitForVisible(phone, 1, 20_000);
    await worker.kill();
    await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).terminate();
    worker = await system.startWorker();
    const before = await repliesOf(system, phone);
    expect(before.map(({ status }) => status)).toContain('pending');
    await kapso().customerSends({ from: phone, text: 'and then?' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['merged', 'answered']);
    await eventually(async () => expect((await repliesOf(system, phone)).map(({ status }) => status)).not.toContain('pending'));
  });
});
