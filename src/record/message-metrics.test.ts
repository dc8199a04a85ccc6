/** The numbers of a day on a real database: which message counts on which day, and that they are the same however the day was recorded. */
import { randomUUID } from 'node:crypto';
import { randomNumbers } from '../../test/support/random';
import { message, newPerson, useRecorder } from '../../test/support/recorder';
import type { ReportedStatus } from '../../workflows/contract';
import { sql } from '../platform/database';
import { findHourBalances, totalBalance } from './message-balance';
import { computeMessageMetrics, findMessageMetrics } from './message-metrics';
import { claimReply, failTurn, joinEarlyReports, keepReports, noteSentTime, raiseReply, storeDraft } from './replies';

const recorder = useRecorder('message_metrics');
const BERLIN = 'Europe/Berlin';
const MINUTE_MS = 60_000;

async function aConversation() {
  const { id: workspaceId } = await recorder.newWorkspace();
  const { id: contactId } = await recorder.db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID() } });
  const data = { workspaceId, contactId, workflowId: randomUUID() };
  const { id: conversationId } = await recorder.db.orm.conversation.create({ data });
  return { workspaceId, conversationId };
}

type Place = Awaited<ReturnType<typeof aConversation>>;
type Row = Partial<Parameters<typeof recorder.db.orm.message.create>[0]['data']>;

const asked = async (place: Place, at: string, fields: Row = {}) =>
  await recorder.db.orm.message.create({
    data: { ...place, direction: 'inbound', kind: 'text', status: 'received', occurredAt: at, ...fields } as never,
  });
const sent = async (place: Place, at: string, fields: Row = {}) =>
  await recorder.db.orm.message.create({
    data: { ...place, direction: 'outbound', kind: 'text', status: 'sent', occurredAt: at, sendAttempts: 1, ...fields } as never,
  });

const numbersOf = async ({ workspaceId }: Pick<Place, 'workspaceId'>, from: string, to = from, timeZone = BERLIN) =>
  (await findMessageMetrics(recorder.db, { workspaceId, from, to, timeZone })).map(
    ({ computedAt: _at, workspaceId: _id, timeZone: _zone, ...numbers }) => numbers,
  );

const NOTHING = {
  received: 0,
  answered: 0,
  totalSent: 0,
  delivered: 0,
  read: 0,
  failed: 0,
  handedOver: 0,
  answerP50Ms: null,
  answerP95Ms: null,
};

/** The numbers become as old as they may be. */
const numbersGrowOld = (interval = '2 hours') =>
  recorder.db.query(sql`UPDATE message_metrics SET computed_at = computed_at - ${interval}::interval`);

describe('which day a message belongs to', () => {
  test.each([
    ['the first moment', '2026-11-26T23:00:00.000Z', '2026-11-27'],
    ['the moment before', '2026-11-26T22:59:59.999Z', '2026-11-26'],
    ['the last moment', '2026-11-27T22:59:59.999Z', '2026-11-27'],
    ['the last moment of a day of 23 hours', '2026-03-29T21:59:59.999Z', '2026-03-29'],
    ['the first moment after it', '2026-03-29T22:00:00.000Z', '2026-03-30'],
    ['the 25th hour of a day', '2026-10-25T22:59:59.999Z', '2026-10-25'],
  ])('when it comes at %s, then it counts in the time zone of the workspace, on that day only', async (_when, at, day) => {
    const place = await aConversation();
    await asked(place, at);
    await sent(place, at);
    const [before, after] = [-1, 1].map((days) => new Date(Date.parse(day) + days * 86_400_000).toISOString().slice(0, 10));
    expect(await numbersOf(place, before ?? '', after)).toEqual([
      { ...NOTHING, day: before },
      { ...NOTHING, day, received: 1, totalSent: 1 },
      { ...NOTHING, day: after },
    ]);
  });

  test('when a reply is read days later, then it counts as read on the day on which it was sent', async () => {
    const place = await aConversation();
    const providerMessageId = `wamid.${randomUUID()}`;
    await sent(place, '2026-11-20T12:00:00Z', { providerMessageId });
    expect(await numbersOf(place, '2026-11-20')).toMatchObject([{ totalSent: 1, delivered: 0, read: 0 }]);
    await keepReports(recorder.db, [{ providerMessageId, status: 'read', atMs: Date.parse('2026-11-24T12:00:00Z') }]);
    await numbersGrowOld();
    expect(await numbersOf(place, '2026-11-20', '2026-11-24')).toMatchObject([
      { totalSent: 1, delivered: 1, read: 1 },
      ...Array.from({ length: 4 }, () => NOTHING),
    ]);
  });
});

