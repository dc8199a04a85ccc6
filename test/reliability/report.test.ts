import { readFileSync } from 'node:fs';
import type { Findings } from './check';
import { type Line, updateDocument } from './report';
import { ROWS } from './rows';

const findings: Findings & { settledAfterSeconds: number } = {
  ...{ sent: 600, recorded: 600, outcomes: { answered: 590, merged: 10 }, takenAtOnce: 600, slowestMs: 1_320 },
  ...{ answeredTwice: 0, outOfOrder: 0, lostWebhooks: 0, problems: [], settledAfterSeconds: 31.2 },
};
const [first, second] = ROWS as [(typeof ROWS)[number], (typeof ROWS)[number]];
const line = (title: string, found: Partial<Findings> = {}): Line => ({ title, findings: { ...findings, ...found } });

/** The cells of a row under a heading. */
function row(document: string, heading: string, title: string): string[] {
  const section = document.slice(document.indexOf(`${heading}\n`)).split('\n## ')[0] ?? '';
  const text = section.split('\n').find((each) => each.startsWith(`| ${title} `)) ?? '';
  return text.split('|').map((cell) => cell.trim());
}

const EMPTY = '# Reliability\n\n## One\n\n## Two\n\nTwo of each.\n';

test('when a row was run, then its table has its figures, and every other row', () => {
  const document = updateDocument(EMPTY, '## One', [line(first.title)]);
  const cells = ['600', '600', '590 answered, 10 merged', '600', '1.3 s', '0', '0', '31 s', 'holds'];
  expect(row(document, '## One', first.title)).toEqual(['', first.title, ...cells, '']);
  for (const { title } of ROWS) expect(row(document, '## One', title)[1]).toBe(title);
  expect(row(document, '## Two', first.title)).toEqual(['']);
});

test('when another row is run, then the first one and the text stay', () => {
  const once = updateDocument(EMPTY, '## Two', [line(first.title)]);
  const twice = updateDocument(once, '## Two', [line(second.title, { problems: ['600 sent, but 599 recorded'] })]);
  expect(row(twice, '## Two', first.title).at(-2)).toBe('holds');
  expect(row(twice, '## Two', second.title).at(-2)).toBe('600 sent, but 599 recorded');
  expect(twice).toContain('## Two\n\nTwo of each.\n\n| Outage');
  expect(twice).toContain('## One\n\n## Two');
});

test('when the document is written again, then nothing else in it changes', () => {
  const document = readFileSync('docs/reliability.md', 'utf8');
  const updated = updateDocument(document, '## On the embedded servers', []);
  expect(updateDocument(updated, '## On the embedded servers', [])).toBe(updated);
});
