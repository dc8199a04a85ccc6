import { randomUUID } from 'node:crypto';
import { startTestApi, type TestApi } from '../../test/support/api';
import { callWorkflowId } from '../../workflows/contract';
import type { Database } from '../platform/database';
import { createProgressWaiters } from './call-progress';

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('call_progress');
});

afterAll(async () => {
  await api?.close();
});

test('when 50 clients wait for a reference whose calls nobody follows, then the database is read at most every 250 ms for all of them', async () => {
  const serviceRequestId = randomUUID();
  const rows = Array.from({ length: 30 }, () => {
    const id = randomUUID();
    return { id, workflowId: callWorkflowId(id), direction: 'outbound' as const, serviceRequestId };
  });
  await api.db.orm.vapiCallResult.createMany({ data: rows });
  let reads = 0;
  const db: Database = {
    ...api.db,
    query: (statement) => {
      reads += 1;
      return api.db.query(statement);
    },
  };
  const { wait } = createProgressWaiters({ db, waiters: api.waiters });
  const startedAtMs = Date.now();
  const found = await Promise.all(Array.from({ length: 50 }, () => wait({ serviceRequestId }, 1_500, new AbortController().signal)));
  expect(found.map(({ pending }) => pending)).toEqual(Array.from({ length: 50 }, () => 30));
  expect(Date.now() - startedAtMs).toBeGreaterThanOrEqual(1_500);
  expect(reads).toBeLessThanOrEqual((Date.now() - startedAtMs) / 250 + 2);
});

test('when the process stops, then a wait ends at once with what is known', async () => {
  const serviceRequestId = randomUUID();
  const { wait } = createProgressWaiters({ db: api.db, waiters: api.waiters });
  const waiting = wait({ serviceRequestId }, 60_000, new AbortController().signal);
  api.waiters.close();
  const startedAtMs = Date.now();
  expect(await waiting).toMatchObject({ pending: 0, awaited: [] });
  expect(Date.now() - startedAtMs).toBeLessThan(5_000);
});
