/**
 * One person, one conversation: numbers and business-scoped ids in any order, over the real webhook, with real processes and the real
 * engine. Many people at once, because each of them waits most of the time.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { CallView } from '../src/api/views/call';
import type { ConversationResult } from '../workflows/contract';
import { placeCall, request, resultOf } from './support/calls';
import { balance, eventually } from './support/expectations';
import { randomNumbers } from './support/random';
import { startSuite } from './support/suite';
import { API_KEY, type System } from './support/system';

/** From the webhook's 200 until the message has its outcome. */
const OUTCOME_MS = 15_000;

let system: System;

beforeAll(async () => {
  system = await startSuite('identity');
});

afterAll(async () => {
  await system?.close();
});

beforeEach(async () => {
  system.sandbox.models.clear();
  await system.db.chatbotSettings.updateMany({ data: { quietMs: 100, historyLimit: 20 } });
});

afterEach(async () => {
  await balance(system.db);
});

type Fact = 'number' | 'id' | 'both';

interface Person {
  phone: string;
  id: string;
  /** What was posted, by WhatsApp's id: when the webhook responded with 200. */
  posted: Map<string, number>;
}

let people = 0;

function newPerson(phone = `1555${String(Date.now() % 10_000).padStart(4, '0')}${String(++people).padStart(3, '0')}`): Person {
  return { phone, id: `US.${randomUUID()}`, posted: new Map() };
}

interface MetaMessage {
  type?: string;
  from?: string | undefined;
  from_user_id?: string | undefined;
  [kind: string]: unknown;
}

async function post(message: MetaMessage, contacts?: object[]): Promise<string> {
  const id = `wamid.${randomUUID()}`;
  const messages = [{ type: 'text', ...message, id, timestamp: String(Math.floor(Date.now() / 1_000)) }];
  const value = {
    messaging_product: 'whatsapp',
    metadata: { phone_number_id: system.phoneNumberId },
    messages,
    ...(contacts ? { contacts } : {}),
  };
  const body = { object: 'whatsapp_business_account', entry: [{ id: '1', changes: [{ field: 'messages', value }] }] };
  expect((await system.sandbox.kapso.deliver(body)).status).toBe(200);
  return id;
}

/** One message of a person who shows so much of themselves. */
async function say(person: Person, fact: Fact, text: string): Promise<void> {
  const from = fact === 'id' ? undefined : person.phone;
  const userId = fact === 'number' ? undefined : person.id;
  const contact = { profile: { name: 'Ana' }, ...(from ? { wa_id: from } : {}), ...(userId ? { user_id: userId } : {}) };
  const wamid = await post({ from, from_user_id: userId, text: { body: text } }, [contact]);
  person.posted.set(wamid, Date.now());
}

const messagesOf = (person: Person) =>
  system.db.message.findMany({ where: { providerMessageId: { in: [...person.posted.keys()] } }, orderBy: { position: 'asc' } });

/** Resolves when all that people wrote has its outcome. Throws when a message waits for longer than the bound. */
async function outcomes(everybody: Person[], boundMs = OUTCOME_MS): Promise<void> {
  const open = new Map(everybody.flatMap(({ posted }) => [...posted]));
  await eventually(async () => {
    const done = await system.db.message.findMany({ where: { providerMessageId: { in: [...open.keys()] }, outcome: { not: null } } });
    for (const { providerMessageId } of done) open.delete(providerMessageId ?? '');
    const late = [...open.values()].filter((atMs) => Date.now() - atMs > boundMs);
    if (late.length > 0) throw new Late(`${late.length} messages have no outcome after ${boundMs} ms`);
    expect(open.size).toBe(0);
  }, boundMs + 5_000);
}

class Late extends Error {}

