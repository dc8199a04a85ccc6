import { MAX_TEXT_LENGTH } from './client';
import { messagesOf, singleMessageOf } from './reply-text';

const SENTENCE = 'Turn the small wheel a little to the left and wait. ';

test('when a reply has Markdown, NUL and half a surrogate pair, then it becomes one storable message', () => {
  expect(messagesOf('**a** \0b\ud83d')).toEqual(['*a* b\ufffd']);
});

test.each([700, 20_000])('when it has %s sentences, then nothing is cut, and it takes less than three seconds', (count) => {
  const reply = SENTENCE.repeat(count).trim();
  const startedAtMs = performance.now();
  const messages = messagesOf(reply);
  expect(performance.now() - startedAtMs).toBeLessThan(3_000);
  expect(messages.join(' ')).toBe(reply);
  expect(messages.every((text) => text.length <= MAX_TEXT_LENGTH)).toBe(true);
});

test('when it must be one message, then it is cut visibly, and between code points', () => {
  const text = singleMessageOf('😀'.repeat(3_000));
  expect(text.length).toBeLessThanOrEqual(MAX_TEXT_LENGTH);
  expect(text.endsWith('…') && text.isWellFormed()).toBe(true);
});
