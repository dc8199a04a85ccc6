/** The calls' routes over real HTTP, with the real record and the real engine, and no worker: nothing is dialled. */
import { randomUUID } from 'node:crypto';
import { OTHER_API_KEY, startTestApi, type TestApi } from '../../test/support/api';
import { newNumber, placeCall, request } from '../../test/support/calls';
import { eventually } from '../../test/support/expectations';
import { API_KEY } from '../../test/support/system';
import { callWorkflowId } from '../../workflows/contract';
import { startBody } from './call-requests';

const CALLS = '/api/v1/vapi/calls';

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_calls');
});

afterAll(async () => {
  await api?.close();
});

const workflowOf = (callId: string) => api.temporal.workflow.getHandle(callWorkflowId(callId));

interface Problem {
  detail: string;
}
interface Page {
  data: { callId: string }[];
}

async function newCall(key: string = randomUUID()) {
  const to = newNumber();
  const { status, body } = await placeCall(api, { to }, key);
  expect(status).toBe(202);
  const again = () => placeCall(api, { to }, key);
  return { callId: body.callId, again };
}

/** A row that no request of ours has made. */
async function aRow(fields: Record<string, unknown> = {}): Promise<string> {
  const id = randomUUID();
  await api.db.orm.vapiCallResult.create({ data: { id, workflowId: callWorkflowId(id), direction: 'outbound', ...fields } });
  return id;
}

async function postText(body: string, headers: Record<string, string> = {}) {
  const all = { Authorization: `Bearer ${API_KEY}`, 'Content-Type': 'application/json', 'Idempotency-Key': randomUUID(), ...headers };
  const answer = await fetch(`${api.apiUrl}${CALLS}`, { method: 'POST', headers: all, body });
  return { status: answer.status, body: (await answer.json()) as Problem };
}

/** A request that its client gives up when `leave` is called. */
function waiting(callId: string, wait: number) {
  const leaving = new AbortController();
  const ended = fetch(`${api.apiUrl}${CALLS}/${callId}?wait=${wait}`, {
    headers: { Authorization: `Bearer ${API_KEY}` },
    signal: leaving.signal,
  }).then(
    async (answer) => (await answer.json()) as { done: boolean },
    () => undefined,
  );
  return { leave: () => leaving.abort(), ended };
}

describe('what cannot be stored', () => {
  const nested = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;

  test.each([
    ['NUL in a value', 'metadata', '{"a":"x\\u0000y"}'],
    ['NUL in a key', 'variables', '{"x\\u0000y":1}'],
    ['NUL far inside', 'metadata', '{"a":[{"b":["\\u0000"]}]}'],
    ['half a surrogate in a value', 'variables', '{"a":"\\ud800"}'],
    ['half a surrogate in a key', 'metadata', '{"\\udc00":1}'],
    ['objects in objects, without end', 'metadata', nested(20_000)],
    ['lists in lists, without end', 'variables', `{"a":${'['.repeat(20_000)}${']'.repeat(20_000)}}`],
    ['a level too many', 'metadata', nested(66)],
    ['NUL in the address', 'callbackUrl', '"https://hooks.example/a\\u0000b"'],
    ['NUL in the reference', 'serviceRequestId', '"a\\u0000b"'],
  ])('when a call comes with %s, then it is 400 and names %s', async (_what, field, json) => {
    const { status, body } = await postText(`{"to":"+15550100","${field}":${json}}`);
    expect([status, body.detail]).toEqual([400, expect.stringMatching(`^${field}: must `)]);
  });

  test('when an object is as deep as allowed, then the call is accepted', async () => {
    expect((await postText(`{"to":"+15550100","metadata":${nested(64)}}`)).status).toBe(202);
  });

  test.each(['0000-01-01T00:00:00Z', '0001-01-01T00:00:00+10:00', '2026-13-01T00:00:00Z', 'yesterday'])(
    'when calls since %s are requested, then it is a 400 that names the parameter',
    async (since) => {
      const { status, body } = await request<Problem>(api, 'GET', `${CALLS}?since=${encodeURIComponent(since)}`);
      expect([status, body.detail]).toEqual([400, expect.stringMatching(/^since: /)]);
    },
  );

  test.each(['0001-01-01T00:00:00Z', '9999-12-31T23:59:59-23:59'])(
    'when calls since %s are requested, then the time is valid',
    async (since) => {
      expect((await request(api, 'GET', `${CALLS}?since=${since}`)).status).toBe(200);
    },
  );

  test('when the plus in a time is not escaped, then it is still understood', async () => {
    const serviceRequestId = randomUUID();
    const id = await aRow({ serviceRequestId, createdAt: new Date('2026-11-21T09:30:00Z') });
    const since = async (time: string) =>
      (await request<Page>(api, 'GET', `${CALLS}?serviceRequestId=${serviceRequestId}&since=${time}`)).body.data.map(
        ({ callId }) => callId,
      );
    expect(await since('2026-11-21T10:30:00+01:00')).toEqual([id]);
    expect(await since('2026-11-21T10:30:01+01:00')).toEqual([]);
  });
});

