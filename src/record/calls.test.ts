import { randomUUID } from 'node:crypto';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { type CallEvent, type CallReport, callWorkflowId } from '../../workflows/contract';
import { type Database, openDatabase, sql } from '../platform/database';
import { readCall } from '../providers/vapi/report';
import { adoptProviderCall, findCallRow, keepCallEvent, keepCallReport } from './calls';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('call_record');
  db = openDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const T0 = Date.UTC(2026, 10, 20, 15);
const newId = () => `vapi-${randomUUID()}`;
const rowOf = (id: string) => db.orm.vapiCallResult.findUniqueOrThrow({ where: { id } });
const eventsOf = (providerCallId: string) => db.orm.vapiCallEvent.count({ where: { providerCallId } });

function update(providerCallId: string, status: string, fields: Partial<CallEvent> = {}): CallEvent {
  return { type: 'status-update', providerCallId, direction: 'outbound', status, atMs: T0, ...fields };
}

function report(providerCallId: string, fields: object = {}): CallReport {
  const read = readCall({ id: providerCallId, status: 'ended', endedReason: 'customer-ended-call', ...fields });
  if (!read) throw new Error('not a call');
  return read;
}

/** A row as the API makes it. */
async function ownRow(fields: object = {}): Promise<string> {
  const id = randomUUID();
  await db.orm.vapiCallResult.create({
    data: { id, workflowId: callWorkflowId(id), direction: 'outbound', requestHash: 'hash', ...fields },
  });
  return id;
}

describe('finding the row', () => {
  test('when our id comes with a call that our row can follow, then it is our row; when the row follows another call, then not', async () => {
    const callId = await ownRow();
    const providerCallId = newId();
    expect(await findCallRow(db, { providerCallId })).toBeUndefined();
    expect(await findCallRow(db, { ownCallId: callId, providerCallId })).toMatchObject({ callId, providerCallId: null, status: 'queued' });
    await adoptProviderCall(db, { callId, providerCallId });
    expect(await findCallRow(db, { providerCallId })).toMatchObject({ callId });
    expect(await findCallRow(db, { ownCallId: callId, providerCallId: newId() })).toBeUndefined();
    expect(await findCallRow(db, { ownCallId: randomUUID(), providerCallId })).toMatchObject({ callId });
  });

  test('when an event of a former placement comes, then it is kept, and neither changes our row nor makes another', async () => {
    const [former, callId] = [newId(), await ownRow()];
    await db.orm.vapiCallResult.update({ where: { id: callId }, data: { formerProviderCallIds: [former] } });
    const before = await db.orm.vapiCallResult.count();
    const kept = await keepCallEvent(db, update(former, 'ended', { ownCallId: callId, endedReason: 'x' }), randomUUID());
    expect(kept).toMatchObject({ isFormer: true, isNew: true, row: { callId, providerCallId: null } });
    expect(await rowOf(callId)).toMatchObject({ status: 'queued', endedReason: null, providerCallId: null });
    expect(await db.orm.vapiCallResult.count()).toBe(before);
  });
});

