/** The one place that turns a model provider's error into a failure that workflows can branch on. */
import { ApplicationFailure } from '@temporalio/activity';
import { APIConnectionError, APIConnectionTimeoutError, APIError, APIUserAbortError } from 'openai';
import { retryAfterMs } from '../src/platform/retry-after';

/** Types that pass with time are retried by the activity's policy; the others go to the next provider at once. */
export type ModelErrorType =
  | 'ModelError.RateLimited'
  | 'ModelError.Timeout'
  | 'ModelError.Unavailable'
  | 'ModelError.BadRequest'
  | 'ModelError.Unauthorized'
  | 'ModelError.NotFound'
  | 'ModelError.ContentRefused'
  | 'ModelError.EmptyReply'
  | 'ModelError.BadAnswer'
  | 'ModelError.NotConfigured';

/** A failure that another attempt will not cure. */
export function permanentModelFailure(type: ModelErrorType, message: string): ApplicationFailure {
  return ApplicationFailure.create({ type, message, nonRetryable: true });
}

/** A wait of 0 leaves the policy's own pause. */
function passingModelFailure(type: ModelErrorType, message: string, retryAfterMs = 0): ApplicationFailure {
  return ApplicationFailure.create({ type, message, ...(retryAfterMs > 0 ? { nextRetryDelay: retryAfterMs } : {}) });
}

/**
 * Classifies what a model call ended with. The provider's own text is left out: it may quote the customer,
 * and failures stand in the history.
 */
export function modelFailure(provider: string, error: unknown): ApplicationFailure {
  if (error instanceof ApplicationFailure) return error;
  if (error instanceof APIConnectionTimeoutError || error instanceof APIUserAbortError) {
    return passingModelFailure('ModelError.Timeout', `${provider} did not answer in time`);
  }
  if (error instanceof APIConnectionError) return passingModelFailure('ModelError.Unavailable', `${provider} could not be reached`);
  if (error instanceof APIError && typeof error.status === 'number')
    return statusFailure(provider, error.status, error.headers, error.code);
  // An answer that is not what the protocol says (an HTML page with status 200): an outage, and it passes.
  return passingModelFailure('ModelError.BadAnswer', `${provider} gave an answer that could not be read`);
}

function statusFailure(
  provider: string,
  status: number,
  headers: Headers | undefined,
  code: string | null | undefined,
): ApplicationFailure {
  const said = `${provider} answered ${status}`;
  if (code === 'content_filter' || code === 'content_policy_violation') return permanentModelFailure('ModelError.ContentRefused', said);
  if (status === 429) return passingModelFailure('ModelError.RateLimited', said, retryAfterMs(headers));
  if (status === 408 || status === 409 || status >= 500) return passingModelFailure('ModelError.Unavailable', said, retryAfterMs(headers));
  if (status === 401 || status === 403) return permanentModelFailure('ModelError.Unauthorized', said);
  if (status === 404) return permanentModelFailure('ModelError.NotFound', said);
  return permanentModelFailure('ModelError.BadRequest', said);
}
