/** WhatsApp alone or voice calls alone: every process runs without placeholder keys, and errors name what is not configured. */
import { newNumber, placeCall, request, resultOf } from './support/calls';
import { eventually, newPhone, outcomesOf } from './support/expectations';
import { startSuite } from './support/suite';
import { type System, startProcess } from './support/system';

const NO_WHATSAPP = { KAPSO_API_KEY: '', KAPSO_WEBHOOK_SECRET: '', KAPSO_WEBHOOK_TOKEN: '', KAPSO_PHONE_NUMBER_ID: '' };
const NO_CALLS = { VAPI_API_KEY: '', VAPI_ASSISTANT_ID: '', VAPI_PHONE_NUMBER_ID: '', VAPI_WEBHOOK_SECRET: '', PUBLIC_URL: '' };

let system: System;
afterEach(() => system?.close());

const post = async (path: string) => await request<{ detail: string }>(system, 'POST', path, { body: { message: {} } });

test('when only voice calls are configured, then a call runs to its end, and a WhatsApp webhook is refused with the name of the setting', async () => {
  system = await startSuite('calls_alone', { environment: () => ({ ...NO_WHATSAPP, SANDBOX_URL: '' }) });
  const { body } = await placeCall(system, { to: newNumber() });
  expect(await resultOf(system, body.callId)).toMatchObject({ outcome: 'completed' });
  expect(await post('/webhook/kapso')).toMatchObject({
    status: 401,
    body: { detail: expect.stringContaining('KAPSO_WEBHOOK_SECRET is not set') },
  });
  expect((await fetch(`${system.apiUrl}/readyz`)).status).toBe(200);
});

test('when only WhatsApp is configured, then a message is answered, and calls are refused with the name of the setting', async () => {
  system = await startSuite('whatsapp_alone', { environment: () => NO_CALLS });
  const phone = newPhone();
  await system.sandbox.kapso.customerSends({ from: phone, text: 'hi' });
  expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  const placed = await placeCall(system, { to: newNumber() });
  expect(placed).toMatchObject({ status: 422, body: { detail: expect.stringContaining('voice calls are not configured (VAPI_API_KEY') } });
  expect(await post('/api/v1/vapi/webhooks/vapi')).toMatchObject({
    status: 401,
    body: { detail: 'voice calls are not configured (VAPI_WEBHOOK_SECRET)' },
  });

  // A half-configured WhatsApp is a mistake, which a process must not hide by running without WhatsApp.
  for (const [entry, missing] of [
    ['src/processes/server.ts', 'KAPSO_WEBHOOK_SECRET'],
    ['src/processes/worker.ts', 'KAPSO_API_KEY'],
  ] as const) {
    const half = await startProcess('half', entry, { ...system.environment, [missing]: '' }, 'invalid settings');
    expect(half.lines.join()).toContain(`${missing}: is not set, but`);
    await eventually(async () => expect(half.child.exitCode).toBe(78));
  }
});
