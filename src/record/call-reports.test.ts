import { randomUUID } from 'node:crypto';
import { endReport, insertOwnCall, newProviderCallId, statusUpdate, T0 } from '../../test/support/call-rows';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { type Database, openDatabase, sql } from '../platform/database';
import { readCall } from '../providers/vapi/report';
import { adoptProviderCall } from './call-adoption';
import { keepCallEvent } from './call-events';
import { keepCallReport } from './call-reports';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('call_reports');
  db = openDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const rowOf = (id: string) => db.orm.vapiCallResult.findUniqueOrThrow({ where: { id } });

describe('a report', () => {
  const full = {
    startedAt: '2026-11-20T15:00:10Z',
    endedAt: '2026-11-20T15:01:10Z',
    cost: 0.09,
    analysis: { summary: 'All well.', structuredData: { ok: true }, successEvaluation: true },
    artifact: { transcript: 'AI: hi\n', messages: [{ role: 'user', message: 'hi' }], recordingUrl: 'https://r.example.test/x.wav' },
  };

  test('when it is stored three times at once, then one of them is the first, and all columns are set', async () => {
    const providerCallId = newProviderCallId();
    const callId = await insertOwnCall(db, { providerCallId, status: 'in-progress' });
    const first = await Promise.all([1, 2, 3].map(() => keepCallReport(db, callId, endReport(providerCallId, full))));
    expect(first.filter(({ isFirst }) => isFirst)).toHaveLength(1);
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

  test('when many are stored concurrently, then each call has one first report', async () => {
    for (let round = 0; round < 15; round += 1) {
      const providerCallId = newProviderCallId();
      const callId = await insertOwnCall(db, { providerCallId });
      const first = await Promise.all(Array.from({ length: 6 }, () => keepCallReport(db, callId, endReport(providerCallId, full))));
      expect(first.filter(({ isFirst }) => isFirst)).toHaveLength(1);
    }
  });

  test('when a poorer one follows, then nothing is lost', async () => {
    const providerCallId = newProviderCallId();
    const callId = await insertOwnCall(db, { providerCallId });
    await keepCallReport(db, callId, endReport(providerCallId, full));
    const before = await rowOf(callId);
    expect(await keepCallReport(db, callId, endReport(providerCallId))).toMatchObject({ callId, isFirst: false });
    expect(await rowOf(callId)).toMatchObject({
      summary: before.summary,
      transcript: before.transcript,
      cost: before.cost,
      messages: before.messages,
    });
  });

  test('when a snapshot of a live call is stored, then it does not count as a report, and its running totals are not results', async () => {
    const providerCallId = newProviderCallId();
    const callId = await insertOwnCall(db, { providerCallId });
    const snapshot = readCall({ id: providerCallId, status: 'in-progress', startedAt: full.startedAt, cost: 0.01 });
    expect(snapshot && (await keepCallReport(db, callId, snapshot))).toMatchObject({ isFirst: false });
    expect(await rowOf(callId)).toMatchObject({
      status: 'in-progress',
      answeredAt: new Date(full.startedAt),
      cost: null,
      rawPayload: null,
    });
  });

  test('when it comes after the call was concluded as unknown, then it brings the outcome, and the time of the result stays', async () => {
    const providerCallId = newProviderCallId();
    const doneAt = new Date(T0);
    const failed = endReport(providerCallId, { ...full, endedReason: 'pipeline-error-openai-llm-failed' });
    const callId = await insertOwnCall(db, { providerCallId, outcome: 'unknown', needsAttention: true, doneAt });
    expect(await keepCallReport(db, callId, failed)).toEqual({ callId, isFirst: true, owesUpdate: false });
    expect(await rowOf(callId)).toMatchObject({
      outcome: 'failed',
      error: 'provider: pipeline-error-openai-llm-failed (in conversation)',
      endedReason: 'pipeline-error-openai-llm-failed',
      status: 'ended',
      summary: 'All well.',
      needsAttention: false,
      doneAt,
    });
  });

  test.each([
    ['the account is out of order', 'call.start.error-subscription-frozen', {}],
    ['the callback failed', 'customer-ended-call', { callbackFailedAt: new Date(T0) }],
    ['nobody says how it ended', undefined, {}],
  ])('when it comes after the result unknown and %s, then the call still needs a person', async (_why, endedReason, fields) => {
    const providerCallId = newProviderCallId();
    const done = { outcome: 'unknown', needsAttention: true, doneAt: new Date(T0), ...fields };
    const callId = await insertOwnCall(db, { providerCallId, ...done });
    await keepCallReport(db, callId, endReport(providerCallId, { ...full, endedReason }));
    expect(await rowOf(callId)).toMatchObject({ needsAttention: true, summary: 'All well.' });
  });

  const silent = { ...full, endedReason: 'silence-timed-out', artifact: { messages: [{ role: 'bot', message: 'Hello?' }] } };
  const talk = { ...silent, artifact: { messages: [...silent.artifact.messages, { role: 'user', message: 'Hi.' }] } };

  test.each([
    ['somebody spoke', 'completed', silent, 'no_answer', null],
    ['nobody spoke', 'no_answer', talk, 'completed', new Date(full.startedAt)],
  ])(
    'when the result says that %s and a late report shows otherwise, then it is no longer %s',
    async (_what, known, report, outcome, answeredAt) => {
      const providerCallId = newProviderCallId();
      const done = { outcome: known, endedReason: 'silence-timed-out', doneAt: new Date(T0), callbackUrl: 'https://hooks.example/' };
      const callId = await insertOwnCall(db, { providerCallId, ...done, answeredAt: known === 'completed' ? new Date(T0) : null });
      expect(await keepCallReport(db, callId, endReport(providerCallId, report))).toEqual({ callId, isFirst: true, owesUpdate: true });
      expect(await rowOf(callId)).toMatchObject({ outcome, answeredAt, endedReason: 'silence-timed-out', improvedAt: expect.any(Date) });
    },
  );

  test('when it fills a gap of a result, then the call is improved, and once: a repeated report owes the same update', async () => {
    const providerCallId = newProviderCallId();
    const done = { status: 'ended', outcome: 'completed', endedReason: 'customer-ended-call', doneAt: new Date(T0) };
    const callId = await insertOwnCall(db, { providerCallId, ...done, callbackUrl: 'https://hooks.example/' });
    const late = endReport(providerCallId, full);
    expect((await keepCallReport(db, callId, endReport(providerCallId))).owesUpdate).toBe(false);
    expect((await keepCallReport(db, callId, late)).owesUpdate).toBe(true);
    const { improvedAt, recordingUrl } = await rowOf(callId);
    expect([improvedAt, recordingUrl]).toEqual([expect.any(Date), 'https://r.example.test/x.wav']);
    expect((await keepCallReport(db, callId, late)).owesUpdate).toBe(true);
    expect((await rowOf(callId)).improvedAt).toEqual(improvedAt);
  });

  test('when nobody asked for a callback, or the call was not done, then no update is owed', async () => {
    const [open, done] = [newProviderCallId(), newProviderCallId()];
    const openId = await insertOwnCall(db, { providerCallId: open, callbackUrl: 'https://hooks.example/' });
    const doneId = await insertOwnCall(db, { providerCallId: done, outcome: 'completed', doneAt: new Date(T0) });
    expect((await keepCallReport(db, openId, endReport(open, full))).owesUpdate).toBe(false);
    expect((await keepCallReport(db, doneId, endReport(done, full))).owesUpdate).toBe(false);
    expect([(await rowOf(openId)).improvedAt, (await rowOf(doneId)).improvedAt]).toEqual([null, expect.any(Date)]);
  });

  test.each(['customer-did-not-answer', 'customer-busy', 'voicemail', 'twilio-reported-customer-misdialed', 'silence-timed-out'])(
    'when it says %s although the line was up, then nobody answered',
    async (endedReason) => {
      const providerCallId = newProviderCallId();
      const callId = await insertOwnCall(db, { providerCallId, answeredAt: new Date(T0) });
      await keepCallReport(db, callId, endReport(providerCallId, { ...silent, endedReason }));
      expect(await rowOf(callId)).toMatchObject({ answeredAt: null, startedAt: new Date(full.startedAt) });
    },
  );

  test.each([
    ['nothing', undefined, null],
    ['only the assistant', silent.artifact, null],
    ['the person as well', talk.artifact, new Date(full.startedAt)],
  ])(
    'when a cancelled call has a start, and %s is heard in it, then that decides whether somebody answered',
    async (_who, artifact, answeredAt) => {
      const providerCallId = newProviderCallId();
      const callId = await insertOwnCall(db, { providerCallId });
      await keepCallReport(db, callId, endReport(providerCallId, { ...full, endedReason: 'manually-canceled', artifact }));
      expect(await rowOf(callId)).toMatchObject({ answeredAt, startedAt: new Date(full.startedAt) });
    },
  );

  test('when a snapshot shows a call that rings, then nobody has answered', async () => {
    const providerCallId = newProviderCallId();
    const callId = await insertOwnCall(db, { providerCallId });
    const snapshot = readCall({ id: providerCallId, status: 'ringing', startedAt: full.startedAt });
    if (snapshot) await keepCallReport(db, callId, snapshot);
    expect(await rowOf(callId)).toMatchObject({ status: 'ringing', answeredAt: null, startedAt: new Date(full.startedAt) });
  });

  test('when it comes after another conclusion, then it fills what is missing and changes nothing', async () => {
    const providerCallId = newProviderCallId();
    const done = { status: 'ended', outcome: 'no_answer', endedReason: 'customer-did-not-answer', summary: 'Kept.', doneAt: new Date(T0) };
    const callId = await insertOwnCall(db, { providerCallId, ...done });
    await keepCallReport(db, callId, endReport(providerCallId, full));
    expect(await rowOf(callId)).toMatchObject({ ...done, transcript: 'AI: hi\n', cost: 0.09, answeredAt: null });
  });

  test('when the id moved to our row in between, then the report goes there', async () => {
    const [providerCallId, callId, stranger] = [newProviderCallId(), await insertOwnCall(db), randomUUID()];
    await keepCallEvent(db, statusUpdate(providerCallId, 'ended'), stranger);
    await adoptProviderCall(db, { callId, providerCallId });
    expect(await keepCallReport(db, stranger, endReport(providerCallId, full))).toMatchObject({ callId, isFirst: true });
    expect([(await rowOf(callId)).summary, (await rowOf(stranger)).summary]).toEqual(['All well.', null]);
  });

  test('when there is no such row, then it is no first report', async () => {
    expect(await keepCallReport(db, randomUUID(), endReport(newProviderCallId()))).toMatchObject({ isFirst: false });
  });

  test('when the statements of a call are counted, then there are few texts, so that each stays prepared', async () => {
    const names = await db.query<{ count: number }>(
      sql`SELECT count(*)::int AS count FROM pg_prepared_statements WHERE name LIKE 'parley_%'`,
    );
    expect(names[0]?.count).toBeLessThanOrEqual(8);
  });
});
