/** PostgreSQL or Temporal is down: clients are soon told to retry, and the retry finishes what was begun. */
import { randomUUID } from 'node:crypto';
import { startTestApi, type TestApi } from '../../test/support/api';
import { newNumber, placeCall, request } from '../../test/support/calls';
import { eventually } from '../../test/support/expectations';
import { callWorkflowId } from '../../workflows/contract';

const CALLS = '/api/v1/vapi/calls';
/** "Within a few seconds"; the connection's own bounds are 5 s and 17 s. */
const SOON_MS = 5_500;

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_outage');
});

afterAll(async () => {
  await api?.close();
});

const statusOf = async (callId: string) => (await api.temporal.workflow.getHandle(callWorkflowId(callId)).describe()).status.name;

async function newCall(): Promise<string> {
  const { status, body } = await placeCall(api, { to: newNumber() });
  expect(status).toBe(202);
  return body.callId;
}

test.each([
  ['is down', () => api.postgresProxy.down()],
  ['cannot be reached', () => api.postgresProxy.hang()],
])(
  'when PostgreSQL %s, then whatever reads the database soon returns 503, with Retry-After and an id that is in the log',
  async (_what, goAway) => {
    const callId = await newCall();
    await goAway();
    try {
      const operations: [string, string][] = [
        ['POST', CALLS],
        ['GET', CALLS],
        ['GET', `${CALLS}/by-phone/+15550100`],
        ['GET', `${CALLS}/${callId}`],
        ['GET', `${CALLS}/${callId}?wait=50`],
        ['DELETE', `${CALLS}/${callId}`],
        ['GET', `${CALLS}/${callId}/recording`],
        ['GET', '/api/v1/conversations'],
        ['GET', `/api/v1/conversations/${callId}`],
        ['GET', `/api/v1/conversations/${callId}/messages`],
        ['GET', '/api/v1/dead-letters'],
        ['GET', `/api/v1/dead-letters/${callId}`],
        ['DELETE', `/api/v1/dead-letters/${callId}`],
        ['POST', `/api/v1/dead-letters/${callId}/replay`],
        ['POST', '/api/v1/dead-letters/replay'],
      ];
      const startedAtMs = Date.now();
      const answers = await Promise.all(
        operations.map(async ([method, path]) => {
          const given =
            path === CALLS && method === 'POST' ? { body: { to: newNumber() }, headers: { 'Idempotency-Key': randomUUID() } } : {};
          const { status, headers, body } = await request<{ id: string; detail: string }>(api, method, path, given);
          expect(api.logLines.filter((line) => line.includes(body.id)).join()).toContain('the database is unavailable');
          expect(JSON.stringify(body)).not.toMatch(/ECONN|127\.0\.0\.1|prisma|postgres/i);
          return [method, path, status, headers.get('retry-after')];
        }),
      );
      expect(answers).toEqual(operations.map(([method, path]) => [method, path, 503, '5']));
      expect(Date.now() - startedAtMs).toBeLessThan(SOON_MS);
    } finally {
      await api.postgresProxy.up();
    }
    await eventually(async () => expect((await request(api, 'GET', `${CALLS}/${callId}`)).status).toBe(200), 30_000);
  },
);

test('when the database goes down during a wait, then the response is a 503 that asks to retry', async () => {
  const callId = await newCall();
  const answer = request(api, 'GET', `${CALLS}/${callId}?wait=1`);
  await eventually(async () => expect(api.waiters.counts().waiters).toBe(1));
  await api.postgresProxy.down();
  try {
    const { status, headers } = await answer;
    expect([status, headers.get('retry-after')]).toEqual([503, '5']);
  } finally {
    await api.postgresProxy.up();
  }
});

test('when Temporal is down, then starting and ending return 503, and the repeated request starts the call', async () => {
  const running = await newCall();
  const to = newNumber();
  const key = randomUUID();
  await api.temporalProxy.down();
  try {
    const [started, ended] = await Promise.all([placeCall(api, { to }, key), request(api, 'DELETE', `${CALLS}/${running}`)]);
    expect([started.status, started.headers.get('retry-after')]).toEqual([503, '5']);
    expect([ended.status, ended.headers.get('retry-after')]).toEqual([503, '5']);
  } finally {
    await api.temporalProxy.up();
  }
  // As after a crash between the two: the row stands, and no workflow.
  const { id } = await api.db.orm.vapiCallResult.findFirstOrThrow({ where: { toNumber: to } });
  await expect(statusOf(id)).rejects.toThrow();
  const again = await eventually(async () => {
    const answer = await placeCall(api, { to }, key);
    expect(answer.status).toBe(202);
    return answer;
  }, 30_000);
  expect(again.body.callId).toBe(id);
  expect(await statusOf(id)).toBe('RUNNING');
  expect(await api.db.orm.vapiCallResult.count({ where: { toNumber: to } })).toBe(1);
  expect((await request(api, 'DELETE', `${CALLS}/${running}`)).status).toBe(202);
});
