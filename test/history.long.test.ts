/** The history of a number is imported from Kapso, also when workers are killed meanwhile, and answers nobody. Real processes. */
import { SYNC_WORKFLOW, syncWorkflowId } from '../workflows/contract';
import { balance, eventually, inboundOf, newPhone, outcomesOf } from './support/expectations';
import { startSuite } from './support/suite';
import { API_KEY, type System } from './support/system';

const HOUR_MS = 3_600_000;
const WAIT_MS = 60_000;

let system: System;
let workspaceId = '';

beforeAll(async () => {
  system = await startSuite('history', {
    environment: () => ({ KAPSO_READS_PER_MINUTE: '60000', SESSION_TIMEOUT_MS: '1000', API_RATE_LIMIT_PER_MINUTE: '1000000' }),
  });
  workspaceId = (await system.db.workspace.findFirstOrThrow()).id;
});

afterAll(async () => {
  await system?.close();
});

afterEach(async () => {
  kapso().clearFaults();
  await balance(system.db);
});

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;

interface Sync {
  status: string;
  phase: string;
  conversations: number;
  messages: number;
  imported: number;
  unreadable: number;
  problem: string | null;
  workflowId: string;
}

async function ask(method: string, path: string, body?: object) {
  const headers = { Authorization: `Bearer ${API_KEY}`, 'Content-Type': 'application/json' };
  const response = await fetch(`${system.apiUrl}/api/v1${path}`, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) });
  return { status: response.status, body: (await response.json()) as Sync & { detail: string } };
}

const sync = (method = 'GET', body?: object) => ask(method, `/workspaces/${workspaceId}/sync`, body);

async function ended(): Promise<Sync> {
  return await eventually(async () => {
    const { body } = await sync();
    if (body.status === 'running') throw new Error(`still running: ${JSON.stringify(body)}`);
    return body;
  }, WAIT_MS);
}

async function imported(): Promise<Sync> {
  expect((await sync('POST')).status).toBe(202);
  return await ended();
}

/** The texts of a person's conversation as the API lists them, oldest first, page by page. */
async function timelineOf(phone: string): Promise<string[]> {
  const { id } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
  const texts: string[] = [];
  let before = '';
  do {
    const { body } = await ask('GET', `/conversations/${id}/messages?limit=2${before}`);
    const page = body as unknown as { data: { text: string }[]; next: string | null };
    texts.push(...page.data.map(({ text }) => text));
    before = page.next === null ? '' : `&before=${page.next}`;
  } while (before !== '');
  return texts.reverse();
}

test('when history is imported around what is in the record, then the timeline is in order, the model reads it, and nobody is answered', async () => {
  const phone = newPhone();
  const now = Date.now();
  await kapso().customerSends({ from: phone, text: 'live' });
  await outcomesOf(system, phone, 1);
  await eventually(async () => expect(await timelineOf(phone)).toHaveLength(2));
  kapso().remembers([
    { with: phone, name: 'Old Friend', direction: 'inbound', text: 'first', atMs: now - 3 * HOUR_MS },
    { with: phone, direction: 'outbound', text: 'second', atMs: now - 2 * HOUR_MS, origin: 'business_app' },
    { with: phone, direction: 'inbound', text: 'third', atMs: now - HOUR_MS },
  ]);
  const [asked, sent] = [models().count('sandbox-model'), kapso().counts().sends];
  expect(await imported()).toMatchObject({ status: 'done', phase: 'done', messages: 3, imported: 3, unreadable: 0, problem: null });
  const texts = await timelineOf(phone);
  expect(texts.slice(0, 4)).toEqual(['first', 'second', 'third', 'live']);
  expect(texts).toHaveLength(5);
  expect([models().count('sandbox-model'), kapso().counts().sends]).toEqual([asked, sent]);
  expect((await inboundOf(system, phone)).map(({ outcome }) => outcome).sort()).toEqual(['answered', 'history', 'history']);
  const contact = await system.db.contact.findFirstOrThrow({ where: { phone } });
  expect(contact.name).toBe('Old Friend');

  await kapso().customerSends({ from: phone, text: 'and again' });
  await outcomesOf(system, phone, 4);
  expect(JSON.stringify(models().requests('sandbox-model').at(-1)?.messages)).toMatch(/first.*second.*third.*live.*and again/);
  // Our own replies are not imported a second time, and the first import's rows stay one each.
  const rows = await system.db.message.count();
  expect(await imported()).toMatchObject({ status: 'done', imported: 3 });
  expect(await system.db.message.count()).toBe(rows);
});

