/** The roads through a conversation whose histories are kept. */
import { randomUUID } from 'node:crypto';
import { failedAfterSent } from '../../src/sandbox/kapso/requests';
import { eventually, inboundOf, newPhone, outcomesOf, workflowIdOf } from '../support/expectations';
import { change } from '../support/people';
import type { System } from '../support/system';
import type { Road } from './road';

/** The models of the recording system, in their order (record.ts). */
const CHAIN = ['flaky', 'sandbox-model'] as const;

/** Each drives one conversation along its road and returns the id of its workflow. */
export const conversationRoads: Record<string, Road> = {
  async 'answered-and-ended'(system) {
    const phone = newPhone();
    for (const [index, text] of ['hello', 'one more thing', 'thanks'].entries()) {
      await system.sandbox.kapso.customerSends({ from: phone, text });
      await outcomesOf(system, phone, index + 1);
    }
    await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).result();
    return await workflowIdOf(system, phone);
  },
  async 'burst-merged'(system) {
    const phone = newPhone();
    for (const text of ['a', 'b', 'c']) await system.sandbox.kapso.customerSends({ from: phone, text });
    await outcomesOf(system, phone, 3);
    return await workflowIdOf(system, phone);
  },
  async 'provider-fallback'(system) {
    const phone = newPhone();
    system.sandbox.models.program({ model: 'flaky', times: 3, error: { status: 500 } });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    return await workflowIdOf(system, phone);
  },
  async 'all-providers-fail'(system) {
    const phone = newPhone();
    const removals = CHAIN.map((model) => system.sandbox.models.program({ model, error: { status: 401 } }));
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    for (const remove of removals) remove();
    return await workflowIdOf(system, phone);
  },
  async 'all-providers-away-for-a-while'(system) {
    const phone = newPhone();
    for (const model of CHAIN) system.sandbox.models.program({ model, times: 2, error: { status: 503 } });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    return await workflowIdOf(system, phone);
  },
  async 'message-while-all-providers-are-away'(system) {
    const phone = newPhone();
    const asked = system.sandbox.models.count('flaky');
    for (const model of CHAIN) system.sandbox.models.program({ model, times: 2, error: { status: 503 } });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await system.sandbox.models.waitForRequests('flaky', asked + 1, 10_000);
    await system.sandbox.kapso.customerSends({ from: phone, text: 'are you there?' });
    await outcomesOf(system, phone, 2);
    return await workflowIdOf(system, phone);
  },
  async 'retry-after-of-the-only-provider'(system) {
    const phone = newPhone();
    const [first, second] = CHAIN;
    system.sandbox.models.program({ model: first, times: 1, error: { status: 401 } });
    // Long enough to be used as it is (chain.ts).
    system.sandbox.models.program({ model: second, times: 1, error: { status: 429, retryAfterSeconds: 6 } });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    return await workflowIdOf(system, phone);
  },
  async 'providers-away-and-then-refusing'(system) {
    const phone = newPhone();
    const removals = CHAIN.map((model) => system.sandbox.models.program({ model, error: { status: 401 } }));
    for (const model of CHAIN) system.sandbox.models.program({ model, times: 1, error: { status: 503 } });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    for (const remove of removals) remove();
    return await workflowIdOf(system, phone);
  },
  async 'send-unconfirmed-then-settled'(system) {
    const phone = newPhone();
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, answer: 'cut', accepted: true });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    return await workflowIdOf(system, phone);
  },
  async 'send-lost-then-repeated'(system) {
    const phone = newPhone();
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, times: 1, answer: 'cut', accepted: false });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1, 30_000);
    return await workflowIdOf(system, phone);
  },
  async 'long-reply'(system) {
    const phone = newPhone();
    system.sandbox.models.program({ model: 'flaky', times: 1, reply: 'A sentence of some length. '.repeat(400) });
    // The second part is sent twice, the third waits for its proof.
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, skip: 1, times: 1, answer: 'cut', accepted: false });
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, skip: 3, times: 1, answer: 'cut', accepted: true });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'tell me everything' });
    await outcomesOf(system, phone, 1, 60_000);
    return await workflowIdOf(system, phone);
  },
  async 'long-reply-refused-between-its-parts'(system) {
    const phone = newPhone();
    system.sandbox.models.program({ model: 'flaky', times: 1, reply: 'A sentence of some length. '.repeat(400) });
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, skip: 1, answer: '100' });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'tell me everything' });
    await outcomesOf(system, phone, 1, 60_000);
    return await workflowIdOf(system, phone);
  },
  async 'send-throttled'(system) {
    const phone = newPhone();
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, times: 1, answer: '429', accepted: false, retryAfterSeconds: 1 });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    return await workflowIdOf(system, phone);
  },
  async 'human-mode'(system) {
    const phone = newPhone();
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1);
    await change(system, phone, 'take-over', { by: 'Ann' });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'are you there?' });
    await eventually(async () => {
      const count = await system.db.message.count({
        where: { outcome: null, conversation: { contact: { phone }, waitingSince: { not: null } } },
      });
      if (count !== 1) throw new Error('the message does not wait yet');
    });
    await change(system, phone, 'release', { by: 'Ann' });
    await outcomesOf(system, phone, 2);
    return await workflowIdOf(system, phone);
  },
  async cancelled(system) {
    const phone = newPhone();
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await system.temporal.workflow.getHandle(await workflowIdOf(system, phone)).cancel();
    await outcomesOf(system, phone, 1);
    return await workflowIdOf(system, phone);
  },
  async 'waited-for-workspace'(system) {
    const phone = newPhone();
    const phoneNumberId = `7${Date.now()}`;
    const post = (id: string) =>
      system.sandbox.kapso.deliver({ phone_number_id: phoneNumberId, messages: [{ from: phone, id, text: { body: id } }] });
    await post('wamid.waited.1');
    await post('wamid.waited.2');
    const settings = { create: { chatbotEnabled: true, aiEnabled: true, quietMs: 100, sessionTimeoutMs: 3_000 } };
    await system.db.workspace.create({ data: { name: 'late', kapsoPhoneNumberId: phoneNumberId, settings } });
    await eventually(async () => {
      const answered = await system.db.message.count({ where: { outcome: { not: null }, conversation: { contact: { phone } } } });
      if (answered !== 2) throw new Error(`${answered} of 2 answered`);
    }, 60_000);
    return await workflowIdOf(system, phone);
  },
  async 'failed-later'(system) {
    const phone = newPhone();
    system.sandbox.kapso.fault({ on: 'send', match: { to: phone }, statuses: failedAfterSent(131047, 300) });
    await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
    await eventually(async () => {
      const [message] = await inboundOf(system, phone);
      if (message?.outcome !== 'failed') throw new Error('not failed yet');
    });
    return await workflowIdOf(system, phone);
  },
  async 'merged-into-the-owner'(system) {
    const person = { phone: newPhone(), id: `US.${randomUUID()}` };
    await say(system, { phone: person.phone });
    await say(system, { id: person.id });
    const other = await eventually(() => workflowOfId(system, person.id));
    await settled(system, 2, person);
    await say(system, person);
    await say(system, { id: person.id });
    await settled(system, 4, person);
    await system.temporal.workflow.getHandle(other).result();
    return other;
  },
  async 'turn-left-to-the-owner'(system) {
    const person = { phone: newPhone(), id: `US.${randomUUID()}` };
    await say(system, { phone: person.phone });
    await settled(system, 1, person);
    const asked = system.sandbox.models.count('flaky');
    system.sandbox.models.program({ model: 'flaky', times: 1, delayMs: 2_000 });
    await say(system, { id: person.id });
    await system.sandbox.models.waitForRequests('flaky', asked + 1, 10_000);
    const other = await workflowOfId(system, person.id);
    await say(system, person);
    await settled(system, 3, person);
    await system.temporal.workflow.getHandle(other).result();
    return other;
  },
};

/** A message of somebody who shows a number, a business-scoped id, or both. */
async function say({ sandbox, phoneNumberId }: System, { phone, id }: { phone?: string; id?: string }): Promise<void> {
  const message = { id: `wamid.${randomUUID()}`, type: 'text', text: { body: 'hello' }, from: phone, from_user_id: id };
  await sandbox.kapso.deliver({ phone_number_id: phoneNumberId, messages: [message] });
}

async function workflowOfId({ db }: System, businessScopedUserId: string): Promise<string> {
  return (await db.conversation.findFirstOrThrow({ where: { contact: { businessScopedUserId } } })).workflowId;
}

/** Resolves when so many messages of a person have their outcomes. */
async function settled({ db }: System, count: number, { phone, id }: { phone: string; id: string }): Promise<void> {
  await eventually(async () => {
    const contact = { OR: [{ phone }, { businessScopedUserId: id }] };
    const done = await db.message.count({ where: { outcome: { not: null }, conversation: { contact } } });
    if (done !== count) throw new Error(`${done} of ${count} have an outcome`);
  });
}
