/** What every address has in common, over real HTTP: answers as documented, problems, limits, metrics, the page. */
import { createHmac, randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { z } from 'zod';
import type { ZodOpenApiResponseObject, ZodOpenApiResponsesObject } from 'zod-openapi';
import { freePort } from '../src/local/embedded/ports';
import { apiPaths } from '../src/processes/openapi';
import { WEBHOOK_PATHS } from '../src/webhooks/kapso';
import { eventually, newPhone, outcomesOf } from './support/expectations';
import { startSuite } from './support/suite';
import { API_KEY, type RunningProcess, type System, startProcess, VAPI_WEBHOOK_SECRET, WEBHOOK_SECRET } from './support/system';

const PROBLEM_TYPE = 'application/problem+json; charset=utf-8';

let system: System;
let workerMetricsUrl: string;

beforeAll(async () => {
  const port = await freePort(0);
  workerMetricsUrl = `http://127.0.0.1:${port}/metrics`;
  system = await startSuite('platform', { workers: 0 });
  await system.startWorker({ WORKER_HEALTH_PORT: String(port) });
});

afterAll(async () => {
  await system?.close();
});

const withKey = { Authorization: `Bearer ${API_KEY}` };

function request(path: string, init: RequestInit = {}, apiUrl = system.apiUrl): Promise<Response> {
  return fetch(`${apiUrl}${path}`, init);
}

function postWebhook(body: string, headers: Record<string, string> = {}, apiUrl = system.apiUrl): Promise<Response> {
  const signature = createHmac('sha256', WEBHOOK_SECRET).update(body).digest('hex');
  return request('/webhook/kapso', { method: 'POST', body, headers: { 'X-Webhook-Signature': signature, ...headers } }, apiUrl);
}

/** An API of its own with other settings, on another port. */
async function anotherApi(extra: Record<string, string>, ready = 'api ready'): Promise<{ api: RunningProcess; url: string }> {
  const port = await freePort(0);
  const api = await startProcess('api', 'src/processes/server.ts', { ...system.environment, PORT: String(port), ...extra }, ready);
  return { api, url: `http://127.0.0.1:${port}` };
}

/** A conversation with messages of both sides. */
async function conversationId(): Promise<string> {
  const phone = newPhone();
  await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
  await outcomesOf(system, phone, 1);
  return (await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } })).id;
}

/** The value of a metric's line that begins so; undefined when there is none. */
function metricOf(metrics: string, beginning: string): number | undefined {
  const line = metrics.split('\n').find((each) => each.startsWith(`${beginning} `));
  return line === undefined ? undefined : Number(line.slice(beginning.length + 1));
}

describe('document', () => {
  test('when each address is read, then the answer is what its schema says, and nothing more', async () => {
    const id = await conversationId();
    const seen: string[] = [];
    for (const [path, { get }] of Object.entries(apiPaths)) {
      if (!get || path === '/docs/{file}') continue;
      const query = WEBHOOK_PATHS.includes(path) ? '?hub.mode=subscribe&hub.verify_token=fake-verify-token&hub.challenge=1' : '';
      if (path.includes('{') && !path.startsWith('/api/v1/conversations/')) continue;
      const answer = await request(path.replace('{id}', id) + query, { headers: withKey });
      expect([path, answer.status]).toEqual([path, 200]);
      const schema = schemaOf(get.responses, answer);
      const body: unknown = /json/.test(answer.headers.get('content-type') ?? '') ? await answer.json() : await answer.text();
      expect(schema.parse(body)).toEqual(body);
      seen.push(path);
    }
    expect(seen).toEqual(expect.arrayContaining(['/api/v1/conversations', '/api/v1/conversations/{id}/messages', '/readyz', '/metrics']));
  });
});

function schemaOf(responses: ZodOpenApiResponsesObject, answer: Response): z.ZodType {
  const { content } = responses[`${answer.status}` as '200'] as ZodOpenApiResponseObject;
  const type = answer.headers.get('content-type')?.split(';')[0] ?? '';
  const schema = content?.[type as 'application/json']?.schema;
  if (!(schema instanceof z.ZodType)) throw new Error(`no schema for ${answer.status} ${type}`);
  return schema;
}

/** Whether it is signed, only the body shows. */
const mayBeSigned = { 'X-Webhook-Signature': 'ab'.repeat(32) };

