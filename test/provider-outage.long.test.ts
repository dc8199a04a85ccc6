/**
 * Model providers that are away, slow or refuse, through the whole system: it costs time, not the reply. The worker runs in this process,
 * because an outage of five minutes is simulated in 20 s: the bounds of the turn are a fifteenth of the real ones.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { ApplicationFailure } from '@temporalio/activity';
import { withDatabaseFailures } from '../activities/database-failures';
import {
  createModelActivities,
  type Draft,
  type DraftOrder,
  type ModelActivities,
  type MovedTurn,
  type WithheldTurn,
} from '../activities/model';
import { createRecordActivities } from '../activities/records';
import { sameForAll } from '../activities/services';
import { createWhatsAppActivities } from '../activities/whatsapp';
import { createBackgroundWork } from '../src/platform/background';
import { readSettings } from '../src/platform/config';
import { type Database, openDatabase } from '../src/platform/database';
import { createLogger } from '../src/platform/logger';
import { noMetrics } from '../src/platform/metrics';
import { createKapsoClient } from '../src/providers/kapso/client';
import { createLanguageModels } from '../src/providers/models/client';
import { loadIdentity } from '../src/record/identity';
import { ensureFirstWorkspace } from '../src/record/workspaces';
import type { ModelProgram, ModelRequest } from '../src/sandbox/models/double';
import { balance, eventually, inboundOf, newPhone, outcomesOf, repliesOf, workflowIdOf } from './support/expectations';
import { type InProcessWorker, startInProcessWorker } from './support/in-process-worker';
import { ANSWER_LIMITS } from './support/recorder';
import { startSuite } from './support/suite';
import type { System } from './support/system';

const SCALE = 15;
const ATTEMPT_MS = 30_000 / SCALE;
const LONGEST_PAUSE_MS = 30_000 / SCALE;
const DEFAULTS = {
  modelAttemptMs: ATTEMPT_MS,
  providerAttemptMs: { deepseek: ATTEMPT_MS, openai: ATTEMPT_MS },
  turnMs: (15 * 60_000) / SCALE,
  attentionAfterMs: 60_000 / SCALE,
  firstPauseMs: 1_000 / SCALE,
  longestPauseMs: LONGEST_PAUSE_MS,
};

/** Read with each message. A test that needs others sets them for itself. */
const limits = { ...DEFAULTS };

let system: System;
let db: Database;
let worker: InProcessWorker;
/** The activity of a worker that cannot tell the time, so that its code fails while it builds a prompt. */
let generateReplyOfBrokenWorker: ModelActivities['generateReply'];
let isWorkerBroken = false;
/** The orders of all attempts. */
const attempts: DraftOrder[] = [];
/** What becomes of a draft that was stored, on its way back to the workflow; a test may lose it. */
let onDrafted: (order: DraftOrder, draft: Draft | MovedTurn | WithheldTurn) => Promise<Draft | MovedTurn | WithheldTurn>;

beforeAll(async () => {
  system = await startSuite('outage', { workers: 0 });
  const settings = readSettings({
    ...system.environment,
    DEEPSEEK_API_KEY: 'k1',
    DEEPSEEK_BASE_URL: system.sandbox.modelsUrl,
    OPENAI_API_KEY: 'k2',
    OPENAI_BASE_URL: system.sandbox.modelsUrl,
  });
  db = openDatabase(system.databaseUrl);
  await ensureFirstWorkspace(db.orm, settings);
  const identity = await loadIdentity(db.orm);
  const common = { db, identity, logger: createLogger('test', 'silent'), metrics: noMetrics };
  const models = createLanguageModels(settings);
  const kapso = createKapsoClient({ baseUrl: system.sandbox.url, apiKey: 'test-kapso-key', timeoutMs: 8_000 });
  const { generateReply, ...others } = createModelActivities({ ...common, services: sameForAll({ models, timeZone: 'UTC' }) });
  generateReplyOfBrokenWorker = createModelActivities({
    ...common,
    services: sameForAll({ models, timeZone: 'Nowhere/None' }),
  }).generateReply;
  worker = await startInProcessWorker(
    withDatabaseFailures({
      ...createRecordActivities({ ...common, services: sameForAll({ models }), limits, answerLimits: ANSWER_LIMITS }),
      ...createWhatsAppActivities({ ...common, services: sameForAll({ kapso, isReal: false }), background: createBackgroundWork() }),
      ...others,
      generateReply: async (order: DraftOrder) => {
        attempts.push(order);
        return await onDrafted(order, await (isWorkerBroken ? generateReplyOfBrokenWorker : generateReply)(order));
      },
    }),
    system.taskQueue,
  );
});

