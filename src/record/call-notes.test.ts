/** What a conversation records of a call, with the real database and two workspaces in which the same person writes. */
import { endReport, insertOwnCall, newProviderCallId } from '../../test/support/call-rows';
import { message, newPerson, useRecorder } from '../../test/support/recorder';
import { type WrittenNote, writeCallNote } from './call-notes';
import type { CallOutcome } from './call-outcome';
import { keepCallReport } from './call-reports';
import { writeCallResult } from './call-results';

const recorder = useRecorder('call_notes');
const { receive, newWorkspace } = recorder;

const FOLLOW_UP = { text: 'Thanks! {summary}', maxLength: 4_096 };

const now = (text: string) => message(text, { sentAtMs: Date.now() });

/** A person with a conversation in each of two workspaces. */
async function personOfTwo() {
  const { number } = newPerson();
  const [first, second] = [await newWorkspace(), await newWorkspace()];
  const [inFirst, inSecond] = [
    await receive(first.phoneNumberId, number, now('hi')),
    await receive(second.phoneNumberId, number, now('hi')),
  ];
  // Written last: without its workspace, a call would find this one.
  await recorder.db.orm.conversation.update({ where: { id: inSecond.conversationId }, data: { lastMessageAt: new Date() } });
  return { phone: number.phone, first, second, firstId: inFirst.conversationId, secondId: inSecond.conversationId };
}

/** A call that has ended, with its note in the conversation. */
async function toldCall(
  fields: object,
  outcome: CallOutcome = 'completed',
): Promise<{ callId: string; providerCallId: string; note: WrittenNote | undefined }> {
  const providerCallId = newProviderCallId();
  const callId = await insertOwnCall(recorder.db, { providerCallId, summary: 'All well.', ...fields });
  await writeCallResult(recorder.db, callId, { outcome, endedReason: 'customer-ended-call', needsAttention: false });
  return { callId, providerCallId, note: await writeCallNote(recorder.db, callId, FOLLOW_UP) };
}

const notesIn = (conversationId: string) =>
  recorder.db.orm.message.findMany({ where: { conversationId, direction: { not: 'inbound' } }, orderBy: { position: 'asc' } });
const followUpOf = async (callId: string) => (await recorder.db.orm.message.findUnique({ where: { id: callId } }))?.payload;

describe('two workspaces', () => {
  test('when a call belongs to one, then only its conversation gets the note and the follow-up', async () => {
    const { phone, first, second, firstId, secondId } = await personOfTwo();
    const { callId, note } = await toldCall({ toNumber: `+${phone}`, workspaceId: first.id });
    expect(note).toMatchObject({ conversationId: firstId, followUpId: expect.any(String) });
    expect((await notesIn(firstId)).map(({ direction, text, workspaceId }) => [direction, text, workspaceId])).toEqual([
      ['note', 'All well.', first.id],
      ['outbound', 'Thanks! All well.', first.id],
    ]);
    expect(await notesIn(secondId)).toEqual([]);
    expect(await recorder.db.orm.vapiCallResult.findUnique({ where: { id: callId } })).toMatchObject({ conversationId: firstId });
    await toldCall({ toNumber: `+${phone}`, workspaceId: second.id });
    expect([(await notesIn(firstId)).length, (await notesIn(secondId)).length]).toEqual([2, 2]);
  });

  test('when the person has a conversation only in the other one, then there is no note', async () => {
    const { number } = newPerson();
    const [first, second] = [await newWorkspace(), await newWorkspace()];
    await receive(second.phoneNumberId, number, now('hi'));
    expect((await toldCall({ toNumber: `+${number.phone}`, workspaceId: first.id })).note).toBeUndefined();
  });

  test('when a release before 0.3 wrote the row, then it belongs to the first workspace', async () => {
    const oldest = await recorder.db.orm.workspace.findFirstOrThrow({ orderBy: [{ createdAt: 'asc' }, { id: 'asc' }] });
    const { callId } = await toldCall({ toNumber: '+15550100' });
    expect(await recorder.db.orm.vapiCallResult.findUnique({ where: { id: callId } })).toMatchObject({ workspaceId: oldest.id });
  });
});

