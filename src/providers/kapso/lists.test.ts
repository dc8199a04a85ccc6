import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createKapsoLists, createPacer, type KapsoListError, readMessageRow, readPastConversation, readPastMessage } from './lists';

const NUMBER = '100000000000001';
const PHONE = '6281110000001';

interface Page {
  data: Record<string, unknown>[];
}

function fixture(name: string): Page {
  return JSON.parse(readFileSync(`${__dirname}/../../../test/fixtures/kapso/${name}.json`, 'utf8')) as Page;
}

const [outbound, inbound] = fixture('api_list_messages_page').data as [Record<string, unknown>, Record<string, unknown>];

describe('a row of the message list', () => {
  test('when it is read, then it is what a webhook would have brought, in both directions', () => {
    expect(readMessageRow(inbound, NUMBER)).toMatchObject([
      { type: 'message', phoneNumberId: NUMBER, contact: { phone: PHONE, name: 'Budi Contoh' }, message: { kind: 'text' } },
    ]);
    expect(readMessageRow(outbound, NUMBER)).toMatchObject(
      ['sent', 'delivered', 'read'].map((status) => ({ type: 'status', status, correlationId: 'act:wf-0001:step-3' })),
    );
  });

  test('when it names no sender, then the person is the one that the list names', () => {
    const { from: _from, ...unnamed } = inbound;
    expect(readMessageRow(unnamed, NUMBER)).toMatchObject([{ type: 'message', contact: { phone: PHONE } }]);
    expect(readPastMessage(unnamed, NUMBER)).toMatchObject({ direction: 'inbound', contact: { phone: PHONE } });
    const { to: _to, ...toNobody } = outbound;
    expect(readPastMessage(toNobody, NUMBER)).toMatchObject({ direction: 'outbound', contact: { phone: PHONE } });
  });

  test('when it is ours, then it is the same words to the customer, with its highest status and our id', () => {
    const row = { ...outbound, from: '15550199', kapso: { ...(outbound.kapso as object), origin: 'business_app' } };
    expect(readPastMessage(row, NUMBER)).toMatchObject({
      ...{ direction: 'outbound', contact: { phone: PHONE }, status: 'read', correlationIds: ['act:wf-0001:step-3'] },
      message: { providerMessageId: outbound.id, kind: 'text', text: 'Pesanan sedang dikirim.', sentAtMs: 1_795_165_231_000 },
    });
  });

  test('when it is a template, then its text is what Kapso shows', () => {
    const kapso = { direction: 'outbound', phone_number: PHONE, content: 'Your order is ready.' };
    const row = { id: 'wamid.t', timestamp: '1795165231', type: 'template', template: { name: 'ready' }, to: PHONE, kapso };
    expect(readPastMessage(row, NUMBER)?.message).toMatchObject({ kind: 'template', text: 'Your order is ready.' });
  });

  test.each([null, 'x', 7, [], {}, { id: 'wamid.x' }, { kapso: { direction: 'outbound' } }, { id: 5, kapso: 'x' }])(
    'when it is %j, then nothing fails, and it is no message',
    (row) => {
      expect(readMessageRow(row, NUMBER).filter(({ type }) => type === 'message')).toEqual([]);
      expect(readPastMessage(row, NUMBER)).toBeUndefined();
      expect(readPastConversation(row, NUMBER)).toBeUndefined();
    },
  );
});

test('when a conversation is read, then it names the person by all that it has', () => {
  const [row] = fixture('api_list_conversations_page').data;
  const person = readPastConversation({ ...row, business_scoped_user_id: 'ID.1', username: 'budi' }, NUMBER);
  expect(person).toEqual({
    contact: { phone: PHONE, businessScopedUserId: 'ID.1', name: 'Budi Contoh', username: 'budi' },
    lastActiveAtMs: Date.parse('2026-11-20T09:00:31Z'),
  });
});

describe('the lists', () => {
  let server: Server;
  let answer: (response: ServerResponse, url: URL) => void;
  const signal = AbortSignal.timeout(20_000);

  beforeAll(async () => {
    server = createServer((request, response) => answer(response, new URL(request.url ?? '', 'http://kapso.test'))).listen(0, '127.0.0.1');
    await once(server, 'listening');
  });

  afterAll(() => server.close());

  const lists = () =>
    createKapsoLists({ baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, apiKey: 'k' }, createPacer(60_000));

  async function failure(status: number, headers: Record<string, string> = {}): Promise<KapsoListError> {
    answer = (response) => response.writeHead(status, headers).end('<html>');
    return await lists()
      .messages({ phoneNumberId: NUMBER }, signal)
      .then(
        () => Promise.reject(new Error('the list was read')),
        (error: KapsoListError) => error,
      );
  }

  test('when a page is asked for, then the question is the documented one, and the answer has the next cursor', async () => {
    const asked: URL[] = [];
    answer = (response, url) => {
      asked.push(url);
      response.end(JSON.stringify(fixture('api_list_messages_page')));
    };
    const page = await lists().messages({ phoneNumberId: NUMBER, sinceMs: 0, untilMs: 1_000, after: 'c' }, signal);
    expect(page.rows).toHaveLength(2);
    expect(page.next).toMatch(/^eyJ/);
    expect(asked.map(({ pathname }) => pathname)).toEqual([`/meta/whatsapp/v24.0/${NUMBER}/messages`]);
    expect(Object.fromEntries(asked[0]?.searchParams ?? [])).toEqual({
      ...{ since: '1970-01-01T00:00:00.000Z', until: '1970-01-01T00:00:01.000Z', after: 'c', limit: '100' },
    });
  });

  test.each<[string, object]>([
    ['is empty', { data: [], paging: { next: 'd' } }],
    ['is followed by itself', { data: [{}], paging: { next: 'c' } }],
    ['names no next one', { data: [{}], paging: { next: null } }],
    ['has no paging', { data: [{}] }],
  ])('when a page %s, then it is the last one', async (_what, body) => {
    answer = (response) => response.end(JSON.stringify(body));
    expect(await lists().messages({ phoneNumberId: NUMBER, after: 'c' }, signal)).not.toHaveProperty('next');
  });

  test('when Kapso refuses, then the error says with what, and when to try again', async () => {
    expect(await failure(429, { 'Retry-After': '7' })).toMatchObject({ status: 429, retryAfterMs: 7_000 });
    expect(await failure(429)).toMatchObject({ retryAfterMs: 60_000 });
    expect(await failure(503)).toMatchObject({ status: 503 });
    expect(await failure(401)).toMatchObject({ status: 401 });
    expect(await failure(200)).toMatchObject({ message: "Kapso's response cannot be read" });
  });
});

test('when requests are paced, then they are spread over the minute', async () => {
  const pacer = createPacer(600);
  const startedMs = performance.now();
  for (let request = 0; request < 4; request += 1) await pacer.turn(new AbortController().signal);
  expect(performance.now() - startedMs).toBeGreaterThanOrEqual(290);
});
