/** Webhooks of several workspaces: whose secret proves what. Real HTTP, database and Temporal; no worker, so messages stay signals. */
import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { startTestApi, type TestApi } from '../../test/support/api';
import { request } from '../../test/support/calls';
import { VAPI_WEBHOOK_SECRET } from '../../test/support/system';
import { conversationWorkflowId } from '../../workflows/contract';
import { signatureFor } from '../providers/kapso/signature';
import { loadIdentity } from '../record/identity';

const ENVIRONMENT_SECRET = 'environment-secret-0123456789';

interface Business {
  id: string;
  number: string;
  secret: string;
}

let api: TestApi;
let one: Business;
let other: Business;

beforeAll(async () => {
  api = await startTestApi('workspace_secrets', {
    ENCRYPTION_KEY: randomBytes(32).toString('base64'),
    KAPSO_WEBHOOK_SECRET: ENVIRONMENT_SECRET,
    UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: '100000',
  });
  [one, other] = [await aBusiness(), await aBusiness()];
});

afterAll(async () => {
  await api?.close();
});

const newNumber = () => String(10 ** 14 + Math.floor(Math.random() * 10 ** 13));

async function aBusiness(credentials: Record<string, unknown> = {}): Promise<Business> {
  const [number, secret] = [newNumber(), `secret-${randomUUID()}`];
  const body = { name: 'Shop', kapsoPhoneNumberId: number, credentials: { kapsoWebhookSecrets: [secret], ...credentials } };
  const { status, body: created } = await request<{ id: string }>(api, 'POST', '/api/v1/workspaces', { body });
  expect(status).toBe(201);
  return { id: created.id, number, secret };
}

interface Item {
  number?: string;
  id: string;
}

const PHONE = '15550111';

function item({ number, id }: Item): object {
  return {
    message: { id, type: 'text', timestamp: '1790000000', from: PHONE, text: { body: 'hello' }, kapso: { direction: 'inbound' } },
    conversation: { phone_number: PHONE },
    ...(number === undefined ? {} : { phone_number_id: number }),
  };
}

const newId = () => `wamid.${randomUUID()}`;

async function deliver(body: string, secret: string, url = api.apiUrl): Promise<number> {
  const { status } = await fetch(`${url}/webhook/kapso`, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      'X-Webhook-Event': 'whatsapp.message.received',
      'X-Webhook-Signature': signatureFor(Buffer.from(body), secret),
    },
    body,
  });
  return status;
}

const batchOf = (...items: object[]) => JSON.stringify({ batch: true, data: items });

/** Whether a conversation of the number runs. */
async function runs(number: string): Promise<boolean> {
  const contactKey = (await loadIdentity(api.db.orm)).contactKey(number, { phone: PHONE });
  return await api.temporal.workflow
    .getHandle(conversationWorkflowId(number, contactKey))
    .describe()
    .then(
      () => true,
      () => false,
    );
}

test('when a webhook is signed with the secret of its number, or with that of the environment, then it is taken', async () => {
  const { number, secret } = await aBusiness();
  expect(await deliver(JSON.stringify(item({ number, id: newId() })), secret)).toBe(200);
  expect(await runs(number)).toBe(true);
  expect(await deliver(JSON.stringify(item({ number: other.number, id: newId() })), ENVIRONMENT_SECRET)).toBe(200);
  expect(await runs(other.number)).toBe(true);
  expect(await deliver(JSON.stringify(item({ number, id: newId() })), 'nobodys-secret')).toBe(401);
});

test.each<[string, (victim: string) => string]>([
  ['its message', (victim) => JSON.stringify(item({ number: victim, id: newId() }))],
  ['one message in a batch', (victim) => batchOf(item({ number: one.number, id: newId() }), item({ number: victim, id: newId() }))],
  [
    'a number that a search for bytes does not find',
    (victim) =>
      batchOf(item({ number: one.number, id: newId() }), item({ number: victim, id: newId() })).replaceAll(
        `"phone_number_id":"${victim}"`,
        `"phone_number\\u005fid":"${victim}"`,
      ),
  ],
  ['something unreadable', (victim) => batchOf({ message: { id: newId() }, phone_number_id: victim })],
])("when the secret of one workspace signs %s of another's number, then it is a 401, and nothing of it is kept", async (_what, bodyFor) => {
  const victim = await aBusiness();
  expect(await deliver(bodyFor(victim.number), one.secret)).toBe(401);
  expect(await runs(victim.number)).toBe(false);
  expect(await api.db.orm.deadLetter.count({ where: { phoneNumberId: victim.number } })).toBe(0);
});

