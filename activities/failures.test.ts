/** What a provider's error means for the turn. The bodies are as the openai package hands them on. */
import { APIConnectionError, APIError, APIUserAbortError } from 'openai';
import { TooLongAnswerError, UnreadableAnswerError } from '../src/providers/models/client';
import { codeFault, isCodeFault, isTooLong, modelFailure } from './failures';

const CHOICE = { provider: 'deepseek', model: 'deepseek-chat' } as const;

function answered(status: number, error: Record<string, unknown> = {}, headers: Record<string, string> = {}) {
  const { type, message, nonRetryable, details, nextRetryDelay } = modelFailure(
    CHOICE,
    APIError.generate(status, { error }, undefined, new Headers(headers)),
  );
  return { type, message, nonRetryable, details, nextRetryDelay };
}

/** An error in a body with status 200. */
const errorIn = (error: object) => new APIError(200, error, undefined, new Headers());

describe('a temporary failure', () => {
  test.each([
    [429, 'ModelError.RateLimited'],
    [408, 'ModelError.Unavailable'],
    [409, 'ModelError.Unavailable'],
    [500, 'ModelError.Unavailable'],
    [503, 'ModelError.Unavailable'],
    [529, 'ModelError.Unavailable'],
  ])('when a provider responds with %i, then the failure is retryable, and its text names provider, model and status', (status, type) => {
    const message = expect.stringMatching(`^deepseek \\(deepseek-chat\\) responded with ${status}: .*(add a provider|limit)`);
    expect(answered(status)).toMatchObject({ type, nonRetryable: false, message });
  });

  test.each([
    [429, { 'retry-after': '85' }, 85_000],
    [503, { 'retry-after-ms': '1500' }, 1_500],
  ])('when %i comes with %j, then the wait is in the details', (status, headers, retryAfterMs) => {
    expect(answered(status, {}, headers)).toMatchObject({ details: [{ retryAfterMs }], nextRetryDelay: retryAfterMs });
  });

  test.each([
    ['exceeded our own timeout', new APIUserAbortError(), 'ModelError.Timeout', 'raise DEEPSEEK_TIMEOUT_MS'],
    ['had no connection', new APIConnectionError({ message: 'reset' }), 'ModelError.Unavailable', 'check its address'],
    ['got something that is not an answer', new UnreadableAnswerError(), 'ModelError.BadAnswer', 'check its address'],
    ['got an answer that is too long', new TooLongAnswerError(), 'ModelError.BadAnswer', 'more than 1 MiB'],
    ['got an error with a status of success', errorIn({ message: 'busy' }), 'ModelError.BadAnswer', 'check the account'],
  ])('when the request %s, then the failure is retryable, and its text says what to do', (_what, error, type, advice) => {
    const message = expect.stringMatching(`^deepseek \\(deepseek-chat\\) .*${advice}`);
    expect(modelFailure(CHOICE, error)).toMatchObject({ type, nonRetryable: false, message });
  });

  test('when a 429 mentions a quota without its code, then it is a temporary limit', () => {
    const message = 'You exceeded your current quota, please check your plan and billing details.';
    expect(answered(429, { message, type: 'requests', code: 'rate_limit_exceeded' })).toMatchObject({
      type: 'ModelError.RateLimited',
      nonRetryable: false,
    });
  });
});

