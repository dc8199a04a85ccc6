import { randomUUID } from 'node:crypto';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { type Database, openDatabase } from '../platform/database';
import {
  type ConversationLetter,
  type DeadLetterReason,
  deleteOldDeadLetters,
  findDeadLetter,
  keepDeadLetter,
  keepDeadLetters,
  listDeadLetters,
  listOpenDeadLetters,
  markReplayed,
  renewReason,
  type WebhookLetter,
} from './dead-letters';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('dead_letters');
  db = openDatabase(database.url);
});

afterEach(async () => {
  await db.orm.deadLetter.deleteMany();
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const webhookLetter = (body: unknown, facts: Partial<WebhookLetter> = {}): WebhookLetter => ({
  ...{ source: 'kapso', reason: 'unreadable', detail: 'nobody knows this form', body },
  ...facts,
});

const refusedMessage = (providerMessageId: string, name: string): ConversationLetter => ({
  ...{ source: 'conversation', reason: 'record_refused', detail: 'a constraint', phoneNumberId: '1', providerMessageId },
  ...{ workflowId: 'conversation-1-x', conversationId: randomUUID() },
  body: {
    phoneNumberId: '1',
    contact: { phone: '15550100', name },
    message: { id: randomUUID(), providerMessageId, kind: 'text', text: 'hi', sentAtMs: 1 },
  },
});

describe('storing', () => {
  test('when an item cannot be read, then everything known about it is stored', async () => {
    const letter = webhookLetter(
      { message: { id: 'w1' } },
      { event: 'whatsapp.message.received', phoneNumberId: '7', providerMessageId: 'w1' },
    );
    const id = await keepDeadLetter(db, letter);
    expect(await findDeadLetter(db, id)).toMatchObject({ ...letter, rawBody: null, isTruncated: false, occurrences: 1, replayedAt: null });
  });

  test('when the same item arrives again, also concurrently, then it is one row that counts them', async () => {
    const letter = webhookLetter({ message: { id: 'w1' } });
    const ids = [await keepDeadLetter(db, letter), ...(await keepDeadLetters(db, [letter, letter])), await keepDeadLetter(db, letter)];
    expect(new Set(ids).size).toBe(1);
    expect(await db.orm.deadLetter.findMany()).toMatchObject([{ occurrences: 3 }]);
    expect(await keepDeadLetter(db, webhookLetter({ message: { id: 'w1' } }, { source: 'vapi' }))).not.toBe(ids[0]);
  });

  test('when the same message is rejected again with more known about its sender, then it is one row with the newest body', async () => {
    const first = await keepDeadLetter(db, refusedMessage('w1', 'Ana'));
    const second = await keepDeadLetter(db, refusedMessage('w1', 'Ana Example'));
    expect(second).toBe(first);
    expect(await findDeadLetter(db, first)).toMatchObject({ occurrences: 2, body: { contact: { name: 'Ana Example' } } });
    expect(await keepDeadLetter(db, refusedMessage('w2', 'Ana'))).not.toBe(first);
  });

  test.each([
    ['bytes that are no text', Buffer.from([0, 255, 254, 1]), { body: null, rawBody: Buffer.from([0, 255, 254, 1]), isTruncated: false }],
    ['NUL and half a surrogate pair', { 'a\0': 'b\0\ud800' }, { body: { a: 'b\ufffd' }, rawBody: null, isTruncated: false }],
    ['nothing', undefined, { body: null, rawBody: null, isTruncated: false }],
    [
      'too long',
      'x'.repeat(5 * 1024 * 1024),
      { body: null, rawBody: expect.objectContaining({ length: 4 * 1024 * 1024 }), isTruncated: true },
    ],
    [
      'nested deeper than PostgreSQL reads',
      nested(1_000),
      { body: null, rawBody: Buffer.from(JSON.stringify(nested(1_000))), isTruncated: false },
    ],
    ['nested too deep to be written down', nested(100_000), { body: null, rawBody: null, isTruncated: true }],
  ])('when the body is %s, then it is kept as far as it can be', async (_what, body, expected) => {
    const stored = await findDeadLetter(db, await keepDeadLetter(db, webhookLetter(body)));
    const rawBody = stored?.rawBody ? Buffer.from(stored.rawBody) : null;
    expect({ ...stored, rawBody }).toMatchObject(expected);
  });

  test('when a text in the letter is not storable, then the letter is stored nevertheless', async () => {
    const odd = `a\0${'b'.repeat(2_000)}\ud800`;
    const letter = {
      ...refusedMessage(odd, odd),
      conversationId: 'no uuid',
      workflowId: odd,
      detail: odd,
      reason: odd as DeadLetterReason,
      phoneNumberId: odd,
    };
    const id = await keepDeadLetter(db, letter);
    expect(await findDeadLetter(db, id)).toMatchObject({ conversationId: null, reason: `a${'b'.repeat(62)}` });
  });
});

function nested(levels: number): unknown {
  let value: unknown = 'bottom';
  for (let level = 0; level < levels; level += 1) value = [value];
  return value;
}

describe('lists', () => {
  /** Letters a second apart, the first the oldest. */
  async function keepInOrder(letters: WebhookLetter[]): Promise<string[]> {
    const ids: string[] = [];
    for (const [index, letter] of letters.entries()) {
      const id = await keepDeadLetter(db, letter);
      await db.orm.deadLetter.update({ where: { id }, data: { createdAt: new Date(index * 1_000) } });
      ids.push(id);
    }
    return ids;
  }

  test('when they are listed page by page, then the newest are first, each once, and without bodies', async () => {
    const ids = await keepInOrder([1, 2, 3, 4, 5].map((item) => webhookLetter({ item })));
    const first = await listDeadLetters(db, {}, { limit: 3 });
    const last = first.at(-1);
    if (!last) throw new Error('the page is empty');
    const second = await listDeadLetters(db, {}, { limit: 3, before: { at: last.createdAt, id: last.id } });
    expect([...first, ...second].map(({ id }) => id)).toEqual(ids.toReversed());
    expect(first.every((head) => !('body' in head) && !('rawBody' in head))).toBe(true);
  });

  test('when they are filtered, then the others are left out', async () => {
    const [unreadable, noSender, vapi] = await keepInOrder([
      webhookLetter(1),
      webhookLetter(2, { reason: 'no_sender' }),
      webhookLetter(3, { source: 'vapi' }),
    ]);
    await markReplayed(db, { id: noSender ?? '', occurrences: 1 });
    const idsOf = async (filter: Parameters<typeof listDeadLetters>[1]) =>
      (await listDeadLetters(db, filter, { limit: 9 })).map(({ id }) => id);
    expect(await idsOf({ reason: 'no_sender' })).toEqual([noSender]);
    expect(await idsOf({ source: 'vapi' })).toEqual([vapi]);
    expect(await idsOf({ replayed: true })).toEqual([noSender]);
    expect(await idsOf({ replayed: false })).toEqual([vapi, unreadable]);
    const open = await listOpenDeadLetters(db, {}, { limit: 1 });
    expect(open.map(({ id }) => id)).toEqual([unreadable]);
    expect((await listOpenDeadLetters(db, {}, { limit: 9, after: open[0] })).map(({ id }) => id)).toEqual([vapi]);
  });
});

describe('replays', () => {
  test('when a letter was replayed and its item fails again, then it is open again', async () => {
    const id = await keepDeadLetter(db, webhookLetter('x'));
    expect(await markReplayed(db, { id, occurrences: 1 })).toBe(true);
    expect((await findDeadLetter(db, id))?.replayedAt).toBeInstanceOf(Date);
    await keepDeadLetter(db, webhookLetter('x'));
    expect((await findDeadLetter(db, id))?.replayedAt).toBeNull();
  });

  test('when the item fails again before the replay is stored, then the letter stays open', async () => {
    const id = await keepDeadLetter(db, webhookLetter('x'));
    await keepDeadLetter(db, webhookLetter('x'));
    expect(await markReplayed(db, { id, occurrences: 1 })).toBe(false);
    expect((await findDeadLetter(db, id))?.replayedAt).toBeNull();
  });

  test('when a replay fails for a different reason, then the letter has the new one', async () => {
    const id = await keepDeadLetter(db, webhookLetter('x'));
    await renewReason(db, id, { reason: 'no_sender', detail: 'nobody is named' });
    expect(await findDeadLetter(db, id)).toMatchObject({ reason: 'no_sender', detail: 'nobody is named', occurrences: 1 });
  });
});

test('when letters are old, then they are deleted in batches, and recently seen ones stay', async () => {
  const ids = await keepDeadLetters(
    db,
    [1, 2, 3, 4].map((item) => webhookLetter(item)),
  );
  await db.orm.deadLetter.updateMany({ where: { id: { in: ids } }, data: { createdAt: new Date(0), lastSeenAt: new Date(0) } });
  await keepDeadLetter(db, webhookLetter(4));
  const beforeMs = Date.now() - 60_000;
  expect(await deleteOldDeadLetters(db, beforeMs, 2)).toBe(2);
  expect(await deleteOldDeadLetters(db, beforeMs, 2)).toBe(1);
  expect(await deleteOldDeadLetters(db, beforeMs, 2)).toBe(0);
  expect(await db.orm.deadLetter.findMany()).toMatchObject([{ body: 4, occurrences: 2 }]);
});
