/** What a provider's error means for the turn. The bodies are as the openai package hands them on. */
import { APIConnectionError, APIError, APIUserAbortError } from 'openai';
import { modelFailure } from './failures';

const CHOICE = { provider: 'deepseek', model: 'deepseek-chat' } as const;

function answered(status: number, error: Record<string, unknown> = {}, headers: Record<string, string> = {}) {
  const { type, message, nonRetryable, details, nextRetryDelay } = modelFailure(
    CHOICE,
    APIError.generate(status, { error }, undefined, new Headers(headers)),
  );
  return { type, message, nonRetryable, details, nextRetryDelay };
}

describe('a temporary failure', () => {
  test.each([
    [429, 'ModelError.RateLimited'],
    [408, 'ModelError.Unavailable'],
    [409, 'ModelError.Unavailable'],
    [500, 'ModelError.Unavailable'],
    [503, 'ModelError.Unavailable'],
    [529, 'ModelError.Unavailable'],
  ])('when a provider responds with %i, then the failure is retryable, and its text names provider, model and status', (status, type) => {
    expect(answered(status)).toMatchObject({ type, nonRetryable: false, message: `deepseek (deepseek-chat) answered ${status}` });
  });

  test.each([
    [429, { 'retry-after': '85' }, 85_000],
    [503, { 'retry-after-ms': '1500' }, 1_500],
  ])('when %i comes with %j, then the wait is in the details', (status, headers, retryAfterMs) => {
    expect(answered(status, {}, headers)).toMatchObject({ details: [{ retryAfterMs }], nextRetryDelay: retryAfterMs });
  });

  test.each([
    ['was cut off by our own bound', new APIUserAbortError(), 'ModelError.Timeout'],
    ['had no connection', new APIConnectionError({ message: 'reset' }), 'ModelError.Unavailable'],
    ['got something that is no answer', new SyntaxError('Unexpected token <'), 'ModelError.BadAnswer'],
  ])('when the request %s, then the failure is retryable', (_what, error, type) => {
    expect(modelFailure(CHOICE, error)).toMatchObject({ type, nonRetryable: false });
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
    ['400 with an insufficient balance', 400, { message: 'Insufficient Balance' }],
  ])('when a provider answers %s, then the cause is named: no credit there', (_what, status, error) => {
    const failure = answered(status, error, { 'retry-after': '1' });
    expect(failure).toMatchObject({ type: 'ModelError.NoCredit', nonRetryable: true });
    expect(failure.message).toBe(`deepseek (deepseek-chat) answered ${status}: no credit there; top the account up`);
  });

  test.each([
    [401, {}, 'ModelError.Unauthorized', 'check the API key'],
    [403, {}, 'ModelError.Unauthorized', 'check the API key'],
    [404, {}, 'ModelError.NotFound', 'check the model'],
    [400, { code: 'model_not_found' }, 'ModelError.NotFound', 'check the model'],
    [302, {}, 'ModelError.NotFound', 'address'],
    [400, { message: 'no such model is served here any more' }, 'ModelError.BadRequest', 'still served'],
    [413, {}, 'ModelError.BadRequest', 'answered 413'],
    [400, { code: 'content_filter' }, 'ModelError.ContentRefused', 'a person must answer'],
  ])('when a provider answers %i %j, then it is %s, and the text says what to do', (status, error, type, advice) => {
    const failure = answered(status, error);
    expect(failure).toMatchObject({ type, nonRetryable: true });
    expect(failure.message).toContain('deepseek (deepseek-chat)');
    expect(failure.message).toContain(advice);
  });
});

test('when the provider quotes the customer, then the failure does not', () => {
  for (const status of [400, 401, 402, 429, 503]) expect(answered(status, { message: 'marker' }).message).not.toContain('marker');
});
