/** Voice calls from the request to the result, over real processes; only Vapi is a double. */
import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import { Webhook } from 'standardwebhooks';
import { type Receiver, startReceiver } from '../src/sandbox/receiver';
import type { PlayName, Schedule } from '../src/sandbox/vapi/plays';
import { callbackUpdateStart, callbackWorkflowId } from '../workflows/contract';
import { countActions } from './support/actions';
import { historyOf, newNumber, placeCall, request, resultOf } from './support/calls';
import { eventually, outcomesOf } from './support/expectations';
import { testWith } from './support/programs';
import { startSuite } from './support/suite';
import { API_KEY, type System, VAPI_WEBHOOK_SECRET } from './support/system';

const CALLBACK_SIGNING_SECRET = `whsec_${randomBytes(32).toString('base64')}`;

let system: System;
let callbacks: Receiver;
/** The longest road begins first: a placement that Vapi never answers is given up after 30 s. */
let hanging: { callId: string; to: string };
/** The next: a request to end a call is given up after 26 s. */
let unendable: Record<'mute' | 'talking' | 'forgetful', string>;

const vapi = () => system.sandbox.vapi;
const toOf = (to: string) => ({ when: (asked: { number: string | undefined }) => asked.number === to });

beforeAll(async () => {
  callbacks = await startReceiver();
  system = await startSuite('calls', {
    environment: () => ({
      CALL_FOLLOW_UP_TEXT: 'Thanks for the call! In short: {summary}',
      CALLBACK_ALLOWED_HOSTS: new URL(callbacks.url).host,
      CALLBACK_SIGNING_SECRET,
    }),
  });
  const to = newNumber();
  vapi().fault({ ...toOf(to), times: 1, answer: 'hang', takesEffect: true });
  vapi().play({ ...toOf(to), play: 'no-events' });
  const { body } = await placeCall(system, { to });
  hanging = { callId: body.callId, to };
  const all = await Promise.all([cancelledInVain(mute), cancelledInVain(), cancelledInVain(undefined, { takesEffect: false, times: 2 })]);
  unendable = { mute: all[0], talking: all[1], forgetful: all[2] };
});

afterAll(async () => {
  await system?.close();
  await callbacks?.close();
});

async function callTo(to: string, more: Record<string, unknown> = {}) {
  const { status, body } = await placeCall(system, { to, ...more });
  expect(status).toBe(202);
  return body.callId;
}

/** Vapi reports nothing about the call until it is over. */
const mute: Schedule = (events) => events.filter(({ type, status }) => type === 'end-of-call-report' || status === 'ended');