test("when a webhook names no number, then it belongs to the workspace whose secret signed it, never to the environment's", async () => {
  const { number, secret } = await aBusiness();
  expect(await deliver(JSON.stringify(item({ id: newId() })), secret)).toBe(200);
  expect(await runs(number)).toBe(true);
});

test.each([
  ['not JSON', () => '{"message": {'],
  ['an item without a sender', (number: string) => batchOf({ message: { id: newId(), type: 'text' }, phone_number_id: number })],
])('when a workspace sends what cannot be read (%s), then the letter is its own, and a replay stays with it', async (_what, bodyFor) => {
  const { id, number, secret } = await aBusiness();
  expect(await deliver(bodyFor(number), secret)).toBe(200);
  const [letter] = await api.db.orm.deadLetter.findMany({ where: { workspaceId: id } });
  expect(letter).toMatchObject({ phoneNumberId: number });
  // As if a later version could read it, and found another number.
  await api.db.orm.deadLetter.update({
    where: { id: letter?.id ?? '' },
    data: { rawBody: Buffer.from(JSON.stringify(item({ number: other.number, id: newId() }))) },
  });
  const replayed = await request<{ detail: string }>(api, 'POST', `/api/v1/dead-letters/${letter?.id}/replay`);
  expect([replayed.status, replayed.body.detail]).toEqual([409, expect.stringContaining('number of another')]);
});

test('when a secret is added, then it works at once; when it is replaced, then the old one ends within seconds', async () => {
  const { id, number, secret } = await aBusiness();
  const body = () => JSON.stringify(item({ number, id: newId() }));
  expect(await deliver(body(), secret)).toBe(200);
  const newSecret = `secret-${randomUUID()}`;
  await request(api, 'PATCH', `/api/v1/workspaces/${id}`, { body: { credentials: { kapsoWebhookSecrets: [newSecret, secret] } } });
  expect(await deliver(body(), newSecret)).toBe(200);
  await request(api, 'PATCH', `/api/v1/workspaces/${id}`, { body: { credentials: { kapsoWebhookSecrets: [newSecret] } } });
  expect(await deliver(body(), newSecret)).toBe(200);
  // This process made the change, and knows it.
  expect(await deliver(body(), secret)).toBe(401);
});

test('when the database is away, then what is known still verifies, and what was never read is a 503', async () => {
  const body = (number: string) => JSON.stringify(item({ number, id: newId() }));
  expect(await deliver(body(one.number), one.secret)).toBe(200);
  const fresh = await api.another({});
  await api.postgresProxy.down();
  try {
    expect(await deliver(body(one.number), one.secret)).toBe(200);
    expect(await deliver(body(one.number), ENVIRONMENT_SECRET)).toBe(200);
    expect(await deliver(body(one.number), other.secret)).toBe(401);
    expect(await deliver(body(one.number), ENVIRONMENT_SECRET, fresh)).toBe(200);
    expect(await deliver(body(one.number), one.secret, fresh)).toBe(503);
  } finally {
    await api.postgresProxy.up();
  }
  expect(await deliver(body(one.number), one.secret, fresh)).toBe(200);
});

test('when the secrets of a workspace cannot be decrypted, then its webhooks are a 503, because they may be authentic', async () => {
  const apiUrl = await api.another({ ENCRYPTION_KEY: '' });
  expect(await deliver(JSON.stringify(item({ number: one.number, id: newId() })), one.secret, apiUrl)).toBe(503);
  expect(await deliver(JSON.stringify(item({ number: newNumber(), id: newId() })), one.secret, apiUrl)).toBe(401);
});

test('when WhatsApp is simulated, then a simulated customer cannot write to the number of a workspace with a real key', async () => {
  const sandbox = 'http://127.0.0.1:9';
  const apiUrl = await api.another({ KAPSO_API_KEY: 'sandbox', KAPSO_BASE_URL: sandbox, SANDBOX_URL: sandbox });
  const real = await aBusiness({ kapsoApiKey: 'a-real-key-of-kapso' });
  const body = () => JSON.stringify(item({ number: real.number, id: newId() }));
  expect(await deliver(body(), real.secret, apiUrl)).toBe(200);
  expect(await deliver(body(), ENVIRONMENT_SECRET, apiUrl)).toBe(401);
  expect(await deliver(JSON.stringify(item({ number: one.number, id: newId() })), ENVIRONMENT_SECRET, apiUrl)).toBe(200);
});

