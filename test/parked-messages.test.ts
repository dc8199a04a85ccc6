/** Messages for a number that no workspace has: they are parked, shown, and worked off when it has one, whoever waits for it. */

import { randomUUID } from 'node:crypto';
import { CONVERSATION_WORKFLOW, conversationStart, conversationState, messagesReceived } from '../workflows/contract';
import { type Answered, request } from './support/calls';
import { balance, eventually, newPhone } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('parked_messages');
});

afterAll(async () => {
  await system?.close();
});

afterEach(async () => {
  await balance(system.db);
});

interface Parked {
  data: { phoneNumberId: string; kind: string; text: string | null; contact: { phone: string | null }; releasedAt: string | null }[];
  next: string | null;
}

let numbers = 0;

/** A message to a number of its own, and the workflow that waits for its workspace. */
async function writeToUnknownNumber(text: string) {
  numbers += 1;
  const phoneNumberId = `9${Date.now()}${numbers}`;
  const phone = newPhone();
  await write(phoneNumberId, phone, text);
  const parked = await eventually(() => system.db.parkedMessage.findFirstOrThrow({ where: { phoneNumberId } }));
  return { phoneNumberId, phone, workflow: system.temporal.workflow.getHandle(parked.workflowId) };
}

async function write(phoneNumberId: string, phone: string, text: string): Promise<void> {
  const body = { phone_number_id: phoneNumberId, messages: [{ from: phone, id: `wamid.${phone}.${text}`, text: { body: text } }] };
  await system.sandbox.kapso.deliver(body);
}

/** The workflow of the number's only sender, from the server: nothing in the database names it yet. */
async function waitingWorkflow(phoneNumberId: string): Promise<string> {
  const query = `TaskQueue = '${system.taskQueue}' AND WorkflowId STARTS_WITH 'conversation-${phoneNumberId}-'`;
  for await (const { workflowId } of system.temporal.workflow.list({ query })) return workflowId;
  throw new Error('the workflow is not listed yet');
}

async function addWorkspace(kapsoPhoneNumberId: string, quietMs = 0): Promise<void> {
  const { id: workspaceId } = await system.db.workspace.create({ data: { name: 'Added later', kapsoPhoneNumberId } });
  await system.db.chatbotSettings.create({ data: { workspaceId, chatbotEnabled: true, aiEnabled: true, quietMs } });
}

test('when an operator cancels the wait, then the session ends, and its messages are worked off once a workspace is added', async () => {
  const { phoneNumberId, phone, workflow } = await writeToUnknownNumber('first');
  await workflow.cancel();
  await expect(workflow.result()).rejects.toThrow();
  expect((await workflow.describe()).status.name).toBe('CANCELLED');
  const listed = () => request<Parked>(system, 'GET', '/api/v1/parked-messages?released=false');
  expect((await listed()).body.data).toContainEqual(
    expect.objectContaining({ phoneNumberId, kind: 'text', text: 'first', contact: { phone, name: null }, releasedAt: null }),
  );
  await addWorkspace(phoneNumberId);
  // Any API process that starts looks for them; the others do so from time to time.
  const another = await system.startApi({ PORT: String(Number(system.environment.PORT) + 1) });
  await eventually(async () => {
    const rows = await system.db.message.findMany({ where: { direction: 'inbound', conversation: { contact: { phone } } } });
    expect(rows).toMatchObject([{ text: 'first', outcome: 'answered' }]);
  });
  expect(system.sandbox.kapso.visibleTo(phone)).toHaveLength(1);
  expect((await listed()).body.data.filter((each) => each.phoneNumberId === phoneNumberId)).toEqual([]);
  await another.stop();
});

test('when a message comes while the wait is being cancelled, then it is parked as well', async () => {
  const { phoneNumberId, phone, workflow } = await writeToUnknownNumber('first');
  await Promise.all([workflow.cancel(), write(phoneNumberId, phone, 'second')]);
  await eventually(async () => expect(await system.db.parkedMessage.count({ where: { phoneNumberId } })).toBe(2));
});