afterAll(async () => {
  await worker?.close();
  await db?.close();
  await system?.close();
});

beforeEach(async () => {
  onDrafted = async (_order, draft) => draft;
  isWorkerBroken = false;
  Object.assign(limits, DEFAULTS);
  models().clear();
  await configure(['deepseek:m-one']);
});

afterEach(async () => {
  await balance(system.db);
});

async function configure(providerChain: string[]): Promise<void> {
  const { id: workspaceId } = await system.db.workspace.findUniqueOrThrow({ where: { kapsoPhoneNumberId: system.phoneNumberId } });
  await system.db.chatbotSettings.update({ where: { workspaceId }, data: { providerChain } });
}

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;
/** What a model was asked about a customer who wrote `text` last. */
const asksOf = (model: string, text: string) =>
  models()
    .requests(model)
    .filter((request) => lastWords(request) === text);
const lastWords = (request: { messages: { content: string }[] }) => request.messages.at(-1)?.content.split('\n').at(-1) ?? '';
const conversationOf = (phone: string) => system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
const handleOf = async (phone: string) => system.temporal.workflow.getHandle(await workflowIdOf(system, phone));
const attributeOf = async (phone: string) => (await (await handleOf(phone)).describe()).searchAttributes.ParleyAttention;
async function detailsOf(phone: string): Promise<string> {
  const metadata = await (await handleOf(phone)).query<{ currentDetails: string }>('__temporal_workflow_metadata');
  return metadata.currentDetails;
}

/** Summaries of what the conversation has begun, in order: asks and timers. */
async function summariesOf(phone: string, kind: 'activity' | 'timer'): Promise<string[]> {
  const { events } = await (await handleOf(phone)).fetchHistory();
  return (events ?? []).flatMap((event) => {
    const isWanted = kind === 'activity' ? event.activityTaskScheduledEventAttributes : event.timerStartedEventAttributes;
    const data = event.userMetadata?.summary?.data;
    return isWanted && data ? [JSON.parse(Buffer.from(data).toString())] : [];
  });
}

