/** The webhook and the REST API over real HTTP: what is taken, what is refused, and what is in the record afterwards. */
import { createHmac, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { freePort } from '../src/local/embedded/ports';
import { balance, eventually, newPhone, outcomesOf } from './support/expectations';
import { startSuite } from './support/suite';
import { API_KEY, type System, startProcess, WEBHOOK_SECRET } from './support/system';

const PHONE_NUMBER_ID = '100000000000001';
const FIXTURES = 'test/fixtures/kapso';
/** Senders exist that use these: they are promised, so they stand here as well as in the product. */
const PATHS = ['/webhook/kapso', '/api/webhook/kapso', '/api/whatsapp/webhook'];

let system: System;

beforeAll(async () => {
  system = await startSuite('webhooks', {
    phoneNumberId: PHONE_NUMBER_ID,
    environment: () => ({ KAPSO_WEBHOOK_SECRET: `${WEBHOOK_SECRET},older-secret`, LOG_LEVEL: 'debug' }),
  });
});

afterAll(async () => {
  await system?.close();
});

const sign = (body: Buffer | string, secret = WEBHOOK_SECRET) => createHmac('sha256', secret).update(body).digest('hex');

async function post(body: Buffer | string, headers: Record<string, string> = {}, path = '/webhook/kapso'): Promise<Response> {
  return await fetch(`${system.apiUrl}${path}`, {
    method: 'POST',
    body,
    headers: { 'Content-Type': 'application/json', 'X-Webhook-Signature': sign(body), 'X-Idempotency-Key': randomUUID(), ...headers },
  });
}

const plain = (phone: string, id: string, text = 'hi') =>
  JSON.stringify({ messages: [{ from: phone, id, timestamp: String(Math.floor(Date.now() / 1000)), text: { body: text } }] });

interface Fixture {
  file: string;
  headers: Record<string, string>;
}

const index: { files: (Fixture & { kind: string })[] } = JSON.parse(readFileSync(`${FIXTURES}/index.json`, 'utf8'));
const fixtures: Fixture[] = index.files.filter(({ file }) => /^(webhook_|meta_raw_)/.test(file));

/** The fixture's own headers, with the signature that the index leaves to the test. */
async function postFixture({ file, headers }: Fixture): Promise<Response> {
  const body = readFileSync(`${FIXTURES}/${file}`);
  const signed = Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name,
      /signature-256/i.test(name) ? `sha256=${sign(body)}` : /signature/i.test(name) ? sign(body) : value,
    ]),
  );
  const hasSignature = Object.keys(signed).some((name) => /signature/i.test(name));
  return await fetch(`${system.apiUrl}/webhook/kapso`, {
    method: 'POST',
    body,
    headers: { 'Content-Type': 'application/json', ...(hasSignature ? {} : { 'X-Hub-Signature-256': `sha256=${sign(body)}` }), ...signed },
  });
}

/** Repeats the webhook, as Kapso does, until Temporal is fast enough to store it. */
async function postUntilTaken(fixture: Fixture): Promise<Response> {
  for (;;) {
    const answer = await postFixture(fixture);
    if (answer.status !== 503) return answer;
    await answer.arrayBuffer();
  }
}

/**
 * WhatsApp's ids of the inbound messages anywhere in a webhook: what is under `message` or in `messages` and is not said to be outbound.
 * Read without the product's code, which is what the fixtures are to test.
 */
function inboundIdsIn(value: unknown, name = ''): string[] {
  if (Array.isArray(value)) return value.flatMap((item) => inboundIdsIn(item, name));
  if (typeof value !== 'object' || value === null) return [];
  const { id, whatsapp_message_id, direction, kapso } = value as Record<string, unknown>;
  const inside = Object.entries(value).flatMap(([key, item]) => inboundIdsIn(item, key));
  const isInbound = ((kapso as { direction?: unknown } | undefined)?.direction ?? direction ?? 'inbound') === 'inbound';
  const isMessage = /^messages?$/.test(name) && isInbound;
  if (!isMessage) return inside;
  const wamid = whatsapp_message_id ?? id;
  if (typeof wamid !== 'string') throw new Error('a message of a fixture has no id');
  return [wamid, ...inside];
}