describe('problems', () => {
  test.each([
    ['an unknown address', '/nowhere', {}, 404],
    ['an unknown address under the API', '/api/v1/nowhere', { headers: withKey }, 404],
    ['a broken escape in the path', '/api/v1/conversations/%E0%A4%A', { headers: withKey }, 400],
    ['a wrong method', '/api/v1/conversations', { method: 'DELETE' }, 405],
    ['a wrong method at a webhook', '/webhook/kapso', { method: 'PUT' }, 405],
    ['a repeated parameter', '/api/v1/conversations?limit=1&limit=2', { headers: withKey }, 400],
    ['a number in another notation', '/api/v1/conversations?limit=0x10', { headers: withKey }, 400],
    ['no key', '/api/v1/conversations', {}, 401],
    ['a webhook without a signature', '/webhook/kapso', { method: 'POST', body: '{}' }, 401],
    [
      'a webhook in an unknown compression',
      '/webhook/kapso',
      { method: 'POST', body: '{}', headers: { ...mayBeSigned, 'Content-Encoding': 'x' } },
      415,
    ],
    ['a webhook that is too long', '/webhook/kapso', { method: 'POST', body: 'x'.repeat(3 * 1024 * 1024 + 1), headers: mayBeSigned }, 413],
    ['a wrong handshake', '/webhook/kapso?hub.mode=subscribe', {}, 403],
    ['a file that the page does not have', '/docs/package.json', {}, 404],
    ['a path out of the page', '/docs/..%2f..%2fpackage.json', {}, 404],
  ] as [string, string, RequestInit, number][])('when %s comes, then it is a problem', async (_what, path, init, status) => {
    const answer = await request(path, init);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([status, PROBLEM_TYPE]);
    const body = (await answer.json()) as Record<string, unknown>;
    expect(body).toEqual({ type: 'about:blank', title: expect.any(String), status, detail: expect.any(String) });
    expect(answer.headers.get('x-powered-by')).toBeNull();
  });

  test('when a method is wrong, then Allow names the right ones; OPTIONS and HEAD are answered without a body', async () => {
    const wrong = await request('/api/v1/conversations', { method: 'POST' });
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'GET, HEAD, OPTIONS']);
    const options = await request('/webhook/kapso', { method: 'OPTIONS' });
    expect([options.status, options.headers.get('allow'), await options.text()]).toEqual([204, 'GET, POST, HEAD, OPTIONS', '']);
    const head = await request('/api/v1/conversations', { method: 'HEAD', headers: withKey });
    expect([head.status, await head.text()]).toEqual([200, '']);
  });

  test('when the target is a whole address, then it is the same webhook', async () => {
    const answer = await raw(
      'POST http://parley/webhook/kapso?x=1 HTTP/1.1\r\nHost: parley\r\nContent-Length: 0\r\nConnection: close\r\n\r\n',
    );
    expect(answer).toContain('HTTP/1.1 401 ');
  });

  test.each([
    ['an address of 20 kB', `GET /${'a'.repeat(20_000)} HTTP/1.1\r\nHost: parley\r\n\r\n`, 431],
    ['no HTTP at all', 'hello\r\n\r\n', 400],
  ])('when %s comes, then even that is a problem', async (_what, head, status) => {
    const answer = await raw(head);
    expect(answer).toContain(`HTTP/1.1 ${status} `);
    expect(answer).toContain(`Content-Type: ${PROBLEM_TYPE}`);
    expect(JSON.parse(answer.split('\r\n\r\n')[1] ?? '')).toMatchObject({ type: 'about:blank', status });
  });

  test('when the record is away, then the answer has an id that stands in the log, and nothing of the inside', async () => {
    const deadPort = await freePort(0);
    const { api, url } = await anotherApi(
      { DATABASE_URL: `postgresql://nobody:secret-password@127.0.0.1:${deadPort}/none` },
      'api listening',
    );
    try {
      const answer = await request('/api/v1/conversations', { headers: withKey }, url);
      const body = (await answer.json()) as { id: string };
      expect([answer.status, answer.headers.get('retry-after'), body]).toEqual([
        503,
        '5',
        { type: 'about:blank', title: 'Service Unavailable', status: 503, detail: expect.any(String), id: expect.any(String) },
      ]);
      expect(JSON.stringify(body)).not.toMatch(/ECONN|127\.0\.0\.1|prisma|postgres|secret/i);
      expect(await api.line(body.id, '"level":"error"')).toContain('the database is unavailable');
      const webhook = await postWebhook(message(), {}, url);
      const refused = (await webhook.json()) as { id: string };
      expect([webhook.status, webhook.headers.get('retry-after'), webhook.headers.get('content-type')]).toEqual([503, '5', PROBLEM_TYPE]);
      expect(await api.line(refused.id)).toContain('webhook not stored');
      const event = { message: { type: 'status-update', status: 'ringing', call: { id: randomUUID() } } };
      const headers = { 'Content-Type': 'application/json', 'X-Vapi-Secret': VAPI_WEBHOOK_SECRET };
      const early = await request('/api/v1/vapi/webhooks/vapi', { method: 'POST', headers, body: JSON.stringify(event) }, url);
      expect([early.status, early.headers.get('retry-after')]).toEqual([503, '5']);
      const metrics = await (await request('/metrics', {}, url)).text();
      expect(metricOf(metrics, 'parley_webhooks_total{source="kapso",type="message",result="not_started"}')).toBe(1);
      expect(metricOf(metrics, 'parley_webhooks_total{source="vapi",type="status-update",result="not_started"}')).toBe(1);
      expect(metricOf(metrics, 'parley_record_readable')).toBe(0);
      expect(metricOf(metrics, 'parley_parked_messages')).toBeUndefined();
    } finally {
      await api.kill();
    }
  });
});

