/** Conversations through the whole system: real processes, real Temporal, real PostgreSQL, the vendors' HTTP. */
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import { failedAfterSent } from '../src/sandbox/kapso/requests';
import { balance, eventually, inboundOf, newPhone, outcomesOf, repliesOf, workflowIdOf } from './support/expectations';
import { change } from './support/people';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('conversation', {
    environment: ({ modelsUrl }) => ({
      DEEPSEEK_API_KEY: 'k1',
      DEEPSEEK_BASE_URL: modelsUrl,
      OPENAI_API_KEY: 'k2',
      OPENAI_BASE_URL: modelsUrl,
      ANTHROPIC_API_KEY: 'k3',
      ANTHROPIC_BASE_URL: modelsUrl,
      AI_PROVIDERS: 'sandbox',
      MODEL_TIMEOUT_MS: '1000',
      TURN_TIMEOUT_MS: '12000',
    }),
  });
});

afterAll(async () => {
  await system?.close();
});

beforeEach(async () => {
  system.sandbox.models.clear();
  system.sandbox.kapso.clearFaults();
  await configure({
    chatbotEnabled: true,
    aiEnabled: true,
    providerChain: ['sandbox'],
    quietMs: 0,
    quietMaxMs: 15_000,
    sendConfirmMs: 20_000,
    historyLimit: 20,
    sessionTimeoutMs: 1_800_000,
  });
});

afterEach(async () => {
  await balance(system.db);
});

type Configuration = Partial<{
  chatbotEnabled: boolean;
  aiEnabled: boolean;
  providerChain: string[];
  quietMs: number;
  quietMaxMs: number;
  sendConfirmMs: number;
  sessionTimeoutMs: number;
  historyLimit: number;
  systemPrompt: string;
}>;

async function configure(data: Configuration): Promise<void> {
  const { id: workspaceId } = await system.db.workspace.findUniqueOrThrow({ where: { kapsoPhoneNumberId: system.phoneNumberId } });
  await system.db.chatbotSettings.update({ where: { workspaceId }, data });
}

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;

/** A status webhook as Meta sends it, with our id in it or without. */
async function report(providerMessageId: string, status: string, correlation?: string): Promise<void> {
  const entry = { id: providerMessageId, status, timestamp: String(Math.floor(Date.now() / 1_000)) };
  const statuses = [{ ...entry, ...(correlation ? { biz_opaque_callback_data: correlation } : {}) }];
  const value = { messaging_product: 'whatsapp', metadata: { phone_number_id: system.phoneNumberId }, statuses };
  const body = { object: 'whatsapp_business_account', entry: [{ id: '1', changes: [{ field: 'messages', value }] }] };
  expect((await kapso().deliver(body)).status).toBe(200);
}

