import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import pino from 'pino';
import { type ReceivedWebhook, type Receiver, startReceiver } from '../receiver';
import { type Sandbox, startSandbox } from '../sandbox';
import { KAPSO_ERRORS } from './bodies';
import { deliveredBeforeSent, failedAfterSent, failedWithoutSent } from './requests';

const SECRET = 'a secret – of tests';
const NUMBER = '100000000000001';
const PHONE = '15550100001';
let receiver: Receiver;
let sandbox: Sandbox;

beforeEach(async () => {
  receiver = await startReceiver();
  sandbox = await startSandbox({
    port: 0,
    webhookUrls: [receiver.url],
    webhookSecret: SECRET,
    phoneNumberId: NUMBER,
    statusDelaysMs: { sent: 5, delivered: 10, read: 15 },
    webhookRetryDelaysMs: [10, 20],
    webhookTimeoutMs: 200,
    log: pino({ level: 'silent' }),
  });
});
afterEach(async () => {
  await sandbox.close();
  await receiver.close();
});

function fixture(name: string): unknown {
  return JSON.parse(readFileSync(`${__dirname}/../../../test/fixtures/kapso/${name}.json`, 'utf8'));
}

/** Field names and types of a JSON value; strings of digits are a type of their own. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shape);
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shape(inner)]));
  return typeof value === 'string' && /^\d+$/.test(value) ? 'digits' : typeof value;
}

function post(
  body: unknown,
  { number = NUMBER, key = 'key' as string | null, signal = AbortSignal.timeout(3000) } = {},
): Promise<Response> {
  const headers = { 'Content-Type': 'application/json', ...(key === null ? {} : { 'X-API-Key': key }) };
  const url = `${sandbox.url}/meta/whatsapp/v24.0/${number}/messages`;
  return fetch(url, { method: 'POST', headers, body: typeof body === 'string' ? body : JSON.stringify(body), signal });
}

function text(body: string, extra: object = {}): object {
  return { messaging_product: 'whatsapp', recipient_type: 'individual', to: `+${PHONE}`, type: 'text', text: { body }, ...extra };
}

interface Page {
  data: { id: string }[];
  paging: { next: string | null };
}

async function get(path: string): Promise<{ status: number; body: Page }> {
  const response = await fetch(`${sandbox.url}${path}`, { headers: { 'X-API-Key': 'key' } });
  return { status: response.status, body: (await response.json()) as Page };
}

function parsed(webhook: ReceivedWebhook | undefined): { message: { id: string; kapso: { statuses: { status: string }[] } } } {
  return JSON.parse(webhook?.raw ?? '');
}

describe('sends', () => {
  test.each(['text', 'text_reply', 'text_bsuid', 'image', 'document', 'buttons', 'list', 'template', 'reaction'])(
    'when the documented %s request is sent, then it is accepted, with the documented response',
    async (name) => {
      const response = await post(fixture(`send_request_${name}`));
      const expected = fixture(name === 'text_bsuid' ? 'send_success_bsuid' : 'send_success');
      expect(response.status).toBe(200);
      expect(shape(await response.json())).toEqual(shape(expected));
    },
  );

  test('when a message is marked as read with a typing indicator, then the chat shows both', async () => {
    const { wamid } = await sandbox.kapso.customerSends({ from: PHONE, text: 'Hi' });
    const events: string[] = [];
    sandbox.kapso.subscribe(PHONE, (event) => events.push(event.type));
    const body = { ...(fixture('send_request_mark_read_typing') as object), message_id: wamid };
    expect(await (await post(body)).json()).toEqual(fixture('mark_read_success'));
    expect(events).toEqual(['ticks', 'typing']);
    expect(sandbox.kapso.chat(PHONE)[0]?.statuses).toEqual(['taken', 'read']);
  });

  test('when the request is invalid, then it is rejected with Meta’s code 100', async () => {
    const bodies = [
      text('x'.repeat(4097)),
      text(''),
      text('a', { to: undefined }),
      text('a', { messaging_product: 'x' }),
      {},
      text('a', { type: 'fax' }),
    ];
    for (const body of bodies) {
      const response = await post(body);
      expect(response.status).toBe(400);
      expect(shape(await response.json())).toEqual(shape(fixture('send_error_100')));
    }
    expect((await post('{broken')).status).toBe(400);
    expect(sandbox.kapso.counts()).toMatchObject({ accepted: 0, refused: bodies.length });
  });

  test('when the key is missing, then the response is a 401 in Kapso’s format', async () => {
    const response = await post(text('a'), { key: null });
    expect(response.status).toBe(401);
    expect(await response.json()).toEqual(fixture('send_error_401'));
  });

  test('when the double is strict, then an unknown number gets a 404, and a second send in flight a 409', async () => {
    const strict = await startSandbox({
      port: 0,
      webhookUrls: [],
      webhookSecret: SECRET,
      phoneNumberId: NUMBER,
      strict: true,
      log: pino({ level: 'silent' }),
    });
    const usual = sandbox;
    sandbox = strict;
    const foreign = await post(text('a'), { number: '9' });
    expect([foreign.status, await foreign.json()]).toEqual([404, fixture('send_error_404')]);
    strict.kapso.fault({ times: 1, delayBeforeMs: 100 });
    const first = post(text('a'));
    await strict.kapso.waitForSends(1, 1000);
    const second = await post(text('b'));
    expect([second.status, await second.json()]).toEqual([409, fixture('send_error_409_in_flight')]);
    expect((await first).status).toBe(200);
    expect((await post(text('c'))).status).toBe(200);
    sandbox = usual;
    await strict.close();
  });

  test.each([
    ['100', 'send_error_100'],
    ['130429', 'send_error_130429'],
    ['131000', 'send_error_131000'],
    ['131026', 'send_error_131026'],
    ['131047', 'send_error_131047'],
    ['131056', 'send_error_131056'],
    ['190', 'send_error_401_meta_190'],
    ['401', 'send_error_401'],
    ['404', 'send_error_404'],
    ['409', 'send_error_409_in_flight'],
    ['422_window', 'send_error_422_window'],
    ['422', 'send_error_422_other'],
    ['429', 'send_error_429_kapso'],
    ['500', 'send_error_500_kapso'],
  ] as const)('when %s is programmed, then the response has the shape of %s', (name, file) => {
    const entry = (fixture('index') as { files: { file: string; status?: number }[] }).files.find((each) => each.file === `${file}.json`);
    const { status, body } = KAPSO_ERRORS[name];
    const expected = fixture(file) as { error: string | { message: string; code: number } };
    expect(status).toBe(entry?.status);
    expect(shape(body)).toEqual(shape(expected));
    if (typeof expected.error === 'string') expect(body).toMatchObject({ error: expected.error });
    else expect(body).toMatchObject({ error: { code: expected.error.code } });
  });
});

describe('statuses', () => {
  test('when a send is accepted, then signed sent, delivered and read follow in the documented shapes', async () => {
    await sandbox.kapso.customerSends({ from: PHONE, text: 'Hi' });
    await post(text('Hello', { biz_opaque_callback_data: 'our-id' }));
    await sandbox.kapso.settled();
    for (const [status, file] of Object.entries({ sent: 'sent_api', delivered: 'delivered', read: 'read' })) {
      const [webhook] = await receiver.waitFor(`whatsapp.message.${status}`, 1);
      expect(shape(parsed(webhook))).toEqual(shape(fixture(`webhook_v2_message_${file}`)));
      expect(webhook?.raw).toContain('"biz_opaque_callback_data":"our-id"');
      expect(webhook?.headers['x-webhook-signature']).toBe(
        createHmac('sha256', SECRET)
          .update(webhook?.raw ?? '')
          .digest('hex'),
      );
      expect(webhook?.headers).toMatchObject({
        'x-webhook-payload-version': 'v2',
        'x-idempotency-key': expect.stringMatching(/^[0-9a-f-]{36}$/),
      });
    }
  });

  test('when a send fails afterwards, then failed comes with or without sent, and the customer sees nothing', async () => {
    sandbox.kapso.fault({ times: 1, statuses: failedAfterSent(131047) });
    sandbox.kapso.fault({ times: 1, statuses: failedWithoutSent(131026) });
    await post(text('one'));
    await post(text('two'));
    const failed = await receiver.waitFor('whatsapp.message.failed', 2);
    const statuses = failed.map((webhook) => parsed(webhook).message.kapso.statuses.map(({ status }) => status));
    expect(statuses.sort()).toEqual([['failed'], ['sent', 'failed']]);
    const both = failed.find((webhook) => parsed(webhook).message.kapso.statuses.length === 2);
    const expected = fixture('webhook_v2_message_failed_131047') as { message: { kapso: { statuses: { status: string }[] } } };
    const last = (body: typeof expected) => shape(body.message.kapso.statuses.at(-1));
    expect(last(parsed(both))).toEqual(last(expected));
    expect(sandbox.kapso.visibleTo(PHONE)).toEqual([]);
  });

  test('when statuses are reordered, duplicated or dropped, then the webhooks are too', async () => {
    sandbox.kapso.fault({ times: 1, statuses: deliveredBeforeSent(5) });
    sandbox.kapso.fault({ times: 1, dropStatuses: ['sent'], duplicateStatuses: ['read'] });
    await post(text('one'));
    await sandbox.kapso.settled();
    await post(text('two'));
    await sandbox.kapso.settled();
    expect(receiver.webhooks.map(({ event }) => event.split('.')[2])).toEqual(['delivered', 'sent', 'read', 'delivered', 'read', 'read']);
  });

  test('when the status is to come first, then the response comes after its webhook', async () => {
    sandbox.kapso.fault({ statusBeforeAnswer: true, statuses: [{ status: 'sent', afterMs: 0 }] });
    const answer = (await (await post(text('one'))).json()) as { messages: { id: string }[] };
    expect(parsed(receiver.webhooks[0]).message.id).toBe(answer.messages[0]?.id);
  });
});

describe('faults of a send', () => {
  test('when the response is cut or hangs, then the message is visible only if it was accepted', async () => {
    sandbox.kapso.fault({ times: 1, answer: 'cut' });
    sandbox.kapso.fault({ times: 1, answer: 'cut', accepted: true });
    sandbox.kapso.fault({ times: 1, answer: 'hang' });
    sandbox.kapso.fault({ times: 1, answer: 'hang', accepted: true });
    for (const word of ['cut before', 'cut after', 'hang before', 'hang after']) {
      await expect(post(text(word), { signal: AbortSignal.timeout(100) })).rejects.toThrow();
    }
    expect(sandbox.kapso.visibleTo(PHONE).map((message) => message.text)).toEqual(['cut after', 'hang after']);
    expect(sandbox.kapso.counts()).toMatchObject({ sends: 4, accepted: 2, unanswered: 4, refused: 0 });
  });

  test('when a 502 page or a 429 with Retry-After is programmed for one customer, then others are not affected', async () => {
    sandbox.kapso.fault({ match: { to: '+1 555 010 0001' }, times: 1, answer: '502_html', accepted: true });
    sandbox.kapso.fault({ match: { text: 'slow' }, answer: '429', retryAfterSeconds: 2 });
    expect((await post(text('other', { to: '+15550100002' }))).status).toBe(200);
    const page = await post(text('one'));
    expect([page.status, page.headers.get('content-type'), (await page.text()).startsWith('<html>')]).toEqual([
      502,
      'text/html; charset=utf-8',
      true,
    ]);
    const limited = await post(text('go slow'));
    expect([limited.status, limited.headers.get('retry-after')]).toEqual([429, '2']);
    expect(sandbox.kapso.visibleTo(PHONE)).toHaveLength(1);
  });

  test('when messages become visible, then waits resolve; otherwise the error says how many are visible', async () => {
    const waiting = sandbox.kapso.waitForVisible(PHONE, 2, 1000);
    await post(text('one'));
    await post(text('two'));
    expect((await waiting).map((message) => message.text)).toEqual(['one', 'two']);
    await expect(sandbox.kapso.waitForVisible(PHONE, 3, 20)).rejects.toThrow('2 of 3 messages are visible');
  });
});

describe('customers', () => {
  test('when a customer writes, then the webhook has the documented shape', async () => {
    expect(await sandbox.kapso.customerSends({ from: `+${PHONE}`, name: 'Budi', text: 'Hi' })).toMatchObject({ status: 200, attempts: 1 });
    await sandbox.kapso.customerSends({ from: 'ID.10000000000000000001', text: 'Hi' });
    await sandbox.kapso.customerSends({ from: PHONE, text: 'that', replyTo: 'wamid.x' });
    await sandbox.kapso.customerSendsBatch([{ from: '15550100009', text: 'batch' }]);
    const [first, identity, quoting, batch] = receiver.webhooks.map((webhook) => shape(JSON.parse(webhook.raw)));
    expect(first).toEqual(shape(fixture('webhook_v2_received_text')));
    expect(JSON.stringify(identity)).toContain('from_user_id');
    expect(JSON.stringify(identity)).not.toContain('"from"');
    expect(quoting).toMatchObject(shape({ message: { context: { id: 'x', from: '1' } } }) as object);
    expect(batch).toEqual(shape(fixture('webhook_v2_batch_received_1')));
    expect(receiver.webhooks[3]?.headers).toMatchObject({ 'x-webhook-batch': 'true', 'x-batch-size': '1' });
  });

  test.each(['image', 'audio', 'document', 'location', 'contacts', 'button_reply', 'list_reply', 'reaction', 'unsupported'] as const)(
    'when a customer sends %s, then the type and its object are the documented ones',
    async (kind) => {
      await sandbox.kapso.customerSends({ from: PHONE, kind, text: 'x', replyTo: 'wamid.x' });
      const file = { image: 'image_caption', audio: 'audio_voice' }[kind as string] ?? kind;
      const expected = (fixture(`webhook_v2_received_${file}`) as { message: { type: string } }).message;
      const message = (JSON.parse(receiver.webhooks[0]?.raw ?? '') as { message: Record<string, unknown> }).message;
      expect(message.type).toBe(expected.type);
      expect(Object.keys(message)).toEqual(expect.arrayContaining(Object.keys(expected).filter((key) => key !== 'context')));
    },
  );

  test('when Parley does not respond with 200, then the webhook is retried with the same key, and finally abandoned', async () => {
    receiver.answers.push(503, 0);
    expect(await sandbox.kapso.customerSends({ from: PHONE, text: 'a' })).toMatchObject({ status: 200, attempts: 3 });
    expect(new Set(receiver.webhooks.map(({ headers }) => headers['x-idempotency-key'])).size).toBe(1);
    receiver.answers.push(202, 500, 500);
    expect(await sandbox.kapso.customerSends({ from: PHONE, text: 'b' })).toMatchObject({ status: 500, attempts: 3 });
    expect(sandbox.kapso.counts().webhooks).toMatchObject({ delivered: 1, lost: 1, open: 0, attempts: 6 });
  });

  test('when an earlier message of a conversation is still being retried, then later ones wait; other conversations do not', async () => {
    receiver.answers.push(500);
    await Promise.all([
      sandbox.kapso.customerSends({ from: PHONE, text: 'first' }),
      sandbox.kapso.customerSends({ from: PHONE, text: 'second' }),
      sandbox.kapso.customerSends({ from: '15550100002', text: 'other' }),
    ]);
    const order = receiver.webhooks.map(({ raw }) => (JSON.parse(raw) as { message: { text: { body: string } } }).message.text.body);
    expect(order.filter((body) => body !== 'other')).toEqual(['first', 'first', 'second']);
    expect(order.indexOf('other')).toBeLessThan(order.indexOf('second'));
  });

  test('when a message is redelivered or sent raw, then the ids stay the same, and given headers override the defaults', async () => {
    const { wamid } = await sandbox.kapso.customerSends({ from: PHONE, text: 'a' });
    await sandbox.kapso.redeliver(wamid);
    await sandbox.kapso.redeliver(wamid, { sameKey: false });
    const keys = receiver.webhooks.map(({ headers }) => headers['x-idempotency-key']);
    expect([keys[0] === keys[1], keys[1] === keys[2]]).toEqual([true, false]);
    expect(receiver.webhooks.every((webhook) => parsed(webhook).message.id === wamid)).toBe(true);
    await sandbox.kapso.deliver('{"n": 1.0}', { 'x-webhook-signature': 'bad', 'X-Idempotency-Key': '' });
    expect(receiver.webhooks[3]).toMatchObject({ raw: '{"n": 1.0}', headers: { 'x-webhook-signature': 'bad' } });
    expect(receiver.webhooks[3]?.headers['x-idempotency-key']).toBeUndefined();
  });

  test('when a person answers from the phone app, then the sent event has the documented shape', async () => {
    await sandbox.kapso.customerSends({ from: PHONE, text: 'a' });
    await sandbox.kapso.personReplies(PHONE, 'mine');
    const [webhook] = await receiver.waitFor('whatsapp.message.sent', 1);
    expect(shape(parsed(webhook))).toEqual(shape(fixture('webhook_v2_message_sent_business_app')));
  });
});

describe('lists', () => {
  test('when messages are listed, then the rows have the documented shape, newest first', async () => {
    await sandbox.kapso.customerSends({ from: PHONE, text: 'Hi' });
    await post(text('Hello', { biz_opaque_callback_data: 'our-id' }));
    await sandbox.kapso.settled();
    const { status, body } = await get(`/meta/whatsapp/v24.0/${NUMBER}/messages`);
    const expected = fixture('api_list_messages_page') as { data: object[]; paging: { next: string | null } };
    expect(status).toBe(200);
    expect(shape(body)).toEqual(shape({ ...expected, paging: { ...expected.paging, next: null } }));
    expect((await get(`/platform/v1/whatsapp/messages?phone_number_id=${NUMBER}`)).body.data).toEqual(body.data);
    expect((await get('/platform/v1/whatsapp/messages?phone_number_id=9')).body).toEqual(fixture('api_list_messages_last_page'));
    const first = body.data[0]?.id ?? '';
    expect((await get(`/platform/v1/whatsapp/messages/${encodeURIComponent(first)}`)).body.data).toEqual(body.data[0]);
  });

  test('when there are several pages, then following the cursor returns every message once', async () => {
    for (let index = 0; index < 5; index += 1) await post(text(`m${index}`));
    const path = `/meta/whatsapp/v24.0/${NUMBER}/messages?direction=outbound&limit=2`;
    const ids: string[] = [];
    for (let next: string | null = ''; next !== null; ) {
      const { body } = await get(next === '' ? path : `${path}&after=${encodeURIComponent(next)}`);
      ids.push(...body.data.map(({ id }) => id));
      next = body.paging.next;
    }
    expect(ids).toEqual(
      sandbox.kapso
        .visibleTo(PHONE)
        .map(({ wamid }) => wamid)
        .reverse(),
    );
    expect((await get(`${path}&since=${new Date(Date.now() + 1000).toISOString()}`)).body.data).toEqual([]);
    expect((await get(`/meta/whatsapp/v24.0/${NUMBER}/messages?limit=101`)).status).toBe(400);
  });

  test('when a message is omitted from lists, or the list is to fail, then the responses show it', async () => {
    sandbox.kapso.fault({ times: 1, omitFromList: true });
    await post(text('hidden'));
    await post(text('shown'));
    const path = `/meta/whatsapp/v24.0/${NUMBER}/messages`;
    expect((await get(path)).body.data).toHaveLength(1);
    sandbox.kapso.fault({ on: 'list', times: 1, answer: '500' });
    expect((await get(path)).status).toBe(500);
  });

  test('when the store is full, then the oldest messages are dropped, and paging still works', async () => {
    const small = await startSandbox({
      port: 0,
      webhookUrls: [],
      webhookSecret: SECRET,
      phoneNumberId: NUMBER,
      keepMessages: 10,
      log: pino({ level: 'silent' }),
    });
    const usual = sandbox;
    sandbox = small;
    for (let index = 0; index < 25; index += 1) await post(text(`m${index}`));
    const { body } = await get(`/meta/whatsapp/v24.0/${NUMBER}/messages?limit=4`);
    const { body: second } = await get(
      `/meta/whatsapp/v24.0/${NUMBER}/messages?limit=4&after=${encodeURIComponent(body.paging.next ?? '')}`,
    );
    const texts = small.kapso.visibleTo(PHONE).map((message) => message.text);
    sandbox = usual;
    expect(texts.length).toBeLessThanOrEqual(10);
    expect(texts.at(-1)).toBe('m24');
    expect(second.data).toHaveLength(4);
    expect(second.data.map(({ id }) => id)).not.toContain(body.data.at(-1)?.id);
    await small.close();
  });
});

describe('webhooks', () => {
  const path = `/platform/v1/whatsapp/phone_numbers/${NUMBER}/webhooks`;

  async function ask(method: string, suffix: string, webhook?: object): Promise<{ status: number; text: string }> {
    const response = await fetch(`${sandbox.url}${path}${suffix}`, {
      method,
      headers: { 'Content-Type': 'application/json', 'X-API-Key': 'key' },
      ...(webhook === undefined ? {} : { body: JSON.stringify({ whatsapp_webhook: webhook }) }),
    });
    return { status: response.status, text: await response.text() };
  }

  test('when one is created as documented, then the response is the documented one, and it gets signed events', async () => {
    const { whatsapp_webhook: documented } = fixture('api_webhook_create_request') as { whatsapp_webhook: object };
    const { status, text: created } = await ask('POST', '', { ...documented, url: receiver.url, secret_key: 'another secret' });
    expect(status).toBe(201);
    const { project_id: _project, ...fields } = (fixture('api_webhook_create_response') as { data: Record<string, unknown> }).data;
    expect(Object.keys(JSON.parse(created).data).sort()).toEqual(Object.keys(fields).sort());
    await sandbox.kapso.customerSends({ from: PHONE, text: 'hello' });
    const signatures = receiver.webhooks.map(({ raw, headers }) =>
      [SECRET, 'another secret'].findIndex((key) => createHmac('sha256', key).update(raw).digest('hex') === headers['x-webhook-signature']),
    );
    expect(signatures.sort()).toEqual([0, 1]);
  });

  test('when one is paused, then its events are lost, also those that it was about to try again, until it is switched on', async () => {
    const [webhook] = sandbox.kapso.platform.webhooks;
    receiver.answers.push(0);
    const retried = sandbox.kapso.customerSends({ from: PHONE, text: 'retried' });
    await receiver.waitFor('whatsapp.message.received', 1);
    expect(await ask('PATCH', `/${webhook?.id}`, { active: false })).toEqual({ status: 204, text: '' });
    expect(await retried).toMatchObject({ status: 0, attempts: 1 });
    expect(await sandbox.kapso.customerSends({ from: PHONE, text: 'lost' })).toMatchObject({ status: 0, attempts: 0 });
    expect(receiver.webhooks).toHaveLength(1);
    await ask('PATCH', `/${webhook?.id}`, { active: true });
    expect(await sandbox.kapso.customerSends({ from: PHONE, text: 'back' })).toMatchObject({ status: 200, attempts: 1 });
    expect((await get(`/meta/whatsapp/v24.0/${NUMBER}/messages`)).body.data).toHaveLength(3);
  });

  test.each([
    ['an address that is not https', { url: 'http://parley.example.com/hook', events: [] }],
    ['an event of another scope', { url: 'https://parley.example.com/hook', events: ['whatsapp.phone_number.created'] }],
    ['a buffer window of two minutes', { url: 'https://parley.example.com/hook', buffer_window_seconds: 120 }],
  ])('when one has %s, then it is refused', async (_what, webhook) => {
    expect((await ask('POST', '', webhook)).status).toBe(422);
    expect(sandbox.kapso.platform.webhooks).toHaveLength(1);
  });

  test('when one is deleted or unknown, then it is a 404', async () => {
    const [webhook] = sandbox.kapso.platform.webhooks;
    expect((await ask('DELETE', `/${webhook?.id}`)).status).toBe(204);
    for (const [method, change] of [['GET'], ['DELETE'], ['PATCH', { active: true }]] as const)
      expect((await ask(method, `/${webhook?.id}`, change)).status).toBe(404);
  });
});

describe('the past', () => {
  test('when messages from before are added, then the lists are in the order of time, page by page', async () => {
    await sandbox.kapso.customerSends({ from: PHONE, text: 'now' });
    const atMs = Date.now() - 3_600_000;
    sandbox.kapso.remembers(
      [3, 1, 2].map((hour) => ({ with: PHONE, name: 'Ann', direction: 'inbound', text: `hour ${hour}`, atMs: atMs + hour * 1_000 })),
    );
    const ids: string[] = [];
    for (let after = ''; ; ) {
      const { body } = await get(`/meta/whatsapp/v24.0/${NUMBER}/messages?limit=2${after}`);
      ids.push(...body.data.map((row) => (row as unknown as { text: { body: string } }).text.body));
      if (body.paging.next === null) break;
      after = `&after=${encodeURIComponent(body.paging.next)}`;
    }
    expect(ids).toEqual(['now', 'hour 3', 'hour 2', 'hour 1']);
    const since = new Date(atMs + 1_500).toISOString();
    const until = new Date(atMs + 2_500).toISOString();
    expect((await get(`/meta/whatsapp/v24.0/${NUMBER}/messages?since=${since}&until=${until}`)).body.data).toHaveLength(1);
  });

  test('when conversations are listed, then a row has the documented form, and pages follow each other', async () => {
    for (const phone of ['15550100011', '15550100012', '15550100013'])
      sandbox.kapso.remembers([
        { with: phone, direction: 'inbound', text: 'hi', atMs: Date.now() - 2_000 },
        { with: phone, direction: 'outbound', text: 'hello', atMs: Date.now() - 1_000 },
      ]);
    const path = `/platform/v1/whatsapp/conversations?phone_number_id=${NUMBER}&limit=2`;
    const { body } = await get(path);
    expect(shape(body.data[0])).toEqual(shape((fixture('api_list_conversations_page') as Page).data[0]));
    const next = await get(`${path}&after=${encodeURIComponent(body.paging.next ?? '')}`);
    expect([body.data.length, next.body.data.length, next.body.paging.next]).toEqual([2, 1, null]);
    expect((await get(`/platform/v1/whatsapp/conversations/${body.data[0]?.id}`)).status).toBe(200);
    expect((await get('/platform/v1/whatsapp/conversations/unknown')).status).toBe(404);
  });
});

test('when there are more requests in a minute than the limit, then they get a 429 that says how long to wait', async () => {
  await sandbox.close();
  sandbox = await startSandbox({
    ...{ port: 0, webhookUrls: [], webhookSecret: SECRET, phoneNumberId: NUMBER, requestsPerMinute: 2 },
    log: pino({ level: 'silent' }),
  });
  const ask = () => fetch(`${sandbox.url}/platform/v1/whatsapp/phone_numbers`, { headers: { 'X-API-Key': 'key' } });
  const responses = [await ask(), await ask(), await ask()];
  expect(responses.map(({ status }) => status)).toEqual([200, 200, 429]);
  expect(responses.map(({ headers }) => headers.get('X-RateLimit-Remaining'))).toEqual(['1', '0', '0']);
  expect(Number(responses[2]?.headers.get('Retry-After'))).toBeGreaterThan(50);
});
