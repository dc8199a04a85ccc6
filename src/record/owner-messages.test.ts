/** What the owner does on the phone, beside what we send ourselves. On the real database. */
import { randomUUID } from 'node:crypto';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import type { FromBusiness, InboundMessage } from '../../workflows/contract';
import { type Database, openDatabase } from '../platform/database';
import { recordOwnerMessages } from './owner-messages';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('owner_messages');
  db = openDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const PAUSE_MS = 60_000;

async function conversation(data: object = {}) {
  const phoneNumberId = randomUUID();
  const { id: workspaceId } = await db.orm.workspace.create({
    data: { name: 'w', kapsoPhoneNumberId: phoneNumberId, settings: { create: {} } },
  });
  const contact = await db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID(), phone: '15550100' } });
  const { id: conversationId } = await db.orm.conversation.create({
    data: { workspaceId, contactId: contact.id, workflowId: randomUUID(), unreadCount: 1, ...data },
  });
  const shared = { workspaceId, conversationId, kind: 'text' } as const;
  return {
    conversationId,
    open: (occurredAt: Date) =>
      db.orm.message.create({ data: { ...shared, direction: 'inbound', status: 'received', text: 'q', occurredAt } }),
    outbound: (text: string, fields: object) =>
      db.orm.message.create({
        data: { ...shared, direction: 'outbound', status: 'sending', text, author: 'model', claimedAt: new Date(), ...fields },
      }),
    owner: (text: string, fields: Partial<InboundMessage> = {}, fromBusiness: FromBusiness = {}) =>
      recordOwnerMessages(db, {
        ...{ conversationId, workspaceId, phoneNumberId, ownerPauseMs: PAUSE_MS },
        messages: [
          {
            id: randomUUID(),
            providerMessageId: `wamid.${randomUUID()}`,
            kind: 'text',
            text,
            sentAtMs: Date.now(),
            fromBusiness,
            ...fields,
          },
        ],
      }),
    row: () => db.orm.conversation.findUniqueOrThrow({ where: { id: conversationId } }),
    owners: () => db.orm.message.findMany({ where: { conversationId, author: 'phone' } }),
  };
}

test('when the same text is being sent by us, then it is not the owner’s, and nobody takes over', async () => {
  const one = await conversation();
  await one.outbound('on our way', {});
  await one.owner('on our way');
  expect(await one.owners()).toEqual([]);
  expect(await one.row()).toMatchObject({ mode: 'ai', unreadCount: 1 });
  await one.owner('something else');
  expect(await one.row()).toMatchObject({ mode: 'human', unreadCount: 0 });
});

test('when WhatsApp’s id is one of ours, then it is not the owner’s', async () => {
  const one = await conversation();
  const { providerMessageId } = await one.outbound('sent', { status: 'sent', providerMessageId: `wamid.${randomUUID()}` });
  await one.owner('sent', { providerMessageId: providerMessageId ?? '' });
  expect(await one.owners()).toEqual([]);
  expect((await one.row()).mode).toBe('ai');
});

test('when it arrives late, then it is in the conversation, and takes over for what is left of the pause, if anything', async () => {
  const [late, tooLate] = [await conversation(), await conversation()];
  await late.owner('half a minute ago', { sentAtMs: Date.now() - PAUSE_MS / 2 });
  const { mode, modeUntil } = await late.row();
  expect(mode).toBe('human');
  expect((modeUntil?.getTime() ?? 0) - Date.now()).toBeLessThan(PAUSE_MS / 2 + 1_000);
  await tooLate.owner('yesterday', { sentAtMs: Date.now() - 24 * 3_600_000 });
  expect(await tooLate.owners()).toHaveLength(1);
  expect((await tooLate.row()).mode).toBe('ai');
});

test('when the customer wrote before and after it, then it has answered what was written before', async () => {
  const one = await conversation();
  const before = await one.open(new Date(Date.now() - 20_000));
  const after = await one.open(new Date(Date.now() - 1_000));
  await one.owner('answer', { sentAtMs: Date.now() - 10_000 });
  const outcomeOf = async (id: string) => (await db.orm.message.findUniqueOrThrow({ where: { id } })).outcome;
  expect([await outcomeOf(before.id), await outcomeOf(after.id)]).toEqual(['human', null]);
  expect((await one.row()).waitingSince).toEqual(after.createdAt);
});

test.each([
  ['a person has it', { mode: 'human', heldBy: 'Ann' }],
  ['it is paused', { mode: 'paused', heldBy: 'Ann' }],
] as const)('when %s, then the phone does not take it over', async (_what, data) => {
  const one = await conversation(data);
  await one.owner('from the phone');
  expect(await one.row()).toMatchObject({ ...data, modeUntil: null });
});

test('when the owner writes again, then the pause is longer, and the same webhook twice changes nothing', async () => {
  const one = await conversation();
  const providerMessageId = `wamid.${randomUUID()}`;
  const sentAtMs = Date.now() - 30_000;
  await one.owner('first', { providerMessageId, sentAtMs });
  const first = await one.row();
  await one.owner('first', { providerMessageId, sentAtMs });
  expect(await one.row()).toMatchObject({ modeUntil: first.modeUntil, heldSince: first.heldSince });
  await one.owner('second');
  const second = await one.row();
  expect((second.modeUntil?.getTime() ?? 0) - (first.modeUntil?.getTime() ?? 0)).toBeGreaterThan(25_000);
  expect(second.heldSince).toEqual(first.heldSince);
});
