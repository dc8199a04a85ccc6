/** Contacts that turn out to be one, with the real database. */
import { randomUUID } from 'node:crypto';
import { balance } from '../../test/support/expectations';
import { message, newPerson, useRecorder } from '../../test/support/recorder';

const recorder = useRecorder('merge_contacts');
const { receive, record, newWorkspace, textsOf, contactsIn } = recorder;

describe('contacts that turn out to be one', () => {
  /** Somebody who wrote once from the number alone, and once from the id alone. */
  async function twoContacts() {
    const { id: workspaceId, phoneNumberId } = await newWorkspace();
    const person = newPerson();
    const byNumber = await receive(phoneNumberId, { ...person.number, name: 'Ann' }, message('from the number'));
    const byId = await receive(phoneNumberId, { ...person.id, username: 'ann' }, message('from the id'));
    const together = (text = 'both') => receive(phoneNumberId, person.both, message(text));
    return { workspaceId, phoneNumberId, person, byNumber, byId, together };
  }

  const conversation = (id: string) => recorder.db.orm.conversation.findUniqueOrThrow({ where: { id } });

  test('when they are merged, then the messages, notes and calls of both are one timeline, and all that is shown adds up', async () => {
    const { workspaceId, byNumber, byId, together } = await twoContacts();
    const { conversationId: lost } = byId;
    const callId = randomUUID();
    await recorder.db.orm.vapiCallResult.create({ data: { id: callId, workflowId: callId, direction: 'outbound', conversationId: lost } });
    await recorder.db.orm.message.create({
      data: { id: callId, workspaceId, conversationId: lost, direction: 'note', kind: 'voice_call', text: 'a call', status: 'received' },
    });
    const { conversationId } = await together();
    expect(conversationId).toBe(byNumber.conversationId);
    expect(await textsOf(conversationId)).toEqual(['from the number', 'from the id', 'a call', 'both']);
    expect(await recorder.db.orm.vapiCallResult.findUniqueOrThrow({ where: { id: callId } })).toMatchObject({ conversationId });
    expect(await conversation(conversationId)).toMatchObject({ unreadCount: 3, lastMessagePreview: 'both' });
    const [contact, ...others] = await contactsIn(workspaceId);
    expect(others).toEqual([]);
    expect(contact).toMatchObject({ name: 'Ann', username: 'ann', aliases: [expect.anything(), expect.anything()] });
    expect(await recorder.db.orm.mergedConversation.findMany({ where: { conversationId } })).toMatchObject([{ id: lost }]);
    await balance(recorder.db.orm);
  });

  test.each([
    ['ai', 'paused', 'paused'],
    ['paused', 'human', 'human'],
    ['human', 'ai', 'human'],
  ] as const)('when one is answered by %s and the other by %s, then %s answers both', async (one, other, merged) => {
    const { byNumber, byId, together } = await twoContacts();
    await recorder.db.orm.conversation.update({
      where: { id: byNumber.conversationId },
      data: { mode: one, heldBy: one === 'human' ? 'Ann' : 'Ben' },
    });
    await recorder.db.orm.conversation.update({
      where: { id: byId.conversationId },
      data: { mode: other, heldBy: other === 'human' ? 'Ann' : 'Ben' },
    });
    const { conversationId } = await together();
    const holders = { ai: null, human: 'Ann', paused: 'Ben' };
    expect(await conversation(conversationId)).toMatchObject({ mode: merged, heldBy: holders[merged], waitingSince: expect.any(Date) });
    expect(await recorder.db.orm.message.findFirst({ where: { conversationId, text: 'both' } })).toMatchObject({ outcome: null });
  });

  test('when both ask for a person, then each reason stays once, with the time since when it stands', async () => {
    const { byNumber, byId, together } = await twoContacts();
    const reason = (kind: string, since: string, subject?: string) => ({ kind, since, text: since, ...(subject ? { subject } : {}) });
    const attention = { needsAttention: true };
    const [older, newer, other] = [
      reason('turn_failed', '2026-01-01'),
      reason('turn_failed', '2026-01-03'),
      reason('reply_failed', '2026-01-02', 'r'),
    ];
    await recorder.db.orm.conversation.update({ where: { id: byNumber.conversationId }, data: { ...attention, attention: [newer] } });
    await recorder.db.orm.conversation.update({ where: { id: byId.conversationId }, data: { ...attention, attention: [older, other] } });
    const { conversationId } = await together();
    expect(await conversation(conversationId)).toMatchObject({ needsAttention: true, attention: [older, other] });
  });

  test('when messages of the other workflow are in no turn, then the owner gets them; a turn that is drafted stays where it is', async () => {
    const { byNumber, byId, phoneNumberId, person, together } = await twoContacts();
    const [drafted] = byId.answerableIds;
    await recorder.db.orm.message.update({ where: { id: drafted ?? '' }, data: { turnId: drafted ?? '' } });
    const waiting = await receive(phoneNumberId, person.id, message('waits'));
    const { answerableIds } = await together();
    const texts = await recorder.db.orm.message.findMany({ where: { id: { in: answerableIds } }, orderBy: { position: 'asc' } });
    expect(texts.map(({ text, workflowId }) => [text, workflowId])).toEqual(
      ['from the number', 'waits', 'both'].map((text) => [text, byNumber.workflow.workflowId]),
    );
    expect(waiting.workflow.workflowId).not.toBe(byNumber.workflow.workflowId);
    expect(await recorder.db.orm.message.findUniqueOrThrow({ where: { id: drafted ?? '' } })).toMatchObject({
      workflowId: byId.workflow.workflowId,
    });
  });

  test('when the workflow that lost its conversation records again, then nothing is written by it, and it is told where to go', async () => {
    const { byNumber, byId, person, together } = await twoContacts();
    await together();
    const next = message('next');
    const recorded = await record(byId.workflow, { contact: person.id, messages: [next] });
    expect(recorded).toEqual({
      kind: 'recorded',
      elsewhere: [{ ...byNumber.workflow, messageIds: [next.id] }],
      ownsConversation: false,
    });
    expect(await recorder.db.orm.message.count({ where: { providerMessageId: next.providerMessageId } })).toBe(0);
  });

  test('when a conversation is merged away between the look-up and the insert, then its message is recorded by the owner', async () => {
    const { byNumber, byId, person, together } = await twoContacts();
    const held = await recorder.hold('LOCK TABLE parked_messages IN ACCESS EXCLUSIVE MODE');
    const recording = record(byId.workflow, { contact: person.id, messages: [message('in flight')] });
    await held.waiting(1);
    const merging = together();
    // The merge is through: what waits is the insert of its own message.
    await held.waiting(2);
    await held.release();
    expect(await recording).toMatchObject({ elsewhere: [byNumber.workflow], ownsConversation: false });
    expect((await merging).conversationId).toBe(byNumber.conversationId);
  });

  test('when a message is being inserted while its conversation is merged away, then it is moved with the others', async () => {
    const { byNumber, byId, person, together } = await twoContacts();
    const held = await recorder.hold('SELECT 1 FROM conversations WHERE id = $1 FOR NO KEY UPDATE', [byId.conversationId]);
    const recording = record(byId.workflow, { contact: person.id, messages: [message('in flight')] });
    await held.waiting(1);
    const merging = together();
    await held.waiting(2);
    await held.release();
    expect((await recording).own?.context.conversationId).toBe(byId.conversationId);
    const { answerableIds, conversationId } = await merging;
    expect(conversationId).toBe(byNumber.conversationId);
    expect(await textsOf(conversationId)).toEqual(['from the number', 'from the id', 'in flight', 'both']);
    expect(answerableIds).toHaveLength(4);
  });

  test('when a conversation was merged twice, then its id still leads to the one that is left', async () => {
    const { phoneNumberId, byId, person, together } = await twoContacts();
    const { conversationId } = await together();
    const next = newPerson();
    const other = await receive(phoneNumberId, next.number, message('from a new number'));
    await receive(phoneNumberId, { ...next.number, formerPhone: person.number.phone }, message('changed', { kind: 'system' }));
    expect(
      await recorder.db.orm.mergedConversation.findMany({ where: { conversationId: other.conversationId }, orderBy: { mergedAt: 'asc' } }),
    ).toMatchObject([{ id: byId.conversationId }, { id: conversationId }]);
  });
});