describe('starting', () => {
  test('when the header is missing or invalid, then the error names it as documented', async () => {
    const post = (headers: Record<string, string>) => request<Problem>(api, 'POST', CALLS, { body: { to: newNumber() }, headers });
    expect((await post({})).body.detail).toBe('Idempotency-Key: is required');
    expect((await post({ 'Idempotency-Key': 'two words' })).body.detail).toMatch(/^Idempotency-Key: must be 1 to 255 visible characters/);
  });

  test('when two API keys use the same Idempotency-Key, then each has a call of its own', async () => {
    const key = randomUUID();
    const body = { to: newNumber() };
    const first = await placeCall(api, body, key);
    const other = { Authorization: `Bearer ${OTHER_API_KEY}`, 'Idempotency-Key': key };
    const second = await request(api, 'POST', CALLS, { body, headers: other });
    expect([first.status, second.status]).toEqual([202, 202]);
    expect(second.body.callId).not.toBe(first.body.callId);
    expect((await placeCall(api, body, key)).body.callId).toBe(first.body.callId);
    expect((await request(api, 'POST', CALLS, { body, headers: other })).body.callId).toBe(second.body.callId);
  });

  test('when a call is accepted, then nothing that the caller wrote is in the log', async () => {
    const marker = `Marker-Person-${randomUUID()}`;
    const text = { serviceRequestId: marker, metadata: { [marker]: marker }, variables: { name: marker } };
    const { status, body } = await placeCall(api, { to: newNumber(), ...text, callbackUrl: `https://hooks.example/${marker}` });
    expect(status).toBe(202);
    expect(api.logLines.filter((line) => line.includes(body.callId)).join()).toContain('call accepted');
    expect(api.logLines.join()).not.toContain(marker);
  });

  test('when the body has an unsupported charset or encoding, then it is 415', async () => {
    const inCharset = await postText('{}', { 'Content-Type': 'application/json; charset=x' });
    const compressed = await postText('{}', { 'Content-Encoding': 'x' });
    expect([inCharset.status, compressed.status]).toEqual([415, 415]);
  });
});

describe('the number', () => {
  /** Mexico: WhatsApp keeps a 1 that the numbering plan gave up. */
  const newMexican = () => `52155${randomUUID().replace(/\D/g, '').padEnd(8, '1').slice(0, 8)}`;

  test('when it is spelled as WhatsApp, as this API or as people spell it, then it is dialled as the numbering plan says', async () => {
    const digits = newMexican();
    const dialled = `+52${digits.slice(3)}`;
    const spellings = [digits, `+${digits}`, dialled, dialled.slice(1), `00${dialled.slice(1)}`, `\u202a+52 1 ${digits.slice(3)}\u202c`];
    const placed = await Promise.all(spellings.map((to) => placeCall(api, { to })));
    expect(placed.map(({ status, body }) => [status, body.to])).toEqual(spellings.map(() => [202, dialled]));
    const callIds = placed.map(({ body }) => body.callId).sort();
    for (const spelling of spellings) {
      const { status, body } = await request<Page>(api, 'GET', `${CALLS}/by-phone/${encodeURIComponent(spelling)}`);
      expect([status, body.data.map(({ callId }) => callId).sort()]).toEqual([200, callIds]);
    }
  });

  test.each([
    ['0301234567', 'has no country code; write it with one, such as +15550100'],
    ['+521550000', 'is too short for its country code'],
    ['next Tuesday', 'must be a phone number: a plus, digits, spaces, dashes, dots, slashes and parentheses'],
  ])('when it is %p, then both routes say why it is not a phone number', async (written, why) => {
    const { status, body } = await request<Problem>(api, 'POST', CALLS, {
      body: { to: written },
      headers: { 'Idempotency-Key': randomUUID() },
    });
    expect([status, body.detail]).toEqual([400, `to: ${why}`]);
    const listed = await request<Problem>(api, 'GET', `${CALLS}/by-phone/${encodeURIComponent(written)}`);
    expect([listed.status, listed.body.detail]).toEqual([400, `phone: ${why}`]);
  });
});

