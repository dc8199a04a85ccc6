import { RepeatedLines } from './repeated-lines';

const MINUTE_MS = 60_000;

test('when a problem comes every minute, then it is shown at first and every quarter of an hour, with how often it came', () => {
  const lines = new RepeatedLines();
  const shown = Array.from({ length: 31 }, (_, minute) => lines.show('warn: no workspace', minute * MINUTE_MS));
  expect(shown.flatMap((line, minute) => (line === undefined ? [] : [[minute, line]]))).toEqual([
    [0, 'warn: no workspace'],
    [15, 'warn: no workspace (and 14 times since it was last shown)'],
    [30, 'warn: no workspace (and 14 times since it was last shown)'],
  ]);
});

test('when different problems come, then each is shown', () => {
  const lines = new RepeatedLines();
  expect(['one', 'two', 'one'].map((line) => lines.show(line, 0))).toEqual(['one', 'two', undefined]);
});

test('when there are ever new problems, then the old ones are forgotten', () => {
  const lines = new RepeatedLines();
  for (let index = 0; index < 1_000; index++) lines.show(`problem ${index}`, 0);
  expect(lines.show('problem 0', 0)).toBe('problem 0');
  expect(lines.show('problem 999', 0)).toBeUndefined();
});
