/**
 * People take over at each step of a turn, twenty customers at each: once the answer is there, the bot says nothing that the answer does
 * not name; after the release, what is open is answered once.
 */
import type { ModeChanged } from '../workflows/contract';
import { balance, eventually, inboundOf, newPhone, outcomesOf } from './support/expectations';
import { answerByHand, change } from './support/people';
import { randomNumbers } from './support/random';
import { startSuite } from './support/suite';
import type { System } from './support/system';

const CUSTOMERS = 20;

let system: System;

beforeAll(async () => {
  system = await startSuite('take_over', { environment: () => ({ AI_PROVIDERS: 'sandbox', SEND_CONFIRM_MS: '2000' }) });
});

afterAll(async () => {
  await system?.close();
});

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;
const random = randomNumbers(13);
const jitter = (mostMs: number) => new Promise((resolve) => setTimeout(resolve, random() * mostMs));

async function configure(data: { quietMs?: number }): Promise<void> {
  await system.db.chatbotSettings.updateMany({ data });
}

/** Resolves once the customer's newest reply in the outbox has one of these statuses. */
async function replyIs(phone: string, ...statuses: string[]): Promise<void> {
  await eventually(async () => {
    const reply = await system.db.message.findFirst({
      where: { direction: 'outbound', conversation: { contact: { phone } } },
      orderBy: { position: 'desc' },
      select: { status: true },
    });
    expect(statuses).toContain(reply?.status);
  });
}

/** Sends, doubts and retries of a customer's replies have ended. */
async function nothingIsUnderWay(phone: string): Promise<void> {
  const status = { in: ['pending' as const, 'sending' as const, 'unconfirmed' as const] };
  const count = () => system.db.message.count({ where: { direction: 'outbound', status, conversation: { contact: { phone } } } });
  await eventually(async () => expect(await count()).toBe(0), 30_000);
}

interface Step {
  /** Before the customer writes. */
  prepare?(phone: string): void;
  /** Writes, and resolves at the moment of the take-over. */
  write(phone: string): Promise<unknown>;
  /** Whether messages may be on their way. */
  mayBeOnItsWay?: boolean;
  quietMs?: number;
}

const text = 'question';

const STEPS: Record<string, Step> = {
  'before recording': {
    async write(phone) {
      void kapso().customerSends({ from: phone, text });
      await jitter(30);
    },
    mayBeOnItsWay: true,
  },
  'while debouncing': {
    quietMs: 1_500,
    async write(phone) {
      await kapso().customerSends({ from: phone, text });
      await eventually(async () => expect(await inboundOf(system, phone)).toHaveLength(2));
    },
  },
  'model call': {
    prepare(phone) {
      models().program({
        model: 'sandbox-model',
        when: ({ messages }) => JSON.stringify(messages).includes(phone),
        delayMs: 1_000,
        reply: 'late',
      });
    },
    async write(phone) {
      await kapso().customerSends({ from: phone, text: `question of ${phone}` });
      await eventually(async () => expect(await inboundOf(system, phone)).toHaveLength(2));
      await jitter(900);
    },
  },
  'draft, around its claim': {
    prepare(phone) {
      models().program({
        model: 'sandbox-model',
        when: ({ messages }) => JSON.stringify(messages).includes(phone),
        delayMs: 300,
        reply: 'late',
      });
    },
    async write(phone) {
      await kapso().customerSends({ from: phone, text: `question of ${phone}` });
      await new Promise((resolve) => setTimeout(resolve, 280));
      await jitter(150);
    },
    mayBeOnItsWay: true,
  },
  'draft, that waits to be sent': {
    prepare: (phone) => void kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer: '429', retryAfterSeconds: 5 }),
    async write(phone) {
      await kapso().customerSends({ from: phone, text });
      await eventually(async () =>
        expect(
          kapso()
            .sends()
            .filter(({ to }) => to === phone),
        ).toHaveLength(2),
      );
      await replyIs(phone, 'pending');
    },
  },
  claim: {
    prepare: (phone) => void kapso().fault({ on: 'send', match: { to: phone }, times: 1, delayBeforeMs: 1_000 }),
    async write(phone) {
      await kapso().customerSends({ from: phone, text });
      await replyIs(phone, 'sending');
    },
    mayBeOnItsWay: true,
  },
  'in doubt, and delivered': {
    prepare: (phone) =>
      void kapso().fault({
        on: 'send',
        match: { to: phone },
        times: 1,
        answer: 'cut',
        accepted: true,
        dropStatuses: ['sent', 'delivered', 'read'],
      }),
    async write(phone) {
      await kapso().customerSends({ from: phone, text });
      await replyIs(phone, 'unconfirmed', 'sent');
    },
    mayBeOnItsWay: true,
  },
  'in doubt, and not delivered': {
    prepare: (phone) => void kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer: 'cut', accepted: false }),
    async write(phone) {
      await kapso().customerSends({ from: phone, text });
      await replyIs(phone, 'unconfirmed');
    },
    mayBeOnItsWay: true,
  },
};