describe('one provider that is away', () => {
  const KINDS: Record<string, Partial<ModelProgram>> = {
    '503': { error: { status: 503 } },
    '429': { error: { status: 429 } },
    reset: { connection: 'cut' },
    hang: { connection: 'hang' },
  };
  const MESSAGES = 20;
  /** Those that are asked evenly over the outage come from so many people, who write again while they wait. */
  const PATIENT_PEOPLE = 4;

  /** Writes 20 messages, `mark` in each, and returns who wrote how many. */
  async function write(mark: string, people: number, everyMs: number): Promise<Map<string, number>> {
    const phones = Array.from({ length: people }, newPhone);
    const written = new Map<string, number>();
    await Promise.all(
      Array.from({ length: MESSAGES }, async (_, index) => {
        const from = phones[index % people] ?? '';
        written.set(from, (written.get(from) ?? 0) + 1);
        await delay(index * everyMs);
        expect((await kapso().customerSends({ from, text: `${mark} ${index}` })).status).toBe(200);
      }),
    );
    return written;
  }

  /** When the last of them was answered. */
  async function expectEachAnsweredOnce(written: Map<string, number>, timeoutMs: number): Promise<number> {
    const times = await Promise.all(
      [...written].map(async ([phone, count]) => {
        // Awaited as an event: a hundred people who poll the record would be a load of their own.
        await kapso().waitForVisible(phone, 1, timeoutMs);
        const outcomes = await outcomesOf(system, phone, count, timeoutMs);
        expect(outcomes.filter((outcome) => outcome !== 'answered' && outcome !== 'merged')).toEqual([]);
        const replies = kapso().visibleTo(phone);
        expect(replies).toHaveLength(outcomes.filter((outcome) => outcome === 'answered').length);
        expect(await repliesOf(system, phone)).toHaveLength(replies.length);
        return Math.max(...replies.map(({ atMs }) => atMs));
      }),
    );
    return Math.max(...times);
  }

  /** The provider is away for `outageMs` from the first ask on whose last words begin with `mark`. */
  function outage(mark: string, outageMs: number, program: Partial<ModelProgram>) {
    const seen = { asks: 0, endAtMs: 0 };
    const when = (request: ModelRequest) => {
      if (!lastWords(request).startsWith(mark)) return false;
      seen.endAtMs ||= request.atMs + outageMs;
      if (request.atMs >= seen.endAtMs) return false;
      seen.asks += 1;
      return true;
    };
    models().program({ model: 'm-one', ...program, when });
    return seen;
  }

  test.each([2, 10, 60, 300])(
    'when it is away for %i s (a fifteenth of it here), then 20 of 20 messages are answered, whatever it does and however they come',
    async (seconds) => {
      const outageMs = (seconds * 1_000) / SCALE;
      // The last attempt that still hangs and the pause after it; and 25 s for a busy machine.
      const toleranceMs = ATTEMPT_MS + LONGEST_PAUSE_MS + 25_000;
      const play = async (kind: string, how: string, people: number, everyMs: number) => {
        const mark = `${seconds} s of ${kind}, ${how}`;
        const away = outage(mark, outageMs, KINDS[kind] ?? {});
        const written = await write(mark, people, everyMs);
        const lastAtMs = await expectEachAnsweredOnce(written, outageMs + toleranceMs);
        expect(away.asks).toBeGreaterThan(0);
        expect(lastAtMs).toBeGreaterThanOrEqual(away.endAtMs);
        expect(lastAtMs).toBeLessThan(away.endAtMs + toleranceMs);
      };
      await Promise.all(
        Object.keys(KINDS).flatMap((kind) => [
          play(kind, 'at once', MESSAGES, 0),
          play(kind, 'evenly', PATIENT_PEOPLE, outageMs / MESSAGES),
        ]),
      );
    },
    90_000,
  );

  test('when it names a time, then it is asked again exactly then, and a longer wait than a minute is shown meanwhile', async () => {
    const [phone, text] = [newPhone(), 'come again in 5 s'];
    limits.attentionAfterMs = 500;
    models().program({ model: 'm-one', times: 1, error: { status: 429, retryAfterSeconds: 5 } });
    await kapso().customerSends({ from: phone, text });
    const reason = {
      kind: 'waiting_for_model',
      text: expect.stringMatching(/^waiting for a model: deepseek \(m-one\) responded with 429: too many/),
    };
    await eventually(async () => expect((await conversationOf(phone)).attention).toMatchObject([reason]));
    expect(asksOf('m-one', text)).toHaveLength(1);
    await kapso().waitForVisible(phone, 1, 20_000);
    const [first, second] = asksOf('m-one', text);
    const waitedMs = (second?.atMs ?? 0) - (first?.atMs ?? 0);
    expect(waitedMs).toBeGreaterThanOrEqual(4_900);
    expect(waitedMs).toBeLessThan(7_000);
    expect(await summariesOf(phone, 'timer')).toContain(
      'try again: deepseek (m-one) responded with 429: too many requests; raise the limit there, or add a provider',
    );
  });
});

