/** The examples hold what they promise: the flows by what was measured with a real Kestra, the script by being run. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { parse } from 'yaml';
import { conversationPage, conversationSchema } from '../src/api/conversations';
import { sessionResultSchema } from '../src/api/session-result';
import { callViewSchema } from '../src/api/views/call';
import { CALL_OUTCOMES } from '../src/record/call-outcome';
import { testWith } from './support/programs';

const FOLDER = 'examples/kestra';
const OURS = "{{ secret('PARLEY_URL') }}/api/v1/";
/** The fields that an answer always has: of calls, sessions, and lists. */
const FIELDS = [callViewSchema, sessionResultSchema, conversationPage].flatMap(({ shape }) => Object.keys(shape));

interface Task {
  id: string;
  type: string;
  uri?: string;
  method?: string;
  body?: string;
  value?: string;
  condition?: string;
  headers?: Record<string, string>;
  options?: { allowedResponseCodes?: number[]; timeout?: { readIdleTimeout?: string } };
  retry?: { type: string; maxInterval?: string; maxDuration?: string };
  errorMessage?: string;
  values?: string;
  concurrencyLimit?: number;
  scheduleDate?: string;
  runIf?: string;
  failOnMaxReached?: boolean;
  checkFrequency?: { interval: string; maxDuration: string };
  onResume?: { id: string; type: string }[];
  pauseDuration?: string;
  behavior?: string;
  tasks?: Task[];
  then?: Task[];
  cases?: Record<string, Task[]>;
  defaults?: Task[];
}

const flows = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.yaml'))
  .map((name) => {
    const source = readFileSync(join(FOLDER, name), 'utf8');
    return { name, source, flow: parse(source) as { id: string; namespace: string; tasks: Task[] } };
  });

function allTasks(tasks: Task[] = []): Task[] {
  return tasks.flatMap((task) => [
    task,
    ...allTasks(task.tasks),
    ...allTasks(task.then),
    ...allTasks(task.defaults),
    ...Object.values(task.cases ?? {}).flatMap((branch) => allTasks(branch)),
  ]);
}

/** Seconds of an ISO 8601 duration of hours, minutes and seconds. */
function seconds(duration: string | undefined): number {
  const [, hours, minutes, rest] = /^PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?$/.exec(duration ?? '') ?? [];
  return Number(hours ?? 0) * 3_600 + Number(minutes ?? 0) * 60 + Number(rest ?? 0);
}

/** Refusals that would be the same at the next attempt. */
const REFUSALS = [400, 401, 403, 404, 409, 413, 415, 422];
const OUTAGE_S = 15 * 60;

test('when the flows are listed, then there is one of each kind, and the table of the README has them', () => {
  const names = [
    ...['call-for-attention', 'call-many-phones-1-3', 'call-many-phones', 'converse-and-wait', 'place-call-and-wait'],
    ...['place-call-with-callback', 'try-again-later'],
  ];
  expect(flows.map(({ name }) => name)).toEqual(names.map((name) => `${name}.yaml`));
  const readme = readFileSync(join(FOLDER, 'README.md'), 'utf8');
  for (const name of names) expect(readme).toContain(`[${name}.yaml](${name}.yaml)`);
});

