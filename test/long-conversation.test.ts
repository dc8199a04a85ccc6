/** Continue-as-new while messages arrive: none lost, none twice. */
import { randomUUID } from 'node:crypto';
import { type ConversationInput, conversationWorkflowId, messagesReceived, searchAttributes } from '../workflows/contract';
import { balance, eventually, newPhone, outcomesOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('long', {});
});

afterAll(async () => {
  await system?.close();
});

const MESSAGES = 120;

/** Hands one message over as the webhook does, to a workflow whose history is short. @returns the run that took it */
async function signalMessage(
  workflowId: string,
  input: ConversationInput,
  phone: string,
  index: number,
  text = `m${index}`,
): Promise<string> {
  const message = {
    id: randomUUID(),
    providerMessageId: `wamid.${workflowId}.${index}`,
    kind: 'text',
    text,
    sentAtMs: Date.now(),
  };
  const { signaledRunId } = await system.temporal.workflow.signalWithStart('conversationWorkflow', {
    workflowId,
    taskQueue: system.taskQueue,
    args: [input],
    signal: messagesReceived,
    signalArgs: [{ contact: { phone }, messages: [message] }],
    searchAttributes: { [searchAttributes.workspace]: [input.phoneNumberId] },
  });
  return signaledRunId;
}

test('when a conversation grows long while messages and their duplicates pour in, then it continues as new, and each is in the record once', async () => {
  const phone = newPhone();
  const contactKey = 'long-conversation';
  const workflowId = conversationWorkflowId(system.phoneNumberId, contactKey);
  const input: ConversationInput = { phoneNumberId: system.phoneNumberId, contactKey, maxHistoryEvents: 12 };
  const send = (index: number) => signalMessage(workflowId, input, phone, index);
  for (let index = 0; index < MESSAGES; index += 1) {
    // Each with a duplicate of itself and of an earlier one; every tenth lets the conversation catch up and start a turn of its own.
    await Promise.all([send(index), send(index), send(Math.floor(index / 2))]);
    if (index % 10 === 9) await outcomesOf(system, phone, index + 1, 60_000);
  }

  const outcomes = await outcomesOf(system, phone, MESSAGES, 60_000);
  await system.sandbox.kapso.settled();
  const answered = outcomes.filter((outcome) => outcome === 'answered').length;
  expect(system.sandbox.kapso.visibleTo(phone)).toHaveLength(answered);
  expect(outcomes.filter((outcome) => outcome === 'merged')).toHaveLength(MESSAGES - answered);
  const asked = system.sandbox.models
    .requests('sandbox-model')
    .flatMap((request) => request.messages.filter((message) => message.role === 'user').at(-1)?.content ?? []);
  expect(new Set(asked).size).toBe(asked.length);

  const description = await system.temporal.workflow.getHandle(workflowId).describe();
  expect(description.status.name).toBe('RUNNING');
  await eventually(async () => {
    const runs: string[] = [];
    const query = `WorkflowId = '${workflowId}' AND ExecutionStatus = 'ContinuedAsNew'`;
    for await (const run of system.temporal.workflow.list({ query })) runs.push(run.runId);
    expect(runs.length).toBeGreaterThan(5);
  });
  expect(description.searchAttributes.ParleyWorkspace).toEqual([system.phoneNumberId]);
  const state = await system.temporal.workflow
    .getHandle(workflowId)
    .query<{ messages: number; duplicatesDropped: number; replies: number }>('conversationState');
  expect(state).toMatchObject({ messages: MESSAGES, duplicatesDropped: 2 * MESSAGES, replies: answered });
  await balance(system.db);
});

test('when an operator cancels a conversation that has continued as new, then it ends, and the next message is answered', async () => {
  const phone = newPhone();
  const contactKey = 'cancelled-later';
  const workflowId = conversationWorkflowId(system.phoneNumberId, contactKey);
  // An answered message makes a run of some fifteen events, of which the run knows ten when it ends the turn.
  const input: ConversationInput = { phoneNumberId: system.phoneNumberId, contactKey, maxHistoryEvents: 8 };
  const firstRunId = await signalMessage(workflowId, input, phone, 0);
  await outcomesOf(system, phone, 1);
  const handle = system.temporal.workflow.getHandle(workflowId);
  await eventually(async () => expect((await handle.describe()).runId).not.toBe(firstRunId));
  await handle.cancel();
  await expect(handle.result()).rejects.toThrow();
  expect((await handle.describe()).status.name).toBe('CANCELLED');
  await signalMessage(workflowId, input, phone, 1);
  expect(await outcomesOf(system, phone, 2)).toEqual(['answered', 'answered']);
});

test('when a conversation grows long while no workspace has its number, then nothing of it is lost when one is added', async () => {
  const phone = newPhone();
  const phoneNumberId = `8${Date.now()}`;
  const contactKey = 'long-wait';
  const workflowId = conversationWorkflowId(phoneNumberId, contactKey);
  const input: ConversationInput = { phoneNumberId, contactKey, maxHistoryEvents: 12 };
  const parked = () => system.db.parkedMessage.count({ where: { phoneNumberId } });
  for (let index = 0; index < 8; index += 1) {
    await signalMessage(workflowId, input, phone, index);
    await eventually(async () => expect(await parked()).toBe(index + 1));
  }
  await system.db.workspace.create({
    data: {
      name: 'late',
      kapsoPhoneNumberId: phoneNumberId,
      settings: { create: { chatbotEnabled: true, aiEnabled: true, quietMs: 200 } },
    },
  });
  await eventually(async () => {
    const rows = await system.db.message.findMany({
      where: { direction: 'inbound', conversation: { contact: { phone } } },
      orderBy: { position: 'asc' },
    });
    expect(rows.map((row) => row.text)).toEqual(Array.from({ length: 8 }, (_, index) => `m${index}`));
    expect(rows.filter((row) => row.outcome === null)).toEqual([]);
  }, 30_000);
  const runs = await system.temporal.workflow.count(`WorkflowId = '${workflowId}' AND ExecutionStatus = 'ContinuedAsNew'`);
  expect(runs.count).toBeGreaterThan(1);
  await balance(system.db);
});

test('when more waits than a run may hand on, then it is worked on first, and nothing of it is lost', async () => {
  const phone = newPhone();
  const contactKey = 'large-inbox';
  const workflowId = conversationWorkflowId(system.phoneNumberId, contactKey);
  const input: ConversationInput = { phoneNumberId: system.phoneNumberId, contactKey, maxHistoryEvents: 8 };
  const before = system.sandbox.models.count('sandbox-model');
  system.sandbox.models.program({ model: 'sandbox-model', times: 1, delayMs: 2_000 });
  await signalMessage(workflowId, input, phone, 0);
  await system.sandbox.models.waitForRequests('sandbox-model', before + 1, 10_000);
  for (let index = 1; index <= 60; index += 1) await signalMessage(workflowId, input, phone, index, 'x'.repeat(45_000));
  const outcomes = await outcomesOf(system, phone, 61, 30_000);
  expect(new Set(outcomes)).toEqual(new Set(['answered', 'merged']));
  expect((await system.temporal.workflow.getHandle(workflowId).describe()).status.name).toBe('RUNNING');
  await balance(system.db);
});
