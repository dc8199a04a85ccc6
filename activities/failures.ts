/** The one place that turns a model provider's error into a failure that workflows can branch on. */
import { ApplicationFailure } from '@temporalio/activity';
import { APIConnectionError, APIConnectionTimeoutError, APIError, APIUserAbortError } from 'openai';
import { retryAfterMs } from '../src/platform/retry-after';
import type { ChatAnswer } from '../src/providers/models/answer';
import { type ModelChoice, modelLabel, TooLongAnswerError } from '../src/providers/models/client';
import { timeoutSetting } from '../src/providers/models/timeouts';

/** A non-retryable failure removes the provider from the turn; after any other, it is tried again later. */
export type ModelErrorType =
  | 'ModelError.RateLimited'
  | 'ModelError.Timeout'
  | 'ModelError.Unavailable'
  | 'ModelError.BadAnswer'
  | 'ModelError.EmptyReply'
  | 'ModelError.CutOff'
  | 'ModelError.TooLong'
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
  const who = modelLabel(choice);
  if (error instanceof APIConnectionTimeoutError || error instanceof APIUserAbortError)
    return passingModelFailure(
      'ModelError.Timeout',
      `${who} did not answer in time: raise ${timeoutSetting(choice.provider)} if it is slow`,
    );
  if (error instanceof APIConnectionError)
    return passingModelFailure('ModelError.Unavailable', `${who} could not be reached: check its address and the network`);
  if (error instanceof APIError && typeof error.status === 'number') return statusFailure(who, error, error.status);
  if (error instanceof TooLongAnswerError)
    return passingModelFailure('ModelError.BadAnswer', `${who} gave an answer of more than 1 MiB: lower its limit of tokens`);
  // A response that violates the protocol (such as an HTML page with status 200) is usually a temporary outage.
  return passingModelFailure('ModelError.BadAnswer', `${who} gave an unreadable answer: check its address if this lasts`);
}

function statusFailure(who: string, error: APIError, status: number): ApplicationFailure {
  const said = `${who} responded with ${status}`;
  if (saysContentRefused(error, status)) return contentRefused(who, 'filter');
  if (saysNoCredit(error, status))
    return permanentModelFailure('ModelError.NoCredit', `no credit at ${who}, which responded with ${status}: top the account up`);
  if (saysUnknownModel(error, status))
    return permanentModelFailure('ModelError.NotFound', `${said}: check the model's name and the provider's address`);
  if (isTooLong(error)) {
    const advice = 'shorten the system prompt, or use a model with a larger context';
    return permanentModelFailure('ModelError.TooLong', `${said}: the conversation is too long for it; ${advice}`);
  }
  const waitMs = retryAfterMs(error.headers);
  if (status < 300)
    return passingModelFailure('ModelError.BadAnswer', `${said} and an error: check the account there if this lasts`, waitMs);
  if (status === 429)
    return passingModelFailure('ModelError.RateLimited', `${said}: too many requests; raise the limit there, or add a provider`, waitMs);
  if (status === 408 || status === 409 || status >= 500)
    return passingModelFailure('ModelError.Unavailable', `${said}: it is down or overloaded; add a provider if this lasts`, waitMs);
  if (status === 401 || status === 403)
    return permanentModelFailure('ModelError.Unauthorized', `${said}: check the API key and what it may use`);
  if (status < 400) return permanentModelFailure('ModelError.NotFound', `${said}: check the model's name and the provider's address`);
  return permanentModelFailure('ModelError.BadRequest', `${said}: check whether this model is still served`);
}

const REFUSED_CONTENT_CODES = new Set(['content_filter', 'content_policy_violation', 'ResponsibleAIPolicyViolation']);
/** DeepSeek's text, which comes without a code, and Azure's. */
const REFUSED_CONTENT_WORDS = /content exists risk|content management policy/i;

function saysContentRefused({ code, type, message }: APIError, status: number): boolean {
  if (REFUSED_CONTENT_CODES.has(code ?? '') || REFUSED_CONTENT_CODES.has(type ?? '')) return true;
  return status === 400 && REFUSED_CONTENT_WORDS.test(message);
}

const UNKNOWN_MODEL_WORDS = /\bmodel\b[^\n]{0,100}\b(?:not exist|not found)|unknown model/i;

