import { MAX_TEXT_LENGTH } from './client';
import { MAX_MESSAGES, messagesOf, singleMessageOf } from './reply-text';

const SENTENCE = 'Turn the small wheel a little to the left and wait. ';

test('when a reply has Markdown, NUL and half a surrogate pair, then it becomes one storable message', () => {
  expect(messagesOf('**a** \0b\ud83d')).toEqual(['*a* b\ufffd']);
});

test('when it is as long as models write, then nothing is cut', () => {
  const reply = SENTENCE.repeat(700).trim();
  expect(reply.length).toBeGreaterThan(36_000);
  const messages = messagesOf(reply);
  expect(messages.length).toBeLessThanOrEqual(MAX_MESSAGES);
  expect(messages.join(' ')).toBe(reply);
});

test('when a model does not end, then the customer gets ten messages at most, and sees that there is more', () => {
  const startedAtMs = performance.now();
  const messages = messagesOf(SENTENCE.repeat(100_000));
  expect(performance.now() - startedAtMs).toBeLessThan(3_000);
  expect(messages).toHaveLength(MAX_MESSAGES);
  expect(messages.at(-1)?.endsWith('…')).toBe(true);
  expect(messages.every((text) => text.length <= MAX_TEXT_LENGTH)).toBe(true);
});

test('when it must be one message, then it is cut visibly, and between code points', () => {
  const text = singleMessageOf('😀'.repeat(3_000));
  expect(text.length).toBeLessThanOrEqual(MAX_TEXT_LENGTH);
  expect(text.endsWith('…') && text.isWellFormed()).toBe(true);
});