describe('a permanent failure', () => {
  test.each([
    ['402', 402, { message: 'the account has no money left', code: 'invalid_request_error' }],
    ['429 with insufficient_quota as its code', 429, { code: 'insufficient_quota' }],
    ['429 with insufficient_quota as its type', 429, { type: 'insufficient_quota' }],
    ['400 that speaks of the credit balance', 400, { message: 'Your credit balance is too low' }],
    ['403 that speaks of credits', 403, { message: 'Your team does not have any credits yet' }],
    ['400 that asks to recharge', 400, { message: 'Your account balance is too low. Please recharge' }],
    ['400 with an insufficient balance', 400, { message: 'Insufficient Balance' }],
  ])('when a provider answers %s, then the cause is named: no credit at this provider', (_what, status, error) => {
    const failure = answered(status, error, { 'retry-after': '1' });
    expect(failure).toMatchObject({ type: 'ModelError.NoCredit', nonRetryable: true });
    expect(failure.message).toBe(`no credit at deepseek (deepseek-chat), which responded with ${status}: top the account up`);
  });

  test.each([
    [401, {}, 'ModelError.Unauthorized', 'check the API key'],
    [403, {}, 'ModelError.Unauthorized', 'check the API key'],
    [404, {}, 'ModelError.NotFound', 'check the model'],
    [400, { code: 'model_not_found' }, 'ModelError.NotFound', 'check the model'],
    [400, { type: 'model_not_found' }, 'ModelError.NotFound', 'check the model'],
    [400, { message: 'Model Not Exist' }, 'ModelError.NotFound', 'check the model'],
    [400, { message: 'model `x-2.5` does not exist. Supported context window models: y' }, 'ModelError.NotFound', 'check the model'],
    [400, { code: 'model_not_found', message: 'Models by context length: y' }, 'ModelError.NotFound', 'check the model'],
    [302, {}, 'ModelError.NotFound', 'address'],
    [400, { message: 'no such model is served here any more' }, 'ModelError.BadRequest', 'still served'],
    [413, {}, 'ModelError.TooLong', 'responded with 413'],
    [400, { code: 'content_filter' }, 'ModelError.ContentRefused', 'a person must answer'],
    [400, { type: 'content_filter' }, 'ModelError.ContentRefused', 'a person must answer'],
    [400, { code: 'ResponsibleAIPolicyViolation' }, 'ModelError.ContentRefused', 'a person must answer'],
    [400, { message: 'Content Exists Risk' }, 'ModelError.ContentRefused', 'a person must answer'],
    [400, { code: 'context_length_exceeded' }, 'ModelError.TooLong', 'shorten the system prompt'],
  ])('when a provider answers %i %j, then it is %s, and the text says what to do', (status, error, type, advice) => {
    const failure = answered(status, error);
    expect(failure).toMatchObject({ type, nonRetryable: true });
    expect(failure.message).toContain('deepseek (deepseek-chat)');
    expect(failure.message).toContain(advice);
  });
});

test('when a body with status 200 says that there is no credit, then the failure is permanent', () => {
  for (const error of [{ code: 'insufficient_quota' }, { message: 'Insufficient Balance' }])
    expect(modelFailure(CHOICE, errorIn(error))).toMatchObject({ type: 'ModelError.NoCredit', nonRetryable: true });
});

describe('a prompt that is too long', () => {
  test.each([
    [400, { code: 'context_length_exceeded' }],
    [400, { type: 'exceed_context_size_error' }],
    [400, { message: "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens." }],
    [400, { message: 'prompt is too long: 210000 tokens > 200000 maximum' }],
    [400, { message: "This model's maximum prompt length is 131072 but the request contains 140000 tokens." }],
    [400, { message: 'the request exceeds the available context size' }],
    [400, { message: 'Please reduce the length of the messages or completion.' }],
    [400, { message: 'The model is loaded with context length of only 4096 tokens' }],
    [413, {}],
    [422, { message: 'input is too long' }],
    [429, { message: 'Request too large for gpt-4.1 on tokens per min (TPM): Limit 30000, Requested 40000.' }],
    [500, { message: 'input length exceeds maximum context length' }],
    [200, { message: 'Input exceeds the context window' }],
  ])('when a provider answers %i %j, then the prompt is too long', (status, error) => {
    expect(isTooLong(new APIError(status, error, undefined, new Headers()))).toBe(true);
  });

  test.each([
    [400, { message: 'no such model is served here any more' }],
    [400, { message: 'roles must alternate user/assistant' }],
    [400, { message: 'model `x-2.5` does not exist. Supported context window models: y' }],
    [400, { code: 'model_not_found', message: 'Models by context length: y' }],
    [401, { message: 'context length' }],
    [429, { message: 'Too many tokens per minute, please wait' }],
    [503, { message: 'overloaded: the request queue is too long' }],
  ])('when a provider answers %i %j, then the prompt is not too long', (status, error) => {
    expect(isTooLong(new APIError(status, error, undefined, new Headers()))).toBe(false);
  });

  test('when an error is not the provider’s, then it does not count', () => {
    for (const error of [new APIConnectionError({ message: 'context length' }), new Error('context length'), undefined])
      expect(isTooLong(error)).toBe(false);
  });
});

describe('a fault of our own code', () => {
  test('when our code throws such an error, then the failure ends the turn and does not quote it', () => {
    expect(isCodeFault(new TypeError('x'))).toBe(true);
    expect(codeFault('the prompt could not be built', new RangeError('marker'))).toMatchObject({
      type: 'WorkerError.Fault',
      nonRetryable: true,
      message: "the prompt could not be built (RangeError): this is a bug in Parley; see the worker's log, and answer by hand",
    });
  });

  test('when the database fails, then that is no fault of our code', () => {
    expect(isCodeFault(Object.assign(new Error('deadlock'), { code: '40P01' }))).toBe(false);
  });
});

test('when the provider quotes the customer, then the failure does not', () => {
  for (const status of [400, 401, 402, 429, 503]) expect(answered(status, { message: 'marker' }).message).not.toContain('marker');
});
