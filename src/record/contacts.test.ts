/** Numbers that change hands or are changed, and facts that come at once, with the real database. */
import type { Prisma } from '../../prisma/generated/client';
import { balance } from '../../test/support/expectations';
import { message, newPerson, useRecorder } from '../../test/support/recorder';
import type { ContactIdentity } from '../../workflows/contract';
import { sql } from '../platform/database';
import { phoneMatchingKey } from '../platform/phone';
import { conversationWith, matchingKeySql } from './contacts';

const recorder = useRecorder('contacts');
const { receive, newWorkspace, textsOf, contactsIn } = recorder;

describe('a number that changes hands', () => {
  /** The second person has written once from the number of the first, with an id of their own. */
  async function handedOn() {
    const { id: workspaceId, phoneNumberId } = await newWorkspace();
    const [first, second] = [newPerson(), newPerson()];
    const both = { ...second.both, phone: first.number.phone };
    const before = await receive(phoneNumberId, { ...first.both, name: 'First' }, message('a secret of the first'));
    const after = await receive(phoneNumberId, { ...both, name: 'Second' }, message('hello'));
    return { workspaceId, phoneNumberId, first, second: { ...second, number: first.number, both }, before, after };
  }

  test('then the second person has a conversation of their own, and the first keeps theirs without the number', async () => {
    const { workspaceId, before, after, first, second } = await handedOn();
    expect(await textsOf(before.conversationId)).toEqual(['a secret of the first']);
    expect(await textsOf(after.conversationId)).toEqual(['hello']);
    const contacts = await contactsIn(workspaceId);
    const shown = contacts.map(({ name, phone, aliases }) => [name, phone, aliases.map(({ value }) => value).sort()]);
    expect(shown).toContainEqual(['First', null, [first.id.businessScopedUserId]]);
    expect(shown).toContainEqual(['Second', second.number.phone, [second.number.phone, second.id.businessScopedUserId].sort()]);
  });

  test('then the number alone leads to the second person, each id to its own, and all stay apart', async () => {
    const { phoneNumberId, before, after, first, second } = await handedOn();
    for (const contact of [second.number, second.id, second.both])
      expect((await receive(phoneNumberId, contact, message('second'))).conversationId).toBe(after.conversationId);
    expect((await receive(phoneNumberId, first.id, message('first'))).conversationId).toBe(before.conversationId);
    expect(await textsOf(before.conversationId)).toEqual(['a secret of the first', 'first']);
    await balance(recorder.db.orm);
  });

  test('then a message of the first that comes once more, or late, brings the number back to nobody', async () => {
    const { phoneNumberId, before, after, first, second } = await handedOn();
    const late = message('late', { sentAtMs: Date.UTC(2026, 9, 31) });
    expect((await receive(phoneNumberId, first.both, late)).conversationId).toBe(before.conversationId);
    expect((await receive(phoneNumberId, second.number, message('second'))).conversationId).toBe(after.conversationId);
    const contacts = await recorder.db.orm.contact.findMany({ where: { phone: first.number.phone }, include: { conversation: true } });
    expect(contacts.map(({ conversation }) => conversation?.id)).toEqual([after.conversationId]);
  });

  test('when the clock of a message goes ahead, then it does not hold the number for the time to come', async () => {
    const { phoneNumberId } = await newWorkspace();
    const [first, second] = [newPerson(), newPerson()];
    const ahead = message('from the future', { sentAtMs: Date.now() + 86_400_000 });
    const before = await receive(phoneNumberId, first.both, ahead);
    const now = message('hello', { sentAtMs: Date.now() });
    const after = await receive(phoneNumberId, { ...second.id, ...first.number }, now);
    expect(after.conversationId).not.toBe(before.conversationId);
    expect((await receive(phoneNumberId, first.number, message('who am I?'))).conversationId).toBe(after.conversationId);
  });

  test('when it comes back to the first, and goes to a third, then everybody is where they were', async () => {
    const { phoneNumberId, before, after, first, second } = await handedOn();
    const third = { ...newPerson().both, phone: first.number.phone };
    const conversationOf = async (contact: ContactIdentity) => (await receive(phoneNumberId, contact, message('x'))).conversationId;
    expect(await conversationOf(first.both)).toBe(before.conversationId);
    expect(await conversationOf(second.both)).toBe(after.conversationId);
    const last = await conversationOf(third);
    expect([before.conversationId, after.conversationId]).not.toContain(last);
    expect(await conversationOf(third)).toBe(last);
    expect(await conversationOf(first.number)).toBe(last);
  });

  test('when nobody has the number any more, then whoever writes from it without an id is somebody new, with a workflow of their own', async () => {
    const { phoneNumberId, after, second } = await handedOn();
    const moved = { ...newPerson().number, businessScopedUserId: second.id.businessScopedUserId };
    expect((await receive(phoneNumberId, moved, message('moved'))).conversationId).toBe(after.conversationId);
    const fresh = await receive(phoneNumberId, second.number, message('who am I?'));
    expect(await textsOf(fresh.conversationId)).toEqual(['who am I?']);
    expect(fresh.handedOver).toBe(1);
    expect((await receive(phoneNumberId, second.number, message('still I'))).conversationId).toBe(fresh.conversationId);
  });
});

