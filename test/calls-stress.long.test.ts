/**
 * Voice calls when events are lost, doubled and mixed up, processes are killed (SIGKILL, real ones), and many callers wait at once.
 * Whatever happens: one result per call, the right one, and no phone rings twice.
 */
import { randomUUID } from 'node:crypto';
import type { CallView } from '../src/api/views/call';
import { NOT_DIALLED } from '../src/record/call-placements';
import type { CallView as SandboxCall } from '../src/sandbox/vapi/double';
import type { PlayedEvent, PlayName } from '../src/sandbox/vapi/plays';
import { newNumber, placeCall, request, resultOf } from './support/calls';
import { eventually } from './support/expectations';
import { startProxy, type TcpProxy } from './support/proxy';
import { randomNumbers } from './support/random';
import { startSuite } from './support/suite';
import type { RunningProcess, System } from './support/system';

const SEED = 20_261_121;
const CALLS = 200;
/** Ring timeout, conversation, grace and searches of this suite's settings, twice, and the bound of a dialling whose worker died. */
const BOUND_MS = 120_000;

let system: System;
let api: RunningProcess;
let worker: RunningProcess;

/** Placed by a worker that dies, and never heard of: the time of the placement has to pass, so it begins first and is looked at last. */
const mute = { callId: '', to: newNumber() };

const vapi = () => system.sandbox.vapi;
const toOf = (to: string) => ({ when: (asked: { number: string | undefined }) => asked.number === to });

beforeAll(async () => {
  system = await startSuite('calls_stress', { environment: () => ({ API_RATE_LIMIT_PER_MINUTE: '100000' }) });
  ({ api } = system);
  [worker] = system.workers as [RunningProcess];
});

afterAll(async () => {
  await system?.close();
});

afterEach(() => {
  vapi().clearPlays();
  vapi().clearFaults();
});

async function replaceWorker(): Promise<void> {
  await worker.kill();
  worker = await system.startWorker();
}

async function replaceApi(extra: Record<string, string> = {}): Promise<void> {
  await api.kill();
  api = await system.startApi(extra);
}

/** As a caller does: the same key again until the API has taken the call. */
async function placeForSure(body: Record<string, unknown>): Promise<string> {
  const key = randomUUID();
  return await eventually(async () => {
    const { status, body: call } = await placeCall(system, body, key);
    if (status !== 202) throw new Error(`the call got ${status}: ${JSON.stringify(call)}`);
    return call.callId;
  }, 60_000);
}

/** As a caller does: asks again until the result is there, also when the API was away. */
async function awaited(callId: string): Promise<CallView> {
  return await eventually(() => resultOf(system, callId, 10_000), BOUND_MS);
}

async function expectOneResult(callId: string, to: string, outcome: string): Promise<void> {
  const workflow = await system.temporal.workflow.getHandle(`call-${callId}`).result();
  const rows = await system.db.vapiCallResult.findMany({ where: { toNumber: to }, select: { id: true, outcome: true } });
  expect({ to, workflow: workflow.outcome, rows, dialled: vapi().dialled({ number: to }) }).toEqual({
    to,
    workflow: outcome,
    rows: [{ id: callId, outcome }],
    dialled: 1,
  });
}

/**
 * A worker died with the order in its hands. If it had claimed the request, nobody knows whether it was sent, so it is not sent again; if
 * it had not, it was certainly not sent.
 */
function expectNotCalled(result: CallView): void {
  const [outcome, error] = result.error === NOT_DIALLED ? ['failed', NOT_DIALLED] : ['unknown', result.error];
  expect(result).toMatchObject({ outcome, error, needsAttention: true, providerCallId: null });
}

const OUTCOMES = {
  answered: 'completed',
  busy: 'busy',
  'no-answer': 'no_answer',
  voicemail: 'voicemail',
  'pipeline-error': 'failed',
  missed: 'invalid_number',
} as const satisfies Partial<Record<PlayName, string>>;
type Played = keyof typeof OUTCOMES;

interface StormCall {
  callId: string;
  to: string;
  play: Played;
  result: CallView;
}