describe('the follow-up', () => {
  const settings = (workspaceId: string, data: object) => recorder.db.orm.chatbotSettings.update({ where: { workspaceId }, data });
  const conversation = (id: string, data: object) => recorder.db.orm.conversation.update({ where: { id }, data });
  const lastWrote = (conversationId: string, hoursAgo: number) =>
    recorder.db.orm.message.updateMany({
      where: { conversationId, direction: 'inbound' },
      data: { occurredAt: new Date(Date.now() - hoursAgo * 3_600_000) },
    });
  type Told = Awaited<ReturnType<typeof personOfTwo>>;

  test.each<[string, (told: Told) => Promise<unknown>, string]>([
    ['a colleague answers', ({ firstId }) => conversation(firstId, { mode: 'human' }), 'human'],
    ['the conversation is paused', ({ firstId }) => conversation(firstId, { mode: 'paused' }), 'paused'],
    ['the chatbot is off', ({ first }) => settings(first.id, { chatbotEnabled: false }), 'chatbot_off'],
    ['the customer wrote more than a day ago', ({ firstId }) => lastWrote(firstId, 24.1), 'window_closed'],
  ])('when %s, then none is written, and the note says so', async (_why, prepare, followUp) => {
    const told = await personOfTwo();
    await lastWrote(told.firstId, 1);
    await prepare(told);
    const { callId, note } = await toldCall({ toNumber: `+${told.phone}`, workspaceId: told.first.id });
    expect(note?.followUpId).toBeNull();
    expect(await followUpOf(callId)).toMatchObject({ followUp });
    expect((await notesIn(told.firstId)).map(({ direction }) => direction)).toEqual(['note']);
  });

  test.each<CallOutcome>(['no_answer', 'voicemail', 'busy', 'failed', 'unknown'])(
    'when the call ended as %s, then there is none',
    async (outcome) => {
      const { phone, first, firstId } = await personOfTwo();
      await lastWrote(firstId, 1);
      const { callId, note } = await toldCall({ toNumber: `+${phone}`, workspaceId: first.id }, outcome);
      expect([note?.followUpId, await followUpOf(callId)]).toEqual([null, expect.objectContaining({ outcome, followUp: null })]);
    },
  );

  test('when a second attempt finds the conversation changed, then the decision of the first one stands', async () => {
    const { phone, first, firstId } = await personOfTwo();
    await lastWrote(firstId, 1);
    const { callId, note } = await toldCall({ toNumber: `+${phone}`, workspaceId: first.id });
    await conversation(firstId, { mode: 'human' });
    expect(await writeCallNote(recorder.db, callId, FOLLOW_UP)).toEqual(note);
    expect(note?.followUpId).not.toBeNull();
    expect(await notesIn(firstId)).toHaveLength(2);
  });
});

test('when a late report improves the call, then the note is updated, and no follow-up is added', async () => {
  const { phone, first, firstId } = await personOfTwo();
  const { callId, providerCallId } = await toldCall({ toNumber: `+${phone}`, workspaceId: first.id, summary: null }, 'unknown');
  const report = {
    startedAt: '2026-11-20T15:00:10Z',
    endedAt: '2026-11-20T15:01:10Z',
    analysis: { summary: 'They will come.' },
    artifact: { messages: [{ role: 'user', message: 'Yes.' }] },
  };
  await keepCallReport(recorder.db, callId, endReport(providerCallId, report));
  expect(await notesIn(firstId)).toEqual([
    expect.objectContaining({
      id: callId,
      text: 'They will come.',
      payload: { callId, outcome: 'completed', direction: 'outbound', durationSeconds: 60, followUp: null },
    }),
  ]);
});