describe('an event', () => {
  test('when nobody here knows the call, then a row is made with what the event says', async () => {
    const [providerCallId, callId] = [newId(), randomUUID()];
    const parties = {
      direction: 'inbound',
      fromNumber: '+15555550123',
      toNumber: '+15555550100',
      assistantId: 'a1',
      phoneNumberId: 'n1',
    } as const;
    const kept = await keepCallEvent(db, update(providerCallId, 'ringing', { ...parties, maxDurationSeconds: 900 }), callId);
    expect(kept).toMatchObject({
      isNew: true,
      isFormer: false,
      row: { callId, providerCallId, status: 'ringing', maxDurationSeconds: 900 },
    });
    expect(await rowOf(callId)).toMatchObject({ ...parties, workflowId: callWorkflowId(callId), status: 'ringing', doneAt: null });
  });

  test('when many first events come at once, then there is one row, and it stands where the highest says', async () => {
    const [providerCallId, callId] = [newId(), randomUUID()];
    const statuses = ['ringing', 'in-progress', 'ended', 'queued', 'ended', 'scheduled', 'in-progress', 'forwarding'];
    const kept = await Promise.all(statuses.map((status) => keepCallEvent(db, update(providerCallId, status), callId)));
    expect(new Set(kept.map(({ row }) => row.callId))).toEqual(new Set([callId]));
    expect(kept.filter(({ isNew }) => isNew)).toHaveLength(6);
    expect(await rowOf(callId)).toMatchObject({ status: 'ended' });
    expect(await db.orm.vapiCallResult.count({ where: { providerCallId } })).toBe(1);
    expect(await eventsOf(providerCallId)).toBe(6);
  });

  test('when events come late and twice, then the row only goes forward and keeps the first times', async () => {
    const [providerCallId, callId] = [newId(), randomUUID()];
    const at = (seconds: number) => new Date(T0 + seconds * 1_000);
    const keep = (status: string, seconds: number, fields: Partial<CallEvent> = {}) =>
      keepCallEvent(db, update(providerCallId, status, { atMs: T0 + seconds * 1_000, ...fields }), callId);
    await keep('ended', 70, { endedReason: 'customer-ended-call' });
    await keep('in-progress', 40);
    await keep('in-progress', 10);
    await keep('ringing', 5);
    const again = await keep('ended', 90, { endedReason: 'something-else' });
    expect(again.isNew).toBe(false);
    expect(await rowOf(callId)).toMatchObject({
      status: 'ended',
      endedReason: 'customer-ended-call',
      answeredAt: at(10),
      endedAt: at(70),
    });
  });

  test.each(['not-found', 'deletion-failed', 'on-hold'])('when the status is %s, then it is an event and no state', async (status) => {
    const [providerCallId, callId] = [newId(), randomUUID()];
    await keepCallEvent(db, update(providerCallId, 'in-progress'), callId);
    expect(await keepCallEvent(db, update(providerCallId, status), callId)).toMatchObject({ isNew: true, row: { status: 'in-progress' } });
    expect(await eventsOf(providerCallId)).toBe(2);
  });

  test('when the call is done, then an event changes nothing but the events', async () => {
    const providerCallId = newId();
    const callId = await ownRow({ providerCallId, status: 'ringing', outcome: 'unknown', doneAt: new Date(T0) });
    const before = await rowOf(callId);
    expect(await keepCallEvent(db, update(providerCallId, 'in-progress'), randomUUID())).toMatchObject({ isNew: true, row: { callId } });
    expect(await rowOf(callId)).toEqual(before);
    expect(await eventsOf(providerCallId)).toBe(1);
  });

  test('when a report comes as an event, then the call has ended', async () => {
    const [providerCallId, callId] = [newId(), randomUUID()];
    await keepCallEvent(
      db,
      { type: 'end-of-call-report', providerCallId, direction: 'outbound', endedReason: 'voicemail', atMs: T0 },
      callId,
    );
    expect(await rowOf(callId)).toMatchObject({ status: 'ended', endedReason: 'voicemail', endedAt: new Date(T0) });
  });
});

