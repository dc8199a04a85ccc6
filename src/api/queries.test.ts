/** The queries of all routes, as the OpenAPI document lists them: a wrong one is a 400 that says what is allowed. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { oas31 } from 'zod-openapi';
import { startTestApi, type TestApi } from '../../test/support/api';
import { newNumber, request } from '../../test/support/calls';
import { CALL_INCLUDES, callViewSchema } from '../api/views/call';
import { openApiDocument } from '../processes/openapi';
import { CALL_OUTCOMES, callOutcome } from '../record/call-outcome';
import { findCalls } from '../record/calls';
import { MessageOutcome } from '../record/conversations';

interface Problem {
  detail: string;
}
interface Page<T> {
  data: T[];
  next: string | null;
}

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_queries');
});

afterAll(async () => {
  await api?.close();
});

const document = openApiDocument();
/** A valid value for each path parameter, so that only the query can be wrong. */
const IDS: Record<string, string> = { phone: '15550100', callId: randomUUID(), id: randomUUID() };

function schemaOf({ schema = {} }: oas31.ParameterObject): oas31.SchemaObject {
  return schema as oas31.SchemaObject;
}

/** Every operation under `/api/v1` that the key opens, with its query parameters. */
const operations = Object.entries(document.paths ?? {})
  .filter(([path]) => path.startsWith('/api/v1/') && !path.includes('/webhook'))
  .flatMap(([path, item]) =>
    (['get', 'post', 'delete'] as const).flatMap((method) => {
      const operation = item[method];
      if (!operation) return [];
      const parameters = ((operation.parameters ?? []) as oas31.ParameterObject[]).filter((each) => each.in === 'query');
      const url = path.replace(/\{(\w+)\}/g, (_all, name: string) => IDS[name] ?? randomUUID());
      return [{ name: `${method.toUpperCase()} ${path}`, method: method.toUpperCase(), url, parameters }];
    }),
  );
const parameters = operations.flatMap(({ name, method, url, parameters: all }) =>
  all.map((parameter) => ({ operation: name, method, url, parameter, name: parameter.name })),
);

async function refusal(method: string, url: string): Promise<string> {
  const body = method === 'POST' && url.startsWith('/api/v1/vapi/calls') ? { body: { to: newNumber() } } : {};
  const { status, body: problem } = await request<Problem>(api, method, url, { headers: { 'Idempotency-Key': randomUUID() }, ...body });
  expect(status).toBe(400);
  return problem.detail;
}

test.each(parameters.filter(({ name }) => name === 'before' || name === 'after'))(
  'when $name of $operation is no place in a list, then the problem says where to take it from',
  async ({ operation, method, url, name }) => {
    const field = name === 'after' && operation === 'GET /api/v1/conversations' ? 'after' : 'next';
    expect(await refusal(method, `${url}?${name}=x`)).toBe(`${name}: must be the \`${field}\` of an earlier response`);
  },
);

test('when the OpenAPI document is read, then it has the lists and their parameters', () => {
  const names = parameters.map(({ operation, name }) => `${operation} ${name}`);
  expect(names).toEqual(
    expect.arrayContaining([
      ...['status', 'outcome', 'serviceRequestId', 'needsAttention', 'since', 'wait', 'limit', 'before'].map(
        (each) => `GET /api/v1/vapi/calls ${each}`,
      ),
      ...['phone', 'mode', 'needsAttention'].map((each) => `GET /api/v1/conversations ${each}`),
      ...['reason', 'source', 'replayed'].map((each) => `GET /api/v1/dead-letters ${each}`),
      'GET /api/v1/parked-messages released',
    ]),
  );
});

test.each(operations)('when $name gets an unknown parameter, then it is a 400 that names it and the known ones', async (operation) => {
  const detail = await refusal(operation.method, `${operation.url}?outcom=completed`);
  const known = operation.parameters.map(({ name }) => name).join(', ') || 'none';
  expect(detail).toBe(`outcom: is not a parameter of this operation; allowed: ${known}`);
});