describe('webhooks of Vapi', () => {
  const fixture = JSON.parse(readFileSync('test/fixtures/vapi/status-update.ringing.json', 'utf8')) as {
    message: { call: { id: string } };
  };

  /** An event about a call at Vapi. */
  function eventOf(providerCallId: string): string {
    return JSON.stringify(fixture).replaceAll(fixture.message.call.id, providerCallId);
  }

  async function tell(body: string, headers: Record<string, string>, url = api.apiUrl): Promise<number> {
    const path = `${url}/api/v1/vapi/webhooks/vapi`;
    const all = { 'Content-Type': 'application/json', ...headers };
    return (await fetch(path, { method: 'POST', headers: all, body })).status;
  }

  async function aCaller(): Promise<{ id: string; secret: string }> {
    const secret = `vapi-secret-${randomUUID()}`;
    const { id } = await aBusiness({ vapiWebhookSecrets: [secret] });
    return { id, secret };
  }

  const rowOf = (providerCallId: string) => api.db.orm.vapiCallResult.findUnique({ where: { providerCallId } });

  test('when a workspace reports a call that it did not place here, then the call is its own', async () => {
    const { id, secret } = await aCaller();
    const providerCallId = randomUUID();
    expect(await tell(eventOf(providerCallId), { 'X-Vapi-Secret': secret })).toBe(200);
    expect(await rowOf(providerCallId)).toMatchObject({ workspaceId: id, status: 'ringing' });
    expect(await tell(eventOf(randomUUID()), { 'X-Vapi-Secret': 'nobodys-secret' })).toBe(401);
    expect(await tell(eventOf(randomUUID()), {})).toBe(401);
  });

  test('when a workspace reports a call of another, by either id, then it is a 401 and changes nothing', async () => {
    const [mine, victim] = [await aCaller(), await aCaller()];
    const [callId, providerCallId] = [randomUUID(), randomUUID()];
    const row = { workflowId: callId, direction: 'outbound' as const, requestHash: 'x' };
    await api.db.orm.vapiCallResult.create({ data: { ...row, id: callId, providerCallId, workspaceId: victim.id } });
    expect(await tell(eventOf(providerCallId), { 'X-Vapi-Secret': mine.secret })).toBe(401);
    await api.db.orm.vapiCallResult.update({ where: { id: callId }, data: { providerCallId: null } });
    const byOurId = JSON.parse(eventOf(randomUUID()));
    byOurId.message.call.assistantOverrides = { metadata: { parleyCallId: callId } };
    byOurId.message.call.name = callId;
    expect(await tell(JSON.stringify(byOurId), { 'X-Vapi-Secret': mine.secret })).toBe(401);
    expect(await api.db.orm.vapiCallResult.findUnique({ where: { id: callId } })).toMatchObject({ status: 'queued', providerCallId: null });
    expect(await tell(JSON.stringify(byOurId), { 'X-Vapi-Secret': victim.secret })).toBe(200);
    expect(await tell(eventOf(randomUUID()), { 'X-Vapi-Secret': VAPI_WEBHOOK_SECRET })).toBe(200);
  });

  test('when the webhooks are signed, then the body proves the workspace', async () => {
    const { id, secret } = await aCaller();
    const apiUrl = await api.another({ VAPI_WEBHOOK_AUTH: 'hmac', VAPI_HMAC_TIMESTAMP_HEADER: 'none' });
    const providerCallId = randomUUID();
    const body = eventOf(providerCallId);
    const signed = (key: string) => ({ 'x-signature': createHmac('sha256', key).update(body).digest('hex') });
    expect(await tell(body, signed('nobodys-secret'), apiUrl)).toBe(401);
    expect(await tell(body, signed(secret), apiUrl)).toBe(200);
    expect(await rowOf(providerCallId)).toMatchObject({ workspaceId: id });
  });

  test('when what a workspace reports cannot be read, then the letter is its own', async () => {
    const { id, secret } = await aCaller();
    expect(await tell('{"message": {', { 'X-Vapi-Secret': secret })).toBe(200);
    expect(await api.db.orm.deadLetter.count({ where: { workspaceId: id, source: 'vapi' } })).toBe(1);
  });

  test('when secrets cannot be decrypted, then a webhook that no other secret proves is a 503', async () => {
    const { secret } = await aCaller();
    const apiUrl = await api.another({ ENCRYPTION_KEY: '' });
    expect(await tell(eventOf(randomUUID()), { 'X-Vapi-Secret': secret }, apiUrl)).toBe(503);
    expect(await tell(eventOf(randomUUID()), { 'X-Vapi-Secret': VAPI_WEBHOOK_SECRET }, apiUrl)).toBe(200);
  });
});
