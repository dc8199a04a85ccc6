/** Who may speak: the statements that decide between the bot and people, against each other. On the real database. */
import { randomUUID } from 'node:crypto';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import type { ModeAction, ModeOrder } from '../../workflows/contract';
import { type Database, openDatabase } from '../platform/database';
import { storeHandMessage } from './hand-messages';
import { changeMode, changeModeAbove, reopenTurn } from './modes';
import { claimReply, endClaim, endForeignClaim, raiseReply, storeDraft } from './replies';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('modes');
  db = openDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

afterEach(async () => {
  await changeModeAbove(db, undefined, { mode: 'ai' });
});

const WORKFLOW = 'conversation-1-a';

/** A conversation with one message that wants a reply. */
async function conversation() {
  const phoneNumberId = randomUUID();
  const { id: workspaceId } = await db.orm.workspace.create({
    data: { name: 'w', kapsoPhoneNumberId: phoneNumberId, settings: { create: {} } },
  });
  const contact = await db.orm.contact.create({ data: { workspaceId, contactKey: randomUUID(), phone: '15550100' } });
  const { id: conversationId } = await db.orm.conversation.create({
    data: { workspaceId, contactId: contact.id, workflowId: randomUUID() },
  });
  const write = async () => {
    const fields = {
      workspaceId,
      conversationId,
      kind: 'text',
      text: 'm',
      direction: 'inbound',
      status: 'received',
      workflowId: WORKFLOW,
    } as const;
    await db.orm.conversation.update({ where: { id: conversationId }, data: { lastMessageAt: new Date() } });
    return (await db.orm.message.create({ data: fields })).id;
  };
  const id = await write();
  return {
    ...{ workspaceId, conversationId, phoneNumberId, id, write },
    store: (texts = ['a reply']) =>
      storeDraft(db, {
        ...{ conversationId, workflowId: WORKFLOW, messageIds: [id], texts },
        ...{ provider: 'deepseek', model: 'm', attempts: 1, latencyMs: 1, promptTokens: 1, completionTokens: 1 },
      }),
    change: (action: ModeAction, order: Partial<ModeOrder> = {}) => changeMode(db, action, { conversationId, by: 'Ann', ...order }),
    byHand: () => storeHandMessage(db, { id: randomUUID(), conversationId, text: 'by hand', by: 'Ann', requestHash: 'x' }),
    message: (messageId: string) => db.orm.message.findUniqueOrThrow({ where: { id: messageId } }),
    row: () => db.orm.conversation.findUniqueOrThrow({ where: { id: conversationId } }),
  };
}

type Conversation = Awaited<ReturnType<typeof conversation>>;

/** Silences the bot without withholding anything, as a statement that has just begun may find it. */
const SILENCES: Record<string, (one: Conversation) => Promise<unknown>> = {
  conversation: ({ conversationId }) => db.orm.conversation.update({ where: { id: conversationId }, data: { mode: 'human' } }),
  workspace: ({ workspaceId }) => db.orm.workspace.update({ where: { id: workspaceId }, data: { mode: 'paused' } }),
  installation: () => db.orm.installation.update({ where: { id: 1 }, data: { mode: 'paused' } }),
};

describe.each(Object.entries(SILENCES))('when the %s silences the bot', (_place, silence) => {
  test('then no draft is stored', async () => {
    const one = await conversation();
    await silence(one);
    expect(await one.store()).toBeUndefined();
  });

  test('then no draft is claimed, and it is thrown away', async () => {
    const one = await conversation();
    const { messageId = '' } = (await one.store()) ?? {};
    await silence(one);
    expect(await claimReply(db, messageId)).toBeUndefined();
    expect(await endForeignClaim(db, messageId)).toEqual({ status: 'withheld' });
    expect(await one.message(messageId)).toMatchObject({ status: 'failed', withheldAt: expect.any(Date) });
  });

  test('then what a person wrote is claimed, and is the reply to what is open', async () => {
    const one = await conversation();
    await silence(one);
    const stored = await one.byHand();
    const messageId = stored.kind === 'stored' ? stored.id : '';
    expect(await claimReply(db, messageId)).toMatchObject({ text: 'by hand' });
    await raiseReply(db, { messageId }, { status: 'sent', phoneNumberId: one.phoneNumberId, providerMessageId: randomUUID() });
    expect(await one.message(one.id)).toMatchObject({ outcome: 'human' });
    expect(await one.store()).toBeUndefined();
  });
});

test('when the time of a mode is over, then the bot may speak, although nobody has changed the row', async () => {
  const one = await conversation();
  await db.orm.conversation.update({ where: { id: one.conversationId }, data: { mode: 'human', modeUntil: new Date(Date.now() - 1_000) } });
  const { messageId = '' } = (await one.store()) ?? {};
  expect(await claimReply(db, messageId)).toMatchObject({ text: 'a reply' });
});