describe.each(flows)('$name', ({ name, flow, source }) => {
  const tasks = allTasks(flow.tasks);
  const requests = tasks.filter(({ type }) => type === 'io.kestra.plugin.core.http.Request');
  const expressions = [...source.replace(/^\s*#.*$/gm, '').matchAll(/\{\{(.*?)\}\}/gs)].map(([, expression = '']) => expression);

  test('when it is read, then it is a flow of its name, and its ids are its own', () => {
    expect(`${flow.id}.yaml`).toBe(name);
    const ids = tasks.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test('when it calls Parley, then with the URL, a key, a read timeout, and retries for longer than an outage', () => {
    expect(requests.length).toBeGreaterThanOrEqual(2);
    for (const { uri, headers, options, retry } of requests) {
      expect(uri?.startsWith(OURS)).toBe(true);
      expect(headers?.Authorization).toBe("Bearer {{ secret('PARLEY_KEY') }}");
      expect(seconds(options?.timeout?.readIdleTimeout)).toBeGreaterThan(0);
      expect(retry).toMatchObject({ type: 'exponential' });
      expect(retry).not.toHaveProperty('maxAttempts');
      expect(seconds(retry?.maxDuration)).toBeGreaterThan(OUTAGE_S + seconds(retry?.maxInterval));
    }
  });

  test('when Parley refuses a request, then the flow does not retry it, and says why', () => {
    for (const { id, method, options } of requests) {
      const codes = options?.allowedResponseCodes ?? [];
      // Kestra fails a task with a code that is not listed, a 2xx too (measured).
      expect(codes).toContain(method === 'POST' ? 202 : 200);
      for (const code of method === 'POST' ? REFUSALS : [400, 401, 403, 404]) expect(codes).toContain(code);
      expect(codes.filter((code) => code === 429 || code >= 500)).toEqual([]);
      const named = source.match(new RegExp(`outputs\\.${id}(\\[taskrun\\.value\\])?\\.code >= 400`, 'g')) ?? [];
      expect(named.length).toBeGreaterThan(0);
    }
    for (const fail of tasks.filter(({ type, condition }) => type.endsWith('.Fail') && condition)) {
      expect(fail.errorMessage).toMatch(/fromJson\(outputs\.\w+\.body\)\.detail/);
    }
  });

  test('when it posts, then with a key that stays the same at every attempt', () => {
    const posts = requests.filter(({ method }) => method === 'POST');
    expect(posts).toHaveLength(1);
    for (const { headers } of posts) {
      expect(headers?.['Idempotency-Key']).toMatch(
        /\{\{ (execution\.(id|originalId)|render\(vars\.reference\)|fromJson\(outputs\.queue\.body\)\.data\[0\]\.id) \}\}/,
      );
      expect(headers?.['Idempotency-Key']).not.toContain('attemptsCount');
    }
  });

  test('when it waits with an open request, then it reads for longer than that, and for no longer than is allowed', () => {
    const waits = requests.flatMap(({ uri, options }) => {
      const wait = /[?&]wait=(\d+)/.exec(uri ?? '')?.[1];
      return wait === undefined ? [] : [{ wait: Number(wait), idle: seconds(options?.timeout?.readIdleTimeout) }];
    });
    expect(waits.length).toBeGreaterThan(0);
    for (const { wait, idle } of waits) {
      expect(wait).toBeLessThanOrEqual(55);
      expect(idle).toBeGreaterThan(wait + 10);
    }
  });

  test('when it reads an answer, then with fromJson, of a task that it has, and a field that is always there', () => {
    const read = expressions.flatMap((expression) => [...expression.matchAll(/fromJson\(outputs\.([\w-]+)\.body\)\.(\w+)/g)]);
    expect(read.length).toBeGreaterThanOrEqual(2);
    for (const [, task, field] of read) {
      expect(requests.map(({ id }) => id)).toContain(task);
      expect([...FIELDS, 'pending', 'counts', 'detail']).toContain(field);
    }
    for (const expression of expressions) expect(expression).not.toMatch(/(?<![\w])json\(/);
  });

  test('when a loop or a pause has a limit, then reaching it fails the flow', () => {
    for (const loop of tasks.filter(({ type }) => type.endsWith('.LoopUntil'))) {
      // Only a look for somebody who needs a person may end without anybody; the flow then tests for that.
      expect(loop).toMatchObject({
        failOnMaxReached: loop.id !== 'look',
        condition: expect.stringMatching(loop.id === 'look' ? /\.data is not empty \}\}/ : /\.(done|pending == 0) \}\}/),
      });
      expect(seconds(loop.checkFrequency?.interval)).toBeGreaterThan(0);
      expect(loop.checkFrequency?.maxDuration).toMatch(/^(PT\d+H|\{\{ inputs\.maxWait \}\})$/);
    }
    for (const pause of tasks.filter(({ type }) => type.endsWith('.Pause'))) {
      expect(pause.behavior).toBe('FAIL');
      expect(seconds(pause.pauseDuration)).toBeGreaterThan(0);
      // What the callback brings (src/providers/callback/client.ts).
      for (const { id } of pause.onResume ?? []) expect(['callId', 'outcome', 'done']).toContain(id);
    }
    expect(tasks.filter(({ id, type }) => /\.(LoopUntil|Pause)$/.test(type) && id !== 'look')).toHaveLength(1);
  });

  test('when it branches on the outcome, then only on existing outcomes, and with a default', () => {
    if (name === 'converse-and-wait.yaml') return;
    for (const branch of tasks.filter(({ type }) => type.endsWith('.Switch'))) {
      expect(branch.value).toContain('.outcome');
      expect(Object.keys(branch.cases ?? {})).toContain('completed');
      for (const outcome of Object.keys(branch.cases ?? {})) expect(CALL_OUTCOMES).toContain(outcome);
      expect(branch.defaults?.length).toBeGreaterThan(0);
    }
    expect(source).toMatch(/\.(outcome|counts)\b/);
  });
});

test('when call-for-attention calls, then once for each reason of a conversation, by fields that it has', () => {
  const { source = '', flow } = flows.find(({ name }) => name === 'call-for-attention.yaml') ?? {};
  const start = allTasks(flow?.tasks).find(({ id }) => id === 'start');
  const key = start?.headers?.['Idempotency-Key'];
  expect(key).toContain('.attentionSince');
  expect(key).not.toContain('execution');
  const fields = [...source.matchAll(/\.data\[0\]\.(\w+)/g)].map(([, field]) => field);
  expect(fields.length).toBeGreaterThan(3);
  for (const field of fields) expect(Object.keys(conversationSchema.shape)).toContain(field);
  expect(allTasks(flow?.tasks).find(({ id }) => id === 'queue')?.uri).toContain('?attention={{ inputs.attention }}&limit=1&wait=50');
});

test.each([
  ['call-many-phones.yaml', 'io.kestra.plugin.core.flow.Loop', '{{ render(vars.reference) }}-{{ item.index }}'],
  ['call-many-phones-1-3.yaml', 'io.kestra.plugin.core.flow.ForEach', '{{ execution.originalId }}-{{ taskrun.iteration }}'],
])('when %s calls many phones, then with %s, a key of execution and item, and one reference for the wait', (name, type, key) => {
  const tasks = flows.find((each) => each.name === name)?.flow.tasks ?? [];
  const each = tasks.find((task) => task.type === type);
  expect(each).toMatchObject({ values: '{{ inputs.phones }}', concurrencyLimit: expect.any(Number) });
  const start = each?.tasks?.find(({ id }) => id === 'start');
  expect(start?.headers?.['Idempotency-Key']).toBe(key);
  const reference = key.split('-')[0]?.replace(/^\{\{ | \}\}$/g, '');
  expect(start?.body).toContain(`'serviceRequestId': ${reference}`);
  const poll = allTasks(tasks).find(({ id }) => id === 'poll');
  expect(poll?.uri).toContain(`?serviceRequestId={{ ${reference} }}&wait=50`);
});

test('when try-again-later calls again, then only after outcomes that may change, later, and a limited number of times', () => {
  const again = allTasks(flows.find(({ name }) => name === 'try-again-later.yaml')?.flow.tasks).find(({ id }) => id === 'again');
  const outcomes = [...(again?.runIf ?? '').matchAll(/'(\w+)'/g)].map(([, outcome]) => outcome);
  expect(outcomes).toEqual(['no_answer', 'busy', 'voicemail']);
  for (const outcome of outcomes) expect(CALL_OUTCOMES).toContain(outcome);
  expect(again?.runIf).toContain('inputs.attempt < inputs.attempts');
  expect(again?.scheduleDate).toContain('dateAdd(inputs.pauseMinutes');
});

test('when the callback flow names its resume address, then it is one that Parley knows', () => {
  const source = flows.find(({ name }) => name === 'place-call-with-callback.yaml')?.source ?? '';
  expect(source).toContain("~ '/api/v1/main/executions/' ~ execution.id ~ '/resume'");
});

describe('wait-for-a-call.sh', () => {
  const testScript = testWith('curl', 'jq');
  type Answer = { status: number; body: unknown; headers?: Record<string, string> };
  let server: Server;
  let answers: Answer[];
  let requests: { request: IncomingMessage; body: string }[];

  beforeAll(async () => {
    server = createServer((request, response) => {
      void text(request).then((body) => {
        requests.push({ request, body });
        const { status, body: answer, headers } = answers.shift() ?? { status: 500, body: {}, headers: {} };
        response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(answer));
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
  });

  beforeEach(() => {
    answers = [];
    requests = [];
  });

  afterAll(() => {
    server?.closeAllConnections();
    server?.close();
  });

  async function run(): Promise<{ code: number; stdout: string; stderr: string }> {
    const { port } = server.address() as AddressInfo;
    // biome-ignore lint/style/noProcessEnv: a test starts a script like a shell does
    const env = { PATH: process.env.PATH, PARLEY_URL: `http://127.0.0.1:${port}`, PARLEY_KEY: 'the-key' };
    return await new Promise((resolve) => {
      execFile('sh', ['examples/wait-for-a-call.sh', '+15550100', 'key-1'], { env }, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      });
    });
  }

  const pending = { callId: 'c-1', done: false, outcome: null };
  const over = (outcome: string) => ({
    callId: 'c-1',
    done: true,
    outcome,
    durationSeconds: 42,
    summary: 'A %s "yes"\nof two lines',
    endedReason: 'r',
    error: 'e',
  });

  testScript(
    'when Parley is busy and then the call completes, then it waits as told, dials with one key, and says the result',
    async () => {
      answers = [
        { status: 503, body: {}, headers: { 'Retry-After': '1' } },
        { status: 202, body: pending },
        { status: 429, body: {}, headers: { 'retry-after': '0' } },
        { status: 200, body: pending },
        { status: 200, body: over('completed') },
      ];
      expect(await run()).toEqual({ code: 0, stdout: 'completed after 42 s: A %s "yes"\nof two lines\n', stderr: 'call c-1\n' });
      expect(requests.map(({ request }) => `${request.method} ${request.url}`)).toEqual([
        'POST /api/v1/vapi/calls',
        'POST /api/v1/vapi/calls',
        ...Array.from({ length: 3 }, () => 'GET /api/v1/vapi/calls/c-1?wait=50'),
      ]);
      for (const { request } of requests) expect(request.headers.authorization).toBe('Bearer the-key');
      for (const { request, body } of requests.slice(0, 2)) {
        expect([request.headers['idempotency-key'], JSON.parse(body)]).toEqual(['key-1', { to: '+15550100' }]);
      }
    },
  );

  testScript.each([
    ['busy', 3, 'nobody could be reached (busy)\n'],
    ['failed', 1, 'ended with failed: e\n'],
  ])('when the call ends with %s, then the script ends with %i', async (outcome, code, stdout) => {
    answers = [
      { status: 202, body: pending },
      { status: 200, body: over(outcome) },
    ];
    expect(await run()).toMatchObject({ code, stdout });
  });

  testScript('when the request is refused, then it says why, and asks once', async () => {
    answers = [{ status: 422, body: { title: 'Unprocessable Content', detail: 'to: must be a number' } }];
    expect(await run()).toMatchObject({ code: 1, stdout: '', stderr: 'rejected with 422: to: must be a number\n' });
    expect(requests).toHaveLength(1);
  });
});
