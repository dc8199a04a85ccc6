/** Voice calls when Vapi says nothing, too little, or something else than it should; and the bounds of a call's workflow. */
import { randomUUID } from 'node:crypto';
import { callReported } from '../workflows/contract';
import { historyOf, newNumber, placeCall, request, resultOf, startCall } from './support/calls';
import { eventually } from './support/expectations';
import { startSuite } from './support/suite';
import { type System, VAPI_WEBHOOK_SECRET } from './support/system';
import { type Answering, type GivenAnswer, startVapiInBetween, type VapiInBetween } from './support/vapi-in-between';

let system: System;
let between: VapiInBetween;
let vapiUrl = '';

const vapi = () => system.sandbox.vapi;
const toOf = (to: string) => ({ when: (asked: { number: string | undefined }) => asked.number === to });
const rowOf = (id: string) => system.db.vapiCallResult.findUniqueOrThrow({ where: { id } });

beforeAll(async () => {
  between = await startVapiInBetween(() => vapiUrl);
  system = await startSuite('calls_doubtful', {
    environment: (sandbox) => {
      vapiUrl = sandbox.vapiUrl;
      return { VAPI_BASE_URL: between.url, CALL_RING_TIMEOUT_SECONDS: '4' };
    },
  });
});

afterAll(async () => {
  await system?.close();
  await between?.close();
});

async function callTo(to: string, more: Record<string, unknown> = {}): Promise<string> {
  return (await placeCall(system, { to, ...more })).body.callId;
}

/** What is answered to the placement for `to`; counts how often it was asked for. */
function answerPlacement(to: string, answering: Answering): { count: () => number } {
  let count = 0;
  between.answer(async (asked, forward) => {
    if (asked.method !== 'POST' || asked.path !== '/call' || JSON.parse(asked.body).customer.number !== to) return undefined;
    count += 1;
    return await answering(asked, forward);
  });
  return { count: () => count };
}

/** Seconds of the timers that the call's workflow has started. */
async function pausesOf(callId: string): Promise<number[]> {
  const { events } = await system.temporal.workflow.getHandle(`call-${callId}`).fetchHistory();
  return (events ?? []).flatMap(({ timerStartedEventAttributes: timer }) => (timer ? [Number(timer.startToFireTimeout?.seconds)] : []));
}

