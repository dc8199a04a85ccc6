/** Long replies in several rows, and the outcome of their turn, with the real database. */
import { balance } from '../../test/support/expectations';
import { message, newPerson, useRecorder } from '../../test/support/recorder';
import type { ReportedStatus } from '../../workflows/contract';
import { loadPromptMaterial } from './prompts';
import { claimReply, doubtReply, failTurn, raiseReply, releaseReply, storeDraft } from './replies';

const recorder = useRecorder('reply_parts');
const { receive, newWorkspace } = recorder;

const SOURCE = { provider: 'deepseek', model: 'm', attempts: 1, latencyMs: 1, promptTokens: 5, completionTokens: 7 };

/** A turn of two messages with a reply in three parts. */
async function turn(texts = ['one', 'two', 'three']) {
  const { db } = recorder;
  const { phoneNumberId } = await newWorkspace();
  const { both } = newPerson();
  const received = await receive(phoneNumberId, both, message('a'), message('b'));
  const { conversationId, answerableIds: messageIds } = received;
  const { workflowId } = received.workflow;
  const draft = { conversationId, workflowId, messageIds, texts, ...SOURCE };
  const stored = await storeDraft(db, draft);
  if (!stored) throw new Error('the draft was not stored');
  const ids = [stored.messageId, ...stored.partIds];
  const rowsOf = (direction: 'inbound' | 'outbound') =>
    db.orm.message.findMany({ where: { conversationId, direction }, orderBy: { position: 'asc' } });
  return {
    ...{ conversationId, workflowId, phoneNumberId, messageIds, draft, ids },
    write: (text: string) => receive(phoneNumberId, both, message(text)),
    claim: (part: number) => claimReply(db, ids[part - 1] ?? ''),
    async report(part: number, status: ReportedStatus) {
      const messageId = ids[part - 1] ?? '';
      await raiseReply(db, { messageId }, { status, phoneNumberId, providerMessageId: `wamid.${messageId}` });
      await balance(db.orm);
    },
    async doubt(part: number) {
      const messageId = ids[part - 1] ?? '';
      await db.orm.message.update({ where: { id: messageId }, data: { status: 'unconfirmed' } });
      expect(await doubtReply(db, { messageId, conversationId })).toBe(true);
      await balance(db.orm);
    },
    outcomes: async () => (await rowsOf('inbound')).map(({ outcome }) => outcome),
    statuses: async () => (await rowsOf('outbound')).map(({ status }) => status),
    rows: () => rowsOf('outbound'),
    async attention() {
      const row = await db.orm.conversation.findUniqueOrThrow({ where: { id: conversationId } });
      return (row.attention as { kind: string }[]).map(({ kind }) => kind);
    },
  };
}

const PENDING = [null, null];

describe('a reply in parts', () => {
  test('when it is stored, then its parts are in order, and its costs are counted once', async () => {
    const { rows, ids, messageIds } = await turn();
    const shared = { status: 'pending', provider: 'deepseek', model: 'm' };
    expect(await rows()).toMatchObject([
      { ...shared, id: ids[0], text: 'one', part: 1, partOfId: null, replyToId: messageIds[1], completionTokens: 7 },
      { ...shared, id: ids[1], text: 'two', part: 2, partOfId: ids[0], replyToId: null, completionTokens: null },
      { ...shared, id: ids[2], text: 'three', part: 3, partOfId: ids[0], replyToId: null, completionTokens: null },
    ]);
  });

  test('when its parts are sent, then its turn is answered with the last one', async () => {
    const { report, outcomes } = await turn();
    await report(1, 'sent');
    await report(1, 'delivered');
    await report(2, 'read');
    expect(await outcomes()).toEqual(PENDING);
    await report(3, 'sent');
    expect(await outcomes()).toEqual(['merged', 'answered']);
  });

  test('when it is stored twice, then the first one and its parts win', async () => {
    const { draft, ids, rows } = await turn();
    const again = await storeDraft(recorder.db, { ...draft, texts: ['another', 'reply'] });
    expect([again?.messageId, ...(again?.partIds ?? [])]).toEqual(ids);
    expect(await rows()).toHaveLength(3);
  });

  test('when it is stored twice at the same moment, then both get the same parts', async () => {
    const { db } = recorder;
    const { phoneNumberId } = await newWorkspace();
    const { conversationId, answerableIds, workflow } = await receive(phoneNumberId, newPerson().both, message('a'));
    const lock = await recorder.hold('SELECT 1 FROM messages WHERE id = $1 FOR UPDATE', [answerableIds[0]]);
    const draft = { conversationId, workflowId: workflow.workflowId, messageIds: answerableIds, ...SOURCE };
    const both = [1, 2].map((writer) => storeDraft(db, { ...draft, texts: [`${writer} a`, `${writer} b`, `${writer} c`] }));
    await lock.waiting(2);
    await lock.release();
    const [one, other] = await Promise.all(both);
    expect(one).toEqual(other);
    expect(one?.partIds).toHaveLength(2);
    expect(await db.orm.message.count({ where: { conversationId, direction: 'outbound' } })).toBe(3);
  });

  test('when its result was lost, then the prompt finds it with its parts', async () => {
    const { conversationId, workflowId, messageIds, ids } = await turn();
    const material = await loadPromptMaterial(recorder.db, { conversationId, workflowId, messageIds });
    expect(material?.draft).toMatchObject({ messageId: ids[0], partIds: ids.slice(1) });
  });

  test('when a part is claimed, then it is known what it answers, and no other part is claimed with it', async () => {
    const { claim, statuses } = await turn();
    expect(await claim(2)).toMatchObject({ text: 'two', sendAttempts: 1, lastInboundAgeMs: expect.any(Number) });
    expect(await claim(2)).toBeUndefined();
    expect(await statuses()).toEqual(['pending', 'sending', 'pending']);
  });
});