describe('what counts', () => {
  test('when messages have every outcome, then each is counted where it belongs', async () => {
    const place = await aConversation();
    const at = '2026-11-27T12:00:00Z';
    const outcomes = ['answered', 'merged', 'human', 'human', 'failed', 'too_old', 'history', 'group', null] as const;
    for (const outcome of outcomes) await asked(place, at, { outcome });
    await asked({ ...(await aConversation()), workspaceId: place.workspaceId }, at, { outcome: 'human' });
    for (const status of ['sent', 'delivered', 'read', 'failed', 'unconfirmed', 'pending'] as const) await sent(place, at, { status });
    // A draft that was thrown away, a note, and another workspace's message.
    await sent(place, at, { status: 'failed', sendAttempts: 0 });
    await asked(place, at, { direction: 'note', kind: 'internal_note' });
    await asked(await aConversation(), at, { outcome: 'answered' });
    expect(await numbersOf(place, '2026-11-27')).toEqual([
      { ...NOTHING, day: '2026-11-27', received: 8, answered: 2, totalSent: 3, delivered: 2, read: 1, failed: 1, handedOver: 2 },
    ]);
  });

  test('when turns were answered, then the time runs from their first message to the first part of the reply', async () => {
    const place = await aConversation();
    for (const [index, seconds] of [1, 2, 3, 4, 100].entries()) {
      const minute = `2026-11-27T12:0${index}`;
      const { id } = await asked(place, `${minute}:10Z`, { outcome: 'answered' });
      await recorder.db.orm.message.update({ where: { id }, data: { turnId: id } });
      await asked(place, `${minute}:05Z`, { outcome: 'merged', turnId: id });
      const repliedAt = new Date(Date.parse(`${minute}:05Z`) + seconds * 1_000).toISOString();
      const reply = await sent(place, repliedAt, { replyToId: id });
      await sent(place, '2026-11-27T20:00:00Z', { partOfId: reply.id, part: 2 });
    }
    expect(await numbersOf(place, '2026-11-27')).toMatchObject([{ received: 10, answered: 10, answerP50Ms: 3_000, answerP95Ms: 80_800 }]);
  });

  test('when the clocks disagree, then no answer comes before its question', async () => {
    const place = await aConversation();
    const { id } = await asked(place, '2026-11-27T12:00:10Z', { outcome: 'answered' });
    await sent(place, '2026-11-27T12:00:09Z', { replyToId: id });
    expect(await numbersOf(place, '2026-11-27')).toMatchObject([{ answerP50Ms: 0, answerP95Ms: 0 }]);
  });
});

describe('computing anew', () => {
  const DAY = '2026-11-27';

  test('when the stored numbers are lost, wrong or of another time zone, then they are computed from the messages', async () => {
    const place = await aConversation();
    await asked(place, `${DAY}T12:00:00Z`, { outcome: 'answered' });
    const right = await numbersOf(place, DAY);
    await recorder.db.orm.messageMetrics.deleteMany();
    expect(await numbersOf(place, DAY)).toEqual(right);
    await recorder.db.orm.messageMetrics.updateMany({ data: { received: 99 } });
    await computeMessageMetrics(recorder.db, { ...place, days: [DAY], timeZone: BERLIN });
    expect(await numbersOf(place, DAY)).toEqual(right);
    await recorder.db.orm.messageMetrics.updateMany({ data: { received: 99, timeZone: 'Asia/Tokyo' } });
    expect(await numbersOf(place, DAY)).toEqual(right);
  });

  test('when numbers are asked for again, then a recent day is computed after seconds, an older one after an hour, a settled one never', async () => {
    const place = await aConversation();
    const [recent, older, settled] = [0, 20, 100].map((ago) => new Date(Date.now() - ago * 86_400_000).toISOString().slice(0, 10));
    const stored = async (interval: string) => {
      const changed = [];
      for (const day of [recent, older, settled] as string[]) {
        await recorder.db.orm.messageMetrics.deleteMany();
        await numbersOf(place, day, day, 'UTC');
        await recorder.db.orm.messageMetrics.updateMany({ data: { received: 99 } });
        await numbersGrowOld(interval);
        const [row] = await numbersOf(place, day, day, 'UTC');
        changed.push(row?.received === 99 ? 'stored' : 'computed');
      }
      return changed;
    };
    expect(await stored('0 seconds')).toEqual(['stored', 'stored', 'stored']);
    expect(await stored('6 seconds')).toEqual(['computed', 'stored', 'stored']);
    expect(await stored('61 minutes')).toEqual(['computed', 'computed', 'stored']);
  });

  test('when two compute a day at once, then both succeed, and the numbers are those of the one that has seen more', async () => {
    const place = await aConversation();
    await asked(place, `${DAY}T12:00:00Z`);
    await Promise.all(
      Array.from({ length: 5 }, () => computeMessageMetrics(recorder.db, { ...place, days: [DAY, '2026-11-28'], timeZone: BERLIN })),
    );
    expect(await numbersOf(place, DAY)).toMatchObject([{ received: 1 }]);
  });
});

