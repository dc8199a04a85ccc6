import { overdueText, waitOf } from './call-waits';

const BOUNDS = { ring: 120, talk: 600, grace: 90 };

test.each([
  ['it is ended', { status: 'ended', providerCallId: 'p' }, "waiting for Vapi's report (at most 90 s, then Vapi is asked)", 90],
  [
    'nothing was heard of it',
    { status: 'queued', providerCallId: 'p' },
    "waiting for Vapi's word (at most 120 s, then Vapi is asked)",
    120,
  ],
  ['it rings', { status: 'ringing', providerCallId: 'p' }, "waiting for Vapi's word (at most 120 s, then Vapi is asked)", 120],
  [
    'people talk',
    { status: 'in-progress', providerCallId: 'p' },
    'it may take 600 s (without word of its end, Vapi is asked 90 s after that)',
    690,
  ],
  [
    'Vapi does not have it yet',
    { status: 'queued', providerCallId: null },
    'being placed (for at most 30 min while Vapi has no free slot)',
    1800,
  ],
])('when %s, then it is said what is waited for, and how long', (_when, call, text, seconds) => {
  expect(waitOf(call, BOUNDS)).toEqual({ text, seconds });
});

test('when Vapi was asked and the call goes on, then the last bound is said', () => {
  expect(overdueText(BOUNDS)).toContain('at most 1620 s after it was placed');
});