const botsMessages = (phone: string, handIds: ReadonlySet<string>) =>
  kapso()
    .visibleTo(phone)
    .filter(({ correlation }) => correlation !== undefined && !handIds.has(correlation));

async function oneCustomer(step: Step): Promise<void> {
  const phone = newPhone();
  await kapso().customerSends({ from: phone, text: 'hello' });
  await outcomesOf(system, phone, 1, 60_000);
  step.prepare?.(phone);
  await step.write(phone);
  const taken = await change(system, phone, 'take-over', { by: 'Ann' });
  const answeredAtMs = Date.now();
  expect(taken).toMatchObject({ status: 200, body: { mode: 'human', heldBy: 'Ann' } });
  const { onTheirWayIds } = taken.body as ModeChanged;
  if (!step.mayBeOnItsWay) expect(onTheirWayIds).toEqual([]);
  const before = new Set([
    ...kapso()
      .visibleTo(phone)
      .map(({ correlation }) => correlation),
    ...onTheirWayIds,
  ]);
  await eventually(async () => expect(await inboundOf(system, phone)).toHaveLength(2));
  await kapso().customerSends({ from: phone, text: 'anybody?' });
  await eventually(async () => expect((await inboundOf(system, phone)).at(2)?.outcome).toBeNull());
  const hand = await answerByHand(system, phone, 'I am here.');
  expect(hand.status).toBe(202);
  const handIds = new Set([String(hand.body.id)]);
  await eventually(async () => expect((await inboundOf(system, phone)).at(2)?.outcome).toBe('human'), 30_000);
  await nothingIsUnderWay(phone);
  await kapso().customerSends({ from: phone, text: 'one more' });
  await eventually(async () => expect(await inboundOf(system, phone)).toHaveLength(4));
  for (const { correlation } of botsMessages(phone, handIds)) expect(before).toContain(correlation);
  const late = kapso()
    .sends()
    .filter(({ to, atMs, correlation }) => to === phone && atMs > answeredAtMs && !handIds.has(correlation ?? ''));
  for (const { correlation } of late) expect(onTheirWayIds).toContain(correlation);
  const silent = botsMessages(phone, handIds).length;
  expect((await change(system, phone, 'release', { by: 'Ann' })).status).toBe(200);
  const outcomes = await outcomesOf(system, phone, 4, 30_000);
  expect([outcomes[0], outcomes[2], outcomes[3]]).toEqual(['answered', 'human', 'answered']);
  expect(['human', 'answered', 'merged']).toContain(outcomes[1]);
  expect(botsMessages(phone, handIds)).toHaveLength(silent + 1);
  expect(
    new Set(
      kapso()
        .visibleTo(phone)
        .map(({ correlation }) => correlation),
    ).size,
  ).toBe(kapso().visibleTo(phone).length);
}

test.each(Object.entries(STEPS))(
  'when a person takes over at the step: %s, then the bot is silent from the answer on, and nothing is answered twice or left open',
  async (_name, step) => {
    models().clear();
    kapso().clearFaults();
    await configure({ quietMs: step.quietMs ?? 0 });
    await Promise.all(Array.from({ length: CUSTOMERS }, () => oneCustomer(step)));
    expect((await balance(system.db)).pending).toBeUndefined();
    expect(await system.db.conversation.count({ where: { waitingSince: { not: null } } })).toBe(0);
  },
  120_000,
);