describe('a message', () => {
  test('when a customer writes, then one reply is sent, ticked through, and recorded with its provenance', async () => {
    const phone = newPhone();
    models().program({ model: 'sandbox-model', reply: 'Hello Ann!' });
    expect((await kapso().customerSends({ from: phone, name: 'Ann', text: 'hi' })).status).toBe(200);
    const [seen] = await kapso().waitForVisible(phone, 1, 10_000);
    expect(seen?.text).toBe('Hello Ann!');
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    const [reply] = await eventually(async () => {
      const replies = await repliesOf(system, phone);
      expect(replies[0]?.status).toBe('read');
      return replies;
    });
    expect(reply).toMatchObject({ text: 'Hello Ann!', provider: 'sandbox', model: 'sandbox-model', attempts: 1, sendAttempts: 1 });
    expect(reply?.promptTokens).toBeGreaterThan(0);
    expect(seen?.correlation).toBe(reply?.id);
    // The wait for an answer costs a timer only where there is trouble.
    const { events } = await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).fetchHistory();
    expect(events?.filter((event) => event.timerStartedEventAttributes)).toHaveLength(1);
  });

  test('when a customer goes on, then the model sees what was said before, within the limit', async () => {
    const phone = newPhone();
    await configure({ historyLimit: 2, systemPrompt: 'You sell cakes.' });
    models().program({ model: 'sandbox-model', reply: (request) => `answer to ${request.messages.at(-1)?.content}` });
    for (const text of ['one', 'two', 'three']) {
      await kapso().customerSends({ from: phone, text });
      await kapso().waitForVisible(phone, ['one', 'two', 'three'].indexOf(text) + 1, 10_000);
      await outcomesOf(system, phone, ['one', 'two', 'three'].indexOf(text) + 1);
    }
    const request = models().requests('sandbox-model').at(-1);
    expect(request?.messages.map((message) => [message.role, message.content])).toEqual([
      ['system', expect.stringMatching(/^You sell cakes\.\n/)],
      ['user', 'two'],
      ['assistant', 'answer to two'],
      ['user', 'three'],
    ]);
  });

  test('when a reply is too long for one WhatsApp message, then it is sent in several messages, and no character is cut', async () => {
    const phone = newPhone();
    models().program({ model: 'sandbox-model', reply: '😀'.repeat(3_000) });
    await kapso().customerSends({ from: phone, text: 'hi' });
    const seen = await kapso().waitForVisible(phone, 2, 10_000);
    expect(seen.map(({ text }) => text).join('')).toBe('😀'.repeat(3_000));
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    expect(await repliesOf(system, phone)).toMatchObject(seen.map(({ text }) => ({ text })));
  });

  test('when five messages come within the quiet time, then the model is asked once with all five and one reply goes out', async () => {
    const phone = newPhone();
    await configure({ quietMs: 1_500 });
    const asked = models().count('sandbox-model');
    for (const text of ['a', 'b', 'c', 'd', 'e']) await kapso().customerSends({ from: phone, text });
    expect(await outcomesOf(system, phone, 5)).toEqual(['merged', 'merged', 'merged', 'merged', 'answered']);
    expect(models().count('sandbox-model')).toBe(asked + 1);
    expect(
      models()
        .requests('sandbox-model')
        .at(-1)
        ?.messages.slice(1)
        .map((message) => message.content),
    ).toEqual(['a\nb\nc\nd\ne']);
    expect(kapso().visibleTo(phone)).toHaveLength(1);
  });

  test('when a customer never stops typing, then the quiet time is bounded', async () => {
    const phone = newPhone();
    await configure({ quietMs: 60_000, quietMaxMs: 1_000 });
    await kapso().customerSends({ from: phone, text: 'a' });
    await kapso().customerSends({ from: phone, text: 'b' });
    await kapso().waitForVisible(phone, 1, 10_000);
    expect(await outcomesOf(system, phone, 2)).toEqual(['merged', 'answered']);
  });

  test('when two people write at once, then each has their own turn', async () => {
    const [one, two] = [newPhone(), newPhone()];
    await configure({ quietMs: 500 });
    models().program({
      model: 'sandbox-model',
      reply: (request) =>
        request.messages
          .slice(1)
          .map((message) => message.content)
          .join('+'),
    });
    await Promise.all([kapso().customerSends({ from: one, text: 'one' }), kapso().customerSends({ from: two, text: 'two' })]);
    const [[seenOne], [seenTwo]] = await Promise.all([kapso().waitForVisible(one, 1, 10_000), kapso().waitForVisible(two, 1, 10_000)]);
    expect([seenOne?.text, seenTwo?.text]).toEqual(['one', 'two']);
    expect(await outcomesOf(system, one, 1)).toEqual(['answered']);
    expect(await outcomesOf(system, two, 1)).toEqual(['answered']);
  });

  test('when a message comes while the model thinks, then it is answered in the next turn', async () => {
    const phone = newPhone();
    models().program({ model: 'sandbox-model', times: 1, delayMs: 700, reply: 'first' });
    const before = models().count('sandbox-model');
    await kapso().customerSends({ from: phone, text: 'a' });
    await models().waitForRequests('sandbox-model', before + 1, 10_000);
    await kapso().customerSends({ from: phone, text: 'b' });
    await kapso().waitForVisible(phone, 2, 15_000);
    expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  });
});

