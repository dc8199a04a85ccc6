import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { callOutcome } from './call-outcome';

const FIXTURES = join(__dirname, '../../test/fixtures/vapi');

describe('outcome of a call', () => {
  test.each([
    ['customer-did-not-answer', 'no_answer'],
    ['call.in-progress.error-providerfault-outbound-sip-480-temporarily-unavailable', 'no_answer'],
    ['customer-busy', 'busy'],
    ['voicemail', 'voicemail'],
    ['twilio-reported-customer-misdialed', 'invalid_number'],
    ['manually-canceled', 'canceled'],
    ['scheduled-call-deleted', 'canceled'],
    ['call.forwarding.operator-busy', 'transfer_failed'],
    ['call.in-progress.error-transfer-failed', 'transfer_failed'],
    ['call.in-progress.error-warm-transfer-max-duration', 'transfer_failed'],
    ['assistant-ended-call-with-hangup-task', 'completed'],
    ['assistant-said-end-call-phrase', 'completed'],
    ['assistant-forwarded-call', 'completed'],
    ['customer-ended-call', 'completed'],
    ['customer-ended-call-after-warm-transfer-attempt', 'completed'],
    ['exceeded-max-duration', 'completed'],
    ['silence-timed-out', 'completed'],
    ['call.in-progress.twilio-completed-call', 'completed'],
    ['call.ringing.hook-executed-say', 'completed'],
  ])('when the reason is %s, then it is %s and no error', (reason, outcome) => {
    expect(callOutcome({ endedReason: reason, wasInProgress: false })).toEqual({ outcome, error: null });
  });

  test.each([
    'assistant-ended-call',
    'assistant-said-end-call-phrase',
    'customer-ended-call',
    'exceeded-max-duration',
    'silence-timed-out',
    'vonage-completed',
    'call.in-progress.sip-completed-call',
  ])(
    'when the reason is %s and the person said nothing, then nobody answered; if that is unknown, the call is completed',
    (endedReason) => {
      const outcome = (customerSpoke?: boolean) => callOutcome({ endedReason, wasInProgress: true, customerSpoke });
      expect(outcome(false)).toEqual({ outcome: 'no_answer', error: null });
      for (const spoke of [true, undefined]) expect(outcome(spoke)).toEqual({ outcome: 'completed', error: null });
    },
  );

  test.each([
    ['assistant-forwarded-call', 'completed'],
    ['voicemail', 'voicemail'],
    ['manually-canceled', 'canceled'],
    ['call.in-progress.error-transfer-failed', 'transfer_failed'],
    ['pipeline-error-openai-llm-failed', 'failed'],
  ])('when the reason is %s and the person said nothing, then it is still %s', (endedReason, outcome) => {
    expect(callOutcome({ endedReason, wasInProgress: true, customerSpoke: false }).outcome).toBe(outcome);
  });

  test.each([
    ['call.start.error-subscription-concurrency-limit-reached', 'account'],
    ['call.in-progress.error-vapifault-worker-died', 'platform'],
    ['worker-shutdown', 'platform'],
    ['phone-call-provider-closed-websocket', 'platform'],
    ['pipeline-error-openai-llm-failed', 'provider'],
    ['call.in-progress.error-providerfault-openai-llm-failed', 'provider'],
    ['call.in-progress.error-pipeline-no-available-llm-model', 'provider'],
    ['assistant-not-found', 'config'],
    ['call-start-error-neither-assistant-nor-server-set', 'config'],
    ['call.start.error-get-customer', 'config'],
    ['twilio-failed-to-connect-call', 'telephony'],
    ['call.in-progress.error-sip-telephony-provider-failed-to-connect-call', 'telephony'],
    ['customer-did-not-give-microphone-permission', 'media'],
    ['call.in-progress.error-assistant-did-not-receive-customer-audio', 'media'],
    ['some.reason-that-nobody-heard-of', 'unknown'],
  ])('when the reason is %s, then it failed, and the error says %s', (reason, category) => {
    expect(callOutcome({ endedReason: reason, wasInProgress: false })).toEqual({ outcome: 'failed', error: `${category}: ${reason}` });
  });

  test('when it failed in conversation, then the error says so, because a person was spoken to', () => {
    expect(callOutcome({ endedReason: 'pipeline-error-openai-llm-failed', wasInProgress: true }).error).toBe(
      'provider: pipeline-error-openai-llm-failed (in conversation)',
    );
  });

  test.each([undefined, ''])('when there is no reason (%j), then it is unknown, whatever else happened', (reason) => {
    expect(callOutcome({ endedReason: reason, wasInProgress: true })).toEqual({ outcome: 'unknown', error: null });
  });

  test('when the reasons of the fixtures are read, then each has its outcome', () => {
    const outcomes = readdirSync(FIXTURES)
      .filter((file) => /^(status-update\.ended|end-of-call-report)/.test(file))
      .map((file) => {
        const { endedReason } = JSON.parse(readFileSync(join(FIXTURES, file), 'utf8')).message;
        return [file, callOutcome({ endedReason, wasInProgress: false }).outcome];
      });
    expect(Object.fromEntries(outcomes)).toEqual({
      'end-of-call-report.busy.json': 'busy',
      'end-of-call-report.completed.json': 'completed',
      'end-of-call-report.minimal.json': 'completed',
      'end-of-call-report.no-answer.json': 'no_answer',
      'end-of-call-report.pipeline-error-legacy.json': 'failed',
      'end-of-call-report.pipeline-error.json': 'failed',
      'end-of-call-report.voicemail.json': 'voicemail',
      'status-update.ended.future-reason.json': 'failed',
      'status-update.ended.json': 'completed',
      'status-update.ended.no-answer.json': 'no_answer',
      'status-update.ended.start-error.json': 'failed',
    });
  });
});
