/** The count is checked against frozen histories, so that a change of the count is noticed as such. */
import { readFileSync } from 'node:fs';
import { historyFromJSON } from '@temporalio/common/lib/proto-utils';
import { countActions } from './actions';

const frozen = (name: string) => countActions(historyFromJSON(JSON.parse(readFileSync(`workflows/histories/0.2.0/${name}.json`, 'utf8'))));

test('when a call of 0.2.0 was answered, then it cost 16 actions', () => {
  expect(frozen('call-answered')).toEqual({
    ...{ starts: 1, signals: 5, timers: 4, activities: 1, markers: 1, upserts: 4, updates: 0, children: 0 },
    total: 16,
  });
});

test('when a signal started a workflow, then both are one action', () => {
  expect(frozen('call-inbound')).toMatchObject({ starts: 0, signals: expect.any(Number) });
});

test('when an activity was tried more than once, then each attempt counts', () => {
  expect(frozen('callback-taken-at-the-second-try')).toMatchObject({ activities: 2, starts: 0 });
});