describe('messages that get no reply', () => {
  test.each([
    ['the chatbot', { chatbotEnabled: false }],
    ['the AI', { aiEnabled: false }],
  ])('when %s is switched off, then the message is recorded and nothing is asked or sent', async (_what, off) => {
    const phone = newPhone();
    await configure(off);
    const asked = models().count('sandbox-model');
    expect((await kapso().customerSends({ from: phone, text: 'hi' })).status).toBe(200);
    expect(await outcomesOf(system, phone, 1)).toEqual(['ai_disabled']);
    expect(models().count('sandbox-model')).toBe(asked);
    expect(kapso().visibleTo(phone)).toEqual([]);
  });

  test('when a voice message comes, then it is recorded with what it carries and ends as unsupported; a caption is answered', async () => {
    const phone = newPhone();
    await kapso().customerSends({ from: phone, kind: 'location' });
    expect(await outcomesOf(system, phone, 1)).toEqual(['unsupported']);
    const row = await system.db.message.findFirstOrThrow({ where: { kind: 'location', conversation: { contact: { phone } } } });
    expect(row.payload).toMatchObject({ location: { latitude: expect.any(Number) } });
    await kapso().customerSends({ from: phone, kind: 'image', text: 'is this the right one?' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['unsupported', 'answered']);
    expect(kapso().visibleTo(phone)).toHaveLength(1);
  });

  test('when an imported message comes, then it is recorded and never answered', async () => {
    const phone = newPhone();
    await kapso().customerSends({ from: phone, text: 'from last year', origin: 'history_sync' });
    expect(await outcomesOf(system, phone, 1)).toEqual(['history']);
    expect(kapso().visibleTo(phone)).toEqual([]);
  });

  test.each(['human', 'paused'] as const)(
    'when the conversation is in mode %s, then the message waits, and is not answered',
    async (mode) => {
      const phone = newPhone();
      await kapso().customerSends({ from: phone, text: 'a' });
      await outcomesOf(system, phone, 1);
      await system.db.conversation.updateMany({ where: { contact: { phone } }, data: { mode } });
      await kapso().customerSends({ from: phone, text: 'b' });
      await eventually(async () => expect((await inboundOf(system, phone)).map(({ outcome }) => outcome)).toEqual(['answered', null]));
      expect(kapso().visibleTo(phone)).toHaveLength(1);
      expect(await system.db.conversation.findFirst({ where: { contact: { phone } } })).toMatchObject({ unreadCount: 1 });
      await change(system, phone, 'close', { by: 'Ann' });
      expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'human']);
    },
  );

  test('when the first message of a burst is delivered last, then the model reads the burst in the order in which it was written', async () => {
    const phone = newPhone();
    await configure({ quietMs: 700 });
    const writtenAt = Math.floor(Date.now() / 1_000) - 10;
    const write = (text: string, second: number) =>
      kapso().deliver({
        phone_number_id: system.phoneNumberId,
        messages: [
          { from: phone, id: `wamid.${phone}.${text}`, timestamp: String(writtenAt + second), type: 'text', text: { body: text } },
        ],
      });
    for (const [text, second] of [
      ['two', 2],
      ['three', 3],
      ['one', 1],
      ['two', 2],
    ] as const)
      await write(text, second);
    expect((await outcomesOf(system, phone, 3)).sort()).toEqual(['answered', 'merged', 'merged']);
    const read = models()
      .requests('sandbox-model')
      .findLast(({ messages }) => messages.some(({ content }) => content.includes('three')));
    expect(read?.messages.filter(({ role }) => role === 'user').map(({ content }) => content)).toEqual(['one\ntwo\nthree']);
    expect(kapso().visibleTo(phone)).toHaveLength(1);
  });

  test('when no workspace has the number, then messages wait with that reason and are worked off once it is added', async () => {
    const phone = newPhone();
    const phoneNumberId = `9${Date.now()}`;
    const post = (id: string, text: string) =>
      kapso().deliver({
        phone_number_id: phoneNumberId,
        messages: [{ from: phone, id, timestamp: String(Math.floor(Date.now() / 1000)), text: { body: text } }],
      });
    expect((await post(`wamid.${phoneNumberId}.1`, 'anyone there?')).status).toBe(200);
    const parked = () => system.db.parkedMessage.findMany({ where: { phoneNumberId }, orderBy: { createdAt: 'asc' } });
    await eventually(async () => expect(await parked()).toHaveLength(1));
    await post(`wamid.${phoneNumberId}.2`, 'hello?');
    await eventually(async () => expect(await parked()).toHaveLength(2));
    expect((await parked())[0]).toMatchObject({ reason: 'no workspace has this number', releasedAt: null });
    expect((await balance(system.db)).pending).toBe(2);

    await system.db.workspace.create({
      data: {
        name: 'late',
        kapsoPhoneNumberId: phoneNumberId,
        settings: { create: { chatbotEnabled: true, aiEnabled: true, quietMs: 0 } },
      },
    });
    await kapso().waitForVisible(phone, 1, 20_000);
    await eventually(async () => {
      const rows = await system.db.message.findMany({
        where: { direction: 'inbound', workspace: { kapsoPhoneNumberId: phoneNumberId } },
        orderBy: { position: 'asc' },
      });
      expect(rows.map((row) => [row.text, row.outcome !== null])).toEqual([
        ['anyone there?', true],
        ['hello?', true],
      ]);
    });
    expect((await parked()).every((row) => row.releasedAt !== null)).toBe(true);
    expect((await balance(system.db)).pending).toBeUndefined();
  });
});