test.each(parameters)('when $name of $operation is given twice, then it is a 400 that names it', async ({ method, url, name }) => {
  expect(await refusal(method, `${url}?${name}=true&${name}=true`)).toBe(`${name}: must be given once`);
});

test.each(parameters)(
  'when $name of $operation has an invalid value, then it is a 400 that names it',
  async ({ method, url, name, parameter }) => {
    // Free text accepts everything that the database can store.
    const wrong = name === 'serviceRequestId' ? '%00' : 'nothing-of-this-kind';
    const detail = await refusal(method, `${url}?${name}=${wrong}`);
    expect(detail).toMatch(new RegExp(`^${name}: `));
    expect(detail).not.toContain('nothing-of-this-kind');
    for (const value of schemaOf(parameter).enum ?? []) expect(detail).toContain(`"${value}"`);
  },
);

describe('outcomes', () => {
  const outcomeFilter = parameters.find(({ operation, name }) => operation === 'GET /api/v1/vapi/calls' && name === 'outcome');

  test('when the OpenAPI document lists outcomes, then they are those of the code, for filter, call, counts and message', () => {
    const schemas = document.components?.schemas as Record<string, oas31.SchemaObject>;
    const enumOf = (schema: string, field: string) => JSON.stringify(schemas[schema]?.properties?.[field]);
    expect(outcomeFilter && schemaOf(outcomeFilter.parameter).enum).toEqual(CALL_OUTCOMES);
    expect(enumOf('Call', 'outcome')).toContain(JSON.stringify(CALL_OUTCOMES));
    for (const outcome of CALL_OUTCOMES) expect(enumOf('CallList', 'counts')).toContain(`"${outcome}":`);
    expect(enumOf('Message', 'outcome')).toContain(JSON.stringify(Object.values(MessageOutcome)));
  });

  test('when the README lists outcomes, then it has all of a message and all of a call', () => {
    const readme = readFileSync('README.md', 'utf8');
    const paragraph = (start: string) => readme.split('\n').find((line) => line.startsWith(start)) ?? '';
    for (const outcome of Object.values(MessageOutcome))
      expect(paragraph('Each inbound message has one outcome')).toContain(`\`${outcome}\``);
    for (const outcome of CALL_OUTCOMES) expect(paragraph('Each call has one `outcome`')).toContain(`\`${outcome}\``);
  });

  test('when a reason of Vapi is classified, then the view accepts the outcome', () => {
    const { outcome } = callOutcome({ endedReason: 'customer-busy', wasInProgress: false });
    expect(callViewSchema.shape.outcome.parse(outcome)).toBe('busy');
    expect(() => callViewSchema.shape.outcome.parse('engaged')).toThrow();
  });
});

describe('large columns', () => {
  test('when calls are listed, then the statement does not read transcripts, messages or reports', async () => {
    const statements: string[] = [];
    api.db.orm.$on('query' as never, ({ query }: { query: string }) => statements.push(query));
    const serviceRequestId = randomUUID();
    const id = randomUUID();
    await api.db.orm.vapiCallResult.create({
      data: {
        id,
        workflowId: `call-${id}`,
        direction: 'outbound',
        serviceRequestId,
        transcript: 'x'.repeat(100_000),
        rawPayload: { a: 1 },
      },
    });
    statements.length = 0;
    const { rows } = await findCalls(api.db, { serviceRequestId }, { limit: 10 });
    expect(rows).toHaveLength(1);
    expect(statements.filter((statement) => statement.startsWith('SELECT'))).toHaveLength(1);
    for (const column of ['transcript', 'messages', 'raw_payload', 'provider_context', 'variables']) {
      expect(statements.join()).not.toContain(`"${column}"`);
    }
    expect(statements.join()).toContain('"summary"');
  });

  test('when a call that has them is listed, then they are null in the list and present on request', async () => {
    const serviceRequestId = randomUUID();
    const id = randomUUID();
    const large = { transcript: 'AI: hello', messages: [{ role: 'bot' }], rawPayload: { type: 'end-of-call-report' } };
    await api.db.orm.vapiCallResult.create({ data: { id, workflowId: `call-${id}`, direction: 'outbound', serviceRequestId, ...large } });
    const list = await request<Page<object>>(api, 'GET', `/api/v1/vapi/calls?serviceRequestId=${serviceRequestId}`);
    expect(list.body.data).toMatchObject([{ callId: id, transcript: null, messages: null, raw: null }]);
    const shown = await request<object>(api, 'GET', `/api/v1/vapi/calls/${id}?include=${CALL_INCLUDES.join()}`);
    expect(shown.body).toMatchObject({ transcript: large.transcript, messages: large.messages, raw: large.rawPayload });
    expect(Object.keys(list.body.data[0] ?? {}).sort()).toEqual(Object.keys(shown.body).sort());
  });
});