describe('a change that WhatsApp announces', () => {
  const announcement = () => message('changed', { kind: 'system' });

  test('when the number changes, then the history goes with the person, and the old number is nobody’s', async () => {
    const { phoneNumberId } = await newWorkspace();
    const [before, after] = [newPerson(), newPerson()];
    const { conversationId } = await receive(phoneNumberId, before.both, message('my order is 4711'));
    const changed = { ...after.number, formerPhone: before.number.phone };
    expect((await receive(phoneNumberId, changed, announcement())).conversationId).toBe(conversationId);
    // WhatsApp gives a new id with the new number.
    for (const contact of [after.number, after.both, after.id])
      expect((await receive(phoneNumberId, contact, message('which order?'))).conversationId).toBe(conversationId);
    expect((await receive(phoneNumberId, before.number, message('somebody else'))).conversationId).not.toBe(conversationId);
    const systemMessage = await recorder.db.orm.message.findFirst({ where: { conversationId, kind: 'system' } });
    expect(systemMessage).toMatchObject({ outcome: 'unsupported' });
  });

  test('when the id goes on with the new number, then a third person who gets that number with another id is somebody else', async () => {
    const { phoneNumberId } = await newWorkspace();
    const [before, after, third] = [newPerson(), newPerson(), newPerson()];
    const { conversationId } = await receive(phoneNumberId, before.both, message('x'));
    await receive(phoneNumberId, { ...after.number, formerPhone: before.number.phone }, announcement());
    const now = { ...after.number, ...before.id };
    expect((await receive(phoneNumberId, now, message('I am still I'))).conversationId).toBe(conversationId);
    expect((await receive(phoneNumberId, { ...after.number, ...third.id }, message('new owner'))).conversationId).not.toBe(conversationId);
  });

  test('when the id changes, before or after the first message with the new one, then it is one person', async () => {
    const { phoneNumberId } = await newWorkspace();
    for (const comesFirst of [true, false]) {
      const [before, after] = [newPerson(), newPerson()];
      const { conversationId } = await receive(phoneNumberId, before.both, message('x'));
      if (!comesFirst) await receive(phoneNumberId, after.id, message('early'));
      await receive(phoneNumberId, { ...after.id, formerBusinessScopedUserId: before.id.businessScopedUserId }, announcement());
      const places = [after.id, before.id, before.number].map((contact) => receive(phoneNumberId, contact, message('y')));
      expect(new Set((await Promise.all(places)).map((place) => place.conversationId)).size).toBe(1);
      if (comesFirst) expect((await places[0])?.conversationId).toBe(conversationId);
    }
  });

  test('when an announcement comes once more after the person has moved on, then nothing moves back', async () => {
    const { phoneNumberId } = await newWorkspace();
    const [one, two, three] = [newPerson(), newPerson(), newPerson()];
    const { conversationId } = await receive(phoneNumberId, one.number, message('x'));
    const [first, second] = [announcement(), announcement()];
    await receive(phoneNumberId, { ...two.number, formerPhone: one.number.phone }, first);
    await receive(phoneNumberId, { ...three.number, formerPhone: two.number.phone }, second);
    await receive(phoneNumberId, { ...two.number, formerPhone: one.number.phone }, first);
    expect((await receive(phoneNumberId, three.number, message('still I'))).conversationId).toBe(conversationId);
    expect((await receive(phoneNumberId, two.number, message('somebody else'))).conversationId).not.toBe(conversationId);
  });
});