describe('adopting', () => {
  test('when a webhook names our call before we know its id, then our row gets the id, whoever is first', async () => {
    const [providerCallId, callId, stranger] = [newId(), await ownRow(), randomUUID()];
    const events = ['queued', 'ringing', 'in-progress'].map((status) => update(providerCallId, status, { ownCallId: callId }));
    const [kept] = await Promise.all([
      Promise.all(events.map((event) => keepCallEvent(db, event, stranger))),
      adoptProviderCall(db, { callId, providerCallId }),
    ]);
    expect(kept.map(({ row }) => row.callId)).toEqual([callId, callId, callId]);
    expect(await rowOf(callId)).toMatchObject({ providerCallId, status: 'in-progress' });
    expect(await db.orm.vapiCallResult.findUnique({ where: { id: stranger } })).toBeNull();
  });

  test('when an event without our id was first, then our row takes over the id and what was learnt, and the other is closed', async () => {
    const [providerCallId, callId, stranger] = [newId(), await ownRow(), randomUUID()];
    await keepCallEvent(db, update(providerCallId, 'in-progress'), stranger);
    await keepCallReport(db, stranger, report(providerCallId, { analysis: { summary: 'All well.' } }));
    const kept = await keepCallEvent(db, update(providerCallId, 'ringing', { ownCallId: callId }), stranger);
    expect(kept.row).toMatchObject({ callId, providerCallId, status: 'ended' });
    expect(await rowOf(callId)).toMatchObject({
      providerCallId,
      summary: 'All well.',
      answeredAt: new Date(T0),
      rawPayload: expect.anything(),
    });
    expect(await rowOf(stranger)).toMatchObject({
      providerCallId: null,
      outcome: 'canceled',
      endedReason: 'adopted',
      doneAt: expect.any(Date),
    });
  });

  test('when first events with and without our id race, then one row has the id in the end, and it is ours', async () => {
    for (let round = 0; round < 20; round += 1) {
      const [providerCallId, callId, stranger] = [newId(), await ownRow(), randomUUID()];
      await Promise.all([
        keepCallEvent(db, update(providerCallId, 'ringing'), stranger),
        keepCallEvent(db, update(providerCallId, 'in-progress', { ownCallId: callId }), stranger),
        adoptProviderCall(db, { callId, providerCallId }),
        keepCallEvent(db, update(providerCallId, 'ended'), stranger),
      ]);
      await keepCallEvent(db, update(providerCallId, 'forwarding'), stranger);
      expect(await rowOf(callId)).toMatchObject({ providerCallId, status: 'ended', answeredAt: new Date(T0) });
      expect(await db.orm.vapiCallResult.count({ where: { providerCallId } })).toBe(1);
    }
  });

  test('when our row follows another call already, then it keeps that, and the other call has its own row', async () => {
    const [mine, copy, stranger] = [newId(), newId(), randomUUID()];
    const callId = await ownRow({ providerCallId: mine });
    expect(await adoptProviderCall(db, { callId, providerCallId: copy })).toBe(false);
    const kept = await keepCallEvent(db, update(copy, 'ended', { ownCallId: callId }), stranger);
    expect(kept.row).toMatchObject({ callId: stranger, providerCallId: copy });
    expect(await rowOf(callId)).toMatchObject({ providerCallId: mine, status: 'queued' });
  });

  test('when the id stands in another row of ours, then nobody loses it', async () => {
    const providerCallId = newId();
    const [owner, other] = [await ownRow({ providerCallId }), await ownRow()];
    expect(await adoptProviderCall(db, { callId: other, providerCallId })).toBe(false);
    const kept = await keepCallEvent(db, update(providerCallId, 'ringing', { ownCallId: other }), randomUUID());
    expect(kept.row.callId).toBe(owner);
    expect(await rowOf(other)).toMatchObject({ providerCallId: null, doneAt: null });
  });

  test('when the placement before was given up, then the next one is adopted', async () => {
    const [former, next] = [newId(), newId()];
    const callId = await ownRow({ providerCallId: former, formerProviderCallIds: [former] });
    expect(await adoptProviderCall(db, { callId, providerCallId: former })).toBe(false);
    expect((await keepCallEvent(db, update(next, 'ringing', { ownCallId: callId }), randomUUID())).row).toMatchObject({
      callId,
      providerCallId: next,
    });
  });
});

