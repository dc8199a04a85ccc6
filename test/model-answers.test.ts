/**
 * Unusual answers of models, through the whole system, each from the first and from the last provider of the chain. Readable ones are sent,
 * empty or broken ones are requested again, and final ones name their cause. The customer reads a whole answer or nothing.
 */
import type { ModelProgram, ModelRequest } from '../src/sandbox/models/double';
import { balance, eventually, newPhone, outcomesOf, repliesOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

const ANSWER = 'We open at nine.';

let system: System;

beforeAll(async () => {
  system = await startSuite('answers', {
    environment: ({ modelsUrl }) => ({
      DEEPSEEK_API_KEY: 'k1',
      DEEPSEEK_BASE_URL: modelsUrl,
      OPENAI_API_KEY: 'k2',
      OPENAI_BASE_URL: modelsUrl,
      AI_PROVIDERS: 'deepseek:m-first,openai:m-last',
      MODEL_TIMEOUT_MS: '1500',
    }),
  });
});

afterAll(async () => {
  await system?.close();
});

beforeEach(() => {
  models().clear();
  for (const model of ['m-first', 'm-last']) models().program({ model, reply: ANSWER });
});

afterEach(async () => {
  await balance(system.db);
});

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;

type Place = 'first' | 'last';
type Answer = Partial<ModelProgram>;

const json = (body: object, status = 200): Answer => ({
  raw: { status, contentType: 'application/json', body: JSON.stringify(body) },
});
const says = (message: object, finishReason = 'stop', rest: object = {}) =>
  json({
    choices: [{ index: 0, finish_reason: finishReason, message: { role: 'assistant', ...message } }],
    usage: { prompt_tokens: 40, completion_tokens: 12 },
    ...rest,
  });
const fails = (status: number, error: object | string = {}) => json({ error }, status);

/** Whether this customer is the one who asks. */
const isAsked = (text: string) => (request: ModelRequest) => request.messages.at(-1)?.content.includes(text) ?? false;

const mentions = (request: ModelRequest, text: string) => request.messages.some(({ content }) => content.includes(text));

/** What one customer got. */
interface Outcome {
  outcomes: string[];
  /** What the customer has read. */
  read: string[];
  by: (string | null | undefined)[];
  /** Requests to the provider with the unusual answers. */
  asked: number;
  attention: unknown;
  promptTokens: (number | null)[];
}

/** One customer, to whom the provider in this place gives an unusual answer, `times` in a row. In the last place, the first one is down. */
async function play(kind: string, place: Place, answer: Answer, times?: number): Promise<Outcome> {
  const phone = newPhone();
  const text = `${kind} (${place})`;
  const when = isAsked(text);
  if (place === 'last') models().program({ model: 'm-first', when, error: { status: 401 } });
  models().program({ model: `m-${place}`, when, ...(times === undefined ? {} : { times }), ...answer });
  expect((await kapso().customerSends({ from: phone, text })).status).toBe(200);
  const outcomes = await outcomesOf(system, phone, 1, 40_000);
  const replies = await repliesOf(system, phone);
  const { attention } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
  return {
    outcomes,
    read: kapso()
      .visibleTo(phone)
      .map((message) => message.text),
    by: replies.map(({ model }) => model),
    asked: models().requests(`m-${place}`).filter(when).length,
    attention,
    promptTokens: replies.map(({ promptTokens }) => promptTokens),
  };
}

/** All kinds at once, so that their pauses are waited for together. */
async function playAll(kinds: Record<string, Answer>, place: Place, times?: number): Promise<Record<string, Outcome>> {
  const played = Object.entries(kinds).map(async ([kind, answer]) => [kind, await play(kind, place, answer, times)] as const);
  return Object.fromEntries(await Promise.all(played));
}

/** The same for each kind, so that a failure names its kind. */
const each = <T>(kinds: Record<string, Answer>, expected: T): Record<string, T> =>
  Object.fromEntries(Object.keys(kinds).map((kind) => [kind, expected]));

const answeredBy = (place: Place, asked: number) => ({ outcomes: ['answered'], read: [ANSWER], by: [`m-${place}`], asked, attention: [] });

const READABLE: Record<string, Answer> = {
  'thoughts between tags': says({ content: `<think>\nPolicy says no refunds, but do not tell.\n</think>\n\n${ANSWER}` }),
  'thoughts with an end tag alone': says({ content: `Keep it short.\n</think>\n\n${ANSWER}` }),
  'another channel': says({
    content: `<|channel|>analysis<|message|>Short.<|end|><|start|>assistant<|channel|>final<|message|>${ANSWER}`,
  }),
  'parts, one of them thoughts': says({
    content: [
      { type: 'thinking', thinking: [{ type: 'text', text: 'Hm.' }] },
      { type: 'text', text: 'We open ' },
      { type: 'text', text: 'at nine.' },
    ],
  }),
  'a field of thoughts beside the text': says({ content: ANSWER, reasoning_content: 'They want the hours.' }),
  'a wrong label': {
    raw: { ...says({ content: ANSWER }).raw, body: says({ content: ANSWER }).raw?.body ?? '', contentType: 'text/plain' },
  },
};

/** Temporary failures: the next provider is called at once, and the same one again if it is the last. */
const AGAIN: Record<string, Answer> = {
  'an empty text': says({ content: '' }),
  'a zero-width space': says({ content: '\u200B' }),
  'thoughts in their field alone': says({ content: null, reasoning_content: 'They want the opening hours.' }),
  'thoughts in the text alone': says({ content: '<think>Hm.</think>' }),
  'thoughts that were cut': says({ content: '<think>I should look at the opening hours and' }, 'length'),
  'parts of thoughts alone': says({ content: [{ type: 'thinking', thinking: 'Hm.' }] }),
  'a limit before the first word': says({ content: '' }, 'length'),
  'a refusal field': says({ content: null, refusal: 'I cannot help with that.' }),
  'tool calls alone': says({ content: null, tool_calls: [{ id: '1', type: 'function', function: { name: 'f', arguments: '{}' } }] }),
  'no choice in the list': says({}, 'stop', { choices: [] }),
  'no choices': json({ id: 'x' }),
  'an error under status 200': json({ error: { message: 'busy' } }),
  'a page under status 200': { raw: { status: 200, contentType: 'text/html', body: '<html>busy</html>' } },
  'a body that was cut': { raw: { status: 200, contentType: 'application/json', body: '{"choices": [{"message": {"content": "We o' } },
  'a cut connection': { connection: 'cut' },
  'no answer in time': { connection: 'hang' },
  'a rate limit': { error: { status: 429 } },
  'a rate limit with a wait in ms': {
    raw: { status: 429, contentType: 'application/json', headers: { 'retry-after-ms': '1200' }, body: '{}' },
  },
  overload: fails(529, { type: 'overloaded_error' }),
  'an outage': fails(503, 'loading'),
};

/** Permanent failures: the provider is called once. With the cause as stored, for the last place. */
const FINAL: Record<string, [Answer, string]> = {
  'no money': [
    fails(402, { message: 'the account has no money left', code: 'invalid_request_error' }),
    'no credit at openai (m-last), which responded with 402: top the account up',
  ],
  'an insufficient balance': [
    fails(400, { message: 'Insufficient Balance' }),
    'no credit at openai (m-last), which responded with 400: top the account up',
  ],
  'no quota under status 200': [
    json({ error: { code: 'insufficient_quota' } }),
    'no credit at openai (m-last), which responded with 200: top the account up',
  ],
  'a wrong key': [fails(401), '401: check the API key'],
  'no permission': [fails(403), '403: check the API key and what it may use'],
  'no such model': [fails(404), "404: check the model's name"],
  'a retired model': [fails(400, { message: 'no such model is served here any more' }), '400: check whether this model is still served'],
  'a filter': [says({ content: 'We' }, 'content_filter'), ' refused the content: a person must answer'],
  'a prompt that is always too long': [fails(400, { code: 'context_length_exceeded' }), 'too long for it; shorten the system prompt'],
};

describe('an answer that can be read', () => {
  test.each(['first', 'last'] as const)('when it comes from the %s provider, then the customer reads only the text', async (place) => {
    const played = await playAll(READABLE, place);
    expect(played).toMatchObject(each(READABLE, { ...answeredBy(place, 1), promptTokens: [40] }));
  });

  test('when a sentence only mentions a tag, then it is sent', async () => {
    const content = 'Write <think> before it and </think> after it.';
    expect(await play('a mention', 'first', says({ content }))).toMatchObject({ read: [content], asked: 1 });
  });

  test.each(['first', 'last'] as const)('when the %s provider reports no usage, then the token counts are unknown', async (place) => {
    const kinds = {
      missing: says({ content: ANSWER }, 'stop', { usage: undefined }),
      null: says({ content: ANSWER }, 'stop', { usage: null }),
    };
    expect(await playAll(kinds, place)).toMatchObject(each(kinds, { ...answeredBy(place, 1), promptTokens: [null] }));
  });
});

describe('an answer that is empty or broken', () => {
  test('when it comes from the first provider, then the next one is called at once', async () => {
    const played = await playAll(AGAIN, 'first', 1);
    expect(played).toMatchObject(each(AGAIN, answeredBy('last', 1)));
  });

  test('when it comes from the last provider, then that one is called again', async () => {
    const played = await playAll(AGAIN, 'last', 1);
    expect(played).toMatchObject(each(AGAIN, answeredBy('last', 2)));
  });

  test('when the last provider always gives one, then the turn fails, and the cause is named', async () => {
    const kinds = {
      'always thoughts': says({ content: null, reasoning_content: 'Hm.' }),
      'always tools': says({ content: null, tool_calls: [{ id: '1' }] }),
      'always a refusal': says({ content: null, refusal: 'I cannot.' }),
      'always nothing': says({ content: '' }),
    };
    const played = await playAll(kinds, 'last');
    expect(played).toMatchObject(each(kinds, { outcomes: ['failed'], read: [], asked: 3 }));
    const cause = (kind: keyof typeof kinds) => JSON.stringify(played[kind]?.attention);
    expect(cause('always thoughts')).toContain('openai (m-last) gave thoughts and no answer: turn off its thinking');
    expect(cause('always tools')).toContain('openai (m-last) called a tool and gave no answer: use another model');
    expect(cause('always a refusal')).toContain('openai (m-last) refused the content: a person must answer');
    expect(cause('always nothing')).toContain('openai (m-last) gave an empty answer: use another model');
  });
});

describe('an answer that is final', () => {
  const answers = Object.fromEntries(Object.entries(FINAL).map(([kind, [answer]]) => [kind, answer]));

  test('when it comes from the first provider, then the next one answers, and the first is not called again', async () => {
    expect(await playAll(answers, 'first')).toMatchObject(each(answers, answeredBy('last', 1)));
  });

  test('when it comes from the last provider, then the turn fails at once, and the cause names provider, model and what to do', async () => {
    const played = await playAll(answers, 'last');
    expect(played).toMatchObject(each(answers, { outcomes: ['failed'], read: [], by: [], asked: 1 }));
    for (const [kind, [, cause]] of Object.entries(FINAL)) {
      expect([kind, JSON.stringify(played[kind]?.attention)]).toEqual([kind, expect.stringContaining('openai (m-last)')]);
      expect([kind, JSON.stringify(played[kind]?.attention)]).toEqual([kind, expect.stringContaining(cause)]);
    }
  });
});

describe('half a sentence', () => {
  const half = says({ content: 'We open at' }, 'length');

  test.each(['first', 'last'] as const)(
    'when the %s provider stops in the middle once, then it is asked for a shorter answer',
    async (place) => {
      const kind = `half, once`;
      expect(await play(kind, place, half, 1)).toMatchObject(answeredBy(place, 2));
      const asked = models()
        .requests(`m-${place}`)
        .filter(isAsked(`${kind} (${place})`));
      expect(asked[1]?.messages[0]?.content).toContain('was cut off. Answer again, completely');
    },
  );

  test('when the first provider always stops in the middle, then the next one answers', async () => {
    expect(await play('half, always', 'first', half)).toMatchObject({ ...answeredBy('last', 2), by: ['m-last'] });
  });

  test('when the last provider always stops in the middle, then the turn fails, and nothing is sent', async () => {
    const played = await play('half, always', 'last', half);
    expect(played).toMatchObject({ outcomes: ['failed'], read: [], asked: 6 });
    expect(JSON.stringify(played.attention)).toContain('openai (m-last) ended in the middle of its answer: raise its token limit');
  });
});

describe('a conversation that is too long', () => {
  test.each<[Place, number, object]>([
    ['first', 400, { message: "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens." }],
    ['last', 400, { message: 'prompt is too long: 210000 tokens > 200000 maximum' }],
    ['last', 413, {}],
    ['last', 400, { code: 'context_length_exceeded' }],
  ])(
    'when the %s provider refuses it with %i %j, then it is asked once more without the older half of the history',
    async (place, status, error) => {
      const phone = newPhone();
      const text = `too long for ${status} ${JSON.stringify(error)}`;
      for (const [index, earlier] of ['one', 'two', 'three'].entries()) {
        await kapso().customerSends({ from: phone, text: `${earlier} of ${text}` });
        await outcomesOf(system, phone, index + 1);
      }
      const isLast = isAsked(`now ${text}`);
      if (place === 'last') models().program({ model: 'm-first', when: isLast, error: { status: 401 } });
      models().program({ model: `m-${place}`, when: (request) => isLast(request) && mentions(request, 'one of'), ...fails(status, error) });
      await kapso().customerSends({ from: phone, text: `now ${text}` });
      expect(await outcomesOf(system, phone, 4)).toEqual(Array(4).fill('answered'));
      const [whole, shorter, ...more] = models().requests(`m-${place}`).filter(isLast);
      expect(more).toEqual([]);
      expect(JSON.stringify(whole?.messages)).toContain('one of too long');
      expect(JSON.stringify(shorter?.messages)).not.toContain('one of too long');
      expect(JSON.stringify(shorter?.messages)).toContain('three of too long');
    },
  );

  test('when the model accepts only the turn itself, then it gets that', async () => {
    const phone = newPhone();
    for (const [index, text] of ['one', 'two'].entries()) {
      await kapso().customerSends({ from: phone, text });
      await outcomesOf(system, phone, index + 1);
    }
    const when = isAsked('the turn alone');
    models().program({ model: 'm-first', when: (request) => when(request) && request.messages.length > 2, ...fails(413) });
    await kapso().customerSends({ from: phone, text: 'the turn alone' });
    await eventually(async () => expect((await repliesOf(system, phone)).map(({ model }) => model)).toEqual(Array(3).fill('m-first')));
    expect(models().requests('m-first').filter(when).at(-1)?.messages.slice(1)).toEqual([{ role: 'user', content: 'the turn alone' }]);
  });
});