/** An event of a conversation with one turn; times in milliseconds before the test began. */
interface TurnScript {
  askedAgoMs: number[];
  /** Undefined: no model answered. */
  sentAgoMs: number | undefined;
  reports: ReportedStatus[];
}

/** Runs the scripts in a workspace of its own; `shuffled`: each report comes up to three times, at any moment from the claim on. */
async function runDay(scripts: TurnScript[], nowMs: number, random: (() => number) | undefined): Promise<string> {
  const { id: workspaceId, phoneNumberId } = await recorder.newWorkspace();
  const { db } = recorder;
  const order = random ? shuffledBy(random, scripts) : scripts;
  for (const { askedAgoMs, sentAgoMs, reports } of order) {
    const person = newPerson().number;
    const messages = askedAgoMs.map((ago) => message('question', { sentAtMs: nowMs - ago }));
    const { workflow, conversationId } = await recorder.receive(phoneNumberId, person, ...messages);
    const turn = { conversationId, workflowId: workflow.workflowId, messageIds: messages.map(({ id }) => id) };
    if (sentAgoMs === undefined) {
      await failTurn(db, { ...turn, reason: 'no model' });
      continue;
    }
    const costs = { provider: 'p', model: 'm', attempts: 1, latencyMs: 1, promptTokens: 1, completionTokens: 1 };
    const draft = await storeDraft(db, { ...turn, texts: ['answer'], ...costs });
    if (!draft) throw new Error('the draft was refused');
    await claimReply(db, draft.messageId);
    const providerMessageId = `wamid.${randomUUID()}`;
    const accepted = async () => {
      await raiseReply(db, { messageId: draft.messageId }, { status: 'sent', phoneNumberId, providerMessageId });
      await joinEarlyReports(db, { providerMessageId, phoneNumberId });
    };
    const reported = reports.map((status, index) => async () => {
      const settled = await keepReports(db, [{ providerMessageId, status, atMs: nowMs - sentAgoMs + index * 1_000 }]);
      // As the webhook does (src/webhooks/statuses.ts).
      if (settled.has(providerMessageId)) return;
      const raised = await raiseReply(db, { providerMessageId }, { status, phoneNumberId, providerMessageId });
      if (!raised) await noteSentTime(db, providerMessageId);
    });
    const steps = [accepted, ...reported];
    const repeated = random ? shuffledBy(random, [...steps, ...reported.flatMap((step) => (random() < 0.5 ? [step, step] : []))]) : steps;
    for (const step of repeated) await step();
  }
  return workspaceId;
}

function shuffledBy<T>(random: () => number, items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, rank: random() }))
    .sort((one, other) => one.rank - other.rank)
    .map(({ item }) => item);
}

function scriptsOf(random: () => number, count: number): TurnScript[] {
  const most: ReportedStatus[] = ['sent', 'delivered', 'read'];
  return Array.from({ length: count }, () => {
    const last = Math.floor(random() * 40) * MINUTE_MS + MINUTE_MS;
    const askedAgoMs = Array.from({ length: 1 + Math.floor(random() * 3) }, (_item, index) => last + index * 5_000).reverse();
    const sentAgoMs = random() < 0.1 ? undefined : last - Math.floor(random() * 50) * 1_000;
    const reports = random() < 0.1 ? (['sent', 'failed'] as ReportedStatus[]) : most.slice(0, 1 + Math.floor(random() * 3));
    return { askedAgoMs, sentAgoMs, reports };
  });
}