describe('several providers', () => {
  beforeEach(() => configure(['deepseek:m-one', 'openai:m-two']));

  test('when the first of two asks to wait 85 s, then the reply comes from the second within seconds', async () => {
    const phone = newPhone();
    models().program({ model: 'm-one', error: { status: 429, retryAfterSeconds: 85 } });
    const startedAtMs = Date.now();
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 10_000);
    expect(Date.now() - startedAtMs).toBeLessThan(5_000);
    expect(await repliesOf(system, phone)).toMatchObject([{ provider: 'openai', attempts: 1 }]);
    expect(await summariesOf(phone, 'activity')).toEqual(['reply via deepseek', 'reply via openai']);
  });

  test('when the first has named a time and the second fails, then only the second is asked until then, and then the first', async () => {
    const [phone, text] = [newPhone(), 'the other one is away'];
    models().program({ model: 'm-one', times: 1, error: { status: 429, retryAfterSeconds: 5 } });
    models().program({ model: 'm-two', error: { status: 503 } });
    await kapso().customerSends({ from: phone, text });
    await kapso().waitForVisible(phone, 1, 20_000);
    const asked = asksOf('m-one', text);
    expect(asked).toHaveLength(2);
    expect((asked[1]?.atMs ?? 0) - (asked[0]?.atMs ?? 0)).toBeGreaterThanOrEqual(4_900);
    expect(asksOf('m-two', text).length).toBeGreaterThan(3);
    expect(await repliesOf(system, phone)).toMatchObject([{ provider: 'deepseek', attempts: 2 }]);
  });

  test('when the first has no credit and the second is away for a moment, then only the second is asked again', async () => {
    const phone = newPhone();
    models().program({ model: 'm-one', raw: { status: 402, contentType: 'application/json', body: '{"error": {"message": "no money"}}' } });
    models().program({ model: 'm-two', times: 2, error: { status: 500 } });
    const before = [models().count('m-one'), models().count('m-two')];
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 20_000);
    expect([models().count('m-one') - (before[0] ?? 0), models().count('m-two') - (before[1] ?? 0)]).toEqual([1, 3]);
  });

  test('when both refuse for good, then the turn fails at once, and its reason names each and what to do', async () => {
    const phone = newPhone();
    models().program({ model: 'm-one', error: { status: 429, code: 'insufficient_quota', retryAfterSeconds: 60 } });
    models().program({ model: 'm-two', error: { status: 401 } });
    await kapso().customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1, 5_000)).toEqual(['failed']);
    const text =
      'no model can answer: no credit at deepseek (m-one), which responded with 429: top the account up; ' +
      'openai (m-two) responded with 401: check the API key and what it may use';
    expect((await conversationOf(phone)).attention).toMatchObject([{ kind: 'turn_failed', text }]);
  });
});

describe('what people see meanwhile', () => {
  /** Instead of the minute: in the second of two attempts that hang. */
  beforeEach(() => {
    limits.attentionAfterMs = 1.25 * ATTEMPT_MS;
  });

  test.each([
    [
      'responds with 503',
      { error: { status: 503 } },
      'deepseek (m-one) responded with 503: it is down or overloaded; add a provider if this lasts',
    ],
    [
      'does not answer',
      { connection: 'hang' as const },
      'deepseek (m-one) did not answer in time: raise DEEPSEEK_TIMEOUT_MS if it is slow',
    ],
  ])('when a model %s for more than a minute, then the conversation shows it until the reply is out', async (_what, program, reason) => {
    const phone = newPhone();
    const isBack = models().program({ model: 'm-one', ...program });
    await kapso().customerSends({ from: phone, text: 'hi' });
    await eventually(async () => expect((await repliesOf(system, phone)).length + (await inboundOf(system, phone)).length).toBe(1));
    expect(await conversationOf(phone)).toMatchObject({ needsAttention: false, attention: [] });
    const text = `waiting for a model: ${reason}`;
    await eventually(async () => {
      expect(await conversationOf(phone)).toMatchObject({ needsAttention: true, attention: [{ kind: 'waiting_for_model', text }] });
    });
    await eventually(async () => {
      expect(await attributeOf(phone)).toEqual([true]);
      expect(await detailsOf(phone)).toContain(`**${text}** · needs attention`);
    });
    isBack();
    await kapso().waitForVisible(phone, 1, 20_000);
    await outcomesOf(system, phone, 1);
    expect(await conversationOf(phone)).toMatchObject({ needsAttention: false, attention: [] });
    await eventually(async () => {
      expect(await attributeOf(phone)).toEqual([false]);
      expect(await detailsOf(phone)).not.toContain('waiting for a model');
    });
  });

  test('when a single attempt takes longer than a minute, then the conversation shows it in the middle of it', async () => {
    const phone = newPhone();
    limits.attentionAfterMs = 500;
    models().program({ model: 'm-one', delayMs: 1_500 });
    await kapso().customerSends({ from: phone, text: 'hi' });
    const text = 'waiting for a model: deepseek (m-one) has not answered yet';
    await eventually(async () => expect((await conversationOf(phone)).attention).toMatchObject([{ kind: 'waiting_for_model', text }]));
    expect(await repliesOf(system, phone)).toEqual([]);
    await kapso().waitForVisible(phone, 1, 10_000);
    await outcomesOf(system, phone, 1);
    expect(await conversationOf(phone)).toMatchObject({ needsAttention: false, attention: [] });
    expect(await summariesOf(phone, 'activity')).toEqual(['reply via deepseek']);
  });

  test('when a model is back, but WhatsApp refuses the reply, then the conversation shows the refusal alone', async () => {
    const phone = newPhone();
    const isBack = models().program({ model: 'm-one', error: { status: 503 } });
    kapso().fault({ on: 'send', match: { to: phone }, answer: '131047', accepted: false });
    await kapso().customerSends({ from: phone, text: 'hi' });
    await eventually(async () => expect((await conversationOf(phone)).attention).toMatchObject([{ kind: 'waiting_for_model' }]));
    isBack();
    expect(await outcomesOf(system, phone, 1)).toEqual(['failed']);
    expect((await conversationOf(phone)).attention).toMatchObject([{ kind: 'reply_failed' }]);
  });

  test('when a turn fails after it was shown, then the conversation shows the failure alone', async () => {
    const phone = newPhone();
    const isOver = models().program({ model: 'm-one', error: { status: 503 } });
    await kapso().customerSends({ from: phone, text: 'hi' });
    await eventually(async () => expect((await conversationOf(phone)).attention).toMatchObject([{ kind: 'waiting_for_model' }]));
    isOver();
    models().program({ model: 'm-one', error: { status: 401 } });
    expect(await outcomesOf(system, phone, 1)).toEqual(['failed']);
    expect((await conversationOf(phone)).attention).toMatchObject([
      {
        kind: 'turn_failed',
        text: expect.stringMatching(/^no model can answer: deepseek \(m-one\) responded with 401: .* \(\d+ attempts\)$/),
      },
    ]);
  });
});

