/** What a message costs in actions of Temporal Cloud: counted in histories, which lack heartbeats; those are counted by the server's last one. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { conversationState } from '../workflows/contract';
import { countActions } from './support/actions';
import { eventually, newPhone, outcomesOf, workflowIdOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

const DOCUMENT = readFileSync('docs/production.md', 'utf8');
/** US dollars for a million actions (Temporal Cloud, November 2026, the first five million of a month). */
const PRICE_PER_MILLION = 50;

let system: System;

beforeAll(async () => {
  // The default. A shorter wait can be over when the message is recorded, and then costs no timer.
  system = await startSuite('actions', { environment: () => ({ REPLY_QUIET_MS: '3000' }) });
});

afterAll(async () => {
  await system?.close();
});

beforeEach(() => {
  system.sandbox.models.clear();
});

/** Actions in the history of the person's workflow, once it has sent `replies` and waits for a message. */
async function actionsAfter(phone: string, replies: number) {
  const workflow = system.temporal.workflow.getHandle(await workflowIdOf(system, phone));
  // The outcome is recorded before the workflow task that sent the reply is in the history.
  await eventually(async () => expect(await workflow.query(conversationState)).toMatchObject({ replies, phase: 'waiting for a message' }));
  return countActions(await workflow.fetchHistory());
}

/** The person writes the `count`th message, and gets a reply. Returns the times of the heartbeats that reached the server. */
async function answered(phone: string, count: number, modelMs = 0): Promise<Set<string>> {
  if (modelMs > 0) system.sandbox.models.program({ model: 'sandbox-model', times: 1, delayMs: modelMs });
  await system.sandbox.kapso.customerSends({ from: phone, text: `message ${count}` });
  const outcomes = outcomesOf(system, phone, count, modelMs + 30_000);
  const heartbeats = heartbeatsUntil(phone, outcomes);
  expect(await outcomes).toEqual(Array.from({ length: count }, () => 'answered'));
  return await heartbeats;
}

async function heartbeatsUntil(phone: string, end: Promise<unknown>): Promise<Set<string>> {
  const seen = new Set<string>();
  let isOver = false;
  const setOver = () => {
    isOver = true;
  };
  void end.then(setOver, setOver);
  while (!isOver) {
    const workflowId = await workflowIdOf(system, phone).catch(() => undefined);
    const description = workflowId && (await system.temporal.workflow.getHandle(workflowId).describe());
    for (const { lastStartedTime, lastHeartbeatTime } of (description ? description.raw.pendingActivities : undefined) ?? []) {
      const [startedAt, heardAt] = [JSON.stringify(lastStartedTime), JSON.stringify(lastHeartbeatTime)];
      // The server counts the start as the first sign of life.
      if (lastHeartbeatTime && heardAt !== startedAt) seen.add(heardAt);
    }
    await delay(100);
  }
  return seen;
}

/** The actions in the table of docs/production.md, by what is done. */
function documentedActions(): Record<string, number> {
  const rows = DOCUMENT.matchAll(/^\| (An? [^|]*?) +\| (\d+) +\|/gm);
  return Object.fromEntries([...rows].map(([, what = '', actions]) => [what, Number(actions)]));
}

test('when messages are answered, then each costs at most 5 actions, and the session one more, as docs/production.md says', async () => {
  const phone = newPhone();
  await answered(phone, 1);
  const first = await actionsAfter(phone, 1);
  await answered(phone, 2);
  const message = (await actionsAfter(phone, 2)).total - first.total;
  expect(message).toBeLessThanOrEqual(5);
  // The signal that starts the workflow is the message's; the session adds its timer.
  expect(first.total).toBeLessThanOrEqual(6);
  expect(documentedActions()).toMatchObject({ 'A message that is answered': message, 'A session, on top': first.total - message });
  const dollars = (actions: number) => `$${((actions * 1_000 * PRICE_PER_MILLION) / 1_000_000).toFixed(2)}`;
  expect(DOCUMENT).toContain(
    `1,000 answered messages cost ${dollars(message)}, or ${dollars(first.total)} if each is a session of its own`,
  );
});

test('when a reply is long, then each part after the first costs 2 actions, as the document says', async () => {
  const phone = newPhone();
  await answered(phone, 1);
  const before = await actionsAfter(phone, 1);
  system.sandbox.models.program({ model: 'sandbox-model', times: 1, reply: 'A sentence of some length. '.repeat(400) });
  await answered(phone, 2);
  const after = await actionsAfter(phone, 2);
  expect(system.sandbox.kapso.visibleTo(phone)).toHaveLength(1 + 3);
  const documented = documentedActions();
  expect(after.total - before.total).toBe(
    (documented['A message that is answered'] ?? 0) + 2 * (documented['A further part of a long reply'] ?? 0),
  );
});

test('when the model needs 10 s, then no heartbeat is sent; with 13 s there is one', async () => {
  expect((await answered(newPhone(), 1, 10_000)).size).toBe(0);
  expect((await answered(newPhone(), 1, 13_000)).size).toBe(1);
}, 90_000);