describe('a part that is not delivered', () => {
  test('when WhatsApp refuses it, then the parts after it are not sent, the turn has failed, and it needs a person', async () => {
    const { report, outcomes, statuses, attention, rows, claim } = await turn();
    await report(1, 'sent');
    await report(2, 'failed');
    expect(await statuses()).toEqual(['sent', 'failed', 'failed']);
    expect((await rows())[2]?.failure).toBe('an earlier part of the reply was not delivered');
    expect(await claim(3)).toBeUndefined();
    expect(await outcomes()).toEqual(['failed', 'failed']);
    expect(await attention()).toEqual(['reply_failed']);
  });

  test('when it fails after all were sent, then the turn has failed', async () => {
    const { report, outcomes } = await turn();
    for (const part of [1, 2, 3]) await report(part, 'sent');
    await report(2, 'failed');
    expect(await outcomes()).toEqual(['failed', 'failed']);
    await report(3, 'read');
    expect(await outcomes()).toEqual(['failed', 'failed']);
  });

  test('when an earlier one is reported as read afterwards, then attention is not requested again', async () => {
    const { report, attention, conversationId } = await turn();
    await report(1, 'sent');
    await report(2, 'failed');
    await recorder.db.orm.conversation.update({ where: { id: conversationId }, data: { attention: [], needsAttention: false } });
    await report(1, 'read');
    expect(await attention()).toEqual([]);
  });

  test('when the workflow gives up in between, then the waiting parts are not sent', async () => {
    const { report, outcomes, statuses, conversationId, workflowId, messageIds } = await turn();
    await report(1, 'sent');
    await failTurn(recorder.db, { conversationId, workflowId, messageIds, reason: 'too often' });
    expect(await statuses()).toEqual(['sent', 'failed', 'failed']);
    expect(await outcomes()).toEqual(['failed', 'failed']);
    await balance(recorder.db.orm);
  });
});

describe('a part in doubt', () => {
  test('when the doubt is given up, then the parts after it are not sent, and late proof shows that the reply is incomplete', async () => {
    const { report, doubt, outcomes, statuses, attention } = await turn();
    await doubt(1);
    expect(await outcomes()).toEqual(['unconfirmed', 'unconfirmed']);
    expect(await statuses()).toEqual(['unconfirmed', 'failed', 'failed']);
    expect(await attention()).toEqual(['send_unconfirmed']);
    await report(1, 'sent');
    expect(await outcomes()).toEqual(['failed', 'failed']);
    expect(await attention()).toEqual(['reply_failed']);
  });

  test('when it is the last one, then late proof makes the reply complete', async () => {
    const { report, doubt, outcomes, attention } = await turn();
    await report(1, 'sent');
    await report(2, 'sent');
    await doubt(3);
    expect(await outcomes()).toEqual(['unconfirmed', 'unconfirmed']);
    await report(3, 'sent');
    expect(await outcomes()).toEqual(['merged', 'answered']);
    expect(await attention()).toEqual([]);
  });

  test('when it is proven not delivered after the doubt was given up, then it is not sent again', async () => {
    const { report, doubt, ids, statuses } = await turn();
    await report(1, 'sent');
    await doubt(2);
    await releaseReply(recorder.db, { messageId: ids[1] ?? '', sendAttempts: 0 });
    expect(await statuses()).toEqual(['sent', 'unconfirmed', 'failed']);
  });
});

describe('a reply whose workflow was terminated between two parts', () => {
  test('when the person writes again, then everything is answered together, and the waiting parts are not sent', async () => {
    const { report, write, draft, messageIds, outcomes, statuses } = await turn();
    await report(1, 'sent');
    const { answerableIds } = await write('c');
    expect(answerableIds).toEqual([...messageIds, expect.any(String)]);
    const anew = await storeDraft(recorder.db, { ...draft, messageIds: answerableIds, texts: ['all of it'] });
    expect(await statuses()).toEqual(['sent', 'failed', 'failed', 'pending']);
    await report(1, 'read');
    expect(await outcomes()).toEqual([null, null, null]);
    const fact = {
      status: 'sent',
      phoneNumberId:
        (await recorder.db.orm.workspace.findFirstOrThrow({ where: { conversations: { some: { id: draft.conversationId } } } }))
          .kapsoPhoneNumberId ?? '',
    } as const;
    await raiseReply(recorder.db, { messageId: anew?.messageId ?? '' }, fact);
    expect(await outcomes()).toEqual(['merged', 'merged', 'answered']);
    await balance(recorder.db.orm);
  });

  test.each(['sending', 'unconfirmed'] as const)('when a part is %s, then that is settled first', async (status) => {
    const { report, write, ids } = await turn();
    await report(1, 'sent');
    await recorder.db.orm.message.update({ where: { id: ids[1] ?? '' }, data: { status } });
    expect((await write('c')).answerableIds).toHaveLength(1);
  });
});
