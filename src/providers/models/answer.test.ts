import { type ChatAnswer, normalizedErrorBody, readAnswer } from './answer';

const WHOLE: ChatAnswer = {
  text: 'We open at nine.',
  isCutOff: false,
  refusedBy: undefined,
  instead: undefined,
  promptTokens: 40,
  completionTokens: 12,
};
const NOTHING = { ...WHOLE, text: '' };

/** A whole answer with other fields in its message, its choice or its body. */
function body(message: object, choice: object = {}, rest: object = {}): string {
  return JSON.stringify({
    choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: WHOLE.text, ...message }, ...choice }],
    usage: { prompt_tokens: 40, completion_tokens: 12 },
    ...rest,
  });
}

test.each<[string, string, ChatAnswer]>([
  ['a text', body({}), WHOLE],
  ['a text with spaces around it', body({ content: ' \u200B\n We open at nine.\uFEFF\n' }), WHOLE],
  ['thoughts in the text', body({ content: '<think>Annoyed.</think>We open at nine.' }), WHOLE],
  ['thoughts in a field of their own', body({ reasoning_content: 'They want the hours.' }), WHOLE],
  [
    'a list of parts',
    body({
      content: [
        { type: 'thinking', thinking: [{ type: 'text', text: 'Hm.' }] },
        { type: 'text', text: 'We open ' },
        { type: 'text', text: 'at nine.' },
      ],
    }),
    WHOLE,
  ],
  ['a list of strings', body({ content: ['We open ', 'at nine.'] }), WHOLE],
  ['a single part', body({ content: { type: 'output_text', text: 'We open at nine.' } }), WHOLE],
  ['the text of a completion', body({ content: null }, { text: 'We open at nine.' }), WHOLE],
  ['an error that is null', body({}, {}, { error: null }), WHOLE],
  ['an error that is an empty text', body({}, {}, { error: '' }), WHOLE],
  ['an error that is empty', body({}, { error: {} }, { error: {} }), WHOLE],
  ['an empty refusal', body({ refusal: '' }), WHOLE],
  [
    'an empty part of refusal',
    body({
      content: [
        { type: 'refusal', refusal: '' },
        { type: 'text', text: WHOLE.text },
      ],
    }),
    WHOLE,
  ],
  ['a byte order mark before the body', `\uFEFF${body({})}`, WHOLE],
  ['white space before the body', `\n\n  ${body({})}`, WHOLE],
  ['no usage', body({}, {}, { usage: undefined }), { ...WHOLE, promptTokens: null, completionTokens: null }],
  ['usage that is null', body({}, {}, { usage: null }), { ...WHOLE, promptTokens: null, completionTokens: null }],
  [
    'usage in fractions and beyond all bounds',
    body({}, {}, { usage: { prompt_tokens: 12.5, completion_tokens: 1e12 } }),
    { ...WHOLE, promptTokens: 13, completionTokens: null },
  ],
  ['an emoji of several', body({ content: '👨‍👩‍👧' }), { ...WHOLE, text: '👨‍👩‍👧' }],
  ['a sentence that was cut', body({}, { finish_reason: 'length' }), { ...WHOLE, isCutOff: true }],
  ['a sentence that was cut, in other words', body({}, { finish_reason: 'MAX_TOKENS' }), { ...WHOLE, isCutOff: true }],
  ['a sentence that is incomplete', body({}, { finish_reason: 'incomplete' }), { ...WHOLE, isCutOff: true }],
])('when a body has %s, then the text is read', (_what, text, answer) => {
  expect(readAnswer(text)).toEqual({ kind: 'answer', answer });
});

test.each<[string, string, ChatAnswer]>([
  ['an empty text', body({ content: '' }), NOTHING],
  ['null', body({ content: null }), NOTHING],
  ['a zero-width space', body({ content: '\u200B' }), NOTHING],
  ['characters that look like a space', body({ content: '\u3164\u2800\u00AD' }), { ...NOTHING, instead: undefined }],
  ['no message', body({}, { message: undefined }), NOTHING],
  ['no choice', body({}, {}, { choices: [] }), NOTHING],
  ['a number', body({ content: 5 }), NOTHING],
  ['thoughts in their field', body({ content: null, reasoning_content: 'Hm.' }), { ...NOTHING, instead: 'thoughts' }],
  ['thoughts in another field', body({ content: '', reasoning: 'Hm.' }), { ...NOTHING, instead: 'thoughts' }],
  ['thoughts as parts', body({ content: [{ type: 'thinking', thinking: 'Hm.' }] }), { ...NOTHING, instead: 'thoughts' }],
  [
    'thoughts that were cut',
    body({ content: '<think>I should' }, { finish_reason: 'length' }),
    { ...NOTHING, isCutOff: true, instead: 'thoughts' },
  ],
  ['a limit before the first word', body({ content: '' }, { finish_reason: 'length' }), { ...NOTHING, isCutOff: true }],
  [
    'tool calls',
    body({ content: null, tool_calls: [{ id: '1', type: 'function', function: { name: 'f', arguments: '{}' } }] }),
    { ...NOTHING, instead: 'tool calls' },
  ],
])('when a body has %s and no text, then the answer is empty', (_what, text, answer) => {
  expect(readAnswer(text)).toEqual({ kind: 'answer', answer });
});