describe('conversations by phone', () => {
  const list = async (query: string) => await request<Page<{ id: string }> & Problem>(api, 'GET', `/api/v1/conversations?${query}`);

  /** A person with a conversation; `key`: the matching key of the number. */
  async function aConversation(phone: string, key: string): Promise<string> {
    const name = randomUUID();
    const workspace = await api.db.orm.workspace.create({ data: { name, kapsoPhoneNumberId: name } });
    const contact = await api.db.orm.contact.create({
      data: {
        workspaceId: workspace.id,
        contactKey: name,
        phone,
        aliases: { create: { kind: 'phone', value: key, workspaceId: workspace.id } },
      },
    });
    const { id } = await api.db.orm.conversation.create({
      data: { workspaceId: workspace.id, contactId: contact.id, workflowId: `conversation-${name}`, lastMessageAt: new Date() },
    });
    return id;
  }

  test('when a number is spelled in any way, then its conversations are found, in every workspace, and no others', async () => {
    const ids = [await aConversation('5215512345678', '525512345678'), await aConversation('525512345678', '525512345678')];
    await aConversation('5215512345679', '525512345679');
    for (const phone of [
      ...['5215512345678', '525512345678', '%2B525512345678', '+525512345678', '%2B52%2055%201234%205678', '+52+1+55+1234+5678'],
      ...['0052-55-1234-5678', '%2B52%20(1)%2055.1234.5678'],
    ]) {
      const { status, body } = await list(`phone=${phone}`);
      expect([phone, status, body.data?.map(({ id }) => id).sort()]).toEqual([phone, 200, [...ids].sort()]);
    }
    const [first] = (await list('phone=525512345678&limit=1')).body.data;
    const { next } = (await list('phone=525512345678&limit=1')).body;
    const [second] = (await list(`phone=525512345678&limit=1&before=${next}`)).body.data;
    expect([first?.id, second?.id].sort()).toEqual([...ids].sort());
    expect((await list('phone=525512345678&mode=human')).body.data).toEqual([]);
  });

  test('when the plan of a country dials another spelling than the matching key, then both find it', async () => {
    const id = await aConversation('551187654321', '551187654321');
    for (const phone of ['5511987654321', '551187654321', '%2B55%2011%2098765-4321']) {
      expect((await list(`phone=${phone}`)).body.data.map((each) => each.id)).toEqual([id]);
    }
  });

  test('when nobody has the number, then the list is empty', async () => {
    expect((await list('phone=525587654321')).body).toEqual({ data: [], next: null, after: null });
  });

  test.each([
    ['mama', /^phone: must be a phone number/],
    ['055-1234', /^phone: has no country code/],
    ['%2B999123456789', /^phone: does not begin with a country code/],
    ['%2B5255', /^phone: is too short/],
    ['%2B52551234567890123', /^phone: is too long/],
    ['', /^phone: has no digits/],
    ['%2B', /^phone: has no digits/],
  ])('when the number is %s, then it is a 400 that says why', async (phone, why) => {
    const { status, body } = await list(`phone=${phone}`);
    expect([status, body.detail]).toEqual([400, expect.stringMatching(why)]);
  });
});