/** One contact, one conversation with everything, one outcome a message, one reply a turn, and nothing that the customer sees twice. */
async function expectOnePerson(person: Person): Promise<string> {
  const rows = await messagesOf(person);
  expect(rows).toHaveLength(person.posted.size);
  expect(new Set(rows.map(({ conversationId }) => conversationId)).size).toBe(1);
  const conversationId = rows[0]?.conversationId ?? '';
  const aliases = await system.db.contactAlias.findMany({
    where: { value: { in: [person.phone, person.id] } },
    include: { contact: true },
  });
  expect(new Set(aliases.map(({ contactId }) => contactId)).size).toBe(1);
  expect(aliases[0]?.contact).toMatchObject({ phone: person.phone, businessScopedUserId: person.id });
  const outcomeCounts = rows.map(({ outcome }) => outcome);
  expect(outcomeCounts.filter((outcome) => outcome !== 'answered' && outcome !== 'merged')).toEqual([]);
  const turns = new Set(rows.map(({ turnId }) => turnId));
  const replies = await system.db.message.findMany({
    where: { conversationId, direction: 'outbound', status: { in: ['sent', 'delivered', 'read'] } },
  });
  expect(new Set(replies.map(({ replyToId }) => replyToId))).toEqual(turns);
  expect(replies).toHaveLength(turns.size);
  const visible = [person.phone, person.id].flatMap((address) => system.sandbox.kapso.visibleTo(address));
  expect(visible).toHaveLength(turns.size);
  return conversationId;
}

const FACTS: Fact[] = ['number', 'id', 'both'];

/** Orders of one to six facts, with both of them somewhere: before that nobody can know that they are one person's. */
function someOrder(next: () => number): Fact[] {
  const order = Array.from({ length: 1 + Math.floor(next() * 6) }, () => FACTS[Math.floor(next() * 3)] ?? 'both');
  if (!order.includes('both')) order[Math.floor(next() * order.length)] = 'both';
  return order;
}

/** Some messages come one upon the other, some into the quiet time of the one before, some after its reply. */
async function sayAll(person: Person, order: Fact[], next: () => number): Promise<void> {
  for (const [index, fact] of order.entries()) {
    if (index > 0) await delay([0, 20, 60, 250, 900][Math.floor(next() * 5)]);
    await say(person, fact, `message ${index}`);
  }
}

