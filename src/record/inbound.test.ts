/** Whose conversation a message belongs to, with the real database. */
import { balance } from '../../test/support/expectations';
import { ANSWER_LIMITS, message, newPerson, type Received, useRecorder, workflowOf } from '../../test/support/recorder';
import type { ContactIdentity } from '../../workflows/contract';
import { raiseReply, storeDraft } from './replies';

const recorder = useRecorder('inbound');
const { receive, record, newWorkspace, textsOf, contactsIn } = recorder;

const FACTS = ['number', 'id', 'both'] as const;

/** All orders of the facts, of every length up to `longest`. */
function orders(longest: number): (typeof FACTS)[number][][] {
  if (longest === 0) return [[]];
  const shorter = orders(longest - 1);
  return [[], ...shorter.flatMap((order) => FACTS.map((fact) => [...order, fact]))];
}

describe('one person, one conversation', () => {
  test('when a number, an id and both come in any order, then they are one contact as soon as both were seen together', async () => {
    const { id: workspaceId, phoneNumberId } = await newWorkspace();
    const all = orders(5).slice(1);
    expect(all).toHaveLength(3 + 9 + 27 + 81 + 243);
    const queue = [...all.entries()];
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let next = queue.pop(); next; next = queue.pop()) {
          const [index, order] = next;
          const person = newPerson();
          let last: Received | undefined;
          for (const fact of order) last = await receive(phoneNumberId, person[fact], message(`${index}`));
          const found = await recorder.db.orm.contactAlias.findMany({
            where: { workspaceId, value: { in: [person.number.phone, person.id.businessScopedUserId] } },
            include: { contact: { include: { conversation: { include: { messages: true } } } } },
          });
          const contacts = new Set(found.map(({ contactId }) => contactId));
          const isLinked = order.includes('both');
          expect([order, contacts.size]).toEqual([order, isLinked ? 1 : new Set(order).size]);
          if (isLinked) expect(found[0]?.contact.conversation?.messages).toHaveLength(order.length);
          // All that want a reply are the last workflow's, so one reply answers them.
          if (isLinked) expect([order, last?.answerableIds.length]).toEqual([order, order.length]);
        }
      }),
    );
    expect(await recorder.db.orm.message.count({ where: { workspaceId } })).toBe(all.flat().length);
    await balance(recorder.db.orm);
  });

  test('when nothing is new, then one look-up and one insert are all it takes, for one message as for ten deliveries', async () => {
    const { phoneNumberId } = await newWorkspace();
    const { both } = newPerson();
    const contact = { ...both, name: 'Ann' };
    const workflow = workflowOf(phoneNumberId, contact);
    await record(workflow, { contact, messages: [message('first')] });
    for (const count of [1, 10]) {
      const deliveries = Array.from({ length: count }, () => ({ contact, messages: [message('more')] }));
      const before = recorder.statements();
      expect((await record(workflow, ...deliveries)).own?.answerableIds).toHaveLength(count === 1 ? 2 : 12);
      expect(recorder.statements() - before).toBe(2);
    }
  });

  test('when somebody new writes, then it takes one statement more', async () => {
    const { phoneNumberId } = await newWorkspace();
    const { both } = newPerson();
    const before = recorder.statements();
    await record(workflowOf(phoneNumberId, both), { contact: both, messages: [message('first')] });
    expect(recorder.statements() - before).toBe(3);
  });

  test('when the record learns a name or another spelling of the number, then it is shown, and what is not said stays', async () => {
    const { id: workspaceId, phoneNumberId } = await newWorkspace();
    const say = (contact: ContactIdentity) => receive(phoneNumberId, contact, message('x'));
    await say({ phone: '5215500000001', name: 'Mira', username: 'mira' });
    await say({ phone: '525500000001' });
    await say({ phone: '5215500000001', name: 'Mira E.' });
    const contacts = await contactsIn(workspaceId);
    expect(contacts).toMatchObject([{ phone: '5215500000001', name: 'Mira E.', username: 'mira', aliases: [{ value: '525500000001' }] }]);
  });

  test.each([
    ['Mexico', '5215500000001', '525500000001'],
    ['Argentina', '5491123456789', '541123456789'],
    ['Brazil', '551199998888', '5511999998888'],
    ['Benin', '22995123456', '2290195123456'],
  ])('when a number of %s comes in two spellings, also at once, then it is one person', async (_country, ...spellings) => {
    const { id: workspaceId, phoneNumberId } = await newWorkspace();
    await Promise.all(spellings.map((phone) => receive(phoneNumberId, { phone }, message(phone))));
    expect(await contactsIn(workspaceId)).toHaveLength(1);
    expect(await recorder.db.orm.message.count({ where: { workspaceId } })).toBe(2);
  });

  test('when two workspaces know the same number, then each has its own contact', async () => {
    const [one, other] = [await newWorkspace(), await newWorkspace()];
    const { both } = newPerson();
    const ids = [await receive(one.phoneNumberId, both, message('x')), await receive(other.phoneNumberId, both, message('y'))];
    expect(new Set(ids.map(({ conversationId }) => conversationId)).size).toBe(2);
  });

  test('when a workflow is given messages of several people at once, then it records its own in the order of writing, and names the owners of the rest', async () => {
    const { phoneNumberId } = await newWorkspace();
    const [person, other] = [newPerson(), newPerson()];
    const contact = { ...person.both };
    const stranger = { phone: person.number.phone, businessScopedUserId: other.id.businessScopedUserId };
    const workflow = workflowOf(phoneNumberId, contact);
    const [early, late, foreign] = [message('early'), message('late'), message('foreign')];
    const { own, elsewhere } = await record(
      workflow,
      { contact, messages: [late] },
      { contact, messages: [early] },
      { contact: stranger, messages: [foreign] },
    );
    expect(await textsOf(own?.context.conversationId ?? '')).toEqual(['early', 'late']);
    const owner = workflowOf(phoneNumberId, { businessScopedUserId: other.id.businessScopedUserId });
    expect(elsewhere).toEqual([{ ...owner, messageIds: [foreign.id] }]);
    expect(await recorder.db.orm.message.count({ where: { providerMessageId: foreign.providerMessageId } })).toBe(0);
  });
});