describe('fixtures', () => {
  const inboundIds = [...new Set(fixtures.flatMap(({ file }) => inboundIdsIn(JSON.parse(readFileSync(`${FIXTURES}/${file}`, 'utf8')))))];

  test('when every fixture is posted, three times at once, and again inside a batch, then each inbound message is recorded exactly once', async () => {
    expect(fixtures.length).toBeGreaterThan(30);
    expect(inboundIds.length).toBeGreaterThan(15);
    const answers = await Promise.all([...fixtures, ...fixtures, ...fixtures].map(postUntilTaken));
    for (const answer of answers) {
      expect(answer.status).toBe(200);
      expect(await answer.json()).toEqual({ received: true });
    }
    const singles = fixtures
      .filter(({ file }) => /^webhook_v2_received/.test(file))
      .map(({ file }) => JSON.parse(readFileSync(`${FIXTURES}/${file}`, 'utf8')));
    const batch = JSON.stringify({ type: 'whatsapp.message.received', batch: true, data: singles, batch_info: { size: singles.length } });
    expect((await post(batch, { 'X-Webhook-Batch': 'true' })).status).toBe(200);

    await eventually(async () => {
      const rows = await system.db.message.findMany({
        where: { direction: 'inbound' },
        select: { providerMessageId: true, outcome: true },
      });
      expect(rows.map((row) => row.providerMessageId).sort()).toEqual([...inboundIds].sort());
      expect(rows.filter((row) => row.outcome === null)).toEqual([]);
    }, 30_000);
    expect((await balance(system.db)).total).toBe(inboundIds.length);
  });

  test('when statuses of messages that are not ours come, then they are kept and change nothing', async () => {
    const events = await system.db.messageStatusEvent.findMany({ where: { providerMessageId: 'wamid.ZmFrZS1vdXQtdGV4dC0x' } });
    expect(events.map((event) => event.status).sort()).toEqual(['delivered', 'failed', 'read', 'sent']);
  });
});