describe('two workspaces', () => {
  const newWorkspace = async (vapiPhoneNumberId: string | null = null) =>
    await api.db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: randomUUID(), vapiPhoneNumberId } });

  afterEach(() => api.db.orm.workspace.deleteMany());

  test('when there is none, then a call belongs to none', async () => {
    expect((await placeCall(api, { to: newNumber() })).body).toMatchObject({ workspaceId: null });
  });

  test('when a request names one, then the call belongs to it and comes from its number; otherwise to the first one', async () => {
    const [first, second] = [await newWorkspace(), await newWorkspace('number-2')];
    const place = async (fields: object) => (await placeCall(api, { to: newNumber(), ...fields })).body;
    expect(await place({})).toMatchObject({ workspaceId: first.id, phoneNumberId: 'number-1' });
    expect(await place({ workspaceId: null })).toMatchObject({ workspaceId: first.id });
    expect(await place({ workspaceId: first.id })).toMatchObject({ workspaceId: first.id, phoneNumberId: 'number-1' });
    expect(await place({ workspaceId: second.id })).toMatchObject({ workspaceId: second.id, phoneNumberId: 'number-2' });
    const own = await place({ workspaceId: second.id, phoneNumberId: 'number-3' });
    expect(own).toMatchObject({ workspaceId: second.id, phoneNumberId: 'number-3' });
    const { body } = await request(api, 'GET', `${CALLS}/${own.callId}`);
    expect(body.workspaceId).toBe(second.id);
  });

  test('when a request names one that does not exist, then it is 422 and nothing is stored', async () => {
    const to = newNumber();
    const { status, body } = await request<Problem>(api, 'POST', CALLS, {
      body: { to, workspaceId: randomUUID() },
      headers: { 'Idempotency-Key': randomUUID() },
    });
    expect([status, body.detail]).toEqual([422, 'workspaceId: there is no such workspace']);
    expect(await api.db.orm.vapiCallResult.count({ where: { toNumber: to } })).toBe(0);
  });

  test('when the same key is used for another workspace, then it is a different request', async () => {
    const [key, to, { id: workspaceId }] = [randomUUID(), newNumber(), await newWorkspace()];
    expect([(await placeCall(api, { to }, key)).status, (await placeCall(api, { to, workspaceId }, key)).status]).toEqual([202, 409]);
  });

  test('when calls of one are listed, then those of the other are left out', async () => {
    const [first, second] = [await newWorkspace(), await newWorkspace()];
    const to = newNumber();
    const [one, other] = await Promise.all([first, second].map(async ({ id }) => await aRow({ toNumber: to, workspaceId: id })));
    const list = async (path: string) => (await request<Page>(api, 'GET', `${CALLS}${path}`)).body.data.map(({ callId }) => callId);
    for (const path of ['', `/by-phone/${to}`]) {
      expect(await list(`${path}?workspaceId=${first.id}`)).toEqual([one]);
      expect(await list(`${path}?workspaceId=${second.id}`)).toEqual([other]);
    }
    expect((await list(`/by-phone/${to}`)).sort()).toEqual([one, other].sort());
  });
});