describe('placing', () => {
  const answers: [string, GivenAnswer][] = [
    ['a redirect', { status: 302, body: '', headers: { Location: '/elsewhere' } }],
    ['a redirect that repeats the request', { status: 307, body: '', headers: { Location: '/call' } }],
    ['a page', { status: 200, body: '<html>' }],
    ['no id', { status: 201, body: '{}' }],
    ['an id that cannot be stored', { status: 201, body: '{"id":"a\\u0000b"}' }],
    ['an id without end', { status: 201, body: JSON.stringify({ id: 'x'.repeat(8_000) }) }],
    ['500', { status: 500, body: '' }],
    ['502 and a page', { status: 502, body: '<html>' }],
  ];
  /** All at once: each takes the whole time of the search. */
  const placed = new Map<string, { callId: string; count: () => number }>();

  beforeAll(async () => {
    for (const [what, answer] of answers) {
      const to = newNumber();
      const { count } = answerPlacement(to, async () => answer);
      placed.set(what, { callId: await callTo(to), count });
    }
  });

  test.each(answers)('when Vapi answers the placement with %s, then it is asked once, and a person must look', async (what) => {
    const { callId = '', count } = placed.get(what) ?? {};
    const result = await resultOf(system, callId);
    expect(result).toMatchObject({ outcome: 'unknown', needsAttention: true, providerCallId: null });
    expect(result.error).toMatch(/^unknown whether the call was placed \(responded with \d+.*\), and Vapi does not list it$/);
    expect(count?.()).toBe(1);
  });

  test('when a call is placed, then Vapi is told what is wanted of it, and where its events go', async () => {
    const to = newNumber();
    const bodies: unknown[] = [];
    answerPlacement(to, async ({ body }, forward) => {
      bodies.push(JSON.parse(body));
      return await forward();
    });
    const callId = await callTo(to, { variables: { name: 'Ann' }, metadata: { ticket: 'T-1' }, maxDurationSeconds: 30 });
    await resultOf(system, callId);
    expect(bodies).toEqual([
      {
        name: callId,
        assistantId: system.environment.VAPI_ASSISTANT_ID,
        phoneNumberId: system.environment.VAPI_PHONE_NUMBER_ID,
        customer: { number: to },
        assistantOverrides: {
          metadata: { ticket: 'T-1', parleyCallId: callId },
          variableValues: { name: 'Ann' },
          maxDurationSeconds: 30,
          serverMessages: ['status-update', 'end-of-call-report'],
          voicemailDetection: { provider: 'vapi' },
          server: {
            url: `${system.apiUrl}/api/v1/vapi/webhooks/vapi`,
            headers: { 'X-Vapi-Secret': VAPI_WEBHOOK_SECRET },
            timeoutSeconds: 20,
            backoffPlan: { type: 'exponential', maxRetries: 10, baseDelaySeconds: 1 },
          },
        },
      },
    ]);
  });

  test('when Vapi asks again and again to come back at once, then it is asked ever more rarely', async () => {
    const to = newNumber();
    const placements = answerPlacement(to, async () => ({ status: 429, body: '{}', headers: { 'Retry-After': '0' } }));
    const callId = await callTo(to);
    await eventually(async () => expect(await pausesOf(callId)).toEqual([1, 10]));
    await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`);
    expect([(await resultOf(system, callId)).outcome, placements.count()]).toEqual(['canceled', 2]);
  });

  test('when events come while Vapi still holds the placement open, then the call is followed without the answer', async () => {
    const to = newNumber();
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    answerPlacement(to, async (_asked, forward) => {
      const answer = await forward();
      await released;
      return answer;
    });
    const result = await resultOf(system, await callTo(to), 15_000);
    release();
    expect([result.outcome, vapi().dialled({ number: to })]).toEqual(['completed', 1]);
  });
});

describe('a call that found no slot', () => {
  /** Placed without a slot once; then `second` says what becomes of the next placement, of which no event comes. Vapi lists the oldest first. */
  async function placedTwice(second: { takesEffect: boolean }): Promise<{ callId: string; to: string }> {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'concurrency-blocked', times: 1 });
    vapi().fault({ ...toOf(to), skip: 1, times: 1, answer: 'cut', ...second });
    vapi().play({ ...toOf(to), play: 'no-events', times: 1 });
    between.answer(async ({ method, path }, forward) => {
      if (method !== 'GET' || !path.startsWith('/call?')) return undefined;
      const { status, body } = await forward();
      return {
        status,
        body: JSON.stringify((JSON.parse(body) as { createdAt: string }[]).sort((a, b) => a.createdAt.localeCompare(b.createdAt))),
      };
    });
    return { callId: await callTo(to, { maxDurationSeconds: 20 }), to };
  }

  test('when the next placement is cut off and rings, then that one is found, and no phone rings again', async () => {
    const { callId, to } = await placedTwice({ takesEffect: true });
    const result = await resultOf(system, callId, 40_000);
    const { formerProviderCallIds, dialCount } = await rowOf(callId);
    expect([result.outcome, vapi().dialled({ number: to }), dialCount]).toEqual(['completed', 1, 2]);
    expect(formerProviderCallIds).not.toContain(result.providerCallId);
  });

  test('when the next placement is cut off and comes to nothing, then it is unknown, not the former one', async () => {
    const { callId, to } = await placedTwice({ takesEffect: false });
    const result = await resultOf(system, callId, 40_000);
    expect(result).toMatchObject({ outcome: 'unknown', needsAttention: true, providerCallId: null, cost: null });
    expect(vapi().dialled({ number: to })).toBe(0);
  });

  test('when it is cancelled meanwhile, then it is canceled, and nothing of the placement is left in it', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'concurrency-blocked' });
    const callId = await callTo(to);
    await eventually(async () => expect((await rowOf(callId)).formerProviderCallIds).toHaveLength(1));
    await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`);
    const canceled = { outcome: 'canceled', endedReason: 'manually-canceled', needsAttention: false, error: null, cost: null };
    expect(await resultOf(system, callId)).toMatchObject(canceled);
  });

  test('when it says so, then nobody waits for a report before the next placement', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'concurrency-blocked', times: 1 });
    const callId = await callTo(to);
    await resultOf(system, callId, 20_000);
    // The ring timeout, the pause, the ring timeout and the conversation; never the report's grace after the first end.
    expect((await pausesOf(callId)).filter((seconds) => seconds === 2).length).toBeLessThanOrEqual(1);
    expect(vapi().dialled({ number: to })).toBe(1);
  });
});

