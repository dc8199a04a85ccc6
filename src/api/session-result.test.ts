/** The session of a conversation as a result over HTTP: from the record, with a wait for the end of its workflow. */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { z } from 'zod';
import { startTestApi, type TestApi } from '../../test/support/api';
import { request } from '../../test/support/calls';
import { eventually } from '../../test/support/expectations';
import { CONVERSATION_WORKFLOW } from '../../workflows/contract';
import { raiseAttention } from '../record/attention';
import { findSession } from '../record/sessions';
import type { sessionResultSchema } from './session-result';

type Result = z.output<typeof sessionResultSchema> & { detail: string };

let api: TestApi;

beforeAll(async () => {
  api = await startTestApi('api_results');
});
/** gRPC's client retries after a pause of up to 5 s, give or take a fifth, even a call that was given up: on a closed connection that throws. */
const LONGEST_RETRY_PAUSE_MS = 6_000;
afterAll(async () => {
  await delay(LONGEST_RETRY_PAUSE_MS);
  await api?.close();
});

const MINUTE_MS = 60_000;

async function aConversation(sessionTimeoutMs = 30 * MINUTE_MS) {
  const name = randomUUID();
  const settings = { create: { sessionTimeoutMs } };
  const { id: workspaceId } = await api.db.orm.workspace.create({ data: { name, kapsoPhoneNumberId: name, settings } });
  const { id: contactId } = await api.db.orm.contact.create({ data: { workspaceId, contactKey: name } });
  const data = { workspaceId, contactId, workflowId: `conversation-${name}` };
  const { id: conversationId, workflowId } = await api.db.orm.conversation.create({ data });
  const add = async (agoMinutes: number, fields: object) =>
    (
      await api.db.orm.message.create({
        data: {
          ...{ workspaceId, conversationId, kind: 'text', status: 'received', direction: 'inbound' },
          createdAt: new Date(Date.now() - agoMinutes * MINUTE_MS),
          ...fields,
        } as never,
      })
    ).id;
  return { workspaceId, conversationId, workflowId, add };
}

const result = (id: string, query = '') => request<Result>(api, 'GET', `/api/v1/conversations/${id}/result${query}`);

/** No worker takes it, so it runs until the test ends it. */
const startWorkflow = (workflowId: string) =>
  api.temporal.workflow.start(CONVERSATION_WORKFLOW, { workflowId, taskQueue: 'nobody', args: [{ phoneNumberId: '1', contactKey: 'a' }] });

test('when Temporal is away, then the question without a wait is a 503, and with one it is not done', async () => {
  const { conversationId } = await aConversation();
  await api.temporalProxy.down();
  try {
    expect((await result(conversationId, '?wait=1')).body).toMatchObject({ done: false });
    expect((await result(conversationId)).status).toBe(503);
  } finally {
    await api.temporalProxy.up();
  }
});

test('when a session is over, then its result has the messages since the last longer pause', async () => {
  const { conversationId, workflowId, workspaceId, add } = await aConversation();
  await add(200, { outcome: 'answered' });
  await add(199, { direction: 'outbound', status: 'read' });
  const merged = await add(100, { outcome: 'merged' });
  const asked = await add(99, { outcome: 'answered' });
  // The model took longer than the session timeout.
  const reply = await add(60, { direction: 'outbound', status: 'delivered', replyToId: asked });
  await add(59, { direction: 'outbound', status: 'sent', partOfId: reply, part: 2 });
  await add(50, {});
  await add(49, { direction: 'outbound', status: 'failed' });
  await add(1, { direction: 'note', kind: 'internal_note' });
  await add(45, { outcome: 'history' });
  await raiseAttention(api.db, { conversationId, kind: 'reply_failed', text: 'x' });
  const { status, body } = await result(conversationId);
  expect(status).toBe(200);
  expect(body).toMatchObject({
    ...{ conversationId, workspaceId, workflowId, done: true, mode: 'ai', messages: 3, replies: 1, pending: 1, needsAttention: true },
    outcomes: { answered: 1, merged: 1, human: 0 },
    attention: [{ kind: 'reply_failed' }],
    summary: '3 messages, 1 reply, 1 not handled yet. Needs a person: reply failed.',
  });
  const first = await api.db.orm.message.findUniqueOrThrow({ where: { id: merged } });
  expect(body.startedAt).toBe(first.createdAt.toISOString());
  expect(await findSession(api.db, conversationId, randomUUID())).toBeUndefined();
});

test('when a workflow is running, then the result is not done; a wait ends with the workflow, or with its time', async () => {
  const { conversationId, workflowId, add } = await aConversation();
  await add(1, { outcome: 'ai_disabled' });
  const handle = await startWorkflow(workflowId);
  expect((await result(conversationId)).body).toMatchObject({ done: false, messages: 1 });
  expect((await result(conversationId, '?wait=1')).body).toMatchObject({ done: false, messages: 1 });
  const waiting = [result(conversationId, '?wait=50'), result(conversationId, '?wait=50')];
  await eventually(async () => expect(api.waiters.counts()).toMatchObject({ waiters: 2, waits: 1 }));
  await add(0, { outcome: 'human' });
  await handle.terminate();
  for (const answer of await Promise.all(waiting)) {
    expect(answer.body).toMatchObject({
      done: true,
      messages: 2,
      outcomes: { ai_disabled: 1, human: 1 },
      summary: '2 messages, 0 replies.',
    });
  }
});

test('when a conversation has no message, was merged or is unknown, then the result is empty, the successor’s, or a 404', async () => {
  const { conversationId } = await aConversation();
  expect((await result(conversationId)).body).toMatchObject({ done: true, messages: 0, startedAt: null, lastMessageAt: null });
  const merged = randomUUID();
  await api.db.orm.mergedConversation.create({ data: { id: merged, conversationId } });
  expect((await result(merged, '?wait=1')).body).toMatchObject({ conversationId, done: true });
  expect((await result(randomUUID())).status).toBe(404);
});
