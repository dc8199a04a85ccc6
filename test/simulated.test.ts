/**
 * Nothing simulated may reach a real person, and no simulated customer a real record. `system.sandbox` stands for the real Kapso here; the
 * simulation is another sandbox, whose address the worker knows as SANDBOX_URL.
 */
import { freePort } from '../src/local/embedded/ports';
import { createLogger } from '../src/platform/logger';
import { type Sandbox, startSandbox } from '../src/sandbox/sandbox';
import { callWorkflowId } from '../workflows/contract';
import { newNumber, placeCall, resultOf } from './support/calls';
import { eventually, newPhone, outcomesOf } from './support/expectations';
import { startSuite } from './support/suite';
import { type System, startProcess, VAPI_WEBHOOK_SECRET } from './support/system';

let simulation: Sandbox;
let system: System;
let workerPort: number;

beforeAll(async () => {
  const log = createLogger('simulation', 'error');
  const vapi = {
    auth: { scheme: 'secret' as const, secret: VAPI_WEBHOOK_SECRET },
    timings: { queueMs: 10, ringMs: 20, talkMs: 50, reportMs: 20 },
  };
  simulation = await startSandbox({ port: 0, webhookUrls: [], webhookSecret: 's', phoneNumberId: '1', log, vapi });
  workerPort = await freePort(0);
  system = await startSuite('simulated', {
    environment: () => ({
      SANDBOX_URL: simulation.url,
      VAPI_BASE_URL: simulation.vapiUrl,
      // DeepSeek has no key.
      AI_PROVIDERS: 'sandbox,deepseek:deepseek-chat',
      WORKER_HEALTH_PORT: String(workerPort),
      CALL_FOLLOW_UP_TEXT: 'Thank you for the call!',
    }),
  });
});

afterAll(async () => {
  await system?.close();
  await simulation?.close();
});

const useChain = (providerChain: string[]) => system.db.chatbotSettings.updateMany({ data: { providerChain } });

test.each([
  ['the environment', undefined],
  ['the database', ['sandbox:any-name']],
  ['nothing', []],
])(
  'when the chain of %s has the simulated model only, then a real person is not answered, and the outcome says why',
  async (_where, chain) => {
    if (chain) await useChain(chain);
    const phone = newPhone();
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hi' });
    expect(await outcomesOf(system, phone, 1)).toEqual(['ai_disabled']);
    expect(system.sandbox.kapso.counts().sends).toBe(0);
    expect(simulation.models.counts()).toEqual({});
  },
);

test('when the worker has no real model, then its log and /readyz say so, and the API names the model that has ended', async () => {
  await system.workers[0]?.line('"level":"warn"', `nobody who writes to ${system.phoneNumberId} is answered`);
  const readiness = async (url: string) => {
    const answer = await fetch(`${url}/readyz`);
    return { status: answer.status, body: await answer.json() };
  };
  expect(await readiness(`http://127.0.0.1:${workerPort}`)).toMatchObject({ status: 200, body: { warnings: [{ kind: 'no_model' }] } });
  const ended = { kind: 'model_ended', text: expect.stringContaining('deepseek (deepseek-chat) ended on 2026-07-24') };
  await eventually(async () =>
    expect(await readiness(system.apiUrl)).toMatchObject({ status: 200, body: { ready: true, warnings: [ended] } }),
  );
});

test('when a simulated call to the number of a real person ends, then their conversation has no note, and they get no text', async () => {
  const number = newNumber();
  const phone = number.slice(1);
  await system.sandbox.kapso.customerSends({ from: phone, text: 'hi' });
  await outcomesOf(system, phone, 1);
  const {
    body: { callId },
  } = await placeCall(system, { to: number });
  expect(await resultOf(system, callId)).toMatchObject({ outcome: 'completed' });
  await system.temporal.workflow.getHandle(callWorkflowId(callId)).result();
  expect(await system.db.message.findMany({ where: { direction: { not: 'inbound' } } })).toEqual([]);
  expect(system.sandbox.kapso.counts().sends).toBe(0);
});

test.each([
  ['KAPSO_API_KEY', { KAPSO_API_KEY: 'a real key' }],
  ['VAPI_API_KEY', { VAPI_API_KEY: 'a real key', KAPSO_API_KEY: 'sandbox' }],
])('when the sandbox is started with a real %s, then it refuses, because its customers would count as real ones', async (name, keys) => {
  const environment = { ...system.environment, WEBHOOK_TARGET_URL: `${system.apiUrl}/webhook/kapso`, VAPI_API_KEY: 'sandbox', ...keys };
  const sandbox = await startProcess('sandbox', 'src/sandbox/main.ts', environment, 'invalid settings');
  await eventually(async () => expect(sandbox.child.exitCode).toBe(78));
  expect(sandbox.lines.join()).toContain(`${name}: is set, so nothing is simulated`);
});
