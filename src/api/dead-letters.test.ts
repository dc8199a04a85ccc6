/** What a signed webhook brings and nobody can read: kept, shown, and taken in again, with the real record and the real Temporal. */
import { createHmac, randomUUID } from 'node:crypto';
import { startTestApi, type TestApi } from '../../test/support/api';
import { type Answered, request } from '../../test/support/calls';
import { eventually } from '../../test/support/expectations';
import { VAPI_WEBHOOK_SECRET, WEBHOOK_SECRET } from '../../test/support/system';
import { conversationWorkflowId, type MessagesReceived } from '../../workflows/contract';
import { raiseAttention } from '../record/attention';
import { keepDeadLetter, type NewDeadLetter } from '../record/dead-letters';
import { createIdentity, type Identity, loadIdentity } from '../record/identity';

const LETTERS = '/api/v1/dead-letters';
const RECEIVED = 'whatsapp.message.received';

let api: TestApi;
/** Where Kapso's webhooks go: the API of the suite has no secret for them. */
let webhookUrl: string;
let identity: Identity;

beforeAll(async () => {
  api = await startTestApi('api_dead_letters');
  webhookUrl = `${await api.another({ KAPSO_WEBHOOK_SECRET: WEBHOOK_SECRET })}/webhook/kapso`;
  identity = await loadIdentity(api.db.orm);
});

afterEach(async () => {
  await api.db.orm.deadLetter.deleteMany();
});

afterAll(async () => {
  await api?.close();
});

interface Head {
  id: string;
  reason: string;
  source: string;
  replayedAt: string | null;
}
interface Page {
  data: Head[];
  next: string | null;
}
interface Replay {
  id: string;
  result: string;
  reason: string | null;
  detail: string;
}

const get = <T>(path: string): Promise<Answered<T>> => request<T>(api, 'GET', `${LETTERS}${path}`);
const replay = (id: string): Promise<Answered<Replay>> => request<Replay>(api, 'POST', `${LETTERS}/${id}/replay`);
const replayAll = (query = ''): Promise<Answered<{ data: Replay[]; next: string | null }>> =>
  request(api, 'POST', `${LETTERS}/replay${query}`);

async function postKapso(body: string | object, headers: Record<string, string> = {}): Promise<Response> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const signature = createHmac('sha256', WEBHOOK_SECRET).update(text).digest('hex');
  return await fetch(webhookUrl, { method: 'POST', body: text, headers: { 'X-Webhook-Signature': signature, ...headers } });
}

/** A message of somebody who writes to nobody else, as Kapso sends it. */
function aMessage(phone = `1555${Math.floor(Math.random() * 1e7)}`): {
  phone: string;
  wamid: string;
  item: { message: object; phone_number_id: string };
} {
  const wamid = `wamid.${randomUUID()}`;
  const message = {
    id: wamid,
    from: phone,
    type: 'text',
    text: { body: 'hello' },
    timestamp: '1795165200',
    kapso: { direction: 'inbound' },
  };
  return { phone, wamid, item: { message, phone_number_id: '77' } };
}

/** A letter that an earlier version could not read, and that this one can. */
const readable = (body: unknown, facts: Partial<NewDeadLetter> = {}): Promise<string> =>
  keepDeadLetter(api.db, { source: 'kapso', reason: 'no_sender', detail: 'Nobody is named.', body, ...facts } as NewDeadLetter);

/** The ids (WhatsApp's) of the messages that the conversation of this person was signalled. */
async function signalledTo(phone: string, phoneNumberId = '77'): Promise<string[]> {
  const workflowId = conversationWorkflowId(phoneNumberId, identity.contactKey(phoneNumberId, { phone }));
  const { events } = await api.temporal.workflow.getHandle(workflowId).fetchHistory();
  return (events ?? []).flatMap(({ workflowExecutionSignaledEventAttributes: signal }) =>
    (signal?.input?.payloads ?? []).flatMap(({ data }) =>
      (JSON.parse(Buffer.from(data ?? []).toString()) as MessagesReceived).messages.map(({ providerMessageId }) => providerMessageId),
    ),
  );
}