describe('at the same moment', () => {
  test('when 50 people write from the id alone and from both at once, then each is one contact with both messages', async () => {
    const { id: workspaceId, phoneNumberId } = await newWorkspace();
    const people = Array.from({ length: 50 }, newPerson);
    await Promise.all(
      people.flatMap(({ id, both, number }) => [id, both, number].map((contact) => receive(phoneNumberId, contact, message('x')))),
    );
    // The number alone may have come before it was known to be theirs; the next message of both settles it.
    await Promise.all(people.map(({ both }) => receive(phoneNumberId, both, message('x'))));
    const contacts = await contactsIn(workspaceId);
    expect(contacts).toHaveLength(50);
    expect(contacts.map(({ conversation }) => conversation?.messages.length)).toEqual(people.map(() => 4));
  });

  test('when somebody new is made with an id while a known contact is about to get it, then the two are merged', async () => {
    const { id: workspaceId, phoneNumberId } = await newWorkspace();
    const { number, id, both } = newPerson();
    const known = await receive(phoneNumberId, number, message('from the number'));
    // The first waits with its contact written and not committed: the other cannot see its alias.
    const held = await recorder.hold('SELECT 1 FROM workspaces WHERE id = $1 FOR UPDATE', [workspaceId]);
    const made = receive(phoneNumberId, id, message('from the id'));
    await held.waiting(1);
    const extended = receive(phoneNumberId, both, message('from both'));
    await held.waiting(2);
    await held.release();
    const { conversationId } = await extended;
    await made;
    expect(conversationId).toBe(known.conversationId);
    expect(await contactsIn(workspaceId)).toMatchObject([{ aliases: [{}, {}] }]);
    expect(await recorder.db.orm.message.count({ where: { conversationId } })).toBe(3);
  });

  test('when a known number comes with two different ids at once, then only one of them is the known contact', async () => {
    const { id: workspaceId, phoneNumberId } = await newWorkspace();
    const [one, other] = [newPerson(), newPerson()];
    await receive(phoneNumberId, one.number, message('from the number'));
    const [contact] = await contactsIn(workspaceId);
    const held = await recorder.hold('SELECT 1 FROM contacts WHERE id = $1 FOR UPDATE', [contact?.id]);
    const both = [one.both, { ...other.id, ...one.number }].map((sender) => receive(phoneNumberId, sender, message('x')));
    await held.waiting(2);
    await held.release();
    const places = await Promise.all(both);
    expect(new Set(places.map(({ conversationId }) => conversationId)).size).toBe(2);
    const ids = (await contactsIn(workspaceId)).map(({ aliases }) => aliases.filter(({ kind }) => kind === 'user_id').length);
    expect(ids).toEqual([1, 1]);
  });

  test('when two workflows hold a conversation each, and all three facts come at once, again and again, then one is left', async () => {
    const { id: workspaceId, phoneNumberId } = await newWorkspace();
    for (let round = 0; round < 20; round += 1) {
      const { number, id, both } = newPerson();
      await Promise.all([receive(phoneNumberId, number, message('1')), receive(phoneNumberId, id, message('2'))]);
      const facts = [both, number, id, both, id, number];
      const received = await Promise.all(facts.map((contact) => receive(phoneNumberId, contact, message('x'))));
      const aliases = await recorder.db.orm.contactAlias.findMany({
        where: { workspaceId, value: { in: [number.phone, id.businessScopedUserId] } },
      });
      expect(new Set(aliases.map(({ contactId }) => contactId)).size).toBe(1);
      const rows = await recorder.db.orm.message.findMany({
        where: { conversation: { contact: { aliases: { some: { value: number.phone } } } } },
      });
      expect(rows).toHaveLength(8);
      expect(new Set(rows.map(({ workflowId }) => workflowId)).size).toBe(1);
      expect(received).toHaveLength(6);
    }
    await balance(recorder.db.orm);
  });
});

describe('a call and a chat', () => {
  /** What the database says of `expression`, for each of these numbers. */
  async function forEach(expression: Prisma.Sql, numbers: string[]): Promise<unknown[]> {
    const rows = await recorder.db.query<{ value: unknown }>(sql`SELECT ${expression} AS value FROM unnest(${numbers}::text[]) number`);
    return rows.map(({ value }) => value);
  }

  test('when a number is spelled in any way, then its matching key in SQL is the one in TypeScript', async () => {
    const prefixes = ['521', '52', '549', '54', '5511', '55119', '55115', '551', '22901', '229', '1', '49', '62'];
    const digits = prefixes.flatMap((prefix) => [6, 7, 8, 9, 10, 11].map((length) => prefix + '7123456789012'.slice(0, length)));
    const numbers = [...digits, ...digits.map((each) => `+${each}`), '+52 1 55 0000-0001'];
    expect(await forEach(matchingKeySql(sql`number`), numbers)).toEqual(numbers.map(phoneMatchingKey));
  });

  test.each([
    ['5215500000001', '+525500000001'],
    ['5491123456789', '+541123456789'],
    ['551199998888', '+5511999998888'],
    ['22995123456', '+2290195123456'],
    ['15550100', '+15550100'],
  ])('when somebody chats from %s and is called at %s, then the call finds the conversation', async (phone, number) => {
    const [workspace, other] = [await newWorkspace(), await newWorkspace()];
    const { conversationId } = await receive(workspace.phoneNumberId, { phone }, message('hi'));
    const { conversationId: elsewhere } = await receive(other.phoneNumberId, { phone }, message('hello'));
    const found = (workspaceId: string) => forEach(conversationWith(sql`number`, sql`${workspaceId}::uuid`), [number, phone, '+15550199']);
    expect(await found(workspace.id)).toEqual([conversationId, conversationId, null]);
    expect(await found(other.id)).toEqual([elsewhere, elsewhere, null]);
  });
});