describe('attention', () => {
  const clear = (callId: string, body: unknown = { clear: true }) => request(api, 'POST', `${CALLS}/${callId}/attention`, { body });

  test('when a person has looked at the call, then it is cleared, by either id, and repeatedly', async () => {
    const providerCallId = `vapi-${randomUUID()}`;
    const fields = { outcome: 'unknown', doneAt: new Date(), needsAttention: true, callbackFailedAt: new Date() };
    const [callId, other] = [await aRow({ ...fields, providerCallId }), await aRow(fields)];
    for (const id of [providerCallId, callId]) {
      const { status, body } = await clear(id);
      expect([status, body]).toEqual([200, expect.objectContaining({ callId, needsAttention: false, outcome: 'unknown' })]);
    }
    const rowOf = (id: string) => api.db.orm.vapiCallResult.findUnique({ where: { id } });
    expect(await rowOf(callId)).toMatchObject({ needsAttention: false, callbackFailedAt: null });
    expect(await rowOf(other)).toMatchObject({ needsAttention: true });
  });

  test.each([{}, { clear: false }, { clear: true, all: true }, [], null])(
    'when the body is %j, then it is 400, and nothing is cleared',
    async (body) => {
      const callId = await aRow({ outcome: 'unknown', doneAt: new Date(), needsAttention: true });
      expect((await clear(callId, body)).status).toBe(400);
      expect((await request(api, 'GET', `${CALLS}/${callId}`)).body).toMatchObject({ needsAttention: true });
    },
  );

  test('when there is no such call, then it is 404', async () => {
    expect((await clear(randomUUID())).status).toBe(404);
  });
});

describe('null', () => {
  test('when optional fields are null, then the request is the same as without them', async () => {
    const key = randomUUID();
    const to = newNumber();
    const nulls = Object.fromEntries(Object.keys(startBody.shape).flatMap((name) => (name === 'to' ? [] : [[name, null]])));
    expect(Object.keys(nulls).length).toBeGreaterThan(5);
    const first = await placeCall(api, { ...nulls, to }, key);
    const second = await placeCall(api, { to }, key);
    expect([first.status, second.status, second.body.callId]).toEqual([202, 202, first.body.callId]);
    expect((await placeCall(api, { to: null })).status).toBe(400);
  });

  test('when a null is inside a free-form object, then it is kept', async () => {
    const { status, body } = await placeCall(api, { to: newNumber(), metadata: { ticket: null } });
    expect([status, body.metadata]).toEqual([202, { ticket: null }]);
  });
});

describe('a closed execution of the same id', () => {
  test('when it was stopped from outside and the row is open, then the repeated request follows the call again', async () => {
    const { callId, again } = await newCall();
    const { runId } = await workflowOf(callId).describe();
    expect((await again()).body.callId).toBe(callId);
    expect((await workflowOf(callId).describe()).runId).toBe(runId);
    await workflowOf(callId).terminate();
    const { status, body } = await again();
    expect([status, body.callId]).toEqual([202, callId]);
    const now = await workflowOf(callId).describe();
    expect([now.status.name, now.runId === runId]).toEqual(['RUNNING', false]);
  });

  test('when retention has deleted its row, then the key starts a new call', async () => {
    const { callId, again } = await newCall();
    await workflowOf(callId).terminate();
    await api.db.orm.vapiCallResult.delete({ where: { id: callId } });
    expect((await again()).status).toBe(202);
    expect((await workflowOf(callId).describe()).status.name).toBe('RUNNING');
  });

  test('when its result is written during the request, then nothing is started', async () => {
    const { callId, again } = await newCall();
    await workflowOf(callId).terminate();
    const { workflow } = api.itsTemporal;
    const start = workflow.start.bind(workflow);
    const spy = jest.spyOn(workflow, 'start').mockImplementationOnce(async (...given) => {
      await api.db.orm.vapiCallResult.update({ where: { id: callId }, data: { doneAt: new Date(), outcome: 'completed' } });
      return await start(...given);
    });
    expect((await again()).status).toBe(202);
    expect(spy).toHaveBeenCalledTimes(1);
    spy.mockRestore();
    expect((await workflowOf(callId).describe()).status.name).toBe('TERMINATED');
  });
});

