/** Calls that would be dialled too late: by a worker that was stopped in the middle, or after no worker ran for long. */
import type { CallView } from '../src/api/views/call';
import { newNumber, placeCall, resultOf, startCall } from './support/calls';
import { eventually } from './support/expectations';
import { POSTGRES_GREETING_END, startProxy } from './support/proxy';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('calls_late', { workers: 0, environment: () => ({ CALL_RING_TIMEOUT_SECONDS: '2' }) });
});

afterAll(async () => {
  await system?.close();
});

const dialled = (to: string) => system.sandbox.vapi.dialled({ number: to });
const rowOf = (id: string) => system.db.vapiCallResult.findUniqueOrThrow({ where: { id } });

/** A dial that nobody answers for is given up after 45 s. */
async function settled(callId: string): Promise<CallView> {
  return await resultOf(system, callId, 90_000);
}

describe('all workers are down', () => {
  test('when the time for queueing is over before one comes back, then nothing is dialled, and a person must look', async () => {
    const [late, inTime] = [newNumber(), newNumber()];
    const lateId = await startCall(system, late, { queueForMs: 100 });
    const inTimeId = await startCall(system, inTime, { queueForMs: 120_000 });
    const worker = await system.startWorker();
    expect(await settled(lateId)).toMatchObject({
      outcome: 'failed',
      error: expect.stringMatching(/^not placed in the time for queueing/),
      needsAttention: true,
      providerCallId: null,
    });
    expect(await settled(inTimeId)).toMatchObject({ outcome: 'completed' });
    expect([dialled(late), dialled(inTime)]).toEqual([0, 1]);
    await worker.stop();
  });

  test('when Vapi had no free slot before that, then the result says so', async () => {
    const to = newNumber();
    system.sandbox.vapi.fault({ times: 1, answer: '429', retryAfterSeconds: 7 });
    // The workflow counts this time from its first task on, so Vapi's pause fits into it. A dial is refused when it is over as counted from
    // the request, which a worker that takes more than a second to start makes sure of.
    const callId = await startCall(system, to, { queueForMs: 8_000 });
    await eventually(async () => expect(Date.now() - (await rowOf(callId)).createdAt.getTime()).toBeGreaterThan(1_000));
    const worker = await system.startWorker();
    expect(await settled(callId)).toMatchObject({
      outcome: 'failed',
      error: expect.stringMatching(/^not placed in the time for queueing: .*too many/),
    });
    expect(dialled(to)).toBe(0);
    await worker.stop();
  });
});

/**
 * Has a worker claim a call, and stops it (SIGSTOP) before it has seen the answer, which then lies ready for it. As on a machine that
 * sleeps, it is cut off from Temporal meanwhile, and so gets no work that others could do.
 */
async function claimAndSleep(databaseParameters: Record<string, string>) {
  const to = newNumber();
  const postgres = await startProxy(new URL(system.databaseUrl).host);
  const temporal = await startProxy(system.environment.TEMPORAL_ADDRESS ?? '');
  const database = new URL(system.databaseUrl);
  database.port = String(postgres.port);
  database.search = String(new URLSearchParams(databaseParameters));
  const worker = await system.startWorker({ DATABASE_URL: database.href, TEMPORAL_ADDRESS: `127.0.0.1:${temporal.port}` });
  postgres.holdAnswers(POSTGRES_GREETING_END);
  const { callId } = (await placeCall(system, { to })).body;
  await eventually(async () => expect(await rowOf(callId)).toMatchObject({ dialCount: 1, dialledAt: expect.any(Date) }));
  worker.child.kill('SIGSTOP');
  await temporal.down();
  postgres.releaseAnswers();
  return {
    to,
    callId,
    async wake() {
      await temporal.up();
      worker.child.kill('SIGCONT');
    },
    async close() {
      worker.child.kill('SIGCONT');
      await worker.kill();
      await Promise.all([postgres.close(), temporal.close()]);
    },
  };
}

describe('a worker is stopped between its claim and the request', () => {
  test('when others have settled the call and it goes on, then no phone rings a second time, and the row says that none rang', async () => {
    // Node runs timers before it reads, so that a query usually times out first. Not so where it has no timeout, or a machine has slept.
    const sleepers = [await claimAndSleep({}), await claimAndSleep({ query_timeout: '600000' })];
    try {
      await system.startWorker();
      for (const { callId } of sleepers) expect(await settled(callId)).toMatchObject({ outcome: 'unknown', needsAttention: true });
      // Whoever wanted the call asks for another one.
      for (const { to } of sleepers) {
        const { callId } = (await placeCall(system, { to })).body;
        expect(await settled(callId)).toMatchObject({ outcome: 'completed' });
      }
      for (const sleeper of sleepers) await sleeper.wake();
      const notDialled = { outcome: 'failed', error: expect.stringMatching(/^nothing was dialled/), needsAttention: true, dialledAt: null };
      for (const { callId } of sleepers) await eventually(async () => expect(await rowOf(callId)).toMatchObject(notDialled));
      expect(sleepers.map(({ to }) => dialled(to))).toEqual([1, 1]);
    } finally {
      for (const sleeper of sleepers) await sleeper.close();
    }
  }, 150_000);
});
