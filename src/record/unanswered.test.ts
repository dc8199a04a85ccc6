import { randomUUID } from 'node:crypto';
import type { InboundMessage } from '../../workflows/contract';
import { type AnsweringState, attentionFor, immediateOutcome } from './unanswered';

const LIMITS = { withinMs: 12 * 3_600_000, repliesPerHour: 60 };
const STATE: AnsweringState = { mode: 'ai', chatbotEnabled: true, aiEnabled: true, hasModel: true, recent: { said: [], replies: 0 } };
const AWAY = 'Thank you for writing to Example Taxi! We are away and will answer tomorrow.';

function message(fields: Partial<InboundMessage> = {}): InboundMessage {
  return { id: randomUUID(), providerMessageId: 'wamid.1', kind: 'text', text: 'hello?', sentAtMs: Date.now(), ...fields };
}

/** The outcome of `text` after these earlier ones, newest first, each with its own outcome. */
function after(said: [text: string, outcome: string | null, kind?: string][], text: string): string | null {
  const earlier = said.map(([each, outcome, kind = 'text']) => ({ kind, text: each, outcome }));
  return immediateOutcome(message({ text }), { ...STATE, recent: { said: earlier, replies: 0 } }, LIMITS);
}

const times = (count: number, text: string): [string, string][] => Array.from({ length: count }, () => [text, 'answered']);

describe('a repeated text', () => {
  test.each([0, 1, 2])('when it was answered %s times, then it is answered', (count) => {
    expect(after(times(count, AWAY), AWAY)).toBeNull();
  });

  test.each(['yes', '1', 'ok', 'hello?'])(
    'when it is as short as "%s", then it is answered ten times, because people answer many questions like that',
    (text) => {
      expect([after(times(9, text), text), after(times(10, text), text)]).toEqual([null, 'loop']);
    },
  );

  test('when it was answered three times, then it is not answered again', () => {
    expect(after(times(3, AWAY), AWAY)).toBe('loop');
  });

  test('when its repetitions were not answered in between, then it is answered', () => {
    const burst: [string, string][] = Array.from({ length: 9 }, () => [AWAY, 'merged']);
    expect(after([...burst, ...times(2, AWAY)], AWAY)).toBeNull();
  });

  test('when another text came in between, then the count restarts', () => {
    expect(after([...times(2, AWAY), ['what does a ride cost?', 'merged'], ...times(5, AWAY)], AWAY)).toBeNull();
    expect(after([...times(2, AWAY), ['', 'unsupported', 'sticker'], ...times(5, AWAY)], AWAY)).toBeNull();
  });

  test('when another text follows one that was not answered, then it is answered, and so is the first one afterwards', () => {
    expect(after([[AWAY, 'loop'], ...times(3, AWAY)], 'it is really me')).toBeNull();
    expect(after([['it is really me', 'answered'], [AWAY, 'loop'], ...times(3, AWAY)], AWAY)).toBeNull();
  });

  test('when the last one was not answered, then neither is the next, even if the replies are no longer among the recent messages', () => {
    expect(after([[AWAY, 'loop']], AWAY)).toBe('loop');
  });

  test('when the text was sent in a group or imported in between, then that changes nothing', () => {
    expect(after([['lunch?', 'group'], ['old', 'history'], ...times(3, AWAY)], AWAY)).toBe('loop');
  });

  test('when it differs only in case and white space, then it is the same text', () => {
    expect(after(times(3, 'Hello  there, are you\n open today?'), 'hello THERE, are you open today?')).toBe('loop');
  });

  test('when a long one differs only in its numbers, then it is the same text; short ones with numbers are choices', () => {
    const ticket = (number: string) => `We have received your message. Your ticket is ${number}, written on 26.11.2026 at 20:37.`;
    expect(
      after(
        [ticket('4'), ticket('17'), ticket('4711')].map((each) => [each, 'answered']),
        ticket('99999'),
      ),
    ).toBe('loop');
    expect(
      after(
        ['order 1', 'order 2', 'order 3'].map((each) => [each, 'answered']),
        'order 4',
      ),
    ).toBeNull();
    expect(
      after(
        ['1', '2', '3'].map((each) => [each, 'answered']),
        '4',
      ),
    ).toBeNull();
  });

  test('when it is the caption of a picture, then it is answered: the pictures differ', () => {
    const said = [1, 2, 3].map(() => ({ kind: 'image', text: 'and this?', outcome: 'answered' }));
    const state = { ...STATE, recent: { said, replies: 3 } };
    expect(immediateOutcome(message({ kind: 'image', text: 'and this?' }), state, LIMITS)).toBeNull();
  });
});

describe('the replies of an hour', () => {
  test.each([
    [59, null],
    [60, 'loop'],
    [61, 'loop'],
  ])('when there were %s, then the outcome is %s', (replies, outcome) => {
    expect(immediateOutcome(message(), { ...STATE, recent: { said: [], replies } }, LIMITS)).toBe(outcome);
  });
});

describe('the age of a message', () => {
  const aged = (ageMs: number) => immediateOutcome(message({ sentAtMs: Date.now() - ageMs }), STATE, LIMITS);

  test('when it is within the limit, as after an outage of 15 minutes, then it is answered', () => {
    expect([aged(0), aged(15 * 60_000), aged(LIMITS.withinMs - 60_000)]).toEqual([null, null, null]);
  });

  test('when it is older, then it is not answered', () => {
    expect([aged(LIMITS.withinMs + 1_000), aged(6 * 24 * 3_600_000)]).toEqual(['too_old', 'too_old']);
  });

  test('when its time is in the future, then it counts as now', () => {
    expect(aged(-400 * 24 * 3_600_000)).toBeNull();
  });

  test('when it would not be answered anyway, then the outcome says that, and it needs nobody', () => {
    const old = { sentAtMs: Date.now() - 6 * 24 * 3_600_000 };
    const outcomes = [
      immediateOutcome(message({ ...old, kind: 'reaction' }), { ...STATE, mode: 'human' }, LIMITS),
      immediateOutcome(message(old), { ...STATE, aiEnabled: false }, LIMITS),
      immediateOutcome(message(old), { ...STATE, hasModel: false }, LIMITS),
      immediateOutcome(message({ ...old, isHistory: true }), STATE, LIMITS),
      immediateOutcome(message({ ...old, isInGroup: true }), STATE, LIMITS),
      immediateOutcome(message({ ...old, kind: 'location', text: '' }), STATE, LIMITS),
    ];
    expect(outcomes).toEqual(['human', 'ai_disabled', 'ai_disabled', 'history', 'group', 'unsupported']);
    expect(outcomes.map((outcome) => attentionFor(outcome, LIMITS))).toEqual(outcomes.map(() => undefined));
  });
});

test.each(['human', 'paused'])('when the mode is %s, then every message waits, except those that ask nothing', (mode) => {
  const kinds = ['text', 'image', 'location', 'reaction', 'system'];
  const outcomes = kinds.map((kind) => immediateOutcome(message({ kind }), { ...STATE, mode, aiEnabled: false }, LIMITS));
  expect(outcomes).toEqual([null, null, null, mode, mode]);
});

test.each(['human', 'ai'])('when a message is said in a group, in mode %s, then its outcome says so', (mode) => {
  expect(immediateOutcome(message({ isInGroup: true }), { ...STATE, mode }, LIMITS)).toBe('group');
});

test.each(['too_old', 'loop'] as const)('when the outcome is %s, then it needs a person, and says why', (outcome) => {
  expect(attentionFor(outcome, LIMITS)).toEqual({ kind: outcome, text: expect.stringMatching(/12 hours|60 replies/) });
});