/** Places calls whose events are lost, doubled and delayed at random, and waits for all results. `onProgress` runs beside it. */
async function storm(
  count: number,
  seed: number,
  onProgress: (results: StormCall[]) => Promise<void> = async () => undefined,
): Promise<StormCall[]> {
  const random = randomNumbers(seed);
  const plays = Object.keys(OUTCOMES) as Played[];
  const calls = Array.from({ length: count }, () => ({ to: newNumber(), play: plays[Math.floor(random() * plays.length)] ?? 'answered' }));
  const fates = new Map(calls.map(({ to }) => [to, randomNumbers(Math.floor(random() * 2 ** 31))]));
  for (const { to, play } of calls) vapi().play({ ...toOf(to), play, times: 1 });
  const seen = { events: 0, lost: 0, doubled: 0, mute: 0 };
  vapi().scheduleEvents((events: PlayedEvent[], { number }: SandboxCall) => {
    const fate = fates.get(number) ?? random;
    const isMute = fate() < 0.1;
    if (isMute) seen.mute += 1;
    seen.events += events.length;
    return events.flatMap((event) => {
      const isLost = isMute || fate() < 0.25;
      const copies = isLost ? 0 : fate() < 0.25 ? 2 : 1;
      if (isLost) seen.lost += 1;
      if (copies === 2) seen.doubled += 1;
      return Array.from({ length: copies }, () => ({ ...event, atMs: event.atMs + Math.floor(fate() * 800) }));
    });
  });
  const startedAtMs = Date.now();
  const waiting = calls.values();
  const results: StormCall[] = [];
  const lane = async () => {
    for (const { to, play } of waiting) {
      // A call whose end is not heard of is asked about when it must be over.
      const callId = await placeForSure({ to, maxDurationSeconds: 10 });
      results.push({ callId, to, play, result: await awaited(callId) });
    }
  };
  await Promise.all([...Array.from({ length: 40 }, lane), onProgress(results)]);
  const seconds = Math.round((Date.now() - startedAtMs) / 1_000);
  process.stdout.write(
    `seed ${seed}: ${results.length} calls in ${seconds} s; ${seen.mute} without any event; of ${seen.events} events ${seen.lost} lost, ${seen.doubled} doubled, all delayed at random\n`,
  );
  return results;
}

describe('a worker that is killed', () => {
  test('when it dies while it dials and events come, then the call goes on from them, and is not placed again', async () => {
    const to = newNumber();
    vapi().fault({ times: 2, answer: 'hang', takesEffect: true });
    vapi().play({ ...toOf(mute.to), play: 'no-events' });
    const callId = await placeForSure({ to });
    mute.callId = await placeForSure({ to: mute.to });
    for (const id of [callId, mute.callId]) await vapi().waitForStatus(id, 'ringing', 10_000);
    await replaceWorker();
    await awaited(callId);
    await expectOneResult(callId, to, 'completed');
  }, 120_000);

  test('when it dies while the call is followed, then another one follows it to its end', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'answered', talkMs: 4_000 });
    const callId = await placeForSure({ to });
    await vapi().waitForStatus(callId, 'in-progress', 10_000);
    await replaceWorker();
    await awaited(callId);
    await expectOneResult(callId, to, 'completed');
  }, 120_000);
});

test(`when ${CALLS} calls lose, double and mix up their events, then each ends with the right result, dialled once (seed ${SEED})`, async () => {
  const results = await storm(CALLS, SEED);
  const wrong = results.filter(({ play, result }) => result.outcome !== OUTCOMES[play]);
  expect(wrong.map(({ to, play, result }) => ({ to, play, outcome: result.outcome, reason: result.endedReason }))).toEqual([]);
  for (const { callId, to, play } of results) await expectOneResult(callId, to, OUTCOMES[play]);
  expect(results.length).toBe(CALLS);
}, 300_000);

test('when processes are killed in such a storm, then no phone rings twice, and who may have been called is unknown', async () => {
  const results = await storm(80, SEED + 1, async (done) => {
    for (const share of [10, 30, 50]) {
      await eventually(async () => expect(done.length).toBeGreaterThanOrEqual(share), BOUND_MS);
      await replaceWorker();
      if (share === 30) await replaceApi();
    }
  });
  for (const { callId, to, play, result } of results) {
    const dialled = vapi().dialled({ number: to });
    if (dialled === 0) expectNotCalled(result);
    else await expectOneResult(callId, to, OUTCOMES[play]);
  }
  const lost = results.filter(({ result }) => result.providerCallId === null).length;
  process.stdout.write(`three workers and an API killed: ${lost} of ${results.length} calls were in the hands of a worker that died\n`);
  expect(results.length).toBe(80);
  expect(lost).toBeLessThan(results.length / 2);
}, 300_000);

