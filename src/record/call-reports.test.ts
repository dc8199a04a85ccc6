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

  test('when many are stored concurrently, then each call has one first report', async () => {
    for (let round = 0; round < 15; round += 1) {
      const providerCallId = newProviderCallId();
      const callId = await insertOwnCall(db, { providerCallId });
      const first = await Promise.all(Array.from({ length: 6 }, () => keepCallReport(db, callId, endReport(providerCallId, full))));
      expect(first.filter(Boolean)).toHaveLength(1);
    }
  });

  test('when a poorer one follows, then nothing is lost', async () => {
    const providerCallId = newProviderCallId();
    const callId = await insertOwnCall(db, { providerCallId });
    await keepCallReport(db, callId, endReport(providerCallId, full));
    const before = await rowOf(callId);
    expect(await keepCallReport(db, callId, endReport(providerCallId))).toBe(false);
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
    expect(snapshot && (await keepCallReport(db, callId, snapshot))).toBe(false);
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
    const callId = await insertOwnCall(db, { providerCallId, outcome: 'unknown', doneAt });
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
    const providerCallId = newProviderCallId();
    const done = { status: 'ended', outcome: 'no_answer', endedReason: 'customer-did-not-answer', summary: 'Kept.', doneAt: new Date(T0) };
    const callId = await insertOwnCall(db, { providerCallId, ...done });
    await keepCallReport(db, callId, endReport(providerCallId, full));
    expect(await rowOf(callId)).toMatchObject({ ...done, transcript: 'AI: hi\n', cost: 0.09 });
  });

  test('when the id moved to our row in between, then the report goes there', async () => {
    const [providerCallId, callId, stranger] = [newProviderCallId(), await insertOwnCall(db), randomUUID()];
    await keepCallEvent(db, statusUpdate(providerCallId, 'ended'), stranger);
    await adoptProviderCall(db, { callId, providerCallId });
    expect(await keepCallReport(db, stranger, endReport(providerCallId, full))).toBe(true);
    expect([(await rowOf(callId)).summary, (await rowOf(stranger)).summary]).toEqual(['All well.', null]);
  });

  test('when there is no such row, then it is no first report', async () => {
    expect(await keepCallReport(db, randomUUID(), endReport(newProviderCallId()))).toBe(false);
  });

  test('when the statements of a call are counted, then there are few texts, so that each stays prepared', async () => {
    const names = await db.query<{ count: number }>(
      sql`SELECT count(*)::int AS count FROM pg_prepared_statements WHERE name LIKE 'parley_%'`,
    );
    expect(names[0]?.count).toBeLessThanOrEqual(8);
  });
});
