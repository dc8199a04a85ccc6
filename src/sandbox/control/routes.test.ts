import { readFileSync } from 'node:fs';
import { startTestSandbox } from '../../../test/support/sandbox';
import { type Receiver, startReceiver } from '../receiver';
import type { Sandbox } from '../sandbox';
import { SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID } from '../vapi/bodies';
import { CONTROL_ENDPOINTS } from './help';

const PHONE = '15550100001';
let receiver: Receiver;
let sandbox: Sandbox;

beforeEach(async () => {
  receiver = await startReceiver();
  const statusDelaysMs = { sent: 5, delivered: 10, read: 15 };
  const vapi = { timings: { queueMs: 5, ringMs: 10, talkMs: 50, reportMs: 5 } };
  const webhookUrls = () => receiver.url;
  sandbox = await startTestSandbox({ webhookUrls, statusDelaysMs, vapi });
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

async function placeCall(name: string): Promise<{ name: string }> {
  const ids = { assistantId: SANDBOX_ASSISTANT_ID, phoneNumberId: SANDBOX_VAPI_NUMBER_ID };
  const headers = { 'Content-Type': 'application/json', Authorization: 'Bearer key' };
  const body = JSON.stringify({ name, ...ids, customer: { number: `+${PHONE}` } });
  return (await (await fetch(`${sandbox.vapiUrl}/call`, { method: 'POST', headers, body })).json()) as { name: string };
}

describe('control', () => {
  test('when a customer writes and gets a reply, then the chat shows both with their ticks', async () => {
    const written = await call('POST', `/sandbox/customers/${PHONE}/messages`, { text: 'Hi', name: 'Budi' });
    expect(await written.json()).toEqual({ wamid: expect.stringMatching(/^wamid\./), delivered: 200, attempts: 1 });
    await send('Hello');
    await sandbox.kapso.settled();
    expect(await (await call('GET', `/sandbox/customers/%2B${PHONE}/messages`)).json()).toEqual({
      name: 'Budi',
      data: [
        expect.objectContaining({ direction: 'inbound', text: 'Hi', statuses: ['taken'] }),
        expect.objectContaining({ direction: 'outbound', text: 'Hello', statuses: ['sent', 'delivered', 'read'] }),
      ],
    });
    expect(await (await call('GET', '/sandbox/customers/15550100777/messages')).json()).toEqual({ name: null, data: [] });
    expect(await (await call('GET', '/sandbox/stats')).json()).toMatchObject({ kapso: { inbound: 1, accepted: 1 }, models: {} });
  });

  test('when a chat is watched, then replies and ticks are streamed', async () => {
    const response = await call('GET', `/sandbox/customers/${PHONE}/events`);
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    await send('Hello');
    let stream = '';
    while (!stream.includes('"read"')) stream += (await reader?.read())?.value ?? '';
    expect(stream.match(/^event: .*$/gm)).toEqual(['event: reply', 'event: ticks', 'event: ticks', 'event: ticks']);
    await reader?.cancel();
  });

  test('when faults are set and deleted, then they apply in between', async () => {
    expect((await call('PUT', '/sandbox/faults', { kapso: [{ answer: '131026' }], models: [{ model: 'a', reply: 'x' }] })).status).toBe(
      204,
    );
    expect((await send('one')).status).toBe(400);
    expect(await (await call('GET', '/sandbox/faults')).json()).toEqual({
      kapso: [{ answer: '131026' }],
      vapi: [],
      models: [{ model: 'a', reply: 'x' }],
    });
    expect((await call('DELETE', '/sandbox/faults')).status).toBe(204);
    expect((await send('two')).status).toBe(200);
    const wrong = await call('PUT', '/sandbox/faults', { kapso: [{ answer: 'shrug' }] });
    expect([wrong.status, await wrong.text()]).toEqual([400, expect.stringContaining('answer')]);
  });

  test('when a play is set, then the next call follows it, and the phones that rang are counted', async () => {
    expect((await call('PUT', '/sandbox/plays', [{ play: 'busy', times: 1 }])).status).toBe(204);
    expect(await (await call('GET', '/sandbox/plays')).json()).toEqual([{ play: 'busy', times: 1 }]);
    const { name } = await placeCall('first');
    await placeCall('second');
    await sandbox.vapi.settled();
    const { calls, events } = (await (await call('GET', `/sandbox/calls/${name}`)).json()) as { calls: object[]; events: object[] };
    expect(calls).toEqual([expect.objectContaining({ name, play: 'busy', status: 'ended', endedReason: 'customer-busy' })]);
    expect(events.at(-1)).toMatchObject({ type: 'status', status: 'ended' });
    const { data } = (await (await call('GET', '/sandbox/calls')).json()) as { data: { play: string }[] };
    expect(data.map(({ play }) => play)).toEqual(['busy', 'answered']);
    expect(await (await call('GET', '/sandbox/calls/dialled?name=first')).json()).toEqual({ dialled: 1 });
    for (const number of [`+${PHONE}`, `%2B${PHONE}`, PHONE]) {
      expect(await (await call('GET', `/sandbox/calls/dialled?number=${number}`)).json()).toEqual({ dialled: 2 });
    }
    expect(await (await call('GET', '/sandbox/calls/dialled')).json()).toEqual({ dialled: 2 });
    expect(await (await call('GET', '/sandbox/stats')).json()).toMatchObject({ vapi: { dialled: 2, active: 0 } });
  });

  test('when a call is watched before it is placed, then all its events are streamed; a later watcher gets the same events', async () => {
    const watching = await call('GET', '/sandbox/calls/mine/events');
    const live = watching.body?.pipeThrough(new TextDecoderStream()).getReader();
    await placeCall('mine');
    let liveStream = '';
    while (!liveStream.includes('"ended"')) liveStream += (await live?.read())?.value ?? '';
    await live?.cancel();
    const names = (liveStream.match(/^event: .*$/gm) ?? []).map((line) => line.slice('event: '.length));
    expect(names).toEqual(['status', 'status', 'status', ...Array(6).fill('words'), 'status']);
    const late = (await call('GET', '/sandbox/calls/mine/events')).body?.pipeThrough(new TextDecoderStream()).getReader();
    let lateStream = '';
    while (!lateStream.includes('"ended"')) lateStream += (await late?.read())?.value ?? '';
    await late?.cancel();
    expect(lateStream.match(/^event: .*$/gm)).toEqual(liveStream.match(/^event: .*$/gm));
  });

  test('when somebody calls in and hangs up, then the call ends', async () => {
    await call('PUT', '/sandbox/plays', [{ play: 'answered', talkMs: 60_000 }]);
    const { id } = (await (await call('POST', '/sandbox/calls', { from: `+${PHONE}` })).json()) as { id: string };
    await sandbox.vapi.waitForStatus(id, 'in-progress', 3000);
    expect((await call('POST', `/sandbox/calls/${id}/hang-up`)).status).toBe(204);
    expect(await sandbox.vapi.waitForStatus(id, 'ended', 3000)).toMatchObject({ direction: 'inbound', endedReason: 'customer-ended-call' });
    expect((await call('POST', `/sandbox/calls/${id}/hang-up`)).status).toBe(404);
  });

  test.each(['/', '/docs', '/sandbox'])('when %s is requested, then the endpoints are listed', async (path) => {
    const answer = await call('GET', path);
    expect([answer.status, Object.keys(((await answer.json()) as { addresses: object }).addresses)]).toEqual([
      200,
      Object.keys(CONTROL_ENDPOINTS),
    ]);
  });

  test('when the endpoints are listed, then each exists and is described in docs/sandbox.md', async () => {
    const description = readFileSync(`${__dirname}/../../../docs/sandbox.md`, 'utf8');
    for (const address of Object.keys(CONTROL_ENDPOINTS)) {
      const [, method = '', path = ''] = /^(\S+) (.+)$/.exec(address) ?? [];
      expect(description).toContain(`\`${method} ${path.replace(/\?.*/, '')}\``);
      const answer = await call(method, path.replace('<id or name>', 'nobody').replace('<phone>', PHONE));
      if (answer.status === 404) expect(await answer.json()).toEqual({ error: 'no live call with this id or name' });
      else await answer.body?.cancel();
    }
    const unknown = await call('GET', '/sandbox/nowhere');
    expect([unknown.status, await unknown.json()]).toEqual([404, { error: 'no such endpoint; GET / lists them' }]);
  });

  test.each([
    ['PUT', '/sandbox/plays', [{ play: 'opera' }], /^\[0\]\.play: .*"answered"\|"busy"/],
    ['PUT', '/sandbox/plays', { play: 'busy' }, /^body: .*expected array, received object/i],
    ['PUT', '/sandbox/plays', [{ play: 'busy', tims: 1 }], /^\[0\]: unknown field tims; the fields are play, match, times, skip, talkMs$/],
    [
      'PUT',
      '/sandbox/plays',
      [{ play: 'busy', match: { to: '1' } }],
      /^\[0\]\.match: unknown field to; the fields are number, name, metadata$/,
    ],
    ['PUT', '/sandbox/faults', { whatsapp: [] }, /^body: unknown field whatsapp; the fields are kapso, vapi, models$/],
    ['POST', '/sandbox/calls', {}, /^from: must be a phone number such as \+15550100$/],
    ['POST', `/sandbox/customers/${PHONE}/messages`, { text: 1 }, /^text: .*expected string, received number/],
    ['GET', '/sandbox/calls/dialled?number=nobody', undefined, /^number: must be a phone number/],
  ])('when %s %s gets %j, then the response names the field and what is expected', async (method, path, body, error) => {
    const answer = await call(method, path, body);
    expect([answer.status, await answer.json()]).toEqual([
      400,
      { error: expect.stringMatching(error), example: expect.anything(), documentation: 'docs/sandbox.md' },
    ]);
  });

  test('when a body is not JSON, or has no JSON content type, then the response says so', async () => {
    const put = async (body: string, headers: Record<string, string>) =>
      (await fetch(`${sandbox.url}/sandbox/plays`, { method: 'PUT', body, headers })).json();
    expect(await put('[]', {})).toMatchObject({ error: expect.stringContaining('Content-Type: application/json') });
    expect(await put('[busy]', { 'Content-Type': 'application/json' })).toEqual({ error: expect.stringContaining('JSON') });
  });
});
