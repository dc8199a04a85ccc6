/** What the activities of a voice call do when they come twice or too late, and when Vapi refuses or says odd things, with the real record. */
import { randomUUID } from 'node:crypto';
import { inspect } from 'node:util';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { Client } from 'pg';
import { type Database, openDatabase, sql } from '../src/platform/database';
import { createLogger } from '../src/platform/logger';
import { createVapiClient } from '../src/providers/vapi/client';
import type { CallEnding } from '../src/record/call-outcome';
import { claimPlacement, takeBackClaim } from '../src/record/call-placements';
import type { Sandbox } from '../src/sandbox/sandbox';
import { SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID } from '../src/sandbox/vapi/bodies';
import { newNumber } from '../test/support/calls';
import { type TestDatabase, testDatabase } from '../test/support/engine';
import { eventually } from '../test/support/expectations';
import { startProxy } from '../test/support/proxy';
import { startTestSandbox } from '../test/support/sandbox';
import { type GivenAnswer, startVapiInBetween, type VapiInBetween } from '../test/support/vapi-in-between';
import { callWorkflowId } from '../workflows/contract';
import { sameForAll } from './services';
import { type Conclusion, createVoiceActivities, type DialVerdict, type VoiceActivities } from './voice';

const logger = createLogger('test', 'silent');

let database: TestDatabase;
let db: Database;
let sandbox: Sandbox;
let between: VapiInBetween;
let voice: VoiceActivities;
/** Outcomes that were counted. */
let counted: string[];

beforeAll(async () => {
  database = await testDatabase('voice');
  db = openDatabase(database.url);
  sandbox = await startTestSandbox();
  between = await startVapiInBetween(() => sandbox.vapiUrl);
  voice = createVoice();
});

function createVoice(changed: { claimMaxAgeMs?: number; db?: Database } = {}): VoiceActivities {
  return createVoiceActivities({
    db,
    services: sameForAll({
      vapi: createVapiClient({ baseUrl: between.url, apiKey: 'key', dialTimeoutMs: 5_000, timeoutMs: 5_000 }),
      tellsConversations: true,
    }),
    logger,
    taskQueue: 'none',
    followUpText: undefined,
    metrics: { callConcluded: ({ outcome }) => void counted.push(outcome) },
    ...changed,
  });
}

afterAll(async () => {
  await between?.close();
  await sandbox?.close();
  await db?.close();
  await database?.drop();
});

beforeEach(() => {
  counted = [];
});

const rowOf = (id: string) => db.orm.vapiCallResult.findUniqueOrThrow({ where: { id } });
/** Activities that are meant to fail are not warned of. */
const environment = () => new MockActivityEnvironment({}, { logger: new DefaultLogger('ERROR') });
const dial = (callId: string): Promise<DialVerdict> => environment().run(voice.dialCall, { callId, dials: 0 });
const conclude = (callId: string, ending?: CallEnding): Promise<Conclusion> =>
  environment().run(voice.concludeCall, { callId, ...(ending ? { ending } : {}) });

/** A row as the API makes it. */
async function ownRow(fields: object = {}): Promise<string> {
  const id = randomUUID();
  const numbers = { toNumber: newNumber(), assistantId: SANDBOX_ASSISTANT_ID, phoneNumberId: SANDBOX_VAPI_NUMBER_ID };
  await db.orm.vapiCallResult.create({
    data: { id, workflowId: callWorkflowId(id), direction: 'outbound', requestHash: 'hash', ...numbers, ...fields },
  });
  return id;
}

describe('dialling', () => {
  test('when nobody has dialled, then one phone rings; when the same order comes again, then it is told of that call', async () => {
    const callId = await ownRow();
    const verdict = await dial(callId);
    expect(verdict).toEqual({ status: 'placed', providerCallId: sandbox.vapi.find(callId)[0]?.id });
    expect(await dial(callId)).toEqual(verdict);
    expect(sandbox.vapi.dialled({ name: callId })).toBe(1);
    expect(await rowOf(callId)).toMatchObject({ dialCount: 1, dialledAt: expect.any(Date) });
  });

  const sentBefore: DialVerdict = { status: 'unknown', reason: 'the request was sent before' };
  test.each<[string, object, DialVerdict]>([
    ['was cancelled', { status: 'ended', outcome: 'canceled', doneAt: new Date() }, sentBefore],
    ['is in doubt after a request of this number', { dialCount: 1, dialledAt: new Date() }, sentBefore],
    ['follows one that an event named', { providerCallId: 'vapi-1' }, { status: 'placed', providerCallId: 'vapi-1' }],
  ])('when the call %s, then nothing is sent, and its row stays as it is', async (_what, fields, verdict) => {
    const callId = await ownRow(fields);
    const [before, { creates }] = [await rowOf(callId), sandbox.vapi.counts()];
    expect(await dial(callId)).toEqual(verdict);
    expect(sandbox.vapi.counts().creates).toBe(creates);
    expect(await rowOf(callId)).toEqual(before);
  });
});

