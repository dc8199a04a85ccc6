import { currentWait, overdueText } from './call-waits';

const TIMEOUTS = { ring: 120, talk: 600, grace: 90 };

test.each([
  ['it has ended', { status: 'ended', providerCallId: 'p' }, "waiting for Vapi's report (up to 90 s, then Parley queries Vapi)", 90],
  [
    'there was no event yet',
    { status: 'queued', providerCallId: 'p' },
    'waiting for an event from Vapi (up to 120 s, then Parley queries Vapi)',
    120,
  ],
  ['it rings', { status: 'ringing', providerCallId: 'p' }, 'waiting for an event from Vapi (up to 120 s, then Parley queries Vapi)', 120],
  [
    'people talk',
    { status: 'in-progress', providerCallId: 'p' },
    'may last 600 s (without an end event, Parley queries Vapi 90 s later)',
    690,
  ],
  [
    'Vapi does not have it yet',
    { status: 'queued', providerCallId: null },
    'being placed (for up to 30 min while Vapi has no free slot)',
    1800,
  ],
])('when %s, then the text names what the call is waiting for, and for how long', (_when, call, text, seconds) => {
  expect(currentWait(call, TIMEOUTS)).toEqual({ text, seconds });
});

test('when the call has not ended after Vapi was queried, then the text names the final timeout', () => {
  expect(overdueText(TIMEOUTS)).toContain('at most 1620 s after placing it');
});