/** A long call that is cancelled. By default, Vapi names no way to end it as often as one activity asks. */
async function cancelledInVain(schedule?: Schedule, fault: object = { answer: '404', times: 4 }): Promise<string> {
  const to = newNumber();
  vapi().play({ ...toOf(to), play: 'answered', talkMs: 300_000, schedule });
  vapi().fault({ ...toOf(to), on: 'end', ...fault });
  const callId = await callTo(to);
  await vapi().waitForStatus(callId, 'in-progress', 15_000);
  if (!schedule) await eventually(async () => expect(await statusOf(callId)).toBe('in-progress'));
  await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`);
  return callId;
}

const statusOf = async (callId: string) => (await request(system, 'GET', `/api/v1/vapi/calls/${callId}`)).body.status;

async function playedCall(play: PlayName, more: Record<string, unknown> = {}) {
  const to = newNumber();
  vapi().play({ ...toOf(to), play, times: 1 });
  const callId = await callTo(to, more);
  return { callId, to, result: await resultOf(system, callId) };
}

describe('a call', () => {
  test('when it is answered, then its result has everything, its workflow says the same, and it was dialled once', async () => {
    const { callId, to, result } = await playedCall('answered', {
      variables: { customerName: 'Marker Person' },
      metadata: { ticket: 'T-7' },
      serviceRequestId: 'SR-1001',
    });
    expect(result).toMatchObject({
      ...{
        callId,
        to,
        status: 'ended',
        done: true,
        outcome: 'completed',
        endedReason: 'customer-ended-call',
        error: null,
        direction: 'outbound',
      },
      ...{
        needsAttention: false,
        metadata: { ticket: 'T-7' },
        serviceRequestId: 'SR-1001',
        hasRecording: true,
        transcript: null,
        messages: null,
        raw: null,
      },
      summary: expect.any(String),
      durationSeconds: expect.any(Number),
      answeredAt: expect.any(String),
    });
    expect(vapi().dialled({ number: to })).toBe(1);
    const workflow = system.temporal.workflow.getHandle(`call-${callId}`);
    expect(await workflow.result()).toMatchObject({ callId, outcome: 'completed', providerCallId: result.providerCallId });
    expect((await workflow.describe()).searchAttributes).toMatchObject({
      ParleyCallStatus: ['ended'],
      ParleyCallOutcome: ['completed'],
      ParleyAttention: [false],
    });
    const whole = await resultOf(system, result.providerCallId ?? '', 5_000, 'transcript,messages,raw');
    expect(whole).toMatchObject({
      callId,
      transcript: expect.stringContaining('AI:'),
      messages: expect.any(Array),
      raw: expect.any(Object),
    });
  });

  test.each<[PlayName, string]>([
    ['busy', 'busy'],
    ['no-answer', 'no_answer'],
    ['voicemail', 'voicemail'],
    ['missed', 'invalid_number'],
    ['pipeline-error', 'failed'],
    ['no-report', 'completed'],
    ['no-events', 'completed'],
    ['report-before-ended', 'completed'],
    ['duplicated', 'completed'],
    ['reordered', 'completed'],
    ['stale-snapshots', 'completed'],
    ['silent', 'no_answer'],
    ['facts-inside-call', 'completed'],
  ])('when Vapi simulates %s, then the outcome is %s, from one dialling', async (play, outcome) => {
    const { callId, to, result } = await playedCall(play);
    expect([result.outcome, result.status]).toEqual([outcome, 'ended']);
    expect(result.error === null).toBe(outcome !== 'failed');
    expect(vapi().dialled({ number: to })).toBe(1);
    expect(await system.db.vapiCallResult.count({ where: { toNumber: to } })).toBe(1);
    expect(await system.temporal.workflow.getHandle(`call-${callId}`).result()).toMatchObject({ outcome });
  });
});

describe('starting', () => {
  test('when the same key and body come again, in another order and at once, then it is the same call', async () => {
    const to = newNumber();
    const key = randomUUID();
    const answers = await Promise.all([
      placeCall(system, { to, metadata: { a: 1, b: [{ c: 2, d: 3 }] }, maxDurationSeconds: 60 }, key),
      placeCall(system, { maxDurationSeconds: 60, metadata: { b: [{ d: 3, c: 2 }], a: 1 }, to }, key),
      placeCall(system, { to: to.replace('+1212', '+1 (212) '), metadata: { a: 1, b: [{ c: 2, d: 3 }] }, maxDurationSeconds: 60 }, key),
    ]);
    expect(new Set(answers.map(({ status, body }) => `${status} ${body.callId}`)).size).toBe(1);
    const callId = answers[0]?.body.callId ?? '';
    await resultOf(system, callId);
    const late = await placeCall(system, { to, metadata: { a: 1, b: [{ c: 2, d: 3 }] }, maxDurationSeconds: 60 }, key);
    expect([late.status, late.body.callId, late.body.done]).toEqual([202, callId, true]);
    expect(vapi().dialled({ number: to })).toBe(1);
    const other = await placeCall(system, { to, maxDurationSeconds: 61 }, key);
    expect(other.status).toBe(409);
  });

  test.each([
    ['no number', {}, 400],
    ['a number without country code', { to: '2123456789' }, 400],
    ['an impossible number', { to: '+1212555' }, 400],
    ['an unknown field', { to: '+12125552368', toNumber: 'x' }, 400],
    ['too short a conversation', { to: '+12125552368', maxDurationSeconds: 1 }, 400],
    ['a callback to nobody allowed', { to: '+12125552368', callbackUrl: 'https://example.com/' }, 422],
  ])('when the body has %s, then nothing is placed and the problem says why', async (_what, body, status) => {
    const answer = await placeCall(system, body);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([status, expect.stringContaining('application/problem+json')]);
    expect(JSON.stringify(answer.body)).not.toContain('2125552368');
  });

  test('when there is no Idempotency-Key, then the problem names it', async () => {
    const { status, body } = await request<{ detail: string }>(system, 'POST', '/api/v1/vapi/calls', { body: { to: newNumber() } });
    expect([status, body.detail]).toEqual([400, 'Idempotency-Key: is required']);
  });
});

describe('placing', () => {
  test.each(['429', '400-concurrency'] as const)(
    'when Vapi first answers %s, then the call is queued and placed once later',
    async (answer) => {
      const to = newNumber();
      vapi().fault({ ...toOf(to), times: 1, answer, retryAfterSeconds: 1 });
      const result = await resultOf(system, await callTo(to));
      expect(result.outcome).toBe('completed');
      expect(vapi().dialled({ number: to })).toBe(1);
    },
  );

  test('when Vapi takes the call and finds no slot, then it is placed again, and once rings a phone', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'concurrency-blocked', times: 1 });
    const result = await resultOf(system, await callTo(to), 40_000);
    expect(result.outcome).toBe('completed');
    expect(vapi().dialled({ number: to })).toBe(1);
    const row = await system.db.vapiCallResult.findUniqueOrThrow({ where: { id: result.callId } });
    expect([row.dialCount, row.formerProviderCallIds.length]).toEqual([2, 1]);
  });

  test('when Vapi refuses the call, then it failed and asks for a person, and Vapi was asked once', async () => {
    const to = newNumber();
    vapi().fault({ ...toOf(to), answer: '401' });
    const creates = vapi().counts().creates;
    const result = await resultOf(system, await callTo(to));
    expect(result).toMatchObject({ outcome: 'failed', needsAttention: true, error: expect.stringContaining('401') });
    expect(vapi().counts().creates).toBe(creates + 1);
  });

  test.each(['500', 'cut'] as const)(
    'when the placement ends with %s and the phone rings, then the call is adopted, not repeated',
    async (answer) => {
      const to = newNumber();
      vapi().fault({ ...toOf(to), times: 1, answer, takesEffect: true });
      const result = await resultOf(system, await callTo(to));
      expect([result.outcome, result.providerCallId]).toEqual(['completed', vapi().find(result.callId)[0]?.id]);
      expect(vapi().dialled({ number: to })).toBe(1);
    },
  );

  test('when the placement is cut off and nothing was placed, then it is not repeated: unknown, and a person must look', async () => {
    const to = newNumber();
    vapi().fault({ ...toOf(to), times: 1, answer: 'cut', takesEffect: false });
    const result = await resultOf(system, await callTo(to));
    expect(result).toMatchObject({ outcome: 'unknown', needsAttention: true, providerCallId: null });
    expect(vapi().dialled({ number: to })).toBe(0);
  });
});

describe('ending', () => {
  test('when a live call is deleted, then Vapi ends it, and its result comes', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'answered', talkMs: 60_000 });
    const callId = await callTo(to);
    await vapi().waitForStatus(callId, 'in-progress', 15_000);
    expect((await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`)).status).toBe(202);
    const result = await resultOf(system, callId);
    expect(result.status).toBe('ended');
    expect(result.outcome).not.toBe('unknown');
    expect(vapi().counts().ends).toBeGreaterThan(0);
    expect((await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`)).status).toBe(200);
  });

  test('when a queued call is deleted, then nobody is called', async () => {
    const to = newNumber();
    vapi().fault({ ...toOf(to), answer: '429', retryAfterSeconds: 600 });
    const callId = await callTo(to);
    await eventually(async () => expect((await system.db.vapiCallResult.findUniqueOrThrow({ where: { id: callId } })).dialCount).toBe(1));
    await request(system, 'DELETE', `/api/v1/vapi/calls/${callId}`);
    expect(await resultOf(system, callId)).toMatchObject({ outcome: 'canceled', endedReason: 'manually-canceled' });
    expect(vapi().dialled({ number: to })).toBe(0);
  });
});

describe('reading', () => {
  test('when nobody knows the id, then it is 404; a wait that is out of range is 400', async () => {
    expect((await request(system, 'GET', `/api/v1/vapi/calls/${randomUUID()}`)).status).toBe(404);
    expect((await request(system, 'GET', '/api/v1/vapi/calls/no-such-call')).status).toBe(404);
    expect((await request(system, 'GET', `/api/v1/vapi/calls/${randomUUID()}?wait=56`)).status).toBe(400);
  });

  test('when the result is not there in time, then the answer is 200 with done false and every field', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'answered', talkMs: 3_000 });
    const callId = await callTo(to);
    const startedAtMs = Date.now();
    const { status, body } = await request(system, 'GET', `/api/v1/vapi/calls/${callId}?wait=1`);
    expect([status, body.done, body.outcome]).toEqual([200, false, null]);
    expect(Date.now() - startedAtMs).toBeGreaterThanOrEqual(1_000);
    const result = await resultOf(system, callId);
    expect(Object.keys(result).sort()).toEqual(Object.keys(body).sort());
  });

  test('when calls are listed by number, reference and outcome, then they come newest first, page by page', async () => {
    const to = newNumber();
    const serviceRequestId = randomUUID();
    const ids: string[] = [];
    for (const play of ['busy', 'busy', 'answered'] as const) {
      vapi().play({ ...toOf(to), play, times: 1 });
      const callId = await callTo(to, { serviceRequestId });
      ids.unshift(callId);
      await resultOf(system, callId);
    }
    type Page = { data: { callId: string }[]; next: string | null };
    const list = async (path: string) => (await request<Page>(system, 'GET', `/api/v1/vapi/calls${path}`)).body;
    const idsOf = ({ data }: Page) => data.map(({ callId }) => callId);
    const first = await list(`/by-phone/${encodeURIComponent(to)}?limit=2`);
    const second = await list(`/by-phone/${to.slice(1)}?limit=2&before=${first.next}`);
    expect([...idsOf(first), ...idsOf(second), second.next]).toEqual([...ids, null]);
    expect(idsOf(await list(`?serviceRequestId=${serviceRequestId}&outcome=busy&status=ended`))).toEqual(ids.slice(1));
    expect(idsOf(await list(`?serviceRequestId=${serviceRequestId}&since=${new Date(Date.now() + 60_000).toISOString()}`))).toEqual([]);
  });
});

describe('calls that others place', () => {
  test('when somebody calls in, then the call is followed from its first event to its result', async () => {
    const from = newNumber();
    const { id } = vapi().receiveCall({ from, baseUrl: system.sandbox.vapiUrl });
    const row = await eventually(() => system.db.vapiCallResult.findUniqueOrThrow({ where: { providerCallId: id } }));
    const result = await resultOf(system, row.id);
    expect(result).toMatchObject({ direction: 'inbound', from, outcome: 'completed', providerCallId: id });
  });
});

describe('a callback', () => {
  test('when the caller asked for one, then the signed result is posted until it is taken, and says what the API says', async () => {
    callbacks.answers.push(503);
    const { callId, result } = await playedCall('answered', { callbackUrl: callbacks.url });
    expect(await system.temporal.workflow.getHandle(callbackWorkflowId(callId)).result()).toEqual({ delivered: true });
    expect(callbacks.webhooks).toHaveLength(2);
    for (const { raw, headers } of callbacks.webhooks) {
      const posted = new Webhook(CALLBACK_SIGNING_SECRET).verify(raw, headers as Record<string, string>);
      expect(posted).toMatchObject({ callId, done: true, outcome: result.outcome, summary: result.summary });
    }
  });
});

describe('somebody who picks up and says nothing', () => {
  test('when the person has a conversation, then its note says that nobody answered, and no follow-up is sent', async () => {
    const phone = newNumber().slice(1);
    await system.sandbox.kapso.customerSends({ from: phone, text: 'please call me' });
    await outcomesOf(system, phone, 1);
    vapi().play({ ...toOf(`+${phone}`), play: 'silent', times: 1 });
    const callId = await callTo(phone);
    const result = await resultOf(system, callId, 30_000, 'messages');
    expect(result).toMatchObject({ outcome: 'no_answer', endedReason: 'silence-timed-out', answeredAt: null, to: `+${phone}` });
    expect(result.messages).toHaveLength(1);
    await system.temporal.workflow.getHandle(`call-${callId}`).result();
    const { conversationId, payload } = await system.db.message.findUniqueOrThrow({ where: { id: callId } });
    expect([conversationId, payload]).toEqual([result.conversationId, expect.objectContaining({ outcome: 'no_answer', followUp: null })]);
    expect(await system.db.message.count({ where: { conversationId, direction: 'outbound' } })).toBe(1);
  });
});

describe('a report of silence for a call without any event', () => {
  /** Somebody picks up, hears the assistant, and says nothing. */
  const report = (call: object) => ({
    message: {
      ...{ type: 'end-of-call-report', timestamp: Date.now(), endedReason: 'silence-timed-out', analysis: {} },
      ...{ startedAt: '2026-11-26T11:20:05.000Z', endedAt: '2026-11-26T11:20:36.000Z' },
      artifact: {
        transcript: 'AI: Hello, this is Example Bakery. Are you there?\n',
        messages: [{ role: 'bot', message: 'Hello, this is Example Bakery. Are you there?', secondsFromStart: 0.8 }],
      },
      call: { type: 'outboundPhoneCall', ...call },
    },
  });
  const silent = { outcome: 'no_answer', endedReason: 'silence-timed-out', answeredAt: null, durationSeconds: 31, done: true };

  test('when it is about the placed call, then nobody answered', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'no-events', talkMs: 300_000 });
    const callId = await callTo(to);
    const { providerCallId: id } = await eventually(async () => {
      const { body } = await request(system, 'GET', `/api/v1/vapi/calls/${callId}`);
      expect(body.providerCallId).not.toBeNull();
      return body;
    });
    await vapi().deliver(report({ id, name: callId, customer: { number: to } }));
    expect(await resultOf(system, callId)).toMatchObject({ ...silent, callId, to });
  });

  test('when it repeats the name of a call that follows another one, then it is a call of its own, which nobody answered', async () => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'no-events' });
    const callId = await callTo(to);
    await eventually(async () => expect((await request(system, 'GET', `/api/v1/vapi/calls/${callId}`)).body.providerCallId).not.toBeNull());
    const id = randomUUID();
    await vapi().deliver(report({ id, name: callId, customer: { number: '+15550100027' } }));
    expect(await resultOf(system, id)).toMatchObject({ ...silent, to: '+15550100027' });
    expect(await resultOf(system, callId)).toMatchObject({ callId, outcome: 'completed', to });
  });
});

describe('a number that WhatsApp spells differently', () => {
  test.each([
    ['Mexico', '52155', '5255'],
    ['Argentina', '54911', '5411'],
  ])(
    'when somebody from %s chats and is called in the other spelling, then the chat has a note of the call',
    async (_country, chatPrefix, callPrefix) => {
      const digits = newNumber().slice(-8);
      const [phone, number] = [`${chatPrefix}${digits}`, `+${callPrefix}${digits}`];
      await system.sandbox.kapso.customerSends({ from: phone, text: 'buenas tardes' });
      await outcomesOf(system, phone, 1);
      vapi().play({ play: 'busy', when: ({ number: dialled }) => dialled?.endsWith(digits) ?? false, times: 2 });
      const callIds = [await callTo(number), await callTo(phone)];
      for (const callId of callIds) {
        await resultOf(system, callId);
        await system.temporal.workflow.getHandle(`call-${callId}`).result();
        const { conversationId } = await system.db.message.findUniqueOrThrow({ where: { id: callId } });
        const { body } = await request<{ contact: { phone: string } }>(system, 'GET', `/api/v1/conversations/${conversationId}`);
        expect(body.contact.phone).toBe(phone);
      }
      for (const spelling of [phone, number.slice(1), encodeURIComponent(number)]) {
        const { body } = await request<{ data: { callId: string }[] }>(system, 'GET', `/api/v1/vapi/calls/by-phone/${spelling}`);
        expect(body.data.map(({ callId }) => callId)).toEqual(callIds.toReversed());
      }
    },
  );
});

describe('a report whose facts are only inside the nested call', () => {
  test('when it arrives, then the result has everything', async () => {
    const { result } = await playedCall('facts-inside-call');
    expect(result).toMatchObject({
      ...{ outcome: 'completed', endedReason: 'customer-ended-call', summary: expect.any(String), hasRecording: true },
      ...{ answeredAt: expect.any(String), endedAt: expect.any(String), durationSeconds: expect.any(Number), cost: expect.any(Number) },
    });
  });
});

describe('a report that arrives after the result', () => {
  test('when it improves the result, then the row, the note and one marked callback agree', async () => {
    const phone = newNumber().slice(1);
    await system.sandbox.kapso.customerSends({ from: phone, text: 'please call me' });
    await outcomesOf(system, phone, 1);
    vapi().play({ ...toOf(`+${phone}`), play: 'late-report', times: 1 });
    const before = callbacks.webhooks.length;
    const callId = await callTo(phone, { callbackUrl: callbacks.url });
    expect(await resultOf(system, callId)).toMatchObject({ outcome: 'completed', summary: null, hasRecording: false, improvedAt: null });
    const improved = await eventually(async () => {
      const { body } = await request(system, 'GET', `/api/v1/vapi/calls/${callId}?include=transcript`);
      expect(body.improvedAt).not.toBeNull();
      return body;
    });
    expect(improved).toMatchObject({ summary: expect.any(String), transcript: expect.stringContaining('User:'), hasRecording: true });
    const note = await system.db.message.findUniqueOrThrow({ where: { id: callId } });
    expect(note.text).toBe(improved.summary);
    const { workflowId } = callbackUpdateStart(callId, system.taskQueue);
    expect(await system.temporal.workflow.getHandle(workflowId).result()).toEqual({ delivered: true });
    const posted = callbacks.webhooks.slice(before).map(({ raw }) => JSON.parse(raw.toString()));
    expect(posted.map(({ isUpdate, summary }) => [isUpdate, summary])).toEqual([
      [false, null],
      [true, improved.summary],
    ]);
  });
});

describe('a flow in shell, with curl and jq alone', () => {
  const run = promisify(execFile);

  testWith('curl', 'jq').each([
    ['answered', 0, /^completed after [\d.]+ s: \S/],
    ['busy', 3, /^nobody could be reached \(busy\)$/m],
    ['pipeline-error', 1, /^ended with failed: \S/],
  ] as const)('when the call is simulated as %s, then the script waits for the end and ends with %i', async (play, code, said) => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play, times: 1 });
    // biome-ignore lint/style/noProcessEnv: a test starts a script like a shell does
    const env = { PATH: process.env.PATH, PARLEY_URL: system.apiUrl, PARLEY_KEY: API_KEY };
    const ended = await run('sh', ['examples/wait-for-a-call.sh', to], { env }).then(
      ({ stdout }) => ({ code: 0, stdout }),
      ({ code, stdout }: { code: number; stdout: string }) => ({ code, stdout }),
    );
    expect(ended).toEqual({ code, stdout: expect.stringMatching(said) });
    expect(vapi().dialled({ number: to })).toBe(1);
  });
});

describe('together with chat', () => {
  test('when the person has a conversation, then the call stands in it, the model reads it, and a follow-up is sent once', async () => {
    const phone = newNumber().slice(1);
    await system.sandbox.kapso.customerSends({ from: phone, text: 'please call me' });
    await outcomesOf(system, phone, 1);
    const callId = await callTo(`+${phone}`);
    const result = await resultOf(system, callId);
    expect(result.conversationId).not.toBeNull();
    const replies = await system.sandbox.kapso.waitForVisible(phone, 2, 20_000);
    expect(replies[1]?.text).toBe(`Thanks for the call! In short: ${result.summary}`);
    const note = await system.db.message.findUniqueOrThrow({ where: { id: callId } });
    expect(note).toMatchObject({ direction: 'note', kind: 'voice_call', text: result.summary, conversationId: result.conversationId });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'thank you' });
    await outcomesOf(system, phone, 2);
    const prompt = JSON.stringify(system.sandbox.models.requests('sandbox-model').at(-1)?.messages);
    expect(prompt).toContain(result.summary);
  });

  test('when nobody was reached, then the call stands in the conversation, and no follow-up is sent', async () => {
    const phone = newNumber().slice(1);
    await system.sandbox.kapso.customerSends({ from: phone, text: 'please call me' });
    await outcomesOf(system, phone, 1);
    vapi().play({ ...toOf(`+${phone}`), play: 'busy', times: 1 });
    const callId = await callTo(`+${phone}`);
    await system.temporal.workflow.getHandle(`call-${callId}`).result();
    const { conversationId } = await system.db.message.findUniqueOrThrow({ where: { id: callId } });
    expect(await system.db.message.count({ where: { conversationId, direction: 'outbound' } })).toBe(1);
  });
});

describe('what must not be found', () => {
  test('when calls were made, then no secret of Vapi and no number stands in a log line, an id, a summary or a history', async () => {
    const { callId, to } = await playedCall('answered', { variables: { customerName: 'MARKER-NAME' } });
    const secrets = ['FAKE', VAPI_WEBHOOK_SECRET, 'test-vapi-key', '/control/', 'presigned'];
    const history = await historyOf(system, callId);
    const logs = [system.api, ...system.workers].flatMap(({ lines }) => lines).join('\n');
    const row = JSON.stringify(await system.db.vapiCallResult.findUniqueOrThrow({ where: { id: callId } }));
    for (const found of [history, logs]) {
      expect(found).not.toContain(to.slice(1));
      expect(found).not.toContain('MARKER-NAME');
    }
    for (const secret of secrets) for (const found of [history, logs, row]) expect(found).not.toContain(secret);
  });
});

describe('a call that Vapi does not end', () => {
  async function activitiesOf(callId: string): Promise<string[]> {
    const { events } = await system.temporal.workflow.getHandle(`call-${callId}`).fetchHistory();
    return (events ?? []).flatMap(({ activityTaskScheduledEventAttributes: activity }) => activity?.activityType?.name ?? []);
  }

  test.each([
    ['gives no way to end it, and it is seen in another state later', 'mute', ['dialCall', 'endCall', 'lookAtCall', 'endCall']],
    ['gives no way to end it, and it goes on', 'talking', ['dialCall', 'endCall', 'endCall']],
    ['takes the request, and it goes on', 'forgetful', ['dialCall', 'endCall', 'endCall', 'endCall']],
  ] as const)(
    'when Vapi %s, then the request to end it is repeated until it ends',
    async (_what, which, activities) => {
      expect(await resultOf(system, unendable[which], 60_000)).toMatchObject({ status: 'ended', endedReason: 'manually-canceled' });
      expect(await activitiesOf(unendable[which])).toEqual(activities);
    },
    70_000,
  );
});

describe('what a call costs', () => {
  test.each([
    ['short', 150, 2],
    ['longer than a phone may ring', 6_000, 3],
  ])('when a call is answered and %s, then it takes at most 12 actions', async (_what, talkMs, mostTimers) => {
    const to = newNumber();
    vapi().play({ ...toOf(to), play: 'answered', talkMs });
    const callId = await callTo(to);
    expect(await resultOf(system, callId)).toMatchObject({ outcome: 'completed', hasRecording: true });
    const history = await system.temporal.workflow.getHandle(`call-${callId}`).fetchHistory();
    // The signals: answered, ended, reported. The markers: the patch, and the activity that writes the result.
    const { timers, total, ...actions } = countActions(history);
    expect(actions).toEqual({ starts: 1, signals: 3, activities: 1, markers: 2, upserts: 2, updates: 0, children: 0 });
    // The second timer of a long call is not needed if the processes are slow enough.
    expect(timers).toBeLessThanOrEqual(mostTimers);
    expect(total).toBe(9 + timers);
  });
});

describe('a placement that Vapi never answers', () => {
  test('when the phone rings all the same and no event comes, then the call is found, adopted and followed to its end', async () => {
    const result = await resultOf(system, hanging.callId, 90_000);
    expect(result).toMatchObject({ outcome: 'completed', providerCallId: vapi().find(hanging.callId)[0]?.id });
    expect(vapi().dialled({ number: hanging.to })).toBe(1);
  }, 100_000);
});