describe('every order of a number, an id, and both', () => {
  test('when people show them in any order, then each is one contact with one conversation, and everything is answered', async () => {
    const next = randomNumbers(11);
    const everybody = Array.from({ length: 60 }, () => newPerson());
    await Promise.all(everybody.map((person) => sayAll(person, someOrder(next), next)));
    await outcomes(everybody);
    for (const person of everybody) await expectOnePerson(person);
  }, 90_000);

  test('when the worker is killed in the middle, then the same holds as soon as there is one again', async () => {
    const next = randomNumbers(12);
    const everybody = Array.from({ length: 40 }, () => newPerson());
    const saying = Promise.all(everybody.map((person) => sayAll(person, someOrder(next), next)));
    await delay(700);
    await system.workers.pop()?.kill();
    system.workers.push(await system.startWorker());
    await saying;
    const readyAtMs = Date.now();
    for (const { posted } of everybody) for (const [wamid, atMs] of posted) posted.set(wamid, Math.max(atMs, readyAtMs));
    await outcomes(everybody);
    for (const person of everybody) await expectOnePerson(person);
  }, 90_000);

  test('when the number and the id have a workflow each before both come together, then one owns everything, and the other ends as merged', async () => {
    const everybody = Array.from({ length: 15 }, () => newPerson());
    await Promise.all(everybody.flatMap((person) => [say(person, 'number', 'from the number'), say(person, 'id', 'from the id')]));
    await outcomes(everybody);
    const workflows = await Promise.all(everybody.map((person) => messagesOf(person)));
    for (const rows of workflows) expect(new Set(rows.map(({ workflowId }) => workflowId)).size).toBe(2);
    for (const fact of ['both', 'id', 'number'] as const) await Promise.all(everybody.map((person) => say(person, fact, fact)));
    await outcomes(everybody);
    for (const person of everybody) {
      const conversationId = await expectOnePerson(person);
      const { workflowId: owner } = await system.db.conversation.findUniqueOrThrow({ where: { id: conversationId } });
      const other = (await messagesOf(person)).map(({ workflowId }) => workflowId ?? '').find((workflowId) => workflowId !== owner);
      const result = (await system.temporal.workflow.getHandle(other ?? '').result()) as ConversationResult;
      expect(result.mergedInto).toBe(owner);
      const { id: former } = await system.db.mergedConversation.findFirstOrThrow({ where: { conversationId } });
      expect(JSON.parse(await read(`/api/v1/conversations/${former}`))).toMatchObject({ id: conversationId });
      const { data } = JSON.parse(await read(`/api/v1/conversations/${former}/messages`)) as { data: { direction: string }[] };
      expect(data.filter(({ direction }) => direction === 'inbound')).toHaveLength(5);
    }
  }, 90_000);

  test('when both come while both workflows wait for the customer to finish, then one reply answers all', async () => {
    await system.db.chatbotSettings.updateMany({ data: { quietMs: 2_000 } });
    const everybody = Array.from({ length: 15 }, () => newPerson());
    await Promise.all(everybody.flatMap((person) => [say(person, 'number', 'from the number'), say(person, 'id', 'from the id')]));
    await eventually(async () => {
      for (const person of everybody) expect(await messagesOf(person)).toHaveLength(2);
    });
    await Promise.all(everybody.map((person) => say(person, 'both', 'from both')));
    await outcomes(everybody);
    for (const person of everybody) {
      await expectOnePerson(person);
      expect((await messagesOf(person)).map(({ outcome }) => outcome)).toEqual(['merged', 'merged', 'answered']);
    }
  }, 90_000);

  test('when 50 people show the id alone and both at the same moment, then each is one contact with one conversation', async () => {
    const everybody = Array.from({ length: 50 }, () => newPerson());
    await Promise.all(everybody.flatMap((person) => [say(person, 'id', 'id'), say(person, 'both', 'both')]));
    await outcomes(everybody);
    for (const person of everybody) await expectOnePerson(person);
  }, 90_000);
});

describe('a number that changes hands', () => {
  const SECRET = /4711|secret/;

  test('then the second person gets answers of their own: no prompt, list or summary has a word of the first', async () => {
    const first = newPerson();
    const second = newPerson(first.phone);
    await say(first, 'both', 'my secret is 4711');
    await say(first, 'number', 'keep it secret');
    await outcomes([first]);
    const before = system.sandbox.kapso.visibleTo(first.phone).length;
    const asked = system.sandbox.models.count('sandbox-model');
    await say(second, 'both', 'hello');
    await outcomes([second]);
    await say(second, 'number', 'who are you?');
    await outcomes([second]);
    await say(second, 'id', 'and now?');
    await outcomes([second]);
    const prompts = system.sandbox.models.requests('sandbox-model').slice(asked - system.sandbox.models.count('sandbox-model'));
    expect(prompts).toHaveLength(3);
    expect(JSON.stringify(prompts)).not.toMatch(SECRET);
    expect(JSON.stringify(system.sandbox.kapso.visibleTo(second.phone).slice(before))).not.toMatch(SECRET);
    const [conversationId] = [await expectConversation(second), await expectConversation(first)];
    for (const path of ['', '/messages']) expect(await read(`/api/v1/conversations/${conversationId}${path}`)).not.toMatch(SECRET);
    // What the first says now, by the id, is answered to the id: the number is somebody else's.
    const toNumber = system.sandbox.kapso.visibleTo(first.phone).length;
    await say(first, 'id', 'do you still know my secret?');
    await outcomes([first]);
    expect(system.sandbox.kapso.visibleTo(first.id)).toHaveLength(1);
    expect(system.sandbox.kapso.visibleTo(first.phone)).toHaveLength(toNumber);
    const asks = system.sandbox.models.requests('sandbox-model').at(-1);
    expect(JSON.stringify(asks?.messages)).toContain('my secret is 4711');
  });

  /** The conversation with exactly what this person wrote. */
  async function expectConversation(person: Person): Promise<string> {
    const rows = await messagesOf(person);
    const ids = new Set(rows.map(({ conversationId }) => conversationId));
    expect(ids.size).toBe(1);
    const [id = ''] = ids;
    expect(await system.db.message.count({ where: { conversationId: id, direction: 'inbound' } })).toBe(person.posted.size);
    return id;
  }
});