describe('a message that is not answered', () => {
  const DAY_MS = 86_400_000;
  const old = () => message('old', { sentAtMs: Date.now() - DAY_MS });
  const attentionOf = async (id: string) => {
    const { attention } = await recorder.db.orm.conversation.findUniqueOrThrow({ where: { id } });
    return (attention as { kind: string }[]).map(({ kind }) => kind);
  };

  /** A person whose messages can be answered. */
  async function conversation() {
    const { phoneNumberId } = await newWorkspace();
    const { both } = newPerson();
    const say = (...messages: ReturnType<typeof message>[]) => receive(phoneNumberId, both, ...messages);
    const draft = async ({ conversationId, answerableIds: messageIds, workflow: { workflowId } }: Received) => {
      const source = { provider: 'p', model: 'm', attempts: 1, latencyMs: 1, promptTokens: 1, completionTokens: 1 };
      const stored = await storeDraft(recorder.db, { conversationId, workflowId, messageIds, texts: ['a reply'], ...source });
      const messageId = stored?.messageId ?? '';
      return {
        send: () => raiseReply(recorder.db, { messageId }, { status: 'sent', phoneNumberId, providerMessageId: `wamid.${messageId}` }),
      };
    };
    return { say, draft };
  }

  test('when a reply that was drafted before it is sent, then it still needs a person; a later reply cures that', async () => {
    const { say, draft } = await conversation();
    const first = await say(message('hello'));
    const reply = await draft(first);
    await say(old());
    await reply.send();
    expect(await attentionOf(first.conversationId)).toEqual(['too_old']);
    await (await draft(await say(message('hello again')))).send();
    expect(await attentionOf(first.conversationId)).toEqual([]);
    await balance(recorder.db.orm);
  });

  test('when it is recorded again, then it does not request attention again', async () => {
    const { say, draft } = await conversation();
    const late = old();
    const { conversationId } = await say(late);
    await (await draft(await say(message('hello')))).send();
    await say(late, message('and something new'));
    expect(await attentionOf(conversationId)).toEqual([]);
  });

  test('when the same text was answered three times, then it is a loop, and the result of recording says that a person is needed', async () => {
    const { phoneNumberId } = await newWorkspace();
    const { both } = newPerson();
    const workflow = workflowOf(phoneNumberId, both);
    const say = (text: string) => record(workflow, { contact: both, messages: [message(text)] });
    for (let count = 1; count <= 3; count += 1) {
      const { own } = await say('We are away. Until tomorrow.');
      expect(own?.answerableIds).toHaveLength(1);
      await recorder.db.orm.message.update({ where: { id: own?.answerableIds[0] ?? '' }, data: { outcome: 'answered' } });
    }
    const { own } = await say('We are  AWAY. Until tomorrow.');
    expect(own).toMatchObject({ answerableIds: [], context: { needsAttention: true } });
    expect((await say('And now?')).own?.answerableIds).toHaveLength(1);
  });

  test('when a turn waits for a model at the limit of the hour, then it counts as a reply', async () => {
    const { say, draft } = await conversation();
    for (let count = 1; count < ANSWER_LIMITS.repliesPerHour; count += 1) {
      const reply = await draft(await say(message(`fact ${count}`)));
      await reply.send();
    }
    const last = await say(message('the last one'));
    expect(last.answerableIds).toHaveLength(1);
    expect((await say(message('one more'))).answerableIds).toEqual(last.answerableIds);
    await (await draft(last)).send();
    expect((await say(message('and another'))).answerableIds).toEqual([]);
    expect(await attentionOf(last.conversationId)).toEqual(['loop']);
  });
});