describe('an API that is killed', () => {
  let proxy: TcpProxy | undefined;

  afterEach(async () => {
    await replaceApi();
    await proxy?.close();
    proxy = undefined;
  });

  test.each([
    ['sends the report again', true],
    ['does not send it again', false],
  ])(
    'when it dies between the row of the report and its signal and Vapi %s, then there is one result',
    async (_what, comesAgain) => {
      proxy = await startProxy(system.environment.TEMPORAL_ADDRESS ?? '');
      await replaceApi({ TEMPORAL_ADDRESS: `127.0.0.1:${proxy.port}` });
      const to = newNumber();
      vapi().play({ ...toOf(to), play: 'answered', talkMs: 1_500 });
      const callId = await placeForSure({ to, maxDurationSeconds: 10 });
      await vapi().waitForStatus(callId, 'in-progress', 10_000);
      // From here on the API can keep facts, and tell nobody.
      proxy.hang();
      await eventually(async () => {
        const row = await system.db.vapiCallResult.findUniqueOrThrow({ where: { id: callId } });
        expect(row.rawPayload).not.toBeNull();
        expect(row.doneAt).toBeNull();
      }, 10_000);
      await api.kill();
      // Without an API to send it to, no event comes again: the workflow looks into the record by itself.
      if (!comesAgain) await system.temporal.workflow.getHandle(`call-${callId}`).result();
      api = await system.startApi();
      await awaited(callId);
      await expectOneResult(callId, to, 'completed');
    },
    120_000,
  );
});

describe('many who wait', () => {
  test('when 500 requests wait for 50 calls while the worker is replaced, then all get the result, for one wait per call', async () => {
    const calls = await Promise.all(
      Array.from({ length: 50 }, async () => {
        const to = newNumber();
        // Longer than any of this takes: they hang up when told to.
        vapi().play({ ...toOf(to), play: 'answered', talkMs: 300_000, times: 1 });
        return { to, callId: await placeForSure({ to }) };
      }),
    );
    const before = await metrics();
    const answers = calls.flatMap(({ callId }) =>
      Array.from({ length: 10 }, () => request(system, 'GET', `/api/v1/vapi/calls/${callId}?wait=55`)),
    );
    await eventually(async () => expect((await metrics()).parley_call_waiters).toBe(500));
    // A dial that dies with its worker keeps its call waiting for longer than a request may wait.
    await Promise.all(calls.map(({ callId }) => vapi().waitForStatus(callId, 'in-progress', 30_000)));
    const during = await metrics();
    await replaceWorker();
    expect(calls.map(({ callId }) => vapi().hangUp(callId))).not.toContain(false);
    const bodies = (await Promise.all(answers)).map(({ status, body }) => `${status} ${body.done} ${body.outcome}`);
    const after = await metrics();
    const megabytes = (bytes: number | undefined) => Math.round((bytes ?? 0) / 2 ** 20);
    const begun = (after.parley_call_waits_begun ?? 0) - (before.parley_call_waits_begun ?? 0);
    process.stdout.write(
      `500 requests on 50 calls: ${during.parley_call_waits} waits open at Temporal, ${begun} begun; memory of the API ${megabytes(before.process_resident_memory_bytes)} MiB before, ${megabytes(during.process_resident_memory_bytes)} during, ${megabytes(after.process_resident_memory_bytes)} after\n`,
    );
    // They hang up before a word was said.
    expect(new Set(bodies)).toEqual(new Set(['200 true no_answer']));
    expect(during.parley_call_waits).toBe(50);
    expect(begun).toBeLessThanOrEqual(100);
    expect(after.parley_call_waiters).toBe(0);
    expect(megabytes(during.process_resident_memory_bytes) - megabytes(before.process_resident_memory_bytes)).toBeLessThan(150);
  }, 120_000);

  test('when the API is stopped, then who waits is answered as it stands, and asks again elsewhere', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'answered', talkMs: 4_000, times: 1 });
    const callId = await placeForSure({ to });
    const waiting = request(system, 'GET', `/api/v1/vapi/calls/${callId}?wait=55`);
    await eventually(async () => expect((await metrics()).parley_call_waiters).toBe(1));
    const [{ status, body }, exitCode] = await Promise.all([waiting, api.stop()]);
    expect([status, body.done, exitCode]).toEqual([200, false, 0]);
    api = await system.startApi();
    expect((await awaited(callId)).outcome).toBe('completed');
  }, 60_000);
});

describe('a worker that died', () => {
  test('when it dialled and no event came, then the call is found at Vapi, and is not placed again', async () => {
    await awaited(mute.callId);
    await expectOneResult(mute.callId, mute.to, 'completed');
  }, 150_000);
});

/** The API's gauges and counters without labels. */
async function metrics(): Promise<Record<string, number>> {
  const text = await (await fetch(`${system.apiUrl}/metrics`)).text();
  return Object.fromEntries(
    text.split('\n').flatMap((line) => {
      const [, name, value] = /^([a-z_]+) ([\d.e+]+)$/.exec(line) ?? [];
      return name && value ? [[name, Number(value)]] : [];
    }),
  );
}
