/** Webhooks come before anybody has told Parley of a number: nothing of them is lost, and an operator sees that they wait. */
import { balance, eventually, newPhone } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

let system: System;

beforeAll(async () => {
  system = await startSuite('first', { environment: () => ({ KAPSO_PHONE_NUMBER_ID: '' }) });
});

afterAll(async () => {
  await system?.close();
});

test('when a plain body names no number while there is no workspace, then it waits, a person is asked for, and it is answered once the first workspace is added', async () => {
  const phone = newPhone();
  const { kapso } = system.sandbox;
  const post = (text: string) => kapso.deliver({ messages: [{ from: phone, id: `wamid.${phone}.${text}`, text: { body: text } }] });
  const parked = () => system.db.parkedMessage.findMany({ orderBy: { createdAt: 'asc' } });
  const inbound = () => system.db.message.findMany({ where: { direction: 'inbound' }, orderBy: { position: 'asc' } });

  expect((await post('one')).status).toBe(200);
  await eventually(async () => expect(await parked()).toMatchObject([{ reason: 'no workspace has this number', releasedAt: null }]));
  expect((await post('two')).status).toBe(200);
  await eventually(async () => expect(await parked()).toHaveLength(2));
  expect(await balance(system.db)).toEqual({ total: 2, pending: 2 });
  const [{ workflowId } = { workflowId: '' }] = await parked();
  const conversation = system.temporal.workflow.getHandle(workflowId);
  await eventually(async () => expect((await conversation.describe()).searchAttributes.ParleyAttention).toEqual([true]));

  // What an operator does: names the number, and starts the API again.
  await system.api.stop();
  await system.startApi({ KAPSO_PHONE_NUMBER_ID: system.phoneNumberId });
  await kapso.waitForVisible(phone, 1, 30_000);
  await eventually(async () => {
    const rows = await inbound();
    expect(rows.map(({ text }) => text)).toEqual(['one', 'two']);
    expect(rows.map(({ outcome }) => outcome)).not.toContain(null);
  });
  expect((await parked()).filter(({ releasedAt }) => releasedAt === null)).toEqual([]);
  await eventually(async () => expect((await conversation.describe()).searchAttributes.ParleyAttention).toEqual([false]));

  // The sender comes again with what it has sent before, and the customer goes on.
  const visible = kapso.visibleTo(phone).length;
  expect((await post('two')).status).toBe(200);
  expect((await post('three')).status).toBe(200);
  await kapso.waitForVisible(phone, visible + 1, 20_000);
  await eventually(async () => expect((await inbound()).map(({ text, outcome }) => [text, outcome]).at(-1)).toEqual(['three', 'answered']));
  await kapso.settled();
  expect(kapso.visibleTo(phone)).toHaveLength(visible + 1);
  expect((await inbound()).map(({ text }) => text)).toEqual(['one', 'two', 'three']);
  expect(await balance(system.db)).toMatchObject({ total: 3 });
});