/** Keeps everybody from writing to the row, so that a claim has to wait. */
async function holdRow(id: string) {
  const client = new Client({ connectionString: database.url });
  await client.connect();
  await client.query('BEGIN');
  await client.query('SELECT 1 FROM vapi_call_results WHERE id = $1 FOR UPDATE', [id]);
  return {
    somebodyWaits: () =>
      eventually(async () => {
        const { rows } = await client.query(
          "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        );
        expect(rows).toHaveLength(1);
      }),
    async release() {
      await client.query('COMMIT');
      await client.end();
    },
  };
}

describe('dialling too late', () => {
  test('when the claim comes back too late, then nothing is dialled, the row says so, and the next order may dial', async () => {
    const callId = await ownRow();
    const row = await holdRow(callId);
    const verdict = environment().run(createVoice({ claimMaxAgeMs: 1 }).dialCall, { callId, dials: 0 });
    await row.somebodyWaits();
    await row.release();
    expect(await verdict).toEqual({ status: 'later', reason: 'the claim was too old', dials: 1 });
    expect(sandbox.vapi.dialled({ name: callId })).toBe(0);
    expect(await rowOf(callId)).toMatchObject({ dialCount: 1, dialledAt: null });
    expect(await dial(callId)).toEqual({ status: 'unknown', reason: 'the request was sent before' });
    expect(await environment().run(voice.dialCall, { callId, dials: 1 })).toMatchObject({ status: 'placed' });
    expect(sandbox.vapi.dialled({ name: callId })).toBe(1);
  });

  test('when the activity is cancelled during the claim, then nothing is dialled', async () => {
    const callId = await ownRow();
    const row = await holdRow(callId);
    const running = environment();
    const verdict = running.run(voice.dialCall, { callId, dials: 0 });
    await row.somebodyWaits();
    running.cancel();
    await row.release();
    expect(await verdict).toEqual({ status: 'later', reason: 'the claim was cancelled', dials: 1 });
    expect(sandbox.vapi.dialled({ name: callId })).toBe(0);
    expect(await rowOf(callId)).toMatchObject({ dialCount: 1, dialledAt: null });
  });

  const dialUntil = (callId: string, notAfterMs: number): Promise<DialVerdict> =>
    environment().run(voice.dialCall, { callId, dials: 0, notAfterMs });

  test('when the time for queueing is over, then nothing is claimed or dialled; before, it is', async () => {
    const callId = await ownRow();
    const before = await rowOf(callId);
    expect(await dialUntil(callId, Date.now() - 1_000)).toEqual({ status: 'expired' });
    expect(await rowOf(callId)).toEqual(before);
    expect(await dialUntil(callId, Date.now() + 60_000)).toMatchObject({ status: 'placed' });
    expect(sandbox.vapi.dialled({ name: callId })).toBe(1);
  });

  test('when the time for queueing is over for a call that was dialled, then what is known of that counts', async () => {
    const [placed, doubtful] = [await ownRow({ providerCallId: 'vapi-2' }), await ownRow({ dialCount: 1, dialledAt: new Date() })];
    expect(await dialUntil(placed, Date.now() - 1_000)).toEqual({ status: 'placed', providerCallId: 'vapi-2' });
    expect(await dialUntil(doubtful, Date.now() - 1_000)).toEqual({ status: 'unknown', reason: 'the request was sent before' });
  });

  const unknown: CallEnding = { outcome: 'unknown', endedReason: null, error: 'unknown whether it was placed', needsAttention: true };
  const nothingDialled = { outcome: 'failed', error: expect.stringMatching(/^nothing was dialled/), needsAttention: true, dialledAt: null };

  test('when a call is concluded as unknown and nobody has claimed it, then nothing was dialled, nor will be', async () => {
    const callId = await ownRow();
    expect((await conclude(callId, unknown)).result).toMatchObject({ outcome: 'failed', needsAttention: true });
    expect(await rowOf(callId)).toMatchObject(nothingDialled);
    expect(await dial(callId)).toEqual({ status: 'unknown', reason: 'the request was sent before' });
    expect(sandbox.vapi.dialled({ name: callId })).toBe(0);
  });

  test('when a call was claimed and is concluded as unknown, then it is unknown, until its worker says that nothing was dialled', async () => {
    const callId = await ownRow();
    const claim = { callId, dials: 0, claimId: randomUUID() };
    await claimPlacement(db, claim);
    expect((await conclude(callId, unknown)).result.outcome).toBe('unknown');
    expect(await rowOf(callId)).toMatchObject({ outcome: 'unknown', error: unknown.error });
    expect(await takeBackClaim(db, claim)).toBe(true);
    expect(await rowOf(callId)).toMatchObject(nothingDialled);
  });

  test('when a worker says that nothing was dialled after the next order has claimed the call, then that claim stands', async () => {
    const callId = await ownRow();
    const late = { callId, dials: 0, claimId: randomUUID() };
    await claimPlacement(db, late);
    await claimPlacement(db, { callId, dials: 1, claimId: randomUUID() });
    const before = await rowOf(callId);
    expect(await takeBackClaim(db, late)).toBe(false);
    expect(await rowOf(callId)).toEqual(before);
  });

  test('when the response of the claim is lost, then nothing is dialled, and the next order may dial', async () => {
    const callId = await ownRow();
    const proxy = await startProxy(new URL(database.url).host);
    const url = new URL(database.url);
    url.port = String(proxy.port);
    const itsDb = openDatabase(url.href, { statementTimeoutMs: 100 });
    await itsDb.query(sql`SELECT 1`);
    proxy.holdAnswers();
    const verdict = await environment().run(createVoice({ db: itsDb }).dialCall, { callId, dials: 0 });
    await itsDb.close();
    await proxy.close();
    expect(verdict).toEqual({ status: 'later', reason: 'the database is unavailable', dials: 1 });
    expect(await rowOf(callId)).toMatchObject({ dialCount: 1, dialledAt: null });
    expect(await environment().run(voice.dialCall, { callId, dials: 1 })).toMatchObject({ status: 'placed' });
    expect(sandbox.vapi.dialled({ name: callId })).toBe(1);
  });

  test('when Vapi has no slot for the call, then the row says that nothing was dialled', async () => {
    const callId = await ownRow();
    const stop = between.answer(async () => ({ status: 429, body: '{}' }));
    expect(await dial(callId).finally(stop)).toMatchObject({ status: 'later', dials: 1 });
    expect(await rowOf(callId)).toMatchObject({ dialCount: 1, dialledAt: null });
  });
});

describe('the result', () => {
  const noAnswer: CallEnding = { outcome: 'no_answer', endedReason: 'customer-did-not-answer', needsAttention: false };
  const failed: CallEnding = {
    outcome: 'failed',
    endedReason: 'worker-shutdown',
    error: 'platform: worker-shutdown',
    needsAttention: true,
  };

  test('when there is a result, then a second one changes nothing, gets the first, and is not counted', async () => {
    const callId = await ownRow();
    const first = await conclude(callId, noAnswer);
    const written = await rowOf(callId);
    expect(written).toMatchObject({ status: 'ended', ...noAnswer, error: null, doneAt: expect.any(Date) });
    expect(await conclude(callId, failed)).toEqual(first);
    expect(await rowOf(callId)).toEqual(written);
    expect(counted).toEqual(['no_answer']);
  });

  test('when several are written at once, then one is stored, all get that one, and it is counted once', async () => {
    const callId = await ownRow();
    const told = await Promise.all([noAnswer, failed, noAnswer, failed].map((ending) => conclude(callId, ending)));
    const { outcome, needsAttention } = await rowOf(callId);
    expect(told.map(({ result }) => [result.outcome, result.needsAttention])).toEqual(Array(4).fill([outcome, needsAttention]));
    expect(counted).toEqual([outcome]);
  });

  test.each([
    ['call.start.error-subscription-frozen', 'failed', true],
    ['call.start.error-fraud-check-failed', 'failed', true],
    ['assistant-not-found', 'failed', true],
    ['call.start.error-get-phone-number', 'failed', true],
    ['pipeline-error-openai-llm-failed', 'failed', false],
    ['call.in-progress.error-vapifault-worker-died', 'failed', false],
    ['twilio-failed-to-connect-call', 'failed', false],
    ['some.reason-that-nobody-heard-of', 'failed', false],
    ['twilio-reported-customer-misdialed', 'invalid_number', false],
    ['customer-busy', 'busy', false],
    ['customer-ended-call', 'completed', false],
    [null, 'unknown', true],
  ])(
    'when the database says that it ended with %s, then it is %s, and needs attention: %s',
    async (endedReason, outcome, needsAttention) => {
      const callId = await ownRow({ status: 'ended', endedReason });
      expect((await conclude(callId)).result).toMatchObject({ outcome, needsAttention });
      expect(await rowOf(callId)).toMatchObject({ outcome, needsAttention });
    },
  );
});

describe("Vapi's own words", () => {
  const NUMBER = '12125550123';
  /** Short, so that a parser's error would quote all of it. */
  const WORDS = `+${NUMBER} is busy`;
  const REFUSAL = JSON.stringify({ message: WORDS, error: WORDS });

  /** What is asked of Vapi is answered with this. */
  async function answered<T>(answer: GivenAnswer, ask: () => Promise<T>): Promise<T> {
    const stop = between.answer(async () => answer);
    return await ask().finally(stop);
  }

  function failureOf(running: Promise<unknown>): Promise<unknown> {
    return running.then(
      (value) => Promise.reject(new Error(`it did not fail: ${inspect(value)}`)),
      (error: unknown) => error,
    );
  }

  /** Message, stack, cause and every other field. */
  function expectNoWordsIn(failure: unknown): void {
    expect(failure).toMatchObject({ type: 'VapiError.Unavailable' });
    expect(inspect(failure, { depth: Number.POSITIVE_INFINITY, showHidden: true })).not.toContain(NUMBER);
  }

  const questions: [string, () => Promise<unknown>][] = [
    ['what became of a call', async () => environment().run(voice.lookAtCall, { callId: await ownRow(), providerCallId: 'c1' })],
    ['which call it placed', async () => environment().run(voice.findCall, { callId: await ownRow() })],
    ['to end a call', () => environment().run(voice.endCall, { providerCallId: 'c1' })],
  ];
  const answers: GivenAnswer[] = [
    { status: 200, body: WORDS },
    { status: 403, body: REFUSAL },
    { status: 500, body: WORDS },
    { status: 302, body: WORDS, headers: { Location: `/${NUMBER}` } },
  ];
  test.each(questions)(
    'when Vapi is asked %s and its response quotes a number, then the failure does not contain it',
    async (_what, ask) => {
      for (const answer of answers) expectNoWordsIn(await answered(answer, () => failureOf(ask())));
    },
  );

  test('when the URL that ends a call responds with a number, then the failure contains neither the number nor the URL', async () => {
    const call = JSON.stringify({ id: 'c1', status: 'in-progress', monitor: { controlUrl: `${between.url}/control/${NUMBER}` } });
    const stop = between.answer(async ({ method }) => (method === 'GET' ? { status: 200, body: call } : { status: 500, body: REFUSAL }));
    const failure = await failureOf(environment().run(voice.endCall, { providerCallId: 'c1' })).finally(stop);
    expectNoWordsIn(failure);
  });

  const refused = (httpStatus: number): DialVerdict => ({ status: 'refused', reason: `Vapi refused the call (${httpStatus})` });
  test.each<[number, string, DialVerdict]>([
    [400, REFUSAL, refused(400)],
    [401, REFUSAL, refused(401)],
    [402, REFUSAL, refused(402)],
    [403, WORDS, refused(403)],
    [429, REFUSAL, { status: 'later', reason: 'too many requests', dials: 1 }],
    [500, WORDS, { status: 'unknown', reason: 'responded with 500' }],
    [201, WORDS, { status: 'unknown', reason: 'responded with 201 without a call id' }],
  ])('when Vapi answers a placement with %i and a number, then the verdict does not repeat it', async (status, body, verdict) => {
    const callId = await ownRow();
    expect(await answered({ status, body }, () => dial(callId))).toEqual(verdict);
  });
});

test('when Vapi gives no way to end a live call, then ending it fails, so that it is retried', async () => {
  const call = JSON.stringify({ id: 'c1', status: 'ringing', monitor: {} });
  const stop = between.answer(async () => ({ status: 200, body: call }));
  const asking = environment().run(voice.endCall, { providerCallId: 'c1' }).finally(stop);
  await expect(asking).rejects.toMatchObject({ type: 'VapiError.NoControl', nonRetryable: false });
});
