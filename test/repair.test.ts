/** What no webhook brings is found in Kapso's list, once, in its order. Real processes. */
import { randomUUID } from 'node:crypto';
import { REPAIR_WORKFLOW, type RepairResult, repairScheduleId } from '../workflows/contract';
import { balance, eventually, inboundOf, newPhone, outcomesOf, repliesOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

const HOUR_MS = 3_600_000;
const WAIT_MS = 45_000;

let system: System;

beforeAll(async () => {
  system = await startSuite('repair', {
    environment: () => ({ REPAIR_MINUTES: '60', KAPSO_READS_PER_MINUTE: '6000', SESSION_TIMEOUT_MS: '1000' }),
  });
});

afterAll(async () => {
  await system?.close();
});

afterEach(async () => {
  kapso().clearFaults();
  setWebhook(true);
  await balance(system.db);
});

const kapso = () => system.sandbox.kapso;

function setWebhook(active: boolean): void {
  for (const webhook of kapso().platform.webhooks) webhook.active = active;
}

const nextRepair = () => ({
  workflowId: `test-repair-${randomUUID()}`,
  taskQueue: system.taskQueue,
  args: [{ phoneNumberId: system.phoneNumberId }] as [{ phoneNumberId: string }],
});

/** A whole pass; ends at once unless the webhook is paused. */
async function repair(): Promise<RepairResult> {
  return (await system.temporal.workflow.execute(REPAIR_WORKFLOW, nextRepair())) as RepairResult;
}

/** Starts a pass as the schedule does; it repeats itself as long as the webhook is paused. */
async function trigger(): Promise<void> {
  await system.temporal.schedule.getHandle(repairScheduleId(system.phoneNumberId)).trigger('ALLOW_ALL');
}

async function setCursor(atMs: number): Promise<void> {
  await system.db.repair.updateMany({ data: { repairedUntil: new Date(atMs) } });
}

const row = () => system.db.repair.findFirstOrThrow();

/** Each message has one outcome, and each turn one reply, which the customer has seen once. */
async function expectAnswered(phone: string, texts: string[]): Promise<void> {
  const outcomes = await outcomesOf(system, phone, texts.length, WAIT_MS);
  expect((await inboundOf(system, phone)).map(({ text }) => text)).toEqual(texts);
  expect(outcomes.every((outcome) => outcome === 'answered' || outcome === 'merged')).toBe(true);
  const answered = outcomes.filter((outcome) => outcome === 'answered').length;
  expect(await repliesOf(system, phone)).toHaveLength(answered);
  expect(kapso().visibleTo(phone)).toHaveLength(answered);
}

test('when the webhook was paused for a while, then every message is answered once, in order, and an alert says why nothing came', async () => {
  const phones = Array.from({ length: 8 }, newPhone);
  setWebhook(false);
  for (const text of ['one', 'two', 'three'])
    await Promise.all(phones.map((phone) => kapso().customerSends({ from: phone, text: `${text} ${phone}` })));
  const [first = ''] = phones;
  expect(await inboundOf(system, first)).toEqual([]);

  await trigger();
  for (const phone of phones)
    await expectAnswered(
      phone,
      ['one', 'two', 'three'].map((text) => `${text} ${phone}`),
    );
  const webhookId = kapso().platform.webhooks[0]?.id;
  expect(await system.db.alert.findFirst({ where: { cause: `webhook paused: ${webhookId}` } })).toMatchObject({
    text: expect.stringMatching(/until you activate it again/),
  });

  // No webhook brought the statuses of the replies either.
  await kapso().settled();
  await trigger();
  // A status that is younger than this pass comes with the next one, 20 s later.
  const statuses = async () => new Set((await repliesOf(system, first)).map(({ status }) => status));
  await eventually(async () => expect(await statuses()).toEqual(new Set(['read'])), WAIT_MS);
});

test('when a worker starts that may switch the webhook on, then it does, and what was lost is answered', async () => {
  const phone = newPhone();
  setWebhook(false);
  await kapso().customerSends({ from: phone, text: 'anybody there?' });
  await Promise.all(system.workers.map((worker) => worker.stop()));
  system.workers = [await system.startWorker({ KAPSO_RESUME_WEBHOOK: 'true' })];
  await expectAnswered(phone, ['anybody there?']);
  expect(kapso().platform.webhooks.map(({ active }) => active)).toEqual([true]);
  await kapso().customerSends({ from: phone, text: 'and now?' });
  await expectAnswered(phone, ['anybody there?', 'and now?']);
});

test('when webhooks and passes bring the same messages at the same time, then each is recorded and answered once', async () => {
  const phones = Array.from({ length: 10 }, newPhone);
  const passes = Promise.all(Array.from({ length: 6 }, () => repair()));
  for (const text of ['first', 'second', 'third', 'fourth']) {
    const sent = phones.map((phone) => kapso().customerSends({ from: phone, text: `${text} of ${phone}` }));
    await Promise.all([...sent, repair()]);
  }
  await passes;
  for (const phone of phones)
    await expectAnswered(
      phone,
      ['first', 'second', 'third', 'fourth'].map((text) => `${text} of ${phone}`),
    );
});

test('when nothing was lost, then a pass signals nobody, also not people whose conversations are over', async () => {
  const phone = newPhone();
  await kapso().customerSends({ from: phone, text: 'hello' });
  await expectAnswered(phone, ['hello']);
  await kapso().settled();
  await repair();
  const { workflowId } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
  const handle = system.temporal.workflow.getHandle(workflowId);
  await handle.result();
  const { runId } = await handle.describe();
  expect(await repair()).toMatchObject({ messages: 0, statuses: 0, unreadable: 0 });
  expect((await handle.describe()).runId).toBe(runId);
});

test('when a message is found that is too old, then it is recorded where it belongs, a person is asked to look, and nobody answers', async () => {
  const phone = newPhone();
  const [lostMs, laterMs] = [Date.now() - 20 * HOUR_MS, Date.now() - HOUR_MS];
  await kapso().customerSends({ from: phone, text: 'came by webhook' });
  await expectAnswered(phone, ['came by webhook']);
  kapso().remembers([
    { with: phone, direction: 'inbound', text: 'from yesterday', atMs: lostMs },
    { with: newPhone(), direction: 'inbound', text: 'an hour ago', atMs: laterMs },
  ]);
  await setCursor(lostMs);
  await repair();
  await eventually(async () => expect((await inboundOf(system, phone)).map(({ outcome }) => outcome)).toContain('too_old'));
  const conversation = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
  expect(conversation.needsAttention).toBe(true);
  expect(kapso().visibleTo(phone)).toHaveLength(1);
  expect((await row()).repairedUntil.getTime()).toBeGreaterThan(Date.now() - 60_000);
});

test('when Kapso is away, then the pass ends, alerts after a while, and the next one goes on from the same place', async () => {
  const phone = newPhone();
  kapso().remembers([{ with: phone, direction: 'inbound', text: 'while Kapso was away', atMs: Date.now() - 2 * HOUR_MS }]);
  const cursorMs = Date.now() - 2 * HOUR_MS;
  await setCursor(cursorMs);
  kapso().fault({ on: 'list', answer: '503_empty' });
  expect(await repair()).toMatchObject({ problem: 'Kapso responded with 503' });
  expect((await row()).failingSince).not.toBeNull();
  const alert = { where: { cause: `repair fails: ${system.phoneNumberId}` } };
  expect(await system.db.alert.findFirst(alert)).toBeNull();

  await system.db.repair.updateMany({ data: { failingSince: new Date(Date.now() - HOUR_MS) } });
  kapso().clearFaults();
  kapso().fault({ on: 'list', answer: '401' });
  expect(await repair()).toHaveProperty('problem');
  expect(await system.db.alert.findFirst(alert)).toMatchObject({ text: expect.stringMatching(/Kapso refuses the key/) });
  expect((await row()).repairedUntil.getTime()).toBe(cursorMs);

  kapso().clearFaults();
  expect(await repair()).not.toHaveProperty('problem');
  await expectAnswered(phone, ['while Kapso was away']);
  expect((await row()).failingSince).toBeNull();
});

test('when Kapso limits the requests, then the pass waits as long as Kapso asks', async () => {
  const phone = newPhone();
  kapso().remembers([{ with: phone, direction: 'inbound', text: 'in a busy minute', atMs: Date.now() - 1_000 }]);
  kapso().fault({ on: 'list', answer: '429', retryAfterSeconds: 2, times: 1 });
  const startedMs = Date.now();
  expect(await repair()).not.toHaveProperty('problem');
  expect(Date.now() - startedMs).toBeGreaterThanOrEqual(2_000);
  await expectAnswered(phone, ['in a busy minute']);
});