test('when thousands are imported, and the worker is killed half-way, then all are there once, in order', async () => {
  const phones = Array.from({ length: 40 }, newPhone);
  const startMs = Date.now() - 48 * HOUR_MS;
  kapso().remembers(
    Array.from({ length: 4_000 }, (_, index) => ({
      with: phones[index % phones.length] ?? '',
      direction: index % 3 === 0 ? ('outbound' as const) : ('inbound' as const),
      text: `number ${index}`,
      atMs: startMs + index * 10_000,
    })),
  );
  const before = await system.db.message.count({ where: { outcome: 'history' } });
  expect((await sync('POST')).status).toBe(202);
  await eventually(async () => expect((await sync()).body.messages).toBeGreaterThan(1_000), WAIT_MS);
  expect((await sync()).body).toMatchObject({ status: 'running', phase: 'messages' });
  await system.workers[0]?.kill();
  system.workers = [await system.startWorker()];
  expect(await ended()).toMatchObject({ status: 'done', unreadable: 0 });
  expect(await system.db.message.count({ where: { outcome: 'history' } })).toBe(before + 4_000);
  const [, phone = ''] = phones;
  const numbers = (await timelineOf(phone)).map((text) => Number(text.replace('number ', '')));
  expect(numbers).toEqual(Array.from({ length: 100 }, (_, index) => index * phones.length + 1));
  const { lastMessageAt } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
  expect(lastMessageAt?.getTime()).toBe(Math.floor((startMs + (99 * phones.length + 1) * 10_000) / 1_000) * 1_000);
}, 240_000);

test('when Kapso limits the requests or is away, then the import waits, says so, and goes on', async () => {
  kapso().fault({ on: 'list', answer: '429', retryAfterSeconds: 3, times: 1 });
  expect((await sync('POST')).status).toBe(202);
  await eventually(async () => expect((await sync()).body.problem).toBe('Kapso limits the requests'));
  expect(await ended()).toMatchObject({ status: 'done' });
});

test('when it is canceled, then it stops, and the next one goes on from there', async () => {
  kapso().fault({ on: 'list', answer: '503_empty', skip: 5 });
  await sync('POST');
  await eventually(async () => expect((await sync()).body.problem).toMatch(/503/), WAIT_MS);
  const { body: stuck } = await sync();
  expect(stuck.messages).toBeGreaterThan(0);
  expect((await sync('DELETE')).status).toBe(202);
  expect(await ended()).toMatchObject({ status: 'canceled', messages: stuck.messages });
  expect((await sync('DELETE')).status).toBe(409);
  kapso().clearFaults();
  const { body: resumed } = await sync('POST');
  expect(resumed.messages).toBeGreaterThanOrEqual(stuck.messages);
  const { messages } = await ended();
  expect((await imported()).messages).toBeGreaterThanOrEqual(messages);
});

test('when its key is refused, then it fails and says what to set; when its workflow is terminated, then it is stopped', async () => {
  kapso().fault({ on: 'list', answer: '401' });
  await sync('POST');
  expect(await ended()).toMatchObject({ status: 'failed', problem: expect.stringMatching(/Kapso refuses the key.*KAPSO_API_KEY/) });
  kapso().clearFaults();
  kapso().fault({ on: 'list', answer: '503_empty' });
  await sync('POST');
  await eventually(async () => expect((await sync()).body.problem).toMatch(/503/), WAIT_MS);
  await system.temporal.workflow.getHandle(syncWorkflowId(system.phoneNumberId)).terminate();
  expect((await sync()).body.status).toBe('stopped');
});

test('when two are asked for, then one runs', async () => {
  kapso().fault({ on: 'list', answer: 'success', delayBeforeMs: 1_000, times: 1 });
  const answers = await Promise.all([sync('POST'), sync('POST'), sync('POST')]);
  expect(answers.map(({ status }) => status)).toEqual([202, 202, 202]);
  const query = `WorkflowType = '${SYNC_WORKFLOW}' AND WorkflowId = '${syncWorkflowId(system.phoneNumberId)}' AND ExecutionStatus = 'Running'`;
  await eventually(async () => expect((await system.temporal.workflow.count(query)).count).toBe(1));
  await ended();
});

test('when Kapso does not know the number, then the error says what to set, and which numbers there are', async () => {
  const { id } = await system.db.workspace.create({ data: { name: 'Elsewhere', kapsoPhoneNumberId: '999' } });
  const { status, body } = await ask('POST', `/workspaces/${id}/sync`);
  expect(status).toBe(409);
  expect(body.detail).toMatch(/does not know the number id 999: set .*KAPSO_PHONE_NUMBER_ID/);
  expect(body.detail).toContain(`${system.phoneNumberId} (Sandbox number)`);
  expect((await ask('GET', `/workspaces/${id}/sync`)).status).toBe(404);
  expect((await ask('POST', '/workspaces/2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10/sync')).status).toBe(404);
});
