import pino from 'pino';
import { type Receiver, startReceiver } from './receiver';
import { type Sandbox, startSandbox } from './sandbox';

const PHONE = '15550100001';
let receiver: Receiver;
let sandbox: Sandbox;

beforeEach(async () => {
  receiver = await startReceiver();
  const statusDelaysMs = { sent: 5, delivered: 10, read: 15 };
  const log = pino({ level: 'silent' });
  sandbox = await startSandbox({ port: 0, webhookUrls: () => receiver.url, webhookSecret: 's', phoneNumberId: '1', statusDelaysMs, log });
});
afterEach(async () => {
  await sandbox.close();
  await receiver.close();
});

function call(method: string, path: string, body?: unknown): Promise<Response> {
  const init = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } };
  return fetch(`${sandbox.url}${path}`, { method, signal: AbortSignal.timeout(3000), ...init });
}

function send(body: string): Promise<Response> {
  const message = { messaging_product: 'whatsapp', to: `+${PHONE}`, type: 'text', text: { body } };
  const headers = { 'Content-Type': 'application/json', 'X-API-Key': 'key' };
  return fetch(`${sandbox.url}/meta/whatsapp/v24.0/1/messages`, { method: 'POST', headers, body: JSON.stringify(message) });
}

describe('control', () => {
  test('when a customer writes and is answered, then the chat shows both with ticks', async () => {
    const written = await call('POST', `/sandbox/customers/${PHONE}/messages`, { text: 'Hi', name: 'Budi' });
    expect(await written.json()).toEqual({ wamid: expect.stringMatching(/^wamid\./), delivered: 200, attempts: 1 });
    await send('Hello');
    await sandbox.kapso.settled();
    const { data } = (await (await call('GET', `/sandbox/customers/%2B${PHONE}/messages`)).json()) as { data: object[] };
    expect(data).toEqual([
      expect.objectContaining({ direction: 'inbound', text: 'Hi', statuses: ['taken'] }),
      expect.objectContaining({ direction: 'outbound', text: 'Hello', statuses: ['sent', 'delivered', 'read'] }),
    ]);
    expect(await (await call('GET', '/sandbox/stats')).json()).toMatchObject({ kapso: { inbound: 1, accepted: 1 }, models: {} });
  });

  test('when a chat is watched, then replies and ticks come as events', async () => {
    const response = await call('GET', `/sandbox/customers/${PHONE}/events`);
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    await send('Hello');
    let seen = '';
    while (!seen.includes('"read"')) seen += (await reader?.read())?.value ?? '';
    expect(seen.match(/^event: .*$/gm)).toEqual(['event: reply', 'event: ticks', 'event: ticks', 'event: ticks']);
    await reader?.cancel();
  });

  test('when faults are put and deleted, then they apply until then', async () => {
    expect((await call('PUT', '/sandbox/faults', { kapso: [{ answer: '131026' }], models: [{ model: 'a', reply: 'x' }] })).status).toBe(
      204,
    );
    expect((await send('one')).status).toBe(400);
    expect(await (await call('GET', '/sandbox/faults')).json()).toEqual({
      kapso: [{ answer: '131026' }],
      models: [{ model: 'a', reply: 'x' }],
    });
    expect((await call('DELETE', '/sandbox/faults')).status).toBe(204);
    expect((await send('two')).status).toBe(200);
    const wrong = await call('PUT', '/sandbox/faults', { kapso: [{ answer: 'shrug' }] });
    expect([wrong.status, await wrong.text()]).toEqual([400, expect.stringContaining('answer')]);
  });
});
