/** The one place that turns a model provider's error into a failure that workflows can branch on. */
import { ApplicationFailure } from '@temporalio/activity';
import { APIConnectionError, APIConnectionTimeoutError, APIError, APIUserAbortError } from 'openai';
import { retryAfterMs } from '../src/platform/retry-after';
import type { ModelChoice } from '../src/providers/models/client';

/** A non-retryable failure removes the provider from the turn; after any other, it is tried again later. */
export type ModelErrorType =
  | 'ModelError.RateLimited'
  | 'ModelError.Timeout'
  | 'ModelError.Unavailable'
  | 'ModelError.BadAnswer'
  | 'ModelError.EmptyReply'
  | 'ModelError.BadRequest'
  | 'ModelError.Unauthorized'
  | 'ModelError.NoCredit'
  | 'ModelError.NotFound'
  | 'ModelError.ContentRefused'
  | 'ModelError.NotConfigured';

/** The first detail of a retryable failure. */
export interface ModelFailureDetails {
  /** The wait that the provider has asked for. */
  retryAfterMs: number;
}

/** A provider and its model, for the texts that operators read. */
export function providerLabel({ provider, model }: ModelChoice): string {
  return `${provider} (${model})`;
}

/** A failure that a retry cannot fix. `message` is for operators: who refused, and what to do. */
export function permanentModelFailure(type: ModelErrorType, message: string): ApplicationFailure {
  return ApplicationFailure.create({ type, message, nonRetryable: true });
}

/** A failure that a retry may fix. `waitMs`: the wait that the provider has asked for; 0 if it named none. */
export function passingModelFailure(type: ModelErrorType, message: string, waitMs = 0): ApplicationFailure {
  if (waitMs <= 0) return ApplicationFailure.create({ type, message });
  const details: ModelFailureDetails = { retryAfterMs: waitMs };
  // nextRetryDelay is for conversations started by 0.1, which use the activity's retry policy.
  return ApplicationFailure.create({ type, message, details: [details], nextRetryDelay: waitMs });
}

/**
 * Classifies the error of a model call. Leaves out the provider's text, because it may quote the customer, and failures are stored in the
 * history.
 */
export function modelFailure(choice: ModelChoice, error: unknown): ApplicationFailure {
  const who = providerLabel(choice);
  if (error instanceof APIConnectionTimeoutError || error instanceof APIUserAbortError)
    return passingModelFailure('ModelError.Timeout', `${who} did not answer in time`);
  if (error instanceof APIConnectionError) return passingModelFailure('ModelError.Unavailable', `${who} could not be reached`);
  if (error instanceof APIError && typeof error.status === 'number') return statusFailure(who, error, error.status);
  // A response that violates the protocol (such as an HTML page with status 200) is usually a temporary outage.
  return passingModelFailure('ModelError.BadAnswer', `${who} gave an answer that could not be read`);
}

function statusFailure(who: string, error: APIError, status: number): ApplicationFailure {
  const said = `${who} answered ${status}`;
  if (error.code === 'content_filter' || error.code === 'content_policy_violation') return contentRefused(who);
  if (saysNoCredit(error, status)) return permanentModelFailure('ModelError.NoCredit', `${said}: no credit there; top the account up`);
  if (status === 429) return passingModelFailure('ModelError.RateLimited', said, retryAfterMs(error.headers));
  if (status === 408 || status === 409 || status >= 500)
    return passingModelFailure('ModelError.Unavailable', said, retryAfterMs(error.headers));
  if (status === 401 || status === 403)
    return permanentModelFailure('ModelError.Unauthorized', `${said}: check the API key and what it may use`);
  if (status === 404 || status < 400 || error.code === 'model_not_found')
    return permanentModelFailure('ModelError.NotFound', `${said}: check the model's name and the provider's address`);
  return permanentModelFailure('ModelError.BadRequest', `${said}: check whether this model is still served`);
}

export function contentRefused(who: string): ApplicationFailure {
  return permanentModelFailure('ModelError.ContentRefused', `${who} refused the content: a person must answer`);
}

const NO_CREDIT_CODES = new Set(['insufficient_quota', 'insufficient_balance', 'billing_hard_limit_reached', 'billing_not_active']);
const NO_CREDIT_WORDS = /insufficient (?:balance|credits?|funds|quota)|credit balance|(?:no|any|out of) credits?\b/i;

/**
 * Providers report it in different ways. The text is used only if the status is final anyway, so it changes nothing but the advice:
 * a 429 with such a text may be a limit per minute.
 */
function saysNoCredit({ code, type, message }: APIError, status: number): boolean {
  if (status === 402) return true;
  if (NO_CREDIT_CODES.has(code ?? '') || NO_CREDIT_CODES.has(type ?? '')) return true;
  return (status === 400 || status === 403) && NO_CREDIT_WORDS.test(message);
}