describe('webhook', () => {
  test.each(PATHS)('when a message is posted to %s, then it is answered', async (path) => {
    const phone = newPhone();
    const answer = await post(plain(phone, `wamid.${randomUUID()}`), {}, path);
    expect([answer.status, await answer.json()]).toEqual([200, { received: true }]);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  });

  test.each([
    ['sha256= before it', (body: string) => ({ 'X-Webhook-Signature': `sha256=${sign(body)}` })],
    ['Meta’s header', (body: string) => ({ 'X-Webhook-Signature': '', 'X-Hub-Signature-256': `sha256=${sign(body)}` })],
    ['the older secret', (body: string) => ({ 'X-Webhook-Signature': sign(body, 'older-secret') })],
  ])('when the signature comes with %s, then the message is taken', async (_what, headers) => {
    const body = plain(newPhone(), `wamid.${randomUUID()}`);
    const given = Object.fromEntries(Object.entries(headers(body)).filter(([, value]) => value !== ''));
    const answer = await fetch(`${system.apiUrl}/webhook/kapso`, {
      method: 'POST',
      body,
      headers: { 'Content-Type': 'application/json', ...given },
    });
    expect(answer.status).toBe(200);
  });

  test.each([
    ['missing', {}],
    ['of another secret', { 'X-Webhook-Signature': sign('{}', 'wrong') }],
    ['of another body', { 'X-Webhook-Signature': sign('{"a":1}') }],
    ['not hex', { 'X-Webhook-Signature': 'zz' }],
    ['empty', { 'X-Webhook-Signature': '' }],
  ])('when the signature is %s, then the answer is 401 and nothing else happens', async (_what, headers) => {
    const phone = newPhone();
    const answer = await fetch(`${system.apiUrl}/webhook/kapso`, {
      method: 'POST',
      body: plain(phone, `wamid.${randomUUID()}`),
      headers: { 'Content-Type': 'application/json', ...headers },
    });
    expect(answer.status).toBe(401);
    // A message that comes after it is recorded, and the refused one is not.
    const witness = newPhone();
    await post(plain(witness, `wamid.${randomUUID()}`));
    await outcomesOf(system, witness, 1);
    expect(await system.db.contact.count({ where: { phone } })).toBe(0);
  });

  test('when one byte of the body is changed, then the answer is 401', async () => {
    const body = plain(newPhone(), 'wamid.A');
    expect((await post(body.replace('wamid.A', 'wamid.B'), { 'X-Webhook-Signature': sign(body) })).status).toBe(401);
  });

  test('when the JSON is broken and the signature good, then it is kept, and logged with its idempotency key', async () => {
    const idempotencyKey = randomUUID();
    const answer = await post('{"message": {', { 'X-Idempotency-Key': idempotencyKey });
    expect([answer.status, await answer.json()]).toEqual([200, { received: true }]);
    const line = JSON.parse(await system.api.line(idempotencyKey));
    expect(line).toMatchObject({ level: 'error', idempotencyKey });
    expect(await system.db.deadLetter.count({ where: { reason: 'not_json' } })).toBe(1);
  });

  test('when the body is larger than 3 MB, then the answer is 413; just below, it is taken', async () => {
    const body = (bytes: number) => JSON.stringify({ filler: 'x'.repeat(bytes) });
    expect((await post(body(3 * 1024 * 1024))).status).toBe(413);
    expect((await post(body(3 * 1024 * 1024 - 100))).status).toBe(200);
  });

  test('when a body is nested very deep, then it is taken and the API lives on', async () => {
    const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`;
    expect((await post(deep)).status).toBe(200);
    expect(
      (await post(`{"messages":[{"id":"wamid.${randomUUID()}","from":"${newPhone()}","type":"contacts","contacts":${deep}}]}`)).status,
    ).toBe(200);
    expect((await fetch(`${system.apiUrl}/healthz`)).status).toBe(200);
  });

  test('when text has NUL and half a surrogate pair, then it is recorded and answered', async () => {
    const phone = newPhone();
    await post(`{"messages":[{"id":"wamid.${randomUUID()}","from":"${phone}","text":{"body":"a\\u0000b\\ud83d"}}]}`);
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  });

  test('when a Meta envelope brings a thousand messages of one person, then all are recorded and answered in one turn', async () => {
    const phone = newPhone();
    const messages = Array.from({ length: 1_000 }, (_, index) => ({
      from: phone,
      id: `wamid.${phone}.${index}`,
      timestamp: String(Math.floor(Date.now() / 1_000)),
      type: 'text',
      text: { body: 'x'.repeat(1_500) },
    }));
    const value = {
      messaging_product: 'whatsapp',
      metadata: { phone_number_id: PHONE_NUMBER_ID },
      contacts: [{ profile: { name: 'N' }, wa_id: phone }],
      messages,
    };
    const body = JSON.stringify({ object: 'whatsapp_business_account', entry: [{ id: '1', changes: [{ field: 'messages', value }] }] });
    expect((await post(body, { 'X-Hub-Signature-256': `sha256=${sign(body)}` })).status).toBe(200);
    const outcomes = await outcomesOf(system, phone, 1_000, 30_000);
    expect(outcomes.filter((outcome) => outcome === 'answered').length).toBeLessThanOrEqual(4);
    expect(new Set(outcomes)).toEqual(new Set(['merged', 'answered']));
  });

  test('when the three documented senders retry the same message, then it stays one', async () => {
    const phone = newPhone();
    const body = plain(phone, `wamid.${randomUUID()}`);
    await Promise.all(PATHS.map((path) => post(body, {}, path)));
    await outcomesOf(system, phone, 1);
    await post(body);
    await system.sandbox.kapso.settled();
    expect(system.sandbox.kapso.visibleTo(phone)).toHaveLength(1);
  });
});

describe('handshake', () => {
  const ask = (path: string, query: Record<string, string>) => fetch(`${system.apiUrl}${path}?${new URLSearchParams(query)}`);

  test.each(PATHS)('when Meta asks %s with the right token, then the challenge comes back as text', async (path) => {
    const answer = await ask(path, { 'hub.mode': 'subscribe', 'hub.challenge': '1158201444', 'hub.verify_token': 'fake-verify-token' });
    expect([answer.status, await answer.text(), answer.headers.get('content-type')]).toEqual([
      200,
      '1158201444',
      'text/plain; charset=utf-8',
    ]);
  });

  test.each([
    [{ 'hub.mode': 'subscribe', 'hub.challenge': '1', 'hub.verify_token': 'wrong' }],
    [{ 'hub.mode': 'subscribe', 'hub.challenge': '1' }],
    [{ 'hub.mode': 'other', 'hub.challenge': '1', 'hub.verify_token': 'fake-verify-token' }],
    [{}],
  ])('when it asks with %j, then the answer is 403', async (query) => {
    expect((await ask('/webhook/kapso', query as Record<string, string>)).status).toBe(403);
  });
});

describe('when Temporal is away', () => {
  test('from the start on, then messages are taken all the same, another process delivers them, and readyz says which part is missing', async () => {
    const port = await freePort(45_000);
    const unreachable = await freePort(46_000);
    const api = await startProcess(
      'api',
      'src/processes/server.ts',
      { ...system.environment, PORT: String(port), TEMPORAL_ADDRESS: `127.0.0.1:${unreachable}` },
      'api listening',
    );
    try {
      await api.line('api accepts webhooks');
      const phone = newPhone();
      const body = plain(phone, `wamid.${randomUUID()}`);
      const startedAtMs = Date.now();
      const answer = await fetch(`http://127.0.0.1:${port}/webhook/kapso`, {
        method: 'POST',
        body,
        headers: { 'X-Webhook-Signature': sign(body) },
      });
      expect(answer.status).toBe(200);
      expect(Date.now() - startedAtMs).toBeLessThan(2_500);
      expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
      const ready = await fetch(`http://127.0.0.1:${port}/readyz`);
      expect([ready.status, await ready.json()]).toMatchObject([503, { ready: false, temporal: false, postgres: true, started: false }]);
      expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200);
    } finally {
      expect(await api.stop()).toBe(0);
    }
  });
});