describe('a cold model, which needs 45 s (a fifteenth of it here) for three requests and reloads when one is aborted', () => {
  const LOAD_MS = 45_000 / SCALE;

  /** When the first request arrived, and how many there were. */
  async function loadFor(text: string): Promise<{ phone: string; asks: number; tookMs: number }> {
    const phone = newPhone();
    models().program({ model: 'm-one', times: 3, delayMs: LOAD_MS, reply: 'warm' });
    await kapso().customerSends({ from: phone, text });
    await kapso().waitForVisible(phone, 1, 30_000);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    const asked = asksOf('m-one', text);
    return { phone, asks: asked.length, tookMs: (kapso().visibleTo(phone)[0]?.atMs ?? 0) - (asked[0]?.atMs ?? 0) };
  }

  /** The timeouts of the attempts for a customer, in ms. */
  async function boundsOf(phone: string): Promise<number[]> {
    const { id } = await conversationOf(phone);
    return attempts.filter(({ conversationId }) => conversationId === id).map(({ attemptMs }) => attemptMs);
  }

  test('when its provider has a timeout of its own, then the first attempt is long enough', async () => {
    limits.providerAttemptMs = { ...limits.providerAttemptMs, deepseek: 120_000 / SCALE };
    const { asks, tookMs } = await loadFor('a bound of its own');
    expect(asks).toBe(1);
    expect(tookMs).toBeLessThan(2 * LOAD_MS);
  });

  test('when it has the default timeout, then the second attempt gets twice as long, and is answered', async () => {
    const { phone, asks } = await loadFor('the common bound');
    expect(asks).toBe(2);
    expect(await repliesOf(system, phone)).toMatchObject([{ text: 'warm', attempts: 2 }]);
    expect(await boundsOf(phone)).toEqual([ATTEMPT_MS, 2 * ATTEMPT_MS]);
  });

  test('when the turn is too short for a second attempt, then the first gets the rest of the turn', async () => {
    limits.turnMs = ATTEMPT_MS + 1_500;
    expect(await loadFor('a short turn')).toMatchObject({ asks: 1 });
  });

  test('when a worker of 0.2 recorded the message, then each attempt has the same timeout', async () => {
    const text = 'recorded by 0.2';
    // `undefined` is not in the activity's result.
    Object.assign(limits, { turnMs: 3 * ATTEMPT_MS, providerAttemptMs: undefined });
    const phone = newPhone();
    models().program({ model: 'm-one', delayMs: LOAD_MS });
    await kapso().customerSends({ from: phone, text });
    expect(await outcomesOf(system, phone, 1, 20_000)).toEqual(['failed']);
    const bounds = await boundsOf(phone);
    expect(bounds.length).toBeGreaterThan(1);
    expect(Math.max(...bounds)).toBe(ATTEMPT_MS);
  });
});