describe('a signed webhook that cannot be read', () => {
  test('when one item of a batch cannot be read, then it becomes a dead letter, and the others are messages', async () => {
    const good = aMessage();
    const odd = { message: { ...aMessage().item.message, from: 'marker-odd' }, phone_number_id: '77' };
    const answer = await postKapso({ type: RECEIVED, batch: true, data: [good.item, odd] }, { 'X-Webhook-Event': RECEIVED });
    expect([answer.status, await answer.json()]).toEqual([200, { received: true }]);
    expect(await signalledTo(good.phone)).toEqual([good.wamid]);
    const { data } = (await get<Page>('')).body;
    expect(data).toMatchObject([
      { source: 'kapso', reason: 'no_sender', event: RECEIVED, phoneNumberId: '77', occurrences: 1, replayedAt: null },
    ]);
    expect(data[0]).not.toHaveProperty('body');
    expect((await get(`/${data[0]?.id}`)).body).toMatchObject({ id: data[0]?.id, body: odd, rawBody: null });
    expect(api.logLines.join()).not.toContain('marker-odd');
  });

  test.each<[string, string]>([
    ['not JSON', '{"message": {'],
    ['empty', ''],
    ['a number', '42'],
    ['a message without a message', JSON.stringify({ is_new_conversation: true })],
    ['nested very deep, with what PostgreSQL does not store', `${'['.repeat(50_000)}"\\u0000"${']'.repeat(50_000)}`],
    ['a list of a thousand nothings', JSON.stringify({ messages: Array.from({ length: 1_000 }, () => null) })],
  ])('when a body is %s, then it is one dead letter, however often it comes', async (_what, body) => {
    for (let count = 0; count < 3; count += 1) expect((await postKapso(body)).status).toBe(200);
    const letters = await api.db.orm.deadLetter.findMany();
    expect(letters).toMatchObject([{ occurrences: 3 }]);
    const [letter] = letters;
    expect(letter?.rawBody ? Buffer.from(letter.rawBody).toString() : JSON.stringify(letter?.body)).toBe(body);
  });

  test('when Vapi sends one, then it becomes a dead letter without its secrets', async () => {
    const body = { message: { type: 5, call: { id: 'c1', monitor: { controlUrl: 'marker-control', status: 'kept' } } } };
    const headers = { 'X-Vapi-Secret': VAPI_WEBHOOK_SECRET };
    const url = `${api.apiUrl}/api/v1/vapi/webhooks/vapi`;
    expect((await fetch(url, { method: 'POST', body: JSON.stringify(body), headers })).status).toBe(200);
    expect((await fetch(url, { method: 'POST', body: '{"message"', headers })).status).toBe(200);
    const letters = await api.db.orm.deadLetter.findMany({ orderBy: { reason: 'asc' } });
    expect(letters).toMatchObject([
      { source: 'vapi', reason: 'not_json', rawBody: expect.anything() },
      { source: 'vapi', reason: 'unreadable', body: { message: { type: 5, call: { id: 'c1', monitor: { status: 'kept' } } } } },
    ]);
    expect(JSON.stringify(letters)).not.toContain('marker-control');
  });

  test('when PostgreSQL and Temporal are down, then the sender is asked to retry, and then there is one letter', async () => {
    await Promise.all([api.postgresProxy.down(), api.temporalProxy.down()]);
    try {
      const answer = await postKapso('no json');
      expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '5']);
    } finally {
      await api.postgresProxy.up();
    }
    await eventually(async () => expect((await postKapso('no json')).status).toBe(200));
    await api.temporalProxy.up();
    expect(await api.db.orm.deadLetter.findMany()).toMatchObject([{ reason: 'not_json', occurrences: 1 }]);
  });

  test('when it is understood but irrelevant, then there is no dead letter', async () => {
    expect((await postKapso({ conversation: { id: 'c' } }, { 'X-Webhook-Event': 'whatsapp.conversation.created' })).status).toBe(200);
    expect(await api.db.orm.deadLetter.count()).toBe(0);
  });

  test('when dead letters are open, then the metrics count them by reason', async () => {
    await postKapso('no json');
    await readable(aMessage().item);
    await readable(aMessage().item);
    const metrics = await (await fetch(`${api.apiUrl}/metrics`)).text();
    expect(metrics).toContain('parley_dead_letters{reason="not_json"} 1\n');
    expect(metrics).toContain('parley_dead_letters{reason="no_sender"} 2\n');
    await replayAll();
    expect(await (await fetch(`${api.apiUrl}/metrics`)).text()).not.toContain('parley_dead_letters{reason="no_sender"}');
  });
});

