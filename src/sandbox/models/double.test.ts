import { startTestSandbox } from '../../../test/support/sandbox';
import type { Sandbox } from '../sandbox';

let sandbox: Sandbox;

beforeEach(async () => {
  sandbox = await startTestSandbox();
});
afterEach(() => sandbox.close());

type Message = { role: string; content: unknown };

function ask(
  model: string,
  messages: Message[] = [{ role: 'user', content: 'Hi' }],
  signal = AbortSignal.timeout(2000),
): Promise<Response> {
  const headers = { 'Content-Type': 'application/json', Authorization: 'Bearer key' };
  return fetch(`${sandbox.modelsUrl}/chat/completions`, { method: 'POST', headers, body: JSON.stringify({ model, messages }), signal });
}

interface Completion {
  choices: { message: { content: string }; finish_reason: string }[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
}

async function answer(model: string, messages?: Message[]): Promise<Completion> {
  return (await ask(model, messages)).json() as Promise<Completion>;
}

describe('models', () => {
  test('when nothing is programmed, then the reply says that it is simulated and quotes the latest messages', async () => {
    const messages = [
      { role: 'system', content: 'Be kind' },
      { role: 'user', content: 'old' },
      { role: 'assistant', content: 'ok' },
      { role: 'user', content: 'one' },
      { role: 'user', content: [{ type: 'text', text: 'two' }] },
    ];
    const { choices, usage } = await answer('sandbox', messages);
    expect(choices[0]).toMatchObject({ finish_reason: 'stop' });
    expect(choices[0]?.message.content).toBe('(sandbox model, no AI) You wrote: “one” and “two”\nSet a model key to get real answers.');
    expect(usage.prompt_tokens).toBeGreaterThan(0);
    expect(usage.total_tokens).toBe(usage.prompt_tokens + usage.completion_tokens);
  });

  test('when data is fenced in a message, then the reply does not quote it', async () => {
    const content = '--- data 4f9c (voice call)\nSummary\n--- end of data 4f9c\nthanks\n\nbye';
    const { choices } = await answer('sandbox', [{ role: 'user', content }]);
    expect(choices[0]?.message.content).toContain('You wrote: “thanks” and “bye”\n');
  });

  test('when there are many lines, then the reply quotes the last five, so that it fits into one message', async () => {
    const messages = Array.from({ length: 1_000 }, (_, index) => ({ role: 'user', content: `line ${index} ${'x'.repeat(500)}` }));
    const { choices } = await answer('sandbox', messages);
    const content = choices[0]?.message.content ?? '';
    expect(content).toContain('You wrote: 995 more lines and “line 995 x');
    expect(content.length).toBeLessThan(4_096);
  });

  test('when a model is strict, then it refuses what strict chat templates refuse, and answers the rest as programmed', async () => {
    sandbox.models.program({ model: 'a', strict: true, reply: 'ok' });
    const refused = await ask('a', [
      { role: 'user', content: 'one' },
      { role: 'user', content: 'two' },
    ]);
    expect([refused.status, await refused.json()]).toMatchObject([400, { error: { message: expect.stringContaining('alternate') } }]);
    expect((await answer('a')).choices[0]?.message.content).toBe('ok');
  });

  test('when replies are programmed, then those with a count come first, per model', async () => {
    sandbox.models.program({
      model: 'a',
      reply: ({ messages }) => `last: ${messages.at(-1)?.content}`,
      usage: { prompt_tokens: 7, completion_tokens: 3 },
    });
    sandbox.models.program({ model: 'a', times: 1, reply: '' });
    sandbox.models.program({ model: 'a', times: 1, finishReason: 'content_filter', reply: '' });
    expect((await answer('a')).choices[0]?.message.content).toBe('');
    expect((await answer('a')).choices[0]?.finish_reason).toBe('content_filter');
    const third = await answer('a');
    expect([third.choices[0]?.message.content, third.usage.total_tokens]).toEqual(['last: Hi', 10]);
    expect((await answer('b')).choices[0]?.message.content).toContain('sandbox model');
    sandbox.models.clear('a');
    expect((await answer('a')).choices[0]?.message.content).toContain('sandbox model');
  });

  test.each([400, 401, 403, 404, 408, 409, 429, 500, 503])(
    'when status %i is programmed, then the error has OpenAI’s format',
    async (status) => {
      sandbox.models.program({ model: 'a', error: { status, message: 'no', retryAfterSeconds: 3 } });
      const response = await ask('a');
      expect([response.status, response.headers.get('retry-after')]).toEqual([status, '3']);
      expect(await response.json()).toMatchObject({ error: { message: 'no', type: expect.any(String) } });
    },
  );

  test('when the connection hangs or is cut, then there is no response, but the request is counted', async () => {
    sandbox.models.program({ model: 'a', times: 1, connection: 'cut' });
    sandbox.models.program({ model: 'a', times: 1, connection: 'hang' });
    await expect(ask('a')).rejects.toThrow('fetch failed');
    await expect(ask('a', undefined, AbortSignal.timeout(50))).rejects.toThrow('timeout');
    expect(sandbox.models.count('a')).toBe(2);
  });

  test('when a raw body or a delay is programmed, then the response has it', async () => {
    sandbox.models.program({ model: 'a', times: 1, raw: { status: 200, body: '<html>' } });
    sandbox.models.program({ model: 'a', times: 1, delayMs: 60 });
    expect(await (await ask('a')).text()).toBe('<html>');
    const startedAtMs = performance.now();
    await answer('a');
    expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(55);
  });

  test('when many requests arrive, then waits resolve, and the list of requests stays bounded', async () => {
    const waiting = sandbox.models.waitForRequests('a', 450, 5000);
    for (let index = 0; index < 450; index += 1) await (await ask('a')).text();
    expect((await waiting).length).toBeLessThanOrEqual(400);
    expect(sandbox.models.requests('a').at(-1)?.messages).toEqual([{ role: 'user', content: 'Hi' }]);
    await expect(sandbox.models.waitForRequests('a', 451, 10)).rejects.toThrow('a got 450 of 451 requests');
  });
});