describe('failures of our own', () => {
  test('when the code fails while it builds the prompt, then the turn fails at once with that cause, and the next one is answered', async () => {
    const phone = newPhone();
    await configure(['deepseek:m-one', 'openai:m-two']);
    const before = [models().count('m-one'), models().count('m-two')];
    isWorkerBroken = true;
    await kapso().customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1, 5_000)).toEqual(['failed']);
    const text = "the prompt could not be built (RangeError): this is a bug in Parley; see the worker's log, and answer by hand";
    expect((await conversationOf(phone)).attention).toMatchObject([{ kind: 'turn_failed', text }]);
    expect(await summariesOf(phone, 'activity')).toEqual(['reply via deepseek']);
    expect([models().count('m-one'), models().count('m-two')]).toEqual(before);
    isWorkerBroken = false;
    await kapso().customerSends({ from: phone, text: 'and now?' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['failed', 'answered']);
  });

  test('when they take longer than the turn may, then the turn is not over, and the draft that was stored is sent', async () => {
    const phone = newPhone();
    limits.turnMs = 1_500;
    const before = models().count('m-one');
    let drafts = 0;
    onDrafted = async (_order, draft) => {
      drafts += 1;
      if (drafts > 1) return draft;
      await delay(2_000);
      throw ApplicationFailure.create({ type: 'RecordError.Unavailable', message: 'lost', nonRetryable: true });
    };
    await kapso().customerSends({ from: phone, text: 'hi' });
    await kapso().waitForVisible(phone, 1, 10_000);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    expect(models().count('m-one') - before).toBe(1);
  });
});

describe('messages that come meanwhile', () => {
  /** Recorded, whatever the conversation is doing. */
  const recorded = (phone: string, count: number) =>
    eventually(async () => expect(await inboundOf(system, phone)).toHaveLength(count), 5_000);

  test('when the customer goes on while the model is away, then one reply answers it all', async () => {
    const phone = newPhone();
    const isBack = models().program({ model: 'm-one', error: { status: 503 } });
    for (const [index, text] of ['one', 'two', 'three'].entries()) {
      await kapso().customerSends({ from: phone, text });
      await recorded(phone, index + 1);
    }
    isBack();
    expect(await outcomesOf(system, phone, 3)).toEqual(['merged', 'merged', 'answered']);
    expect(kapso().visibleTo(phone)).toHaveLength(1);
    const answered = models().requests('m-one').at(-1);
    expect(answered?.messages.slice(1).map(({ content }) => content)).toEqual(['one\ntwo\nthree']);
  });

  test('when a draft was stored and its ask got lost, then the draft is sent for what it covers, and the rest is the next turn', async () => {
    const phone = newPhone();
    const orders: DraftOrder[] = [];
    onDrafted = async (order, draft) => {
      orders.push(order);
      if (orders.length > 1) return draft;
      await kapso().customerSends({ from: phone, text: 'two' });
      await recorded(phone, 2);
      throw ApplicationFailure.create({ type: 'RecordError.Unavailable', message: 'lost', nonRetryable: true });
    };
    const before = models().count('m-one');
    await kapso().customerSends({ from: phone, text: 'one' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
    expect(models().count('m-one') - before).toBe(2);
    const [lost, found, next] = orders;
    expect(found).toMatchObject({ lostReplyToIds: lost?.messageIds });
    expect(found?.messageIds).toHaveLength(2);
    expect(next?.messageIds).toEqual(found?.messageIds.slice(1));
    expect((await repliesOf(system, phone)).map(({ status }) => status)).not.toContain('failed');
  });
});