/** The text may also name the context sizes of other models. */
function saysUnknownModel({ code, type, message }: APIError, status: number): boolean {
  if (status === 404 || code === 'model_not_found' || type === 'model_not_found') return true;
  return status === 400 && UNKNOWN_MODEL_WORDS.test(message);
}

/** Whether the provider says that the prompt has more tokens than the model accepts. The text decides only if no code does. */
export function isTooLong(error: unknown): boolean {
  if (!(error instanceof APIError) || error.status === undefined) return false;
  const { status, code, type, message } = error;
  if (saysUnknownModel(error, status)) return false;
  if (status === 413 || TOO_LONG_CODES.has(code ?? '') || TOO_LONG_CODES.has(type ?? '')) return true;
  // This single request exceeds the limit of tokens per minute, so waiting does not help.
  if (status === 429) return REQUEST_TOO_LARGE.test(message);
  return (status < 300 || status === 400 || status === 422 || status === 500) && TOO_LONG_WORDS.test(message);
}

const TOO_LONG_CODES = new Set([
  'context_length_exceeded',
  'context_window_exceeded',
  'exceed_context_size_error',
  'model_context_window_exceeded',
  'string_above_max_length',
]);
const REQUEST_TOO_LARGE = /request too large|must be reduced/i;
const TOO_LONG_WORDS =
  /context[ _-]?(?:length|window|size)|maximum (?:prompt|input|sequence) length|(?:prompt|input|request|conversation) (?:is |was )?too (?:long|large)|too many (?:input |prompt )?tokens|input length exceeds|reduce the (?:length|size|number)/i;

/** The failure for an answer that cannot be sent; undefined if it can. A content filter would decide the same again; a model may not. */
export function answerFailure(choice: ModelChoice, answer: ChatAnswer): ApplicationFailure | undefined {
  const who = modelLabel(choice);
  if (answer.refusedBy !== undefined) return contentRefused(who, answer.refusedBy);
  if (answer.text === '') return passingModelFailure('ModelError.EmptyReply', `${who} ${emptiness(answer)}`);
  if (!answer.isCutOff) return undefined;
  return passingModelFailure('ModelError.CutOff', `${who} ended in the middle of its answer: raise its token limit`);
}

function emptiness({ instead, isCutOff }: ChatAnswer): string {
  if (instead === 'thoughts') return 'gave thoughts and no answer: turn off its thinking, or raise its token limit';
  if (instead === 'tool calls') return 'called a tool and gave no answer: use another model';
  return isCutOff
    ? 'gave an empty answer, cut off at its token limit: raise that'
    : 'gave an empty answer: use another model if this happens often';
}

function contentRefused(who: string, by: NonNullable<ChatAnswer['refusedBy']>): ApplicationFailure {
  const message = `${who} refused the content: a person must answer`;
  return by === 'filter'
    ? permanentModelFailure('ModelError.ContentRefused', message)
    : passingModelFailure('ModelError.ContentRefused', message);
}

const NO_CREDIT_CODES = new Set(['insufficient_quota', 'insufficient_balance', 'billing_hard_limit_reached', 'billing_not_active']);
const NO_CREDIT_WORDS =
  /insufficient (?:balance|credits?|funds|quota)|(?:credit|account) balance|balance is too low|please recharge|(?:no|any|out of) credits?\b/i;

/**
 * Providers report it in different ways. The text is used only if the status is final anyway, so it changes nothing but the advice:
 * a 429 with such a text may be a limit per minute.
 */
function saysNoCredit({ code, type, message }: APIError, status: number): boolean {
  if (status === 402) return true;
  if (NO_CREDIT_CODES.has(code ?? '') || NO_CREDIT_CODES.has(type ?? '')) return true;
  return (status < 300 || status === 400 || status === 403) && NO_CREDIT_WORDS.test(message);
}

/** Whether an error is a bug in our own code, so that the same input fails again. */
export function isCodeFault(error: unknown): boolean {
  return error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError || error instanceof SyntaxError;
}

/** A failure that ends the turn. Names only the step and the kind of error, because the error's text may quote a message. */
export function codeFault(step: string, error: unknown): ApplicationFailure {
  const kind = error instanceof Error ? error.name : typeof error;
  const message = `${step} (${kind}): this is a bug in Parley; see the worker's log, and answer by hand`;
  return ApplicationFailure.create({ type: 'WorkerError.Fault', message, nonRetryable: true });
}