test.each([1, 2, 3, 4])(
  'when a day is replayed with seed %i, its people in another order and its reports shuffled and repeated, then its numbers are those of the live day',
  async (seed) => {
    const random = randomNumbers(seed);
    const scripts = scriptsOf(random, 25);
    const nowMs = Date.now();
    const live = await runDay(scripts, nowMs, undefined);
    const replayed = await runDay(scripts, nowMs, random);
    // The last hour may have begun yesterday.
    const [from, to] = [nowMs - 86_400_000, nowMs].map((ms) => new Date(ms).toISOString().slice(0, 10)) as [string, string];
    const numbers = await numbersOf({ workspaceId: live }, from, to, 'UTC');
    expect(numbers.reduce((sum, { read }) => sum + read, 0)).toBeGreaterThan(0);
    expect(await numbersOf({ workspaceId: replayed }, from, to, 'UTC')).toEqual(numbers);
    const balance = async (workspaceId: string) =>
      await findHourBalances(recorder.db, { workspaceId, from: new Date(nowMs - 7_200_000), to: new Date(nowMs) });
    expect(await balance(replayed)).toEqual(await balance(live));
    const total = totalBalance(await balance(live));
    expect(total).toMatchObject({ balanced: true, pending: 0, accepted: scripts.flatMap(({ askedAgoMs }) => askedAgoMs).length });
  },
);

describe('the balance', () => {
  const range = (place: { workspaceId: string | undefined }) => ({
    ...{ workspaceId: place.workspaceId, from: new Date('2026-11-27T00:00:00Z'), to: new Date('2026-11-28T00:00:00Z') },
  });

  test('when messages have outcomes or none, then each hour adds up, and other workspaces and times do not count', async () => {
    const place = await aConversation();
    await asked(place, '2026-11-27T08:00:00Z', { outcome: 'too_old' });
    await asked(place, '2026-11-27T08:59:59.999Z');
    await asked(place, '2026-11-27T09:00:00Z', { outcome: 'human' });
    await asked(place, '2026-11-28T00:00:00Z', { outcome: 'human' });
    await asked(await aConversation(), '2026-11-27T08:00:00Z');
    await sent(place, '2026-11-27T08:00:00Z');
    const hours = await findHourBalances(recorder.db, range(place));
    expect(hours).toMatchObject([
      { hour: new Date('2026-11-27T08:00:00Z'), accepted: 2, pending: 1, outcomes: { too_old: 1, human: 0 }, balanced: true },
      { hour: new Date('2026-11-27T09:00:00Z'), accepted: 1, pending: 0, outcomes: { too_old: 0, human: 1 }, balanced: true },
    ]);
    expect(totalBalance(hours)).toMatchObject({ accepted: 3, pending: 1, outcomes: { too_old: 1, human: 1, answered: 0 }, balanced: true });
    const all = totalBalance(await findHourBalances(recorder.db, range({ workspaceId: undefined })));
    expect(all.accepted).toBeGreaterThan(3);
  });

  test.each([
    ['there is no reply', false, undefined, undefined],
    ['the reply was not sent', false, 'failed', undefined],
    ['a part of the reply was not sent', false, 'sent', 'pending'],
    ['the whole reply was sent', true, 'sent', 'read'],
  ] as const)('when a message counts as answered and %s, then balanced is %s', async (_what, balanced, reply, part) => {
    const place = await aConversation();
    const { id } = await asked(place, '2026-11-27T08:00:00Z', { outcome: 'answered' });
    await asked(place, '2026-11-27T08:00:00Z', { outcome: 'merged', turnId: id });
    if (reply) {
      const row = await sent(place, '2026-11-27T08:00:00Z', { replyToId: id, status: reply });
      if (part) await sent(place, '2026-11-27T08:00:00Z', { partOfId: row.id, part: 2, status: part });
    }
    expect(await findHourBalances(recorder.db, range(place))).toMatchObject([{ accepted: 2, balanced }]);
  });
});