describe('replaying one', () => {
  test('when it can now be read, then it is handed over like a webhook; repeating that is harmless', async () => {
    const { phone, wamid, item } = aMessage();
    const id = await readable(item);
    const { status, body } = await replay(id);
    expect([status, body]).toEqual([200, { id, result: 'taken', reason: null, detail: null }]);
    expect(await signalledTo(phone)).toEqual([wamid]);
    expect((await get<Head>(`/${id}`)).body.replayedAt).not.toBeNull();
    expect((await replay(id)).status).toBe(200);
    // The same message: the conversation and the database know its id.
    expect(await signalledTo(phone)).toEqual([wamid, wamid]);
  });

  test('when only the event header has the type, then the replay knows it too', async () => {
    const { phone, item } = aMessage();
    const id = await readable({ ...item, message: { ...item.message, kapso: undefined } }, { event: RECEIVED } as Partial<NewDeadLetter>);
    expect((await replay(id)).status).toBe(200);
    expect(await signalledTo(phone)).toHaveLength(1);
  });

  test('when it is the bytes of a body, then they are read', async () => {
    const { phone, item } = aMessage();
    expect((await replay(await readable(Buffer.from(JSON.stringify(item))))).status).toBe(200);
    expect(await signalledTo(phone)).toHaveLength(1);
  });

  test('when it is a message that the database rejected, then its conversation is signalled', async () => {
    const [phone, wamid] = [`1555${randomUUID()}`.replaceAll(/\D/g, '').slice(0, 12), `wamid.${randomUUID()}`];
    const message = {
      id: createIdentity('another').messageId('77', wamid),
      providerMessageId: wamid,
      kind: 'text',
      text: 'hi',
      sentAtMs: 1,
    };
    const body = { phoneNumberId: '77', contact: { phone, name: 'Ana' }, message };
    const id = await keepDeadLetter(api.db, {
      source: 'conversation',
      reason: 'record_refused',
      detail: 'A constraint.',
      providerMessageId: wamid,
      body,
    });
    expect((await replay(id)).body).toMatchObject({ result: 'taken' });
    expect(await signalledTo(phone)).toEqual([wamid]);
  });

  test('when it is a report from Vapi, then the call gets it', async () => {
    const providerCallId = `replayed-${randomUUID()}`;
    const message = { type: 'status-update', status: 'ringing', call: { id: providerCallId } };
    expect((await replay(await readable({ message }, { source: 'vapi' }))).body).toMatchObject({ result: 'taken' });
    expect(await api.db.orm.vapiCallResult.findUnique({ where: { providerCallId } })).toMatchObject({ status: 'ringing' });
    const question = { message: { type: 'assistant-request', call: { id: providerCallId } } };
    expect((await replay(await readable(question, { source: 'vapi' }))).body).toMatchObject({ result: 'skipped' });
  });

  test('when it is now understood but irrelevant, then it is skipped and closed', async () => {
    const id = await readable({ conversation: { id: 'c' } }, { event: 'whatsapp.conversation.created' } as Partial<NewDeadLetter>);
    expect((await replay(id)).body).toMatchObject({ result: 'skipped' });
    expect((await get<Head>(`/${id}`)).body.replayedAt).not.toBeNull();
  });

  test.each<[string, () => Promise<string>, string]>([
    [
      'still cannot be read',
      () => readable({ message: { id: 'w', kapso: { direction: 'inbound' }, from: '1' }, phone_number_id: {} }),
      'odd_number_id',
    ],
    ['was longer than what is kept', () => readable('x'.repeat(5 * 1024 * 1024)), 'no_sender'],
    ['is of Vapi’s and still cannot be read', () => readable({ message: {} }, { source: 'vapi' }), 'unreadable'],
    ['holds no message of a conversation', () => readable({ phoneNumberId: '1' }, { source: 'conversation' }), 'unreadable'],
  ])('when it %s, then it says so and stays open', async (_what, keep, reason) => {
    const id = await keep();
    const { status, body } = await replay(id);
    expect([status, body.detail]).toEqual([409, expect.stringMatching(new RegExp(`^${reason}: .*\\.$`))]);
    expect((await get<Head>(`/${id}`)).body).toMatchObject({ reason, replayedAt: null });
  });

  test('when only a part of a body can be read, then that part is taken, and the letter stays open', async () => {
    const { phone, item } = aMessage();
    const id = await readable({ batch: true, data: [item, { message: {} }] }, { event: RECEIVED } as Partial<NewDeadLetter>);
    expect((await replay(id)).status).toBe(409);
    expect(await signalledTo(phone)).toHaveLength(1);
  });

  test('when Temporal or PostgreSQL is down, then it is a 503 with Retry-After, and the letter stays open', async () => {
    const id = await readable(aMessage().item);
    for (const proxy of [api.temporalProxy, api.postgresProxy]) {
      await proxy.down();
      try {
        const { status, headers } = await replay(id);
        expect([status, headers.get('retry-after')]).toEqual([503, '5']);
      } finally {
        await proxy.up();
      }
    }
    await eventually(async () => expect((await get<Head>(`/${id}`)).body.replayedAt).toBeNull());
    await eventually(async () => expect((await replay(id)).status).toBe(200));
  });
});