describe('waiting', () => {
  test('when a client disconnects, then its waiter is removed', async () => {
    const { callId } = await newCall();
    const { leave, ended } = waiting(callId, 50);
    await eventually(async () => expect(api.waiters.counts()).toMatchObject({ waiters: 1, waits: 1 }));
    leave();
    await ended;
    await eventually(async () => expect(api.waiters.counts()).toMatchObject({ waiters: 0, waits: 0 }));
  });

  test('when a client disconnects while the database is read, then nobody waits in its place', async () => {
    const { callId } = await newCall();
    const seen = api.waitedFor.length;
    const closed = new Promise<void>((resolve) => {
      api.server.once('request', (_request, response) => response.once('close', () => resolve()));
    });
    await api.db.orm.$transaction(async (locked) => {
      await locked.$executeRaw`LOCK TABLE vapi_call_results IN ACCESS EXCLUSIVE MODE`;
      const { leave } = waiting(callId, 50);
      await eventually(async () => expect(await locked.$queryRaw`SELECT FROM pg_locks WHERE NOT granted`).toHaveLength(1));
      leave();
      await closed;
    });
    await eventually(async () => expect(api.waitedFor).toHaveLength(seen + 1));
    expect(api.waitedFor.at(-1)?.aborted).toBe(true);
    expect(api.waiters.counts().waiters).toBe(0);
  });

  test('when the workflow was stopped from outside, then the wait lasts as long as it was asked for', async () => {
    const { callId } = await newCall();
    await workflowOf(callId).terminate();
    const startedAtMs = Date.now();
    expect(await waiting(callId, 1).ended).toMatchObject({ done: false });
    expect(Date.now() - startedAtMs).toBeGreaterThanOrEqual(1_000);
    const { leave, ended } = waiting(callId, 50);
    await eventually(async () => expect(api.waiters.counts()).toMatchObject({ waiters: 1, waits: 0 }));
    leave();
    await ended;
    await eventually(async () => expect(api.waiters.counts().waiters).toBe(0));
  });

  test('when the wait at Temporal ends with an error, then it is begun again, and the result arrives', async () => {
    const { callId } = await newCall();
    const { workflow } = api.itsTemporal;
    const handle = workflow.getHandle(callWorkflowId(callId));
    const lost = { ...handle, result: () => Promise.reject(new Error('connection lost')) };
    const spy = jest.spyOn(workflow, 'getHandle').mockReturnValueOnce(lost);
    const { waitsBegun } = api.waiters.counts();
    const { ended } = waiting(callId, 50);
    await eventually(async () => expect(api.waiters.counts()).toMatchObject({ waits: 1, waitsBegun: waitsBegun + 2 }));
    spy.mockRestore();
    expect(api.logLines.at(-1)).toContain('waiting for a call was interrupted');
    await api.db.orm.vapiCallResult.update({ where: { id: callId }, data: { doneAt: new Date(), outcome: 'completed' } });
    await workflowOf(callId).terminate();
    expect(await ended).toMatchObject({ done: true, outcome: 'completed' });
  });
});