async function raw(head: string): Promise<string> {
  const { hostname, port } = new URL(system.apiUrl);
  const socket = connect(Number(port), hostname);
  socket.write(head);
  return await text(socket);
}

function message(phone = newPhone()): string {
  return JSON.stringify({
    messages: [{ from: phone, id: `wamid.${randomUUID()}`, timestamp: String(Math.floor(Date.now() / 1_000)), text: { body: 'hi' } }],
  });
}

describe('limits', () => {
  test('when a provider sends 500 webhooks as fast as it can, then the defaults let every one through', async () => {
    const statuses: number[] = [];
    const bodies = Array.from({ length: 500 }, (_, index) => JSON.stringify({ nothing: 'for us', index }));
    for (let start = 0; start < bodies.length; start += 50) {
      const answers = await Promise.all(bodies.slice(start, start + 50).map((body) => postWebhook(body)));
      statuses.push(...answers.map((answer) => answer.status));
    }
    expect(new Set(statuses)).toEqual(new Set([200]));
    expect(statuses.length).toBe(500);
  });

  test('when an address goes beyond the limit, then it gets 429 with Retry-After, the count says so, and neither what is signed nor health is limited', async () => {
    const { api, url } = await anotherApi({ UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: '5', API_RATE_LIMIT_PER_MINUTE: '5' });
    try {
      const webhooks: Response[] = [];
      for (let index = 0; index < 7; index += 1) webhooks.push(await postWebhook('{}', mayBeSigned, url));
      expect(webhooks.map((answer) => answer.status)).toEqual([401, 401, 401, 401, 401, 429, 429]);
      for (let index = 0; index < 20; index += 1) expect((await postWebhook('{}', {}, url)).status).toBe(200);
      expect(webhooks[6]?.headers.get('content-type')).toBe(PROBLEM_TYPE);
      expect(Number(webhooks[6]?.headers.get('retry-after'))).toBeGreaterThan(0);
      const calls: number[] = [];
      for (let index = 0; index < 6; index += 1) calls.push((await request('/api/v1/conversations', { headers: withKey }, url)).status);
      expect(calls).toEqual([200, 200, 200, 200, 200, 429]);
      for (let index = 0; index < 20; index += 1) expect((await request('/healthz', {}, url)).status).toBe(200);
      const metrics = await (await request('/metrics', {}, url)).text();
      expect(metricOf(metrics, 'parley_webhooks_total{source="kapso",type="other",result="rate_limited"}')).toBe(2);
    } finally {
      await api.stop();
    }
  });
});

