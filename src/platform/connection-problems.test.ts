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