test.each([
  ['a refusal', body({ content: null, refusal: 'I cannot.' }), 'model'],
  ['a part of refusal', body({ content: [{ type: 'refusal', refusal: 'no' }] }), 'model'],
  ['a refusal as its end', body({}, { finish_reason: 'refusal' }), 'model'],
  ['a filter', body({ content: 'We' }, { finish_reason: 'content_filter' }), 'filter'],
  ['a filter by another name', body({ content: '' }, { finish_reason: 'SAFETY' }), 'filter'],
])('when a body has %s, then the answer is refused', (_what, text, refusedBy) => {
  expect(readAnswer(text)).toMatchObject({ kind: 'answer', answer: { refusedBy } });
});

test.each([
  ['an error', '{"error": {"message": "busy", "type": "server_error"}}', { message: 'busy', type: 'server_error' }, undefined],
  ['an error that is a text', '{"error": "model is loading"}', { message: 'model is loading' }, undefined],
  ['an error with a status', '{"error": {"message": "no money", "code": 402}}', { message: 'no money' }, 402],
  ['an error beside a status', '{"error": "busy", "status": 503}', { message: 'busy' }, 503],
  ['an error in a list', '[{"error": {"message": "busy", "code": 503}}]', { message: 'busy' }, 503],
  ['an error at its top', '{"object": "error", "message": "busy", "code": 429}', { message: 'busy' }, 429],
  ['an error in its choice', body({ content: '' }, { error: { message: 'gone', code: 502 } }), { message: 'gone' }, 502],
])('when a body has %s, then it is read as one', (_what, text, error, status) => {
  expect(readAnswer(text)).toEqual({ kind: 'error', error, status });
});

test.each([
  ['a page', '<html><body>502</body></html>'],
  ['nothing', ''],
  ['a text', 'We open at nine.'],
  ['JSON that was cut', body({}).slice(0, 40)],
  ['no choices', '{"id": "x", "usage": null}'],
  ['an empty error without choices', '{"error": {}}'],
  ['a list', '[]'],
  ['a string', '"We open at nine."'],
  ['an end by an error', body({ content: 'We' }, { finish_reason: 'error' })],
])('when a body is %s, then it cannot be read', (_what, text) => {
  expect(readAnswer(text)).toEqual({ kind: 'unreadable' });
});

test.each([
  ['{"error": {"message": "m", "code": "c", "type": "t", "param": "p"}}', { message: 'm', code: 'c', type: 't' }],
  ['{"error": {"message": "m", "code": 400, "status": "INVALID_ARGUMENT"}}', { message: 'm', code: 'INVALID_ARGUMENT' }],
  ['{"object": "error", "message": "m", "type": "BadRequestError", "code": 400}', { message: 'm', type: 'BadRequestError' }],
  ['{"error": "model \\"x\\" not found"}', { message: 'model "x" not found' }],
  ['{"detail": "Not Found"}', { message: 'Not Found' }],
  ['{"detail": [{"msg": "too long"}]}', { message: '[{"msg":"too long"}]' }],
  ['[{"error": {"message": "m"}}]', { message: 'm' }],
])('when an error response is %s, then it has OpenAI’s form', (text, error) => {
  expect(JSON.parse(normalizedErrorBody(text))).toEqual({ error });
});

test('when an error response is not JSON, then it stays unchanged', () => {
  for (const text of ['', '<html>', 'busy']) expect(normalizedErrorBody(text)).toBe(text);
});

test.each([' ', '\n', '\u200B', '\u3000', ' \n'])('when a text contains %j 100,000 times, then it is read in less than 200 ms', (gap) => {
  const content = `a${gap.repeat(100_000)}b`;
  const startedAtMs = performance.now();
  expect(readAnswer(body({ content }))).toMatchObject({ answer: { text: content } });
  expect(performance.now() - startedAtMs).toBeLessThan(200);
});