test('when a message comes while another one is being parked, then it is parked as well', async () => {
  const [phoneNumberId, phone] = [`6${Date.now()}`, newPhone()];
  const parked = () => system.db.parkedMessage.count({ where: { phoneNumberId } });
  let workflowId = '';
  await system.db.$transaction(
    async (transaction) => {
      await transaction.$executeRaw`LOCK TABLE parked_messages IN ACCESS EXCLUSIVE MODE`;
      await write(phoneNumberId, phone, 'first');
      workflowId = await eventually(() => waitingWorkflow(phoneNumberId));
      await write(phoneNumberId, phone, 'second');
      // The first message was taken out of the inbox, and the second one lies there.
      const workflow = system.temporal.workflow.getHandle(workflowId);
      await eventually(async () => expect(await workflow.query(conversationState)).toMatchObject({ pendingMessages: 1 }), 20_000);
    },
    { timeout: 30_000 },
  );
  await system.temporal.workflow.getHandle(workflowId).cancel();
  await expect(system.temporal.workflow.getHandle(workflowId).result()).rejects.toThrow();
  expect(await parked()).toBe(2);
}, 60_000);

test('when the workspace goes, an operator cancels, and a message comes during the last reply, then it is parked as well', async () => {
  const [phoneNumberId, phone] = [`7${Date.now()}`, newPhone()];
  await addWorkspace(phoneNumberId, 5_000);
  await write(phoneNumberId, phone, 'first');
  const { conversation } = await eventually(() =>
    system.db.message.findFirstOrThrow({ where: { conversation: { contact: { phone } } }, include: { conversation: true } }),
  );
  const workflow = system.temporal.workflow.getHandle(conversation.workflowId);
  await system.db.workspace.update({ where: { kapsoPhoneNumberId: phoneNumberId }, data: { kapsoPhoneNumberId: `${phoneNumberId}0` } });
  const parked = async (count: number) => expect(await system.db.parkedMessage.count({ where: { phoneNumberId } })).toBe(count);
  await write(phoneNumberId, phone, 'second');
  await eventually(() => parked(1));
  const { models } = system.sandbox;
  models.program({ model: 'sandbox-model', times: 1, delayMs: 3_000 });
  const asked = models.count('sandbox-model');
  await workflow.cancel();
  await models.waitForRequests('sandbox-model', asked + 1, 10_000);
  await write(phoneNumberId, phone, 'third');
  await expect(workflow.result()).rejects.toThrow();
  await parked(2);
});

test('when no workspace was added for a day, then the session ends, and its message stays parked', async () => {
  const phoneNumberId = `8${Date.now()}`;
  const contactKey = 'a-day-is-a-second-here';
  const start = conversationStart({ phoneNumberId, contactKey, taskQueue: system.taskQueue });
  const id = randomUUID();
  const received = {
    contact: { phone: newPhone() },
    messages: [{ id, providerMessageId: `wamid.${id}`, kind: 'text', text: 'hi', sentAtMs: Date.now() }],
  };
  const workflow = await system.temporal.workflow.signalWithStart(CONVERSATION_WORKFLOW, {
    ...start,
    args: [{ phoneNumberId, contactKey, waitForWorkspaceMs: 1_000 }],
    signal: messagesReceived,
    signalArgs: [received],
  });
  await workflow.result();
  expect(await system.db.parkedMessage.findMany({ where: { phoneNumberId } })).toMatchObject([{ releasedAt: null }]);
});

test('when the list is read page by page, then each message is there once', async () => {
  await system.db.parkedMessage.createMany({
    data: Array.from({ length: 5 }, (_each, index) => ({
      phoneNumberId: 'paged',
      providerMessageId: `wamid.paged.${index}`,
      workflowId: 'conversation-paged-x',
      reason: 'no workspace has this number',
      message: {},
    })),
  });
  const seen: string[] = [];
  for (let next: string | null = ''; next !== null; ) {
    const { status, body }: Answered<Parked> = await request<Parked>(
      system,
      'GET',
      `/api/v1/parked-messages?limit=2${next ? `&before=${next}` : ''}`,
    );
    expect(status).toBe(200);
    seen.push(...body.data.map(({ phoneNumberId }) => phoneNumberId));
    next = body.next;
  }
  expect(seen.filter((id) => id === 'paged')).toHaveLength(5);
});
