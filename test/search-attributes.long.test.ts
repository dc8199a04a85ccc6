/**
 * A namespace without our search attributes, in which none can be added: its server has room for three Booleans, which others use up.
 * No workflow can start there, so messages wait in the spool.
 */
import { randomBytes } from 'node:crypto';
import { Client, Connection } from '@temporalio/client';
import { freePort } from '../src/local/embedded/ports';
import { signBody } from '../src/sandbox/webhook-sender';
import { searchAttributes } from '../workflows/contract';
import { type TestDatabase, testDatabase, testTemporal } from './support/engine';
import { eventually } from './support/expectations';
import { type RunningProcess, startProcess, WEBHOOK_SECRET } from './support/system';

const BOOL = 5;
const TAKEN = ['TakenOne', 'TakenTwo', 'TakenThree'];
const namespace = `attributes-${randomBytes(4).toString('hex')}`;

let database: TestDatabase;
let connection: Connection;
const processes: RunningProcess[] = [];

beforeAll(async () => {
  database = await testDatabase('attributes');
  connection = await Connection.connect({ address: testTemporal().address });
  // The type requires a Long, but the encoder accepts a number too.
  const workflowExecutionRetentionPeriod = { seconds: (24 * 60 * 60) as never };
  await connection.workflowService.registerNamespace({ namespace, workflowExecutionRetentionPeriod });
  // The server's caches learn of a new namespace a little later.
  const search = Object.fromEntries(TAKEN.map((name) => [name, BOOL]));
  await eventually(() => connection.operatorService.addSearchAttributes({ namespace, searchAttributes: search }), 30_000);
});

afterAll(async () => {
  await Promise.all(processes.map((each) => each.stop()));
  await connection?.close();
  await database?.drop();
});

test('when search attributes are missing and cannot be added, then messages wait and /readyz names them, until they exist', async () => {
  const [apiPort, workerPort] = [await freePort(41_000), await freePort(42_000)];
  const environment = {
    DATABASE_URL: database.url,
    TEMPORAL_ADDRESS: testTemporal().address,
    TEMPORAL_NAMESPACE: namespace,
    KAPSO_API_KEY: 'key',
    KAPSO_WEBHOOK_SECRET: WEBHOOK_SECRET,
    KAPSO_PHONE_NUMBER_ID: '100000000000009',
    PORT: String(apiPort),
    WORKER_HEALTH_PORT: String(workerPort),
  };
  const api = await startProcess('api', 'src/processes/server.ts', environment, 'api listening');
  const worker = await startProcess('worker', 'src/processes/worker.ts', environment, 'model providers');
  processes.push(api, worker);
  const body = JSON.stringify({
    message: { id: 'wamid.1', from: '15550100777', type: 'text', text: { body: 'hi' } },
    phone_number_id: '100000000000009',
  });
  const deliver = () =>
    fetch(`http://127.0.0.1:${apiPort}/webhook/kapso`, {
      method: 'POST',
      body,
      headers: {
        'Content-Type': 'application/json',
        'X-Webhook-Event': 'whatsapp.message.received',
        'X-Webhook-Signature': signBody(WEBHOOK_SECRET, body),
      },
    });
  const readiness = async (port: number) => {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`);
    return [answer.status, await answer.json()];
  };
  const missing = Object.values(searchAttributes);
  for (const each of [api, worker]) expect(await each.line('Temporal is not ready', 'search attributes')).toContain(missing.join(', '));
  expect(await readiness(apiPort)).toEqual([
    503,
    { ready: false, temporal: true, postgres: true, started: false, missingSearchAttributes: missing },
  ]);
  await api.line('api accepts webhooks');
  expect(await readiness(workerPort)).toEqual([503, { ready: false, missingSearchAttributes: missing }]);
  expect((await deliver()).status).toBe(200);
  await api.line('Temporal is away; the spool waits');
  const client = new Client({ connection, namespace });
  expect((await client.workflowService.countWorkflowExecutions({ namespace })).count?.toNumber()).toBe(0);

  await connection.operatorService.removeSearchAttributes({ namespace, searchAttributes: TAKEN });
  await Promise.all([api.line('api ready'), worker.line('worker ready')]);
  await eventually(async () => {
    expect(await readiness(apiPort)).toEqual([200, { ready: true, temporal: true, postgres: true, started: true }]);
    expect((await client.workflowService.countWorkflowExecutions({ namespace })).count?.toNumber()).toBe(1);
  }, 60_000);
  expect(await readiness(workerPort)).toEqual([200, { ready: true }]);
}, 120_000);