describe('the provider chain', () => {
  const CHAIN = ['deepseek:m-one', 'openai:m-two', 'anthropic:m-three'];

  test('when the first has an outage, the second refuses the key and the third answers, then the third is used and the history shows the way', async () => {
    const phone = newPhone();
    await configure({ providerChain: CHAIN });
    models().program({ model: 'm-one', error: { status: 500 } });
    models().program({ model: 'm-two', error: { status: 401 } });
    models().program({ model: 'm-three', reply: 'third time lucky' });
    const before = CHAIN.map((entry) => models().count(entry.split(':')[1] ?? ''));
    await kapso().customerSends({ from: phone, text: 'hi' });
    const [seen] = await kapso().waitForVisible(phone, 1, 20_000);
    expect(seen?.text).toBe('third time lucky');
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    const calls = CHAIN.map((entry, index) => models().count(entry.split(':')[1] ?? '') - (before[index] ?? 0));
    expect(calls).toEqual([1, 1, 1]);
    expect(await repliesOf(system, phone)).toMatchObject([{ provider: 'anthropic', model: 'm-three' }]);
    const { events } = await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).fetchHistory();
    const summaries = (events ?? []).flatMap((event) => {
      const data = event.userMetadata?.summary?.data;
      return data && event.activityTaskScheduledEventAttributes ? [JSON.parse(Buffer.from(data).toString())] : [];
    });
    expect(summaries).toEqual(['reply via deepseek', 'reply via openai', 'reply via anthropic']);
    const failures = (events ?? []).flatMap(
      (event) => event.activityTaskFailedEventAttributes?.failure?.applicationFailureInfo?.type ?? [],
    );
    expect(failures).toEqual(['ModelError.Unavailable', 'ModelError.Unauthorized']);
  });

  test.each([
    ['a rate limit with Retry-After', { error: { status: 429, retryAfterSeconds: 1 } }],
    ['a request timeout', { error: { status: 408 } }],
    ['a conflict', { error: { status: 409 } }],
    ['a cut connection', { connection: 'cut' as const }],
    ['an answer that is not JSON', { raw: { status: 200, contentType: 'text/html', body: '<html>' } }],
    ['an error under status 200', { raw: { status: 200, contentType: 'application/json', body: '{"error": {"message": "busy"}}' } }],
    ['an empty answer', { reply: '  ' }],
  ])('when the only provider has %s once, then it is asked again', async (_what, program) => {
    const phone = newPhone();
    await configure({ providerChain: ['deepseek:m-one'] });
    models().program({ model: 'm-one', times: 1, ...program });
    models().program({ model: 'm-one', reply: 'now' });
    const before = models().count('m-one');
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 20_000);
    expect(models().count('m-one') - before).toBe(2);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    expect(await repliesOf(system, phone)).toMatchObject([{ provider: 'deepseek', attempts: 2 }]);
  });

  test('when a provider names the time from which on it answers, then it is asked again then, and not before', async () => {
    const phone = newPhone();
    await configure({ providerChain: ['deepseek:m-one'] });
    const before = models().count('m-one');
    // A date has whole seconds: 3 s from now are more than 2 s, and more than any pause of our own.
    const freeAgainAtMs = Math.floor(Date.now() / 1_000 + 3) * 1_000;
    const headers = { 'Retry-After': new Date(freeAgainAtMs).toUTCString() };
    models().program({ model: 'm-one', times: 1, raw: { status: 429, contentType: 'application/json', headers, body: '{"error":{}}' } });
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 20_000);
    const asked = models().requests('m-one').slice(before);
    expect(asked).toHaveLength(2);
    // Timers of Temporal and the clock of this process may differ by some milliseconds.
    expect(asked[1]?.atMs).toBeGreaterThanOrEqual(freeAgainAtMs - 100);
    expect(await repliesOf(system, phone)).toMatchObject([{ provider: 'deepseek', attempts: 2 }]);
  });

  test.each([
    ['an outage', { error: { status: 503 } }],
    ['a bad request', { error: { status: 400 } }],
    ['no credit', { error: { status: 402 } }],
    ['no permission', { error: { status: 403 } }],
    ['no such model', { error: { status: 404 } }],
    ['an empty reply', { reply: '  ' }],
    ['refused content', { reply: 'x', finishReason: 'content_filter' as const }],
  ])('when a provider answers with %s, then the next one is asked at once', async (_what, program) => {
    const phone = newPhone();
    await configure({ providerChain: CHAIN });
    models().program({ model: 'm-one', ...program });
    models().program({ model: 'm-two', reply: 'second' });
    const before = models().count('m-one');
    await kapso().customerSends({ from: phone, text: 'hi' });
    const [seen] = await kapso().waitForVisible(phone, 1, 20_000);
    expect(seen?.text).toBe('second');
    expect(models().count('m-one') - before).toBe(1);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  });

  test('when a provider never answers, then the next one is asked after one timeout', async () => {
    const phone = newPhone();
    await configure({ providerChain: CHAIN });
    models().program({ model: 'm-one', connection: 'hang' });
    models().program({ model: 'm-two', reply: 'second' });
    const before = models().count('m-one');
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 20_000);
    expect(models().count('m-one') - before).toBe(1);
    expect(await repliesOf(system, phone)).toMatchObject([{ provider: 'openai' }]);
  });

  test('when no provider ever answers, then all are asked again until the turn ends at its bound', async () => {
    const phone = newPhone();
    await configure({ providerChain: CHAIN });
    for (const model of ['m-one', 'm-two', 'm-three']) models().program({ model, connection: 'hang' });
    const startedAtMs = Date.now();
    await kapso().customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1, 30_000)).toEqual(['failed']);
    expect(Date.now() - startedAtMs).toBeGreaterThan(11_000);
    expect(Date.now() - startedAtMs).toBeLessThan(16_000);
    const [message] = await system.db.message.findMany({ where: { direction: 'inbound', conversation: { contact: { phone } } } });
    expect(message?.failure).toMatch(
      /^no model answered in time: deepseek \(m-one\) did not answer in time: raise DEEPSEEK_TIMEOUT_MS if it is slow \([2-9] attempts\); openai .*; anthropic .*/,
    );
  });

  test('when all fail, then the message stays with outcome failed, nothing is sent, and a person is asked for', async () => {
    const phone = newPhone();
    await configure({ providerChain: CHAIN });
    for (const model of ['m-one', 'm-two', 'm-three']) models().program({ model, error: { status: 401 } });
    await kapso().customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1)).toEqual(['failed']);
    expect(kapso().visibleTo(phone)).toEqual([]);
    expect(await system.db.conversation.findFirst({ where: { contact: { phone } } })).toMatchObject({
      needsAttention: true,
      attention: [
        expect.objectContaining({
          kind: 'turn_failed',
          text: expect.stringMatching(/^no model can answer: .*; anthropic \(m-three\) responded with 401: check the API key/),
        }),
      ],
    });
    const described = await eventually(async () => {
      const description = await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).describe();
      expect(description.searchAttributes.ParleyAttention).toEqual([true]);
      return description;
    });
    expect(described.status.name).toBe('RUNNING');
  });

  test('when no provider of the chain has a key, then the message is not answered, and its outcome says so at once', async () => {
    const phone = newPhone();
    await configure({ providerChain: ['grok:grok-4'] });
    await kapso().customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1)).toEqual(['ai_disabled']);
  });
});