describe('a report', () => {
  const full = {
    startedAt: '2026-11-20T15:00:10Z',
    endedAt: '2026-11-20T15:01:10Z',
    cost: 0.09,
    analysis: { summary: 'All well.', structuredData: { ok: true }, successEvaluation: true },
    artifact: { transcript: 'AI: hi\n', messages: [{ role: 'user', message: 'hi' }], recordingUrl: 'https://r.example.test/x.wav' },
  };

  test('when it is kept three times at once, then it was the first one once, and all columns stand', async () => {
    const providerCallId = newId();
    const callId = await ownRow({ providerCallId, status: 'in-progress' });
    const first = await Promise.all([1, 2, 3].map(() => keepCallReport(db, callId, report(providerCallId, full))));
    expect(first.filter(Boolean)).toHaveLength(1);
    expect(await rowOf(callId)).toMatchObject({
      status: 'ended',
      endedReason: 'customer-ended-call',
      startedAt: new Date(full.startedAt),
      answeredAt: new Date(full.startedAt),
      endedAt: new Date(full.endedAt),
      durationSeconds: 60,
      cost: 0.09,
      transcript: 'AI: hi\n',
      messages: [{ role: 'user', text: 'hi' }],
      recordingUrl: 'https://r.example.test/x.wav',
      summary: 'All well.',
      structuredData: { ok: true },
      successEvaluation: 'true',
      doneAt: null,
      outcome: null,
    });
  });

  test('when many are kept by several at once, then each call has one first report', async () => {
    for (let round = 0; round < 15; round += 1) {
      const providerCallId = newId();
      const callId = await ownRow({ providerCallId });
      const first = await Promise.all(Array.from({ length: 6 }, () => keepCallReport(db, callId, report(providerCallId, full))));
      expect(first.filter(Boolean)).toHaveLength(1);
    }
  });

  test('when a poorer one follows, then nothing is lost', async () => {
    const providerCallId = newId();
    const callId = await ownRow({ providerCallId });
    await keepCallReport(db, callId, report(providerCallId, full));
    const before = await rowOf(callId);
    expect(await keepCallReport(db, callId, report(providerCallId))).toBe(false);
    expect(await rowOf(callId)).toMatchObject({
      summary: before.summary,
      transcript: before.transcript,
      cost: before.cost,
      messages: before.messages,
    });
  });

  test('when a snapshot of a running call is kept, then it is no report, and sums so far are no result', async () => {
    const providerCallId = newId();
    const callId = await ownRow({ providerCallId });
    const snapshot = readCall({ id: providerCallId, status: 'in-progress', startedAt: full.startedAt, cost: 0.01 });
    expect(snapshot && (await keepCallReport(db, callId, snapshot))).toBe(false);
    expect(await rowOf(callId)).toMatchObject({
      status: 'in-progress',
      answeredAt: new Date(full.startedAt),
      cost: null,
      rawPayload: null,
    });
  });

  test('when it comes after the call was concluded as unknown, then it brings the outcome, and the time of the result stays', async () => {
    const providerCallId = newId();
    const doneAt = new Date(T0);
    const failed = report(providerCallId, { ...full, endedReason: 'pipeline-error-openai-llm-failed' });
    const callId = await ownRow({ providerCallId, outcome: 'unknown', doneAt });
    expect(await keepCallReport(db, callId, failed)).toBe(true);
    expect(await rowOf(callId)).toMatchObject({
      outcome: 'failed',
      error: 'provider: pipeline-error-openai-llm-failed (in conversation)',
      endedReason: 'pipeline-error-openai-llm-failed',
      status: 'ended',
      summary: 'All well.',
      doneAt,
    });
  });

  test('when it comes after another conclusion, then it fills what is missing and changes nothing', async () => {
    const providerCallId = newId();
    const done = { status: 'ended', outcome: 'no_answer', endedReason: 'customer-did-not-answer', summary: 'Kept.', doneAt: new Date(T0) };
    const callId = await ownRow({ providerCallId, ...done });
    await keepCallReport(db, callId, report(providerCallId, full));
    expect(await rowOf(callId)).toMatchObject({ ...done, transcript: 'AI: hi\n', cost: 0.09 });
  });

  test('when the id went to our row in between, then the report goes there', async () => {
    const [providerCallId, callId, stranger] = [newId(), await ownRow(), randomUUID()];
    await keepCallEvent(db, update(providerCallId, 'ended'), stranger);
    await adoptProviderCall(db, { callId, providerCallId });
    expect(await keepCallReport(db, stranger, report(providerCallId, full))).toBe(true);
    expect([(await rowOf(callId)).summary, (await rowOf(stranger)).summary]).toEqual(['All well.', null]);
  });

  test('when there is no such row, then it is no first report', async () => {
    expect(await keepCallReport(db, randomUUID(), report(newId()))).toBe(false);
  });

  test('when the statements of a call are counted, then there are few texts, so that each stays prepared', async () => {
    const names = await db.query<{ count: number }>(
      sql`SELECT count(*)::int AS count FROM pg_prepared_statements WHERE name LIKE 'parley_%'`,
    );
    expect(names[0]?.count).toBeLessThanOrEqual(8);
  });
});