describe('deleting one', () => {
  test('when nobody will ever read it, then it is gone, and the same item would be a new letter', async () => {
    const id = await readable('nothing', { reason: 'unreadable' });
    expect(await removed(id)).toBe(204);
    expect([(await get(`/${id}`)).status, await removed(id), await removed('x')]).toEqual([404, 404, 404]);
    expect(await readable('nothing')).not.toBe(id);
  });

  test('when it was the last one of a conversation, then that no longer asks for attention because of it', async () => {
    const settings = { create: {} };
    const { id: workspaceId } = await api.db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: randomUUID(), settings } });
    const { id: contactId } = await api.db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID(), phone: '15550100' } });
    const workflowId = `conversation-1-${randomUUID()}`;
    const { id } = await api.db.orm.conversation.create({ data: { workspaceId, contactId, workflowId } });
    await raiseAttention(api.db, { conversationId: id, kind: 'dead_letter', text: 'rejected' });
    const letters = [await refused(workflowId), await refused(workflowId)];
    const needsAttention = async () => (await api.db.orm.conversation.findUniqueOrThrow({ where: { id } })).needsAttention;
    await removed(letters[0] ?? '');
    expect(await needsAttention()).toBe(true);
    await removed(letters[1] ?? '');
    expect(await needsAttention()).toBe(false);
  });

  const removed = async (id: string) => (await request(api, 'DELETE', `${LETTERS}/${id}`)).status;
  const refused = (workflowId: string) => {
    const facts = { reason: 'record_refused', detail: 'A constraint.', workflowId, providerMessageId: randomUUID() };
    return keepDeadLetter(api.db, { source: 'conversation', ...facts, body: {} } as NewDeadLetter);
  };
});

describe('lists', () => {
  /** Letters in the order of their coming, a second apart. */
  async function inOrder(keeps: (() => Promise<string>)[]): Promise<string[]> {
    const ids: string[] = [];
    for (const keep of keeps) {
      const id = await keep();
      await api.db.orm.deadLetter.update({ where: { id }, data: { createdAt: new Date(ids.length * 1_000) } });
      ids.push(id);
    }
    return ids;
  }

  test('when they are listed page by page and filtered, then each comes once, the newest first', async () => {
    const ids = await inOrder(
      [1, 2, 3, 4, 5].map((item) => () => readable(item, item === 3 ? { source: 'vapi', reason: 'not_json' } : {})),
    );
    const first = (await get<Page>('?limit=3')).body;
    const second = (await get<Page>(`?limit=3&before=${first.next}`)).body;
    expect([...first.data, ...second.data].map(({ id }) => id)).toEqual(ids.toReversed());
    expect(second.next).toBeNull();
    expect((await get<Page>('?reason=not_json')).body.data.map(({ id }) => id)).toEqual([ids[2]]);
    expect((await get<Page>('?source=vapi&replayed=false')).body.data).toHaveLength(1);
    expect((await get<Page>('?replayed=true')).body.data).toEqual([]);
  });

  test('when all are replayed, then the oldest come first, what fails stays open, and `next` skips it', async () => {
    const ana = aMessage();
    const later = aMessage(ana.phone);
    const ids = await inOrder([
      () => readable('odd'),
      () => readable(ana.item),
      () => readable(later.item),
      () => readable('vapi', { source: 'vapi' }),
    ]);
    const first = await replayAll('?source=kapso&limit=2');
    expect(first.body.data).toMatchObject([
      { id: ids[0], result: 'failed', reason: 'unreadable', detail: expect.any(String) },
      { id: ids[1], result: 'taken', reason: null },
    ]);
    const second = await replayAll(`?source=kapso&limit=2&after=${first.body.next}`);
    expect(second.body).toMatchObject({ data: [{ id: ids[2], result: 'taken' }], next: null });
    expect(await signalledTo(ana.phone)).toEqual([ana.wamid, later.wamid]);
    expect((await get<Page>('?replayed=false')).body.data.map(({ id }) => id)).toEqual([ids[3], ids[0]]);
    expect((await replayAll('?reason=direction_unknown')).body).toEqual({ data: [], next: null });
  });
});

test.each([
  ['GET', '/not-a-uuid', 404],
  ['GET', '/00000000-0000-4000-8000-000000000000', 404],
  ['POST', '/00000000-0000-4000-8000-000000000000/replay', 404],
  ['GET', '?limit=0', 400],
  ['GET', '?before=x', 400],
  ['GET', '?source=letters', 400],
  ['GET', '?reson=misspelt', 400],
  ['POST', '/replay?replayed=true', 400],
  ['DELETE', '', 405],
  ['PUT', '/replay', 405],
])('when %s %s is requested, then the response is a problem with status %i', async (method, path, status) => {
  const answer = await request(api, method, `${LETTERS}${path}`);
  expect([answer.status, answer.headers.get('content-type')]).toEqual([status, 'application/problem+json; charset=utf-8']);
});

test('when there is no key, then the answer is 401', async () => {
  for (const [method, path] of [
    ['GET', ''],
    ['POST', '/replay'],
  ] as const)
    expect((await fetch(`${api.apiUrl}${LETTERS}${path}`, { method })).status).toBe(401);
});