describe('sending', () => {
  test.each([
    ['another send is in flight', '409'],
    ['the throughput is reached', '130429'],
  ] as const)('when %s, then the send waits and goes out once', async (_what, answer) => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer, accepted: false });
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 20_000);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    expect(await repliesOf(system, phone)).toMatchObject([{ sendAttempts: 2 }]);
  });

  test('when Kapso throttles, then the send waits as long as it is told', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer: '429', accepted: false, retryAfterSeconds: 2 });
    const startedAtMs = Date.now();
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 20_000);
    expect(Date.now() - startedAtMs).toBeGreaterThanOrEqual(2_000);
  });

  test('when Kapso throttles again and again and says that no wait is needed, then each send waits longer all the same', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, times: 2, answer: '429', accepted: false, retryAfterSeconds: 0 });
    const startedAtMs = Date.now();
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 20_000);
    expect(Date.now() - startedAtMs).toBeGreaterThanOrEqual(3_000);
    expect(await repliesOf(system, phone)).toMatchObject([{ sendAttempts: 3 }]);
  });

  test.each([
    ['the window is closed', '131047', 'WhatsAppSendError.WindowClosed'],
    ['the recipient cannot be reached', '131026', 'WhatsAppSendError.Refused 131026'],
    ['the key is wrong', '401', 'WhatsAppSendError.Unauthorized'],
    ['the number is not ours', '404', 'WhatsAppSendError.UnknownNumber'],
  ] as const)('when %s, then the reply fails and a person is asked for', async (_what, answer, failure) => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, answer, accepted: false });
    await kapso().customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1)).toEqual(['failed']);
    expect(await repliesOf(system, phone)).toMatchObject([{ status: 'failed', failure, sendAttempts: 1 }]);
    expect(await system.db.conversation.findFirst({ where: { contact: { phone } } })).toMatchObject({ needsAttention: true });
  });

  test.each([
    ['the connection is cut after Kapso took it', { answer: 'cut', accepted: true }],
    ['Kapso never answers, having taken it', { answer: 'hang', accepted: true }],
    ['Kapso’s gateway breaks, having taken it', { answer: '502_html', accepted: true }],
    ['Meta says 131000, having taken it', { answer: '131000', accepted: true }],
  ] as const)('when %s, then the status webhook settles it and nothing goes out twice', async (_what, fault) => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, ...fault });
    kapso().fault({ on: 'list', answer: '502_html', accepted: false });
    await kapso().customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1, 30_000)).toEqual(['answered']);
    await kapso().settled();
    expect(kapso().visibleTo(phone)).toHaveLength(1);
    expect(await repliesOf(system, phone)).toMatchObject([{ sendAttempts: 1 }]);
  });

  test.each(['cut', 'hang', '502_html', '131000'] as const)(
    'when the answer to a send that Kapso took is "%s", and no status ever comes, then Kapso’s list settles it and nothing goes out twice',
    async (answer) => {
      const phone = newPhone();
      kapso().fault({ on: 'send', match: { to: phone }, answer, accepted: true, dropStatuses: ['sent', 'delivered', 'read'] });
      await kapso().customerSends({ from: phone, text: 'hi' });
      expect(await outcomesOf(system, phone, 1, 30_000)).toEqual(['answered']);
      expect(kapso().visibleTo(phone)).toHaveLength(1);
      expect(await repliesOf(system, phone)).toMatchObject([{ sendAttempts: 1 }]);
    },
  );

  test('when the request was lost on its way, then it is sent again only after the time of proof is over', async () => {
    const phone = newPhone();
    await configure({ sendConfirmMs: 2_000 });
    kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer: 'cut', accepted: false });
    const startedAtMs = Date.now();
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 20_000);
    expect(Date.now() - startedAtMs).toBeGreaterThanOrEqual(2_000);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    await kapso().settled();
    expect(kapso().visibleTo(phone)).toHaveLength(1);
    expect(await repliesOf(system, phone)).toMatchObject([{ sendAttempts: 2 }]);
  });

  test('when statuses come before the send has returned, in the wrong order and twice, then the row stands at the highest', async () => {
    const phone = newPhone();
    kapso().fault({
      on: 'send',
      match: { to: phone },
      delayAfterMs: 400,
      statusBeforeAnswer: true,
      statuses: [
        { status: 'read', afterMs: 10, copies: 2 },
        { status: 'delivered', afterMs: 40 },
        { status: 'sent', afterMs: 80 },
      ],
    });
    await kapso().customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    await eventually(async () => expect(await repliesOf(system, phone)).toMatchObject([{ status: 'read', sendAttempts: 1 }]));
    await kapso().settled();
    expect(await repliesOf(system, phone)).toMatchObject([{ status: 'read' }]);
    const [seen] = kapso().visibleTo(phone);
    const events = await system.db.messageStatusEvent.findMany({ where: { providerMessageId: seen?.wamid ?? '' } });
    expect(events.map((event) => event.status).sort()).toEqual(['delivered', 'read', 'sent']);
  });

  test('when older statuses come after newer ones, and the answer to the send after them all, then the row never goes back', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, delayAfterMs: 1_500, dropStatuses: ['sent', 'delivered', 'read'] });
    await kapso().customerSends({ from: phone, text: 'hi' });
    const [seen] = await kapso().waitForVisible(phone, 1, 10_000);
    const { wamid = '', correlation = '' } = seen ?? {};
    // One status each, as Meta sends them; Kapso's own events name all that came before as well.
    await report(wamid, 'read', correlation);
    await report(wamid, 'delivered', correlation);
    expect(await repliesOf(system, phone)).toMatchObject([{ status: 'read' }]);
    await system.workers.at(-1)?.line('reply send', correlation);
    expect(await repliesOf(system, phone)).toMatchObject([{ status: 'read' }]);
    await report(wamid, 'sent', correlation);
    expect(await repliesOf(system, phone)).toMatchObject([{ status: 'read', sendAttempts: 1 }]);
  });

  test('when statuses come before the send has returned, and do not name our id, then the row stands at the highest all the same', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, delayAfterMs: 1_500, dropStatuses: ['sent', 'delivered', 'read'] });
    await kapso().customerSends({ from: phone, text: 'hi' });
    const [seen] = await kapso().waitForVisible(phone, 1, 10_000);
    for (const status of ['read', 'sent'] as const) await report(seen?.wamid ?? '', status);
    // Nothing can tell yet which row it is.
    expect(await repliesOf(system, phone)).toMatchObject([{ status: 'sending' }]);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    await eventually(async () => expect(await repliesOf(system, phone)).toMatchObject([{ status: 'read', sendAttempts: 1 }]));
  });

  test('when the answer is lost, and only a late status names our id, then the row stands at what came before it', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, answer: 'cut', accepted: true, dropStatuses: ['sent', 'delivered', 'read'] });
    kapso().fault({ on: 'list', answer: '502_html', accepted: false });
    await kapso().customerSends({ from: phone, text: 'hi' });
    await eventually(async () => expect(await repliesOf(system, phone)).toMatchObject([{ status: 'unconfirmed' }]));
    const [seen] = kapso().visibleTo(phone);
    await report(seen?.wamid ?? '', 'read');
    await report(seen?.wamid ?? '', 'sent', seen?.correlation);
    expect(await repliesOf(system, phone)).toMatchObject([{ status: 'read' }]);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  });

  test('when a reply that was sent fails later, then its message counts as failed and a person is asked for', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, statuses: failedAfterSent(131047, 200) });
    await kapso().customerSends({ from: phone, text: 'hi' });
    await eventually(async () => expect((await inboundOf(system, phone))[0]?.outcome).toBe('failed'));
    expect(await repliesOf(system, phone)).toMatchObject([{ status: 'failed', failure: 'whatsapp 131047' }]);
    expect(await system.db.conversation.findFirst({ where: { contact: { phone } } })).toMatchObject({ needsAttention: true });
    await eventually(async () => {
      const description = await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).describe();
      expect(description.searchAttributes.ParleyAttention).toEqual([true]);
    });
  });

  test('when Kapso is unreachable for a moment, then the reply goes out when it is back', async () => {
    const phone = newPhone();
    await configure({ providerChain: ['sandbox'] });
    kapso().fault({ on: 'send', match: { to: phone }, times: 2, answer: '429', accepted: false, retryAfterSeconds: 1 });
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 20_000);
    expect(await repliesOf(system, phone)).toMatchObject([{ sendAttempts: 3 }]);
  });
});