describe('asking about a call', () => {
  const answers: [string, GivenAnswer][] = [
    ['nothing', { status: 200, body: '{}' }],
    ['a page', { status: 200, body: '<html>' }],
    ['a redirect', { status: 302, body: '', headers: { Location: '/elsewhere' } }],
    ['another call', { status: 200, body: JSON.stringify({ id: 'another', status: 'ended', endedReason: 'customer-busy' }) }],
    ['words', { status: 200, body: '+12125550123 is busy' }],
    ['a refusal in words', { status: 500, body: JSON.stringify({ message: '+12125550123 is busy' }) }],
  ];
  const placed = new Map<string, { callId: string; id: string }>();

  beforeAll(async () => {
    for (const [what, answer] of answers) {
      const to = newNumber();
      vapi().play({ ...toOf(to), play: 'no-events', times: 1 });
      const callId = await callTo(to);
      const { id } = await eventually(async () => {
        const [call] = vapi().find(callId);
        if (call === undefined) throw new Error('not placed yet');
        return call;
      });
      const stop = between.answer(async ({ method, path }) => {
        if (method !== 'GET' || path !== `/call/${id}`) return undefined;
        stop();
        return answer;
      });
      placed.set(what, { callId, id });
    }
  });

  test.each(answers)('when Vapi answers with %s, then it is asked again, and the truth counts', async (what) => {
    const { callId = '', id } = placed.get(what) ?? {};
    expect(await resultOf(system, callId)).toMatchObject({ outcome: 'completed', providerCallId: id });
  });

  test.each(['words', 'a refusal in words'])('when Vapi has answered with %s, then the history tells of it without them', async (what) => {
    const { callId = '' } = placed.get(what) ?? {};
    await resultOf(system, callId);
    const history = await historyOf(system, callId);
    expect(history).toMatch(/Vapi could not be asked|Vapi responded with 500/);
    expect(history).not.toContain('2125550123');
  });
});

describe('ending', () => {
  test('when Vapi gives no way to end the call yet, then it is asked again, and the call ends', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'answered', talkMs: 30_000 });
    const callId = await callTo(to, { maxDurationSeconds: 60 });
    await vapi().waitForStatus(callId, 'in-progress', 15_000);
    const id = vapi().find(callId)[0]?.id;
    const stop = between.answer(async ({ method, path }, forward) => {
      if (method !== 'GET' || path !== `/call/${id}`) return undefined;
      stop();
      const { status, body } = await forward();
      return { status, body: JSON.stringify({ ...JSON.parse(body), monitor: {} }) };
    });
    await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`);
    expect(await resultOf(system, callId, 20_000)).toMatchObject({ status: 'ended', endedReason: 'manually-canceled' });
  });

  test('when the workflow is cancelled in the Temporal UI, then the call is ended and has its result', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'answered', talkMs: 30_000 });
    const callId = await callTo(to, { maxDurationSeconds: 60 });
    await vapi().waitForStatus(callId, 'in-progress', 15_000);
    await system.temporal.workflow.getHandle(`call-${callId}`).cancel();
    expect(await resultOf(system, callId, 20_000)).toMatchObject({ status: 'ended', endedReason: 'manually-canceled' });
  });
});

describe('bounds', () => {
  test('when Vapi takes no call for as long as one may wait, then it failed, and a person must look', async () => {
    const to = newNumber();
    answerPlacement(to, async () => ({ status: 429, body: '{}', headers: { 'Retry-After': '1' } }));
    const callId = await startCall(system, to, { queueForMs: 2_500 });
    expect(await resultOf(system, callId)).toMatchObject({
      outcome: 'failed',
      needsAttention: true,
      error: expect.stringContaining('too many requests'),
    });
  });

  test('when a call is alive long after it must be over and nothing is heard of it, then it ends as unknown', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'no-events', talkMs: 60_000 });
    const callId = await startCall(system, to);
    const result = await resultOf(system, callId, 20_000);
    expect(result).toMatchObject({ outcome: 'unknown', needsAttention: true, error: 'no end of the call was reported' });
  });

  test('when the workflow is told of another call, then it goes on with its own', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'answered', talkMs: 1_500 });
    const callId = await callTo(to);
    await vapi().waitForStatus(callId, 'in-progress', 15_000);
    await eventually(async () => expect((await rowOf(callId)).status).toBe('in-progress'));
    const other = { providerCallId: randomUUID(), type: 'end-of-call-report' as const, endedReason: 'customer-busy', atMs: Date.now() };
    await system.temporal.workflow.getHandle(`call-${callId}`).signal(callReported, other);
    // An operator may have typed anything in the Temporal UI.
    for (const odd of [[], [null], ['x'], [{}], [{ providerCallId: 7 }]])
      await system.temporal.workflow.getHandle(`call-${callId}`).signal('callReported', ...odd);
    expect(await resultOf(system, callId)).toMatchObject({ outcome: 'completed', providerCallId: vapi().find(callId)[0]?.id });
  });
});
