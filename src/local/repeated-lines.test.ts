import { RepeatedLines } from './repeated-lines';

const MINUTE_MS = 60_000;

test('when a problem occurs every minute, then it is shown at first and every 15 minutes, with the number of occurrences', () => {
  const lines = new RepeatedLines();
  const shown = Array.from({ length: 31 }, (_, minute) => lines.show('warn: no workspace', minute * MINUTE_MS));
  expect(shown.flatMap((line, minute) => (line === undefined ? [] : [[minute, line]]))).toEqual([
    [0, 'warn: no workspace'],
    [15, 'warn: no workspace (and 14 times since it was last shown)'],
    [30, 'warn: no workspace (and 14 times since it was last shown)'],
  ]);
});

test('when different problems occur, then each is shown', () => {
  const lines = new RepeatedLines();
  expect(['one', 'two', 'one'].map((line) => lines.show(line, 0))).toEqual(['one', 'two', undefined]);
});

test('when new problems keep occurring, then the old ones are forgotten', () => {
  const lines = new RepeatedLines();
  for (let index = 0; index < 1_000; index++) lines.show(`problem ${index}`, 0);
  expect(lines.show('problem 0', 0)).toBe('problem 0');
  expect(lines.show('problem 999', 0)).toBeUndefined();
});