describe('what could wedge or lose a conversation', () => {
  test('when a long text would be cut through a character, then it is recorded and answered', async () => {
    const phone = newPhone();
    const text = `${'x'.repeat(65_535)}😀 and more`;
    await kapso().deliver({
      phone_number_id: system.phoneNumberId,
      messages: [{ from: phone, id: `wamid.${phone}`, text: { body: text } }],
    });
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  });

  test('when recording is slower than its bound and runs twice, then the message is answered all the same', async () => {
    const phone = newPhone();
    await kapso().customerSends({ from: phone, text: 'first' });
    await outcomesOf(system, phone, 1);
    const client = new Client({ connectionString: system.databaseUrl });
    await client.connect();
    await client.query('BEGIN');
    await client.query('SELECT 1 FROM conversations c JOIN contacts p ON p.id = c.contact_id WHERE p.phone = $1 FOR UPDATE OF c', [phone]);
    await kapso().customerSends({ from: phone, text: 'second' });
    // Asked outside of the transaction: inside, PostgreSQL shows one picture of its sessions until the end.
    await eventually(async () => {
      const waiting = await system.db.$queryRaw<{ count: number }[]>`
        SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
      expect(waiting[0]?.count).toBeGreaterThanOrEqual(2);
    });
    await client.query('COMMIT');
    await client.end();
    expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
    expect(kapso().visibleTo(phone)).toHaveLength(2);
  });

  test('when an operator cancels in the middle of a turn, then what was taken is answered first', async () => {
    const phone = newPhone();
    models().program({ model: 'sandbox-model', times: 1, delayMs: 700 });
    const before = models().count('sandbox-model');
    await kapso().customerSends({ from: phone, text: 'first' });
    await models().waitForRequests('sandbox-model', before + 1, 10_000);
    await kapso().customerSends({ from: phone, text: 'second' });
    const handle = system.temporal.workflow.getHandle(await workflowIdOf(system, phone));
    await handle.cancel();
    await expect(handle.result()).rejects.toThrow();
    expect((await handle.describe()).status.name).toBe('CANCELLED');
    expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  });

  test('when an operator terminates before the reply has left, then the next session answers both messages', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer: '429', accepted: false, retryAfterSeconds: 600 });
    await kapso().customerSends({ from: phone, text: 'first' });
    await eventually(async () => expect(await repliesOf(system, phone)).toMatchObject([{ status: 'pending', sendAttempts: 1 }]));
    await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).terminate('test');
    await kapso().customerSends({ from: phone, text: 'second' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['merged', 'answered']);
    expect(kapso().visibleTo(phone)).toHaveLength(1);
    expect((await repliesOf(system, phone)).map((reply) => reply.status)[0]).toBe('failed');
  });

  test('when an answer counts its tokens in fractions, then it is recorded, and the model is paid once', async () => {
    const phone = newPhone();
    const before = models().count('sandbox-model');
    const body = JSON.stringify({
      choices: [{ message: { content: 'ok' }, finish_reason: 'stop' }],
      usage: { prompt_tokens: 12.5, completion_tokens: 1e12 },
    });
    models().program({ model: 'sandbox-model', raw: { status: 200, contentType: 'application/json', body } });
    await kapso().customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    expect(models().count('sandbox-model')).toBe(before + 1);
  });

  test('when Kapso asks to wait for ages, then the wait is bounded', async () => {
    const phone = newPhone();
    kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer: '429', accepted: false, retryAfterSeconds: 9_000_000_000 });
    await kapso().customerSends({ from: phone, text: 'hi' });
    await eventually(async () => expect(await repliesOf(system, phone)).toMatchObject([{ status: 'pending', sendAttempts: 1 }]));
    // The wait begins after the row says so.
    await eventually(async () => {
      const { events } = await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).fetchHistory();
      const waits = (events ?? []).flatMap((event) => Number(event.timerStartedEventAttributes?.startToFireTimeout?.seconds ?? 0));
      expect(waits).toContain(900);
      expect(Math.max(...waits)).toBeLessThanOrEqual(1_800);
    });
  });

  test('when a conversation that needed a person is answered again, then it needs none any more', async () => {
    const phone = newPhone();
    models().program({ model: 'sandbox-model', times: 1, error: { status: 401 } });
    await kapso().customerSends({ from: phone, text: 'first' });
    expect(await outcomesOf(system, phone, 1)).toEqual(['failed']);
    await kapso().customerSends({ from: phone, text: 'second' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['failed', 'answered']);
    expect(await system.db.conversation.findFirst({ where: { contact: { phone } } })).toMatchObject({
      needsAttention: false,
      attention: [],
    });
    await eventually(async () => {
      const description = await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).describe();
      expect(description.searchAttributes.ParleyAttention).toEqual([false]);
    });
  });

  test('when one person is known by number and by business-scoped id at once, then no message is answered twice', async () => {
    const phone = newPhone();
    const business = `ID.${phone}`;
    const post = (id: string, who: Record<string, string>, text: string) =>
      kapso().deliver({
        message: {
          id,
          timestamp: String(Math.floor(Date.now() / 1000)),
          type: 'text',
          text: { body: text },
          ...who,
          kapso: { direction: 'inbound' },
        },
        conversation: {},
        phone_number_id: system.phoneNumberId,
      });
    await post(`wamid.${phone}.1`, { from: phone, from_user_id: business, username: 'ann' }, 'one');
    await outcomesOf(system, phone, 1);
    models().program({ model: 'sandbox-model', delayMs: 500 });
    await Promise.all([post(`wamid.${phone}.2`, { from: phone }, 'two'), post(`wamid.${phone}.3`, { from_user_id: business }, 'three')]);
    expect(await outcomesOf(system, phone, 3)).toEqual(['answered', 'answered', 'answered']);
    expect(await repliesOf(system, phone)).toHaveLength(3);
    await post(`wamid.${phone}.4`, { from: phone, username: 'ann.k' }, 'four');
    await outcomesOf(system, phone, 4);
    expect(await system.db.contact.findMany({ where: { phone } })).toMatchObject([{ username: 'ann.k', businessScopedUserId: business }]);
  });
});

describe('a session', () => {
  test('when nothing is said for the session timeout, then the workflow ends with its totals, and the next message starts a new one', async () => {
    const phone = newPhone();
    await configure({ sessionTimeoutMs: 1_000 });
    await kapso().customerSends({ from: phone, text: 'one' });
    await outcomesOf(system, phone, 1);
    const handle = system.temporal.workflow.getHandle(await workflowIdOf(system, phone));
    expect(await handle.result()).toMatchObject({ messages: 1, replies: 1, failedTurns: 0, duplicatesDropped: 0 });
    await kapso().customerSends({ from: phone, text: 'two' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  });

  test('when the session ends and a message comes while no worker runs, then the next worker answers it', async () => {
    const phone = newPhone();
    await configure({ sessionTimeoutMs: 1_000 });
    await kapso().customerSends({ from: phone, text: 'one' });
    await outcomesOf(system, phone, 1);
    const handle = system.temporal.workflow.getHandle(await workflowIdOf(system, phone));
    await Promise.all(system.workers.map((worker) => worker.stop()));
    try {
      await eventually(async () => {
        const { events } = await handle.fetchHistory();
        expect(events?.some((event) => event.timerFiredEventAttributes)).toBe(true);
      });
      await kapso().customerSends({ from: phone, text: 'two' });
    } finally {
      system.workers = [await system.startWorker()];
    }
    // One execution has both before it: the end of the session, and a message.
    expect(await handle.result()).toMatchObject({ messages: 2, replies: 2 });
    expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
  });

  test('when messages come in the very moment in which their sessions end, then none is lost', async () => {
    const sessionTimeoutMs = 1_000;
    await configure({ sessionTimeoutMs });
    // From before the end to after it, 10 ms apart.
    await Promise.all(
      Array.from({ length: 30 }, async (_, index) => {
        const phone = newPhone();
        await kapso().customerSends({ from: phone, text: 'one' });
        const [seen] = await kapso().waitForVisible(phone, 1, 20_000);
        await delay((seen?.atMs ?? 0) + sessionTimeoutMs - 50 + 10 * index - Date.now());
        await kapso().customerSends({ from: phone, text: 'two' });
        expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
      }),
    );
  });

  test('when a message comes again after its session has ended, then it is not answered again', async () => {
    const phone = newPhone();
    const body = {
      phone_number_id: system.phoneNumberId,
      messages: [{ from: phone, id: `wamid.${phone}`, text: { body: 'hi' } }],
    };
    await configure({ sessionTimeoutMs: 1_000 });
    await kapso().deliver(body);
    await outcomesOf(system, phone, 1);
    const { workflow } = system.temporal;
    const workflowId = await workflowIdOf(system, phone);
    await workflow.getHandle(workflowId).result();
    const asked = models().count('sandbox-model');
    await kapso().deliver(body);
    // The new session knows nothing of the old one's ids; only the record does.
    expect(await workflow.getHandle(workflowId).result()).toMatchObject({ duplicatesDropped: 0, replies: 0 });
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    expect(models().count('sandbox-model')).toBe(asked);
    expect(kapso().visibleTo(phone)).toHaveLength(1);
  });

  test('when an operator looks, then id, summary, details and attributes tell the state and hold no number and no text', async () => {
    const phone = newPhone();
    // By way of the waits, which have summaries of their own.
    await configure({ quietMs: 100 });
    kapso().fault({ on: 'send', match: { to: phone }, times: 1, answer: '429', accepted: false, retryAfterSeconds: 1 });
    kapso().fault({ on: 'send', match: { to: phone }, answer: 'cut', accepted: true });
    await kapso().customerSends({ from: phone, name: 'Marker-Name', text: 'marker-text' });
    await outcomesOf(system, phone, 1);
    const workflowId = await workflowIdOf(system, phone);
    expect(workflowId).toMatch(new RegExp(`^conversation-${system.phoneNumberId}-[0-9a-f]{24}$`));
    const handle = system.temporal.workflow.getHandle(workflowId);
    const description = await handle.describe();
    expect(await description.staticSummary()).toBe(`WhatsApp conversation · number id ${system.phoneNumberId}`);
    expect(description.searchAttributes).toMatchObject({
      ParleyWorkspace: [system.phoneNumberId],
      ParleyMode: ['ai'],
      ParleyAttention: [false],
    });
    const metadata = await eventually(async () => {
      const answer = await handle.query<{ currentDetails: string }>('__temporal_workflow_metadata');
      expect(answer.currentDetails).toContain('waiting for a message');
      return answer;
    });
    expect(metadata.currentDetails).toContain('last reply by sandbox (sandbox-model)');
    const { events } = await handle.fetchHistory();
    const summaries = (events ?? []).flatMap((event) =>
      event.userMetadata?.summary?.data ? [Buffer.from(event.userMetadata.summary.data).toString()] : [],
    );
    const waits = ['customer may still be typing', 'send again', 'unknown whether the reply went out', 'session ends'];
    for (const wait of waits) expect(summaries.join()).toContain(wait);
    const shown = JSON.stringify([workflowId, summaries, metadata.currentDetails, description.searchAttributes, description.memo]);
    expect(shown).not.toMatch(new RegExp(`${phone}|[Mm]arker`));
  });
});
