import { temporalProblem } from './connection-problems';

/** gRPC status codes. */
const DEADLINE_EXCEEDED = 4;
const UNAVAILABLE = 14;

test.each([
  [
    DEADLINE_EXCEEDED,
    'Deadline exceeded after 0.001s,waiting for metadata filters',
    ': the name does not resolve, or nothing answers there',
  ],
  [UNAVAILABLE, 'Name resolution failed for target dns:nowhere:1', ': the name does not resolve'],
  [
    UNAVAILABLE,
    'No connection established. Last error: connect ECONNREFUSED 10.0.0.1:1. Resolution note: ',
    ' (connect ECONNREFUSED 10.0.0.1:1)',
  ],
  [UNAVAILABLE, 'the server is shutting down', ' (the server is shutting down)'],
])('when gRPC fails with %i, "%s", then the problem says so without its internals', (code, details, said) => {
  const error = Object.assign(new Error(`${code}: ${details}`), { code, details, metadata: {} });
  expect(temporalProblem(error, { address: 'nowhere:1', namespace: 'default' })).toMatchObject({
    name: 'ConnectionProblem',
    message: `TEMPORAL_ADDRESS: no Temporal server answers at nowhere:1${said}`,
  });
});

test('when the deadline passes for an IP address, then the problem does not blame a name', () => {
  const details = 'Deadline exceeded after 5.001s,LB pick: 0.002s';
  const error = Object.assign(new Error(details), { code: DEADLINE_EXCEEDED, details, metadata: {} });
  const { message } = temporalProblem(error, { address: '10.0.0.1:7233', namespace: 'default' }) as Error;
  expect(message).toBe('TEMPORAL_ADDRESS: no Temporal server answers at 10.0.0.1:7233 (no response)');
});

test('when something other than Temporal answers, then the problem says so', () => {
  const details = 'Received HTTP status code 404';
  const error = Object.assign(new Error(details), { code: 12, details, metadata: {} });
  expect(temporalProblem(error, { address: 'a:1', namespace: 'default' })).toMatchObject({
    message: expect.stringContaining('is not a Temporal server'),
  });
});
