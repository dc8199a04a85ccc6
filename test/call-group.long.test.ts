/** Waiting for all calls with one reference: many calls, many waiters, and an API that stops in the middle. */
import { randomUUID } from 'node:crypto';
import type { CallView } from '../src/api/views/call';
import { freePort } from '../src/local/embedded/ports';
import type { PlayName } from '../src/sandbox/vapi/plays';
import { callWorkflowId } from '../workflows/contract';
import { newNumber, placeCall, request } from './support/calls';
import { eventually } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

interface CallList {
  data: CallView[];
  next: string | null;
  done: boolean | null;
  pending: number | null;
  counts: Record<string, number> | null;
}

const CALLS = 500;
const WAITERS = 8;

let system: System;

beforeAll(async () => {
  system = await startSuite('call_group', { environment: () => ({ API_RATE_LIMIT_PER_MINUTE: '100000' }) });
});

afterAll(async () => {
  await system?.close();
});

/** Another process of the API, which only serves the waiters. */
async function anotherApi() {
  const port = await freePort(21_000);
  const running = await system.startApi({ PORT: String(port) });
  return { running, apiUrl: `http://127.0.0.1:${port}` };
}

const list = (apiUrl: string, reference: string, wait: number) =>
  request<CallList>({ apiUrl }, 'GET', `/api/v1/vapi/calls?serviceRequestId=${reference}&wait=${wait}&limit=1`);

async function metric(apiUrl: string, line: RegExp): Promise<number> {
  const metrics = await (await fetch(`${apiUrl}/metrics`)).text();
  return Number(line.exec(metrics)?.[1] ?? 0);
}

/** Places a call that ends in this way, or that talks for some time first. */
async function place(reference: string, play: PlayName = 'answered', talkMs?: number): Promise<string> {
  const to = newNumber();
  const when = ({ number }: { number: string | undefined }) => number === to;
  system.sandbox.vapi.play({ when, play, times: 1, ...(talkMs === undefined ? {} : { talkMs }) });
  const key = randomUUID();
  for (;;) {
    const { status, body } = await placeCall(system, { to, serviceRequestId: reference }, key);
    // As a caller does: hundreds of calls at once may take Temporal longer than a request waits for it.
    if (status === 503) continue;
    expect(status).toBe(202);
    return body.callId;
  }
}

test('when clients wait for 500 calls with one reference and the API restarts, then each client gets the counts of all calls', async () => {
  const reference = randomUUID();
  const { running, apiUrl } = await anotherApi();
  const plays: [PlayName, number][] = [
    ['busy', 100],
    ['no-answer', 50],
    ['answered', CALLS - 151],
  ];
  for (const [play, count] of plays) {
    for (let placed = 0; placed < count; placed += 25) {
      await Promise.all(Array.from({ length: Math.min(25, count - placed) }, () => place(reference, play)));
    }
  }
  // It is over last, and ends the wait.
  await place(reference, 'answered', 15_000);
  const interrupted = Array.from({ length: WAITERS }, () => list(apiUrl, reference, 50));
  await eventually(async () => expect(await metric(apiUrl, /^parley_call_waiters (\d+)$/m)).toBe(WAITERS));
  expect(await metric(apiUrl, /^parley_call_waits (\d+)$/m)).toBeLessThanOrEqual(1);
  await running.stop();
  for (const { status, body } of await Promise.all(interrupted)) {
    expect([status, body.done]).toEqual([200, false]);
    expect(body.pending).toBeGreaterThan(0);
  }
  const other = await anotherApi();
  const answers = await Promise.all(Array.from({ length: WAITERS }, () => list(other.apiUrl, reference, 50)));
  for (const { status, body } of answers) {
    expect([status, body]).toEqual([
      200,
      {
        ...{ data: [expect.objectContaining({ done: true })], next: expect.any(String) },
        ...{ done: true, pending: 0 },
        counts: {
          ...{ completed: CALLS - 150, busy: 100, no_answer: 50 },
          ...{ voicemail: 0, invalid_number: 0, canceled: 0, transfer_failed: 0, failed: 0, unknown: 0 },
        },
      },
    ]);
  }
  await other.running.stop();
}, 180_000);

test('when no call with the reference was placed yet, then the wait continues until its calls are placed and done', async () => {
  const reference = randomUUID();
  const waiting = list(system.apiUrl, reference, 30);
  await eventually(async () => expect(await metric(system.apiUrl, /^parley_call_waiters (\d+)$/m)).toBe(1));
  await place(reference, 'busy');
  expect((await waiting).body).toMatchObject({ done: true, pending: 0, counts: { busy: 1, completed: 0 } });
});

test('when the workflow of one call was stopped, then the wait for the others continues, and the response says that one is pending', async () => {
  const reference = randomUUID();
  await place(reference, 'answered', 2_000);
  const stopped = await place(reference, 'answered', 20_000);
  await system.temporal.workflow.getHandle(callWorkflowId(stopped)).terminate();
  const startedAtMs = Date.now();
  const { body } = await list(system.apiUrl, reference, 6);
  expect(body).toMatchObject({ done: false, pending: 1, counts: { completed: 1 } });
  expect(Date.now() - startedAtMs).toBeGreaterThanOrEqual(6_000);
  const waiting = list(system.apiUrl, reference, 30);
  await system.db.vapiCallResult.update({ where: { id: stopped }, data: { doneAt: new Date(), outcome: 'failed' } });
  expect((await waiting).body).toMatchObject({ done: true, pending: 0, counts: { completed: 1, failed: 1 } });
});

test('when there is no reference, then waiting is a 400, and a list has no progress', async () => {
  const refused = await request<{ detail: string }>(system, 'GET', '/api/v1/vapi/calls?wait=1');
  expect([refused.status, refused.body.detail]).toEqual([400, expect.stringMatching(/^wait: needs serviceRequestId/)]);
  const { body } = await request<CallList>(system, 'GET', '/api/v1/vapi/calls?limit=1');
  expect(body).toMatchObject({ done: null, pending: null, counts: null });
});
