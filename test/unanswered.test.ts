/** Messages that are recorded and deliberately not answered: from another bot, too old, or said in a group. Real processes. */

import { randomUUID } from 'node:crypto';
import { openDatabase } from '../src/platform/database';
import { keepDeadLetter, type NewDeadLetter } from '../src/record/dead-letters';
import { balance, eventually, newPhone, outcomesOf, repliesOf, workflowIdOf } from './support/expectations';
import { startSuite } from './support/suite';
import { API_KEY, type System } from './support/system';

const REPLIES_PER_HOUR = 6;
const HOUR_MS = 3_600_000;

let system: System;

beforeAll(async () => {
  system = await startSuite('unanswered', { environment: () => ({ REPLIES_PER_HOUR: String(REPLIES_PER_HOUR) }) });
});

afterAll(async () => {
  await system?.close();
});

afterEach(async () => {
  await balance(system.db);
});

const kapso = () => system.sandbox.kapso;
const models = () => system.sandbox.models;

const seconds = (ageMs: number) => String(Math.floor((Date.now() - ageMs) / 1_000));

let ids = 0;

interface Written {
  from: string;
  text: string;
  ageMs?: number;
  group_id?: string;
}

function written({ from, text, ageMs = 0, group_id }: Written) {
  ids += 1;
  const group = group_id === undefined ? {} : { group_id };
  return { id: `wamid.${from}.${ids}`, from, timestamp: seconds(ageMs), type: 'text', text: { body: text }, ...group };
}

/** As Meta sends it. */
async function writeAsMeta(...messages: Written[]): Promise<void> {
  const value = { messaging_product: 'whatsapp', metadata: { phone_number_id: system.phoneNumberId }, messages: messages.map(written) };
  const body = { object: 'whatsapp_business_account', entry: [{ id: '1', changes: [{ field: 'messages', value }] }] };
  expect((await kapso().deliver(body)).status).toBe(200);
}

/** As Kapso sends it. */
async function writeAsKapso(message: Written): Promise<void> {
  const body = {
    message: { ...written(message), kapso: { direction: 'inbound', status: 'received', origin: 'cloud_api', has_media: false } },
    conversation: { id: '7d0f4c11-0000-4000-8000-000000000001', phone_number: `+${message.from}`, status: 'active' },
    is_new_conversation: false,
    phone_number_id: system.phoneNumberId,
  };
  expect((await kapso().deliver(body)).status).toBe(200);
}

async function conversationOf(phone: string) {
  const row = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } } });
  return { ...row, kinds: (row.attention as { kind: string }[]).map(({ kind }) => kind) };
}

async function alertsAbout(conversationId: string): Promise<string[]> {
  const alerts = await system.db.alert.findMany({ where: { subject: `conversation ${conversationId}` } });
  return alerts.map(({ text }) => text);
}

/** Writes, and waits for the outcome of the message. */
async function exchange(phone: string, text: string, count: number): Promise<string | undefined> {
  await writeAsKapso({ from: phone, text });
  return (await outcomesOf(system, phone, count)).at(-1);
}

describe('another bot', () => {
  const AWAY = 'Thank you for writing to Example Taxi! We are away and will answer tomorrow.';

  test('when it sends the same text after each reply, then it gets three replies, and a person is needed; another text is answered again', async () => {
    const phone = newPhone();
    const outcomes: (string | undefined)[] = [];
    for (let count = 1; count <= 8; count += 1) outcomes.push(await exchange(phone, AWAY, count));
    expect(outcomes).toEqual(['answered', 'answered', 'answered', 'loop', 'loop', 'loop', 'loop', 'loop']);
    expect(kapso().visibleTo(phone)).toHaveLength(3);
    const { id, ...conversation } = await conversationOf(phone);
    expect(conversation).toMatchObject({ kinds: ['loop'], needsAttention: true });
    expect(await alertsAbout(id)).toEqual([expect.stringMatching(/^loop: /)]);
    // The workflow shows it, too.
    const query = `ParleyAttention = true AND WorkflowId = '${await workflowIdOf(system, phone)}'`;
    await eventually(async () => expect((await system.temporal.workflow.count(query)).count).toBe(1));

    expect(await exchange(phone, 'Hello, this is a person now', 9)).toBe('answered');
    expect(await conversationOf(phone)).toMatchObject({ kinds: [], needsAttention: false });
  });

  test('when the worker is restarted, then it stays silent, because the database decides, not the workflow', async () => {
    const phone = newPhone();
    for (let count = 1; count <= 4; count += 1) await exchange(phone, AWAY, count);
    const [worker] = system.workers;
    await worker?.kill();
    await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).terminate();
    system.workers = [await system.startWorker()];
    expect(await exchange(phone, AWAY, 5)).toBe('loop');
    expect(kapso().visibleTo(phone)).toHaveLength(3);
  });

  test('when its texts differ, then it gets at most as many replies within an hour as the setting allows', async () => {
    const phone = newPhone();
    const outcomes: (string | undefined)[] = [];
    for (let count = 1; count <= REPLIES_PER_HOUR + 2; count += 1)
      outcomes.push(await exchange(phone, `fact of the day, ${'x'.repeat(count)}`, count));
    expect(outcomes).toEqual([...Array.from({ length: REPLIES_PER_HOUR }, () => 'answered'), 'loop', 'loop']);
    expect(kapso().visibleTo(phone)).toHaveLength(REPLIES_PER_HOUR);
    expect(await conversationOf(phone)).toMatchObject({ kinds: ['loop'] });

    // An hour later.
    const later = new Date(Date.now() - 2 * HOUR_MS);
    await system.db.message.updateMany({ where: { conversation: { contact: { phone } } }, data: { createdAt: later } });
    expect(await exchange(phone, 'fact of the next hour', REPLIES_PER_HOUR + 3)).toBe('answered');
  });
});