describe('metrics', () => {
  test('when webhooks come, then the API counts each by what it was and how it ended', async () => {
    const read = async () => await (await request('/metrics')).text();
    const count = (metrics: string, type: string, result: string) =>
      metricOf(metrics, `parley_webhooks_total{source="kapso",type="${type}",result="${result}"}`) ?? 0;
    const before = await read();
    const phone = newPhone();
    await postWebhook(message(phone));
    await postWebhook(message(), { 'X-Webhook-Signature': 'wrong' });
    await postWebhook('no json');
    await postWebhook('{"nothing":"for us"}');
    await outcomesOf(system, phone, 1);
    await eventually(async () => {
      const after = await read();
      const risen = (type: string, result: string) => count(after, type, result) - count(before, type, result);
      expect(risen('message', 'taken')).toBe(1);
      expect(risen('other', 'bad_signature')).toBe(1);
      expect(risen('other', 'unreadable')).toBe(1);
      expect(risen('other', 'skipped')).toBe(1);
    });
    const metrics = await read();
    expect(metrics).not.toContain(phone);
    expect(metricOf(metrics, 'parley_webhook_answer_seconds_count{source="kapso",type="message"}')).toBeGreaterThan(0);
    expect(metricOf(metrics, 'parley_http_request_seconds_count{method="POST",route="/webhook/kapso",status="401"}')).toBeGreaterThan(0);
    expect(metricOf(metrics, 'parley_query_seconds_count{kind="sql"}')).toBeGreaterThan(0);
    expect(metricOf(metrics, 'parley_query_seconds_count{kind="orm"}')).toBeGreaterThan(0);
    expect(metricOf(metrics, 'parley_record_readable')).toBe(1);
  });

  test('when rows of the record come, then the gauges show them with the next scrape', async () => {
    const direction = 'outbound' as const;
    await system.db.vapiCallResult.createMany({
      data: [
        { id: randomUUID(), workflowId: `call-${randomUUID()}`, direction, status: 'ringing' },
        { id: randomUUID(), workflowId: `call-${randomUUID()}`, direction, status: 'ended', outcome: 'completed', needsAttention: true },
      ],
    });
    await system.db.parkedMessage.create({
      data: { phoneNumberId: '1', providerMessageId: 'wamid.parked', workflowId: 'conversation-1-x', reason: 'test', message: {} },
    });
    const id = await conversationId();
    await system.db.conversation.update({ where: { id }, data: { needsAttention: true } });
    const metrics = await (await request('/metrics')).text();
    expect(metricOf(metrics, 'parley_needing_attention{kind="conversation"}')).toBe(1);
    expect(metricOf(metrics, 'parley_needing_attention{kind="call"}')).toBe(1);
    expect(metricOf(metrics, 'parley_calls{status="ringing",outcome="none"}')).toBe(1);
    expect(metricOf(metrics, 'parley_calls{status="ended",outcome="completed"}')).toBe(1);
    expect(metricOf(metrics, 'parley_parked_messages')).toBe(1);
    expect(metricOf(metrics, 'parley_messages_without_outcome')).toBe(0);
  });

  test('when a message was answered, then the worker shows the model call, the send, its queries and the engine’s own metrics', async () => {
    await conversationId();
    const answer = await fetch(workerMetricsUrl);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8']);
    const metrics = await answer.text();
    expect(metricOf(metrics, 'parley_model_calls_total{provider="sandbox",result="answered"}')).toBeGreaterThan(0);
    expect(metricOf(metrics, 'parley_model_call_seconds_count{provider="sandbox"}')).toBeGreaterThan(0);
    expect(metricOf(metrics, 'parley_sends_total{result="sent"}')).toBeGreaterThan(0);
    expect(metricOf(metrics, 'parley_query_seconds_count{kind="sql"}')).toBeGreaterThan(0);
    expect(metrics).toMatch(/^temporal_workflow_task_execution_latency\w*\{/m);
    expect(metrics).toMatch(/^temporal_activity_execution_latency\w*\{.*activity_type="generateReply"/m);
    const names = metrics.split('\n').flatMap((line) => /^# TYPE (\S+)/.exec(line)?.[1] ?? []);
    expect(new Set(names).size).toBe(names.length);
  });
});

test('when the worker runs, then it keeps the polls that it asked the SDK for, most of them for conversations in memory', async () => {
  await eventually(async () => {
    const metrics = await (await fetch(workerMetricsUrl)).text();
    const polls = metrics.match(/^temporal_num_pollers\{.*poller_type="(?:sticky_)?workflow_task".*$/gm) ?? [];
    expect(polls.map((line) => Number(line.split(' ').at(-1))).toSorted((one, other) => one - other)).toEqual([4, 16]);
  });
});

describe('page', () => {
  test('when the page is opened, then everything on it comes from here, and the browser is told to take nothing else', async () => {
    const page = await request('/docs');
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
    const policy = page.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self'");
    const html = await page.text();
    expect(html).not.toMatch(/https?:\/\//);
    expect(html).not.toMatch(/<script(?![^>]*\ssrc=)/);
    const files = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, file]) => file ?? '');
    expect(files.length).toBe(4);
    for (const file of files) {
      const answer = await request(file);
      expect([file, answer.status, answer.headers.get('x-content-type-options')]).toEqual([file, 200, 'nosniff']);
    }
    expect(await (await request('/docs/page.js')).text()).toContain("url: '/openapi.json'");
  });
});
