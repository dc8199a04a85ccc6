import { splitText } from './split-text';

const LIMIT = 4_096;
const words = (text: string) => text.replace(/\s+/g, '');

test.each(['', 'hello', 'x'.repeat(LIMIT)])('when a text fits, then it is one part', (text) => {
  expect(splitText(text, LIMIT)).toEqual([text]);
});

test('when there are paragraphs, then it is split between them', () => {
  const paragraphs = ['a', 'b', 'c', 'd', 'e'].map((letter) => `${letter} `.repeat(700).trim());
  expect(splitText(paragraphs.join('\n\n'), LIMIT)).toEqual([
    paragraphs.slice(0, 2).join('\n\n'),
    paragraphs.slice(2, 4).join('\n\n'),
    paragraphs[4],
  ]);
});

test('when there are lines only, then it is split between them', () => {
  const lines = Array.from({ length: 200 }, (_, index) => `- item number ${index} of a long list`);
  const parts = splitText(lines.join('\n'), LIMIT);
  expect(parts.flatMap((part) => part.split('\n'))).toEqual(lines);
});

test('when there is one long paragraph, then it is split between sentences', () => {
  const steps = Array.from({ length: 160 }, (_, index) => `Step ${index + 1}: turn the small wheel a little to the left and wait.`);
  const parts = splitText(`${steps.join(' ')} LAST: never open the valve.`, LIMIT);
  expect(parts).toHaveLength(3);
  expect(parts.every((part) => part.endsWith('.') && /^(Step|LAST)/.test(part))).toBe(true);
  expect(parts.join(' ')).toBe(`${steps.join(' ')} LAST: never open the valve.`);
});

test('when there is one long sentence, then it is split between words', () => {
  const text = 'word '.repeat(2_000).trim();
  expect(splitText(text, LIMIT).join(' ')).toBe(text);
});

test('when the only paragraph break is near the beginning, then the first part is not that short', () => {
  const [first] = splitText(`Hello!\n\n${'A sentence of some length. '.repeat(400)}`, LIMIT);
  expect(first?.length).toBeGreaterThan(LIMIT / 2);
});

test.each([
  ['emoji', '😀'],
  ['families', '👨‍👩‍👧‍👦'],
  ['flags', '🇩🇪'],
  ['letters with marks', 'é'],
  ['Thai', 'กำ'],
])('when there are only %s, then none is split', (_what, character) => {
  const parts = splitText(character.repeat(3_000), LIMIT);
  expect(parts.join('')).toBe(character.repeat(3_000));
  for (const part of parts) expect(part.replaceAll(character, '')).toBe('');
});

test('when one character has thousands of marks, then it is split all the same, between code points', () => {
  const text = `a${'\u0301'.repeat(9_000)}${'😀\u200d'.repeat(3_000)}`;
  const parts = splitText(text, LIMIT);
  expect(parts.join('')).toBe(text);
  expect(parts.every((part) => part.isWellFormed())).toBe(true);
});

test('when code is split, then it is code in each part', () => {
  const lines = Array.from({ length: 400 }, (_, index) => `  line(${index}); // does something`);
  const parts = splitText(`Do this:\n\n\`\`\`js\n${lines.join('\n')}\n\`\`\`\nDone.`, LIMIT);
  expect(parts.length).toBeGreaterThan(2);
  for (const part of parts) {
    expect(part.match(/^```/gm)).toHaveLength(2);
    expect(part.length).toBeLessThanOrEqual(LIMIT);
  }
  const code = parts.flatMap((part) => part.split('\n')).filter((line) => line.startsWith('  line'));
  expect(code).toEqual(lines);
});

test('when it is white space, or ends with a lot of it, then no empty part comes of it', () => {
  expect(splitText(`${' '.repeat(5_000)}a${' \n'.repeat(5_000)}`, LIMIT)).toEqual(['a']);
  expect(splitText(' '.repeat(9_000), LIMIT)).toHaveLength(1);
});

test('when texts are random, then no word is lost, and no part is empty or too long', () => {
  const pieces = [
    'word',
    ' ',
    '\n',
    '\n\n',
    '. ',
    '😀',
    '```\n',
    '```js\n',
    '`',
    '~~~\n',
    'x'.repeat(90),
    '👨‍👩‍👧',
    'e\u0301',
    '。',
    '\t',
    '* ',
  ];
  let state = 7;
  const next = (below: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((state / 2 ** 31) * below);
  };
  for (let round = 0; round < 3_000; round += 1) {
    const text = Array.from({ length: next(120) }, () => pieces[next(pieces.length)]).join('');
    const parts = splitText(text, 120);
    expect(parts.every((part) => part.length <= 120)).toBe(true);
    expect(parts.length === 1 || parts.every((part) => part.trim() !== '')).toBe(true);
    // Fences that were closed and opened again are no words.
    const bare = (joined: string) => words(joined).replace(/[`~]/g, '');
    expect(bare(parts.join(''))).toBe(bare(text));
  }
});

test.each(['x', ' ', '\n', '😀', '\u0301', '```\n', 'a. ', '`'])(
  'when 100 kB of %j come, then they take less than three seconds',
  (piece) => {
    const startedAtMs = performance.now();
    splitText(piece.repeat(Math.ceil(100_000 / piece.length)), LIMIT);
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);
  },
);