describe('starting the API', () => {
  test.each([
    ['without a webhook secret', { KAPSO_WEBHOOK_SECRET: '' }, 'KAPSO_WEBHOOK_SECRET'],
    ['without a database', { DATABASE_URL: '' }, 'DATABASE_URL'],
    ['with a port that is none', { PORT: 'x' }, 'PORT'],
  ])('when it starts %s, then it refuses and names the setting', async (_what, environment, name) => {
    const start = startProcess('api', 'src/processes/server.ts', { ...system.environment, ...environment }, 'api listening');
    await expect(start).rejects.toThrow(name);
  });
});

describe('REST API', () => {
  const get = (path: string, key: string | undefined = API_KEY) =>
    fetch(`${system.apiUrl}/api/v1/conversations${path}`, { headers: key ? { Authorization: `Bearer ${key}` } : {} });

  test.each([[''], ['Bearer'], ['wrong']])('when the key is "%s", then the answer is 401', async (key) => {
    const answer = await get('', key);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([401, 'application/problem+json; charset=utf-8']);
  });

  test('when conversations are listed page by page, then each comes once, the newest first', async () => {
    const phones = Array.from({ length: 7 }, newPhone);
    await Promise.all(phones.map((phone) => post(plain(phone, `wamid.${randomUUID()}`))));
    await Promise.all(phones.map((phone) => outcomesOf(system, phone, 1)));
    const seen: { id: string; lastMessageAt: string }[] = [];
    let path = '?limit=3';
    for (let page = 0; page < 100; page += 1) {
      const { data, next } = (await (await get(path)).json()) as { data: typeof seen; next: string | null };
      seen.push(...data);
      if (!next) break;
      path = `?limit=3&before=${next}`;
    }
    expect(new Set(seen.map((row) => row.id)).size).toBe(seen.length);
    expect(seen.length).toBe(await system.db.conversation.count());
    expect(seen.map((row) => row.lastMessageAt)).toEqual(
      seen
        .map((row) => row.lastMessageAt)
        .toSorted()
        .reverse(),
    );
  });

  test('when a conversation is shown with its messages, then both sides stand there with outcome and provenance', async () => {
    const phone = newPhone();
    for (let turn = 1; turn <= 3; turn += 1) {
      await post(plain(phone, `wamid.${randomUUID()}`, `question ${turn}`));
      await outcomesOf(system, phone, turn);
    }
    const { id } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
    const shown = await (await get(`/${id}`)).json();
    expect(shown).toMatchObject({ id, mode: 'ai', needsAttention: false, unreadCount: 0, contact: { phone } });
    const first = (await (await get(`/${id}/messages?limit=4`)).json()) as { data: Record<string, unknown>[]; next: string };
    expect(first.data.map((row) => row.direction)).toEqual(['outbound', 'inbound', 'outbound', 'inbound']);
    expect(first.data[0]).toMatchObject({ provider: 'sandbox', model: 'sandbox-model' });
    expect(first.data[1]).toMatchObject({ text: 'question 3', outcome: 'answered' });
    const second = (await (await get(`/${id}/messages?limit=4&before=${first.next}`)).json()) as {
      data: Record<string, unknown>[];
      next: null;
    };
    expect([second.data.length, second.next]).toEqual([2, null]);
  });

  test.each([
    ['/not-a-uuid', 404],
    ['/00000000-0000-4000-8000-000000000000', 404],
    ['/00000000-0000-4000-8000-000000000000/messages', 404],
    ['?limit=0', 400],
    ['?limit=1000', 400],
    ['?before=x', 400],
    ['?mode=robot', 400],
  ])('when %s is asked for, then the answer is %i as a problem', async (path, status) => {
    const answer = await get(path);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([status, 'application/problem+json; charset=utf-8']);
  });

  test('when everything is up, then readyz says so', async () => {
    const ready = await fetch(`${system.apiUrl}/readyz`);
    expect([ready.status, await ready.json()]).toEqual([200, { ready: true, temporal: true, postgres: true, started: true }]);
  });
});
