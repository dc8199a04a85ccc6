/** Derives the outcome of a call from Vapi's ended reason and from whether anybody spoke. Pure, and open to new reasons. */

/** All outcomes. `unknown`: how, or whether, it ended could not be determined. */
export const CALL_OUTCOMES = [
  'completed',
  'no_answer',
  'busy',
  'voicemail',
  'invalid_number',
  'canceled',
  'transfer_failed',
  'failed',
  'unknown',
] as const;
export type CallOutcome = (typeof CALL_OUTCOMES)[number];

/** How a call ended. */
export interface CallEnding {
  outcome: CallOutcome;
  endedReason: string | null;
  /** In words, without personal data. */
  error?: string;
  needsAttention: boolean;
}

/** The cause of a failure, as far as the reason tells. */
type FailureCategory = 'account' | 'platform' | 'provider' | 'config' | 'telephony' | 'media' | 'unknown';

/** The facts that the rules use. */
export interface EndedCall {
  endedReason: string | undefined;
  /** Whether the call was in progress, as far as is known. */
  wasInProgress: boolean;
  /** Whether the person on the phone said anything; undefined if no report shows it. */
  customerSpoke?: boolean | undefined;
}

/** `isSilent`: matches only if the person is known to have said nothing. */
type Rule = { matches: RegExp; isSilent?: true } & (
  | { outcome: Exclude<CallOutcome, 'failed' | 'unknown'> }
  | { outcome: 'failed'; category: FailureCategory }
);

/** The first match wins. Covers all reasons that Vapi lists (call-ended-reason page, OpenAPI of August 2026). */
const RULES: readonly Rule[] = [
  { outcome: 'no_answer', matches: /^customer-did-not-answer$|outbound-sip-(408|480)-/ },
  { outcome: 'busy', matches: /^customer-busy$/ },
  // Only with voicemail detection; without it such a call ends like one with a person.
  { outcome: 'voicemail', matches: /^voicemail$/ },
  { outcome: 'invalid_number', matches: /^twilio-reported-customer-misdialed$/ },
  { outcome: 'canceled', matches: /^(manually-canceled|scheduled-call-deleted|call-deleted)$/ },
  { outcome: 'transfer_failed', matches: /^call\.forwarding\.|error-transfer-failed$|error-warm-transfer-/ },
  // Somebody or something picked up and said nothing. In a call that the assistant forwarded, the person may have spoken with a colleague.
  {
    outcome: 'no_answer',
    isSilent: true,
    matches:
      /^assistant-(ended-call.*|said-end-call-phrase)$|^customer-ended-call|^exceeded-max-duration$|^silence-timed-out$|^vonage-completed$|^call\.in-progress\.(twilio|sip)-completed-call$/,
  },
  {
    outcome: 'completed',
    matches:
      /^assistant-(ended-call.*|said-end-call-phrase|forwarded-call)$|^customer-ended-call|^exceeded-max-duration$|^silence-timed-out$|^vonage-completed$|^call\.in-progress\.(twilio|sip)-completed-call$|^call\.(ringing|ending)\.hook-executed-/,
  },
  { outcome: 'failed', category: 'account', matches: /^call\.start\.error-(subscription-|fraud-|enterprise-|vapi-number-)/ },
  { outcome: 'failed', category: 'platform', matches: /vapifault|^worker-shutdown$|^phone-call-provider-closed-websocket$/ },
  { outcome: 'failed', category: 'provider', matches: /providerfault|^pipeline-|error-pipeline-/ },
  { outcome: 'failed', category: 'config', matches: /^assistant-|^call-start-error-|^call\.start\./ },
  { outcome: 'failed', category: 'telephony', matches: /^(twilio|vonage)-|sip-|^phone-call-provider-/ },
  { outcome: 'failed', category: 'media', matches: /microphone-permission|did-not-receive-customer-audio/ },
];

/**
 * Classifies a call that has ended. `error` is set only for `failed`: category and reason, and whether there had been a conversation
 * (then a second call would not be the first that this person gets).
 */
export function callOutcome({ endedReason, wasInProgress, customerSpoke }: EndedCall): { outcome: CallOutcome; error: string | null } {
  if (!endedReason) return { outcome: 'unknown', error: null };
  const rule = RULES.find(({ matches, isSilent }) => matches.test(endedReason) && (!isSilent || customerSpoke === false));
  if (rule && rule.outcome !== 'failed') return { outcome: rule.outcome, error: null };
  const category: FailureCategory = rule?.category ?? 'unknown';
  return { outcome: 'failed', error: `${category}: ${endedReason}${wasInProgress ? ' (in conversation)' : ''}` };
}

/** Outcomes of calls that reached nobody, even if a machine or a silent person picked up. */
export const UNANSWERED: readonly CallOutcome[] = ['no_answer', 'busy', 'voicemail', 'invalid_number'];

/** Failures of our account or configuration: a person must act. */
const NEEDS_A_PERSON = /^(?:account|config):/;

/** How a call ended. */
export function callEnding(call: EndedCall): CallEnding {
  const { outcome, error } = callOutcome(call);
  return {
    outcome,
    endedReason: call.endedReason ?? null,
    ...(error === null ? {} : { error }),
    needsAttention: outcome === 'unknown' || NEEDS_A_PERSON.test(error ?? ''),
  };
}