describe('reading', () => {
  test("when Vapi's id of a call is as long as the webhook keeps it, then the call and its recording are found by it", async () => {
    const providerCallId = 'x'.repeat(128);
    const callId = await aRow({ providerCallId, doneAt: new Date() });
    expect(await request(api, 'GET', `${CALLS}/${providerCallId}`)).toMatchObject({ status: 200, body: { callId } });
    const recording = await request<Problem>(api, 'GET', `${CALLS}/${providerCallId}/recording`);
    expect([recording.status, recording.body.detail]).toEqual([404, 'the call has no recording']);
  });

  test('when the calls of a number are listed, then those from it are among them', async () => {
    const number = newNumber();
    const ids = [await aRow({ toNumber: number }), await aRow({ fromNumber: number, direction: 'inbound' })];
    const { body } = await request<Page>(api, 'GET', `${CALLS}/by-phone/${number}`);
    expect(body.data.map(({ callId }) => callId).sort()).toEqual(ids.sort());
  });

  test('when calls are filtered by attention, then only those that need it are listed, or only the others', async () => {
    const serviceRequestId = randomUUID();
    const ids = [await aRow({ serviceRequestId, needsAttention: true }), await aRow({ serviceRequestId })];
    const list = async (query: string) =>
      (await request<Page>(api, 'GET', `${CALLS}?serviceRequestId=${serviceRequestId}${query}`)).body.data.map(({ callId }) => callId);
    expect(await list('&needsAttention=true')).toEqual([ids[0]]);
    expect(await list('&needsAttention=false')).toEqual([ids[1]]);
    expect((await list('')).sort()).toEqual(ids.sort());
  });

  test.each([
    ['GET', CALLS],
    ['POST', CALLS],
    ['GET', `${CALLS}/by-phone/+15550100`],
    ['GET', `${CALLS}/${randomUUID()}`],
    ['DELETE', `${CALLS}/${randomUUID()}`],
    ['GET', `${CALLS}/${randomUUID()}/recording`],
    ['GET', '/api/v1/conversations'],
    ['GET', `/api/v1/conversations/${randomUUID()}`],
    ['GET', `/api/v1/conversations/${randomUUID()}/messages`],
  ])('when %s %s has an unknown parameter, then it is 400 and names it', async (method, path) => {
    const headers = { 'Idempotency-Key': randomUUID() };
    const body = method === 'POST' ? { body: { to: newNumber() } } : {};
    const answer = await request<Problem>(api, method, `${path}?needAttention=true`, { headers, ...body });
    expect([answer.status, answer.body.detail]).toEqual([400, expect.stringContaining('needAttention')]);
  });
});

describe('an unexpected error', () => {
  test('when the database rejects a query, then the response is a 500 with an id that is in the log, and without internal details', async () => {
    const id = randomUUID();
    await api.db.orm.$executeRaw`ALTER TABLE messages RENAME TO messages_away`;
    try {
      const { status, body, headers } = await request<{ id: string }>(api, 'GET', `/api/v1/conversations/${id}/messages`);
      expect([status, headers.get('retry-after'), body]).toEqual([
        ...[500, null],
        {
          type: 'about:blank',
          title: 'Internal Server Error',
          status: 500,
          detail: 'internal error; the id is also in the log',
          id: expect.any(String),
        },
      ]);
      const line = api.logLines.find((each) => each.includes(body.id));
      expect(line).toContain('messages');
    } finally {
      await api.db.orm.$executeRaw`ALTER TABLE messages_away RENAME TO messages`;
    }
  });
});

describe('the first look', () => {
  test('when the root URL is opened, then it redirects to the page', async () => {
    const answer = await fetch(`${api.apiUrl}/`, { redirect: 'manual' });
    expect([answer.status, answer.headers.get('location')]).toEqual([302, '/docs']);
  });

  test('when the example of the page is tried out, then the call is taken', async () => {
    interface Documented {
      paths: Record<string, { post: { requestBody: { content: Record<string, { example: unknown }> } } }>;
    }
    const document = (await (await fetch(`${api.apiUrl}/openapi.json`)).json()) as Documented;
    const example = document.paths[CALLS]?.post.requestBody.content['application/json']?.example;
    expect(example).toEqual({ to: '+15550100' });
    expect((await postText(JSON.stringify(example))).status).toBe(202);
  });
});

describe("Vapi's webhook", () => {
  test('when too many unsigned ones arrive within a minute, then they get 429 with Retry-After, and the metrics count them', async () => {
    const apiUrl = await api.another({ UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: '2' });
    const post = () => fetch(`${apiUrl}/api/v1/vapi/webhooks/vapi`, { method: 'POST', body: '{}' });
    const answers = [await post(), await post(), await post()];
    expect(answers.map(({ status }) => status)).toEqual([401, 401, 429]);
    expect(Number(answers[2]?.headers.get('retry-after'))).toBeGreaterThan(0);
    await eventually(async () => {
      const metrics = await (await fetch(`${apiUrl}/metrics`)).text();
      expect(metrics).toContain('parley_webhooks_total{source="vapi",type="other",result="rate_limited"} 1\n');
      expect(metrics).toContain('parley_webhooks_total{source="vapi",type="other",result="bad_signature"} 2\n');
      expect(metrics).toContain('parley_webhook_answer_seconds_count{source="vapi",type="other"} 3\n');
    });
  });
});