describe('a change that WhatsApp announces', () => {
  test('then the history goes with the person, to the new number and to the new id', async () => {
    const [before, after] = [newPerson(), newPerson()];
    await say(before, 'both', 'my order is 4711');
    await outcomes([before]);
    const changed = { type: 'user_changed_number', wa_id: after.phone, body: `Ana changed from ${before.phone} to ${after.phone}` };
    const announced = await post({ from: before.phone, type: 'system', system: changed });
    await say(after, 'number', 'which order did I name?');
    await outcomes([after]);
    expect(JSON.stringify(system.sandbox.models.requests('sandbox-model').at(-1)?.messages)).toContain('my order is 4711');
    expect(system.sandbox.kapso.visibleTo(after.phone)).toHaveLength(1);
    await post({ type: 'system', system: { type: 'user_changed_user_id', user_id: after.id, previous_user_id: before.id } });
    await say(after, 'id', 'and by the new id?');
    await say(after, 'both', 'and by both?');
    await outcomes([after]);
    const rows = [...(await messagesOf(before)), ...(await messagesOf(after))];
    expect(new Set(rows.map(({ conversationId }) => conversationId)).size).toBe(1);
    expect(await system.db.message.findFirst({ where: { providerMessageId: announced } })).toMatchObject({
      conversationId: rows[0]?.conversationId,
      kind: 'system',
      outcome: 'unsupported',
    });
  });
});

describe('a number that WhatsApp spells otherwise than the numbering plan', () => {
  test('then chat and call are of one person in both directions, and what is sent keeps the spelling of WhatsApp', async () => {
    // The last four digits choose no scenario of the sandbox.
    const tail = `${String(Date.now() % 10_000).padStart(4, '0')}2368`;
    const [whatsApp, dialled] = [`52155${tail}`, `+5255${tail}`];
    const person = newPerson(whatsApp);
    await say(person, 'number', 'buenas tardes');
    await outcomes([person]);
    expect(system.sandbox.kapso.visibleTo(whatsApp)).toHaveLength(1);
    const [{ conversationId } = { conversationId: '' }] = await messagesOf(person);
    for (const to of [`+${whatsApp}`, dialled]) {
      const { status, body } = await placeCall(system, { to });
      expect([status, body.to]).toEqual([202, dialled]);
      expect(await resultOf(system, body.callId)).toMatchObject({ outcome: 'completed', conversationId });
    }
    expect(system.sandbox.vapi.dialled({ number: dialled })).toBe(2);
    const { id } = system.sandbox.vapi.receiveCall({ from: dialled, baseUrl: system.sandbox.vapiUrl });
    const received = await eventually(() =>
      system.db.vapiCallResult.findFirstOrThrow({ where: { providerCallId: id, doneAt: { not: null } } }),
    );
    expect(received).toMatchObject({ direction: 'inbound', conversationId });
    for (const spelling of [whatsApp, dialled.slice(1)]) {
      const { body } = await request<{ data: CallView[] }>(system, 'GET', `/api/v1/vapi/calls/by-phone/${spelling}`);
      expect(body.data).toHaveLength(3);
    }
    // The other way round: somebody is called first, and then writes.
    await say(person, 'number', 'gracias');
    await outcomes([person]);
    const notes = await system.db.message.count({ where: { conversationId, direction: 'note' } });
    expect(notes).toBe(3);
  });
});

async function read(path: string): Promise<string> {
  const response = await fetch(`${system.apiUrl}${path}`, { headers: { Authorization: `Bearer ${API_KEY}` } });
  expect(response.status).toBe(200);
  return await response.text();
}