test('when a claim and a take-over meet, a hundred times, then the reply is on its way and named so, or is never sent', async () => {
  const seen = { onItsWay: 0, withheld: 0 };
  for (let round = 0; round < 100; round += 1) {
    const one = await conversation();
    const { messageId = '' } = (await one.store()) ?? {};
    const claiming = claimReply(db, messageId);
    if (round % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
    const [claimed, verdict] = await Promise.all([claiming, one.change('takeOver')]);
    if (verdict.kind !== 'changed') throw new Error(`the take-over was ${verdict.kind}`);
    const { onTheirWayIds, withheldIds } = verdict.changed;
    expect([onTheirWayIds, withheldIds]).toEqual(claimed ? [[messageId], []] : [[], [messageId]]);
    seen[claimed ? 'onItsWay' : 'withheld'] += 1;
    // What is certainly not sent after all stays unsent.
    if (claimed) await endClaim(db, { messageId, sendAttempts: claimed.sendAttempts, status: 'pending' });
    expect(await claimReply(db, messageId)).toBeUndefined();
  }
  expect(seen.onItsWay + seen.withheld).toBe(100);
});

test('when a workspace is paused while replies are claimed, then none is claimed afterwards', async () => {
  for (let round = 0; round < 30; round += 1) {
    const one = await conversation();
    const { messageId = '' } = (await one.store()) ?? {};
    const [claimed] = await Promise.all([claimReply(db, messageId), changeModeAbove(db, one.workspaceId, { mode: 'paused' })]);
    expect((await one.message(messageId)).status).toBe(claimed ? 'sending' : 'failed');
    expect(await claimReply(db, messageId)).toBeUndefined();
  }
});

test('when many people take over at once, then one has it, and all others are told who', async () => {
  const one = await conversation();
  const names = Array.from({ length: 10 }, (_, index) => `person ${index}`);
  const verdicts = await Promise.all(names.map((by) => one.change('takeOver', { by })));
  const winners = verdicts.flatMap((verdict) => (verdict.kind === 'changed' ? [verdict.changed.heldBy] : []));
  expect(winners).toHaveLength(1);
  expect(verdicts.filter(({ kind }) => kind === 'held')).toEqual(
    Array(9).fill({ kind: 'held', heldBy: winners[0], since: expect.any(String) }),
  );
  expect(await one.change('release', { by: 'nobody' })).toMatchObject({ kind: 'held' });
  expect(await one.change('takeOver', { by: 'Ben', from: 'somebody else' })).toMatchObject({ kind: 'held' });
  expect(await one.change('takeOver', { by: 'Ben', from: winners[0] ?? '' })).toMatchObject({
    kind: 'changed',
    changed: { heldBy: 'Ben' },
  });
});

test('when a person takes over between the parts of a reply, then the rest is thrown away, and its messages wait again', async () => {
  const one = await conversation();
  const { messageId = '', partIds } = (await one.store(['first', 'second'])) ?? {};
  await claimReply(db, messageId);
  await raiseReply(db, { messageId }, { status: 'sent', phoneNumberId: one.phoneNumberId, providerMessageId: randomUUID() });
  expect(await one.change('takeOver')).toMatchObject({ changed: { withheldIds: partIds } });
  await reopenTurn(db, one.conversationId, [one.id]);
  expect(await one.message(one.id)).toMatchObject({ outcome: null, turnId: null });
  expect(await one.message(messageId)).toMatchObject({ status: 'sent', replyToId: null });
  await one.change('release');
  expect(await one.store()).toMatchObject({ partIds: [] });
});

test('when a reply by hand is not delivered, then its messages have failed, and a person is needed', async () => {
  const one = await conversation();
  await one.change('takeOver');
  const stored = await one.byHand();
  const messageId = stored.kind === 'stored' ? stored.id : '';
  await raiseReply(db, { messageId }, { status: 'failed', phoneNumberId: one.phoneNumberId, failure: 'refused' });
  expect(await one.message(one.id)).toMatchObject({ outcome: 'failed' });
  expect(await one.row()).toMatchObject({ needsAttention: true, attention: [{ kind: 'reply_failed' }] });
});

test('when a turn is reopened, then what a person is about to send stays its reply', async () => {
  const one = await conversation();
  await one.change('takeOver');
  const stored = await one.byHand();
  await reopenTurn(db, one.conversationId, [one.id]);
  expect(await one.message(one.id)).toMatchObject({ turnId: one.id });
  expect(await one.message(stored.kind === 'stored' ? stored.id : '')).toMatchObject({ status: 'pending', replyToId: one.id });
});