describe('an old message', () => {
  test('when it is six days old, then it is recorded and needs a person, and no model is called and nothing sent', async () => {
    const phone = newPhone();
    const asked = models().count('sandbox-model');
    await writeAsMeta({ from: phone, text: 'can I come by in ten minutes?', ageMs: 6 * 24 * HOUR_MS });
    expect(await outcomesOf(system, phone, 1)).toEqual(['too_old']);
    const { id, ...conversation } = await conversationOf(phone);
    expect(conversation).toMatchObject({ kinds: ['too_old'], needsAttention: true, unreadCount: 1 });
    expect(await alertsAbout(id)).toEqual([expect.stringMatching(/^too old: /)]);
    expect(models().count('sandbox-model')).toBe(asked);
    expect(kapso().visibleTo(phone)).toEqual([]);
  });

  test('when a new one comes with it, then that is answered, and the model reads both', async () => {
    const phone = newPhone();
    await writeAsMeta({ from: phone, text: 'from yesterday', ageMs: 20 * HOUR_MS }, { from: phone, text: 'and from now' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['too_old', 'answered']);
    const asked = models().requests('sandbox-model').at(-1);
    expect(JSON.stringify(asked?.messages)).toMatch(/from yesterday.*and from now/);
    expect(kapso().visibleTo(phone)).toHaveLength(1);
  });

  test('when it was delayed for an hour, as by an outage of ours, then it is answered', async () => {
    const phone = newPhone();
    await writeAsMeta({ from: phone, text: 'still there?', ageMs: HOUR_MS });
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
  });

  test('when its time is in the future, then it is answered, and stored with the current time', async () => {
    const phone = newPhone();
    await writeAsMeta({ from: phone, text: 'from tomorrow', ageMs: -30 * HOUR_MS });
    expect(await outcomesOf(system, phone, 1)).toEqual(['answered']);
    const row = await system.db.message.findFirstOrThrow({ where: { direction: 'inbound', conversation: { contact: { phone } } } });
    expect(row.occurredAt.getTime()).toBeLessThanOrEqual(Date.now());
  });
});

describe('a message said in a group', () => {
  const GROUP = 'GROUP-EXAMPLE-0001';

  test.each([
    ['Meta', writeAsMeta],
    ['Kapso', writeAsKapso],
  ])('when it comes as %s sends it, then it is recorded as such, not answered, and in no private prompt', async (_sender, write) => {
    const phone = newPhone();
    const said = `Lunch at one, everybody? (${phone})`;
    await write({ from: phone, text: said, group_id: GROUP });
    expect(await outcomesOf(system, phone, 1)).toEqual(['group']);
    const { id, unreadCount, needsAttention } = await conversationOf(phone);
    expect({ unreadCount, needsAttention }).toEqual({ unreadCount: 0, needsAttention: false });

    await write({ from: phone, text: 'and one question to you alone' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['group', 'answered']);
    expect(kapso().visibleTo(phone)).toHaveLength(1);
    expect(JSON.stringify(models().requests('sandbox-model'))).not.toContain(phone);

    const headers = { Authorization: `Bearer ${API_KEY}` };
    const response = await fetch(`${system.apiUrl}/api/v1/conversations/${id}/messages`, { headers });
    const { data } = (await response.json()) as { data: { text: string; outcome: string; payload: unknown }[] };
    expect(data.find(({ text }) => text === said)).toMatchObject({ outcome: 'group', payload: { group_id: GROUP } });
  });

  test('when somebody writes there and in private, then one reply goes to the private chat', async () => {
    const phone = newPhone();
    await writeAsMeta({ from: phone, text: 'hello group', group_id: GROUP }, { from: phone, text: 'hello you' });
    expect(await outcomesOf(system, phone, 2)).toEqual(['group', 'answered']);
    expect(await repliesOf(system, phone)).toHaveLength(1);
    expect(await conversationOf(phone)).toMatchObject({ unreadCount: 0, kinds: [] });
  });
});

describe('a dead letter that is replayed late', () => {
  /** A message that the database refused, replayed now. */
  async function replayed(fields: object): Promise<string[]> {
    const phone = newPhone();
    const [id, providerMessageId] = [randomUUID(), `wamid.${randomUUID()}`];
    const message = { id, providerMessageId, kind: 'text', text: 'hello?', sentAtMs: Date.now(), ...fields };
    const body = { phoneNumberId: system.phoneNumberId, contact: { phone }, message };
    const letter = { source: 'conversation', reason: 'record_refused', detail: 'a constraint', providerMessageId, body };
    const db = openDatabase(system.databaseUrl);
    const letterId = await keepDeadLetter(db, letter as NewDeadLetter).finally(() => db.close());
    const headers = { Authorization: `Bearer ${API_KEY}` };
    const response = await fetch(`${system.apiUrl}/api/v1/dead-letters/${letterId}/replay`, { method: 'POST', headers });
    expect(response.status).toBe(200);
    return await outcomesOf(system, phone, 1);
  }

  test('when it was sent in a group, then it still counts as such', async () => {
    expect(await replayed({ isInGroup: true })).toEqual(['group']);
  });

  test('when it is a day old by then, then it is not answered', async () => {
    expect(await replayed({ sentAtMs: Date.now() - 24 * HOUR_MS })).toEqual(['too_old']);
  });

  test('when its time is in the future, then it is answered', async () => {
    expect(await replayed({ sentAtMs: Date.now() + 24 * HOUR_MS })).toEqual(['answered']);
  });
});
