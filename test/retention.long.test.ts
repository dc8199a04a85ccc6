/** Retention on the real engine, the real record and a real disk. */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { watch } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import type { Prisma } from '../prisma/generated/client';
import { createLogger } from '../src/platform/logger';
import { ensureRetentionSchedule } from '../src/processes/schedules';
import {
  CALL_WORKFLOW,
  CALLBACK_WORKFLOW,
  CONVERSATION_WORKFLOW,
  callbackWorkflowId,
  callWorkflowId,
  RETENTION_WORKFLOW,
  type RetentionInput,
  type RetentionProgress,
  retentionInput,
  retentionScheduleId,
} from '../workflows/contract';
import { newNumber, placeCall, resultOf } from './support/calls';
import { eventually, newPhone, outcomesOf, workflowIdOf } from './support/expectations';
import { startSuite } from './support/suite';
import type { System } from './support/system';

const DAY_MS = 24 * 60 * 60_000;
const silent = createLogger('test', 'silent');

let system: System;
let dataDir: string;
let archiveDir: string;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'parley-retention-'));
  archiveDir = join(dataDir, 'archive', 'calls');
  system = await startSuite('retention', { environment: () => ({ DATA_DIR: dataDir, CALL_RETENTION_DAYS: '45' }) });
});

afterEach(async () => {
  await system.db.vapiCallResult.deleteMany();
  await system.db.vapiCallEvent.deleteMany();
  await rm(join(dataDir, 'archive'), { recursive: true, force: true });
});

afterAll(async () => {
  await system?.temporal.schedule
    .getHandle(retentionScheduleId(system.taskQueue))
    .delete()
    .catch(() => undefined);
  await system?.close();
  await rm(dataDir, { recursive: true, force: true });
});

const MONTH_ISO = (at: Date) => at.toISOString().slice(0, 7);
const daysAgo = (days: number) => new Date(Date.now() - days * DAY_MS);

async function calls(count: number, doneAt: Date, fields: Partial<Prisma.VapiCallResultCreateManyInput> = {}): Promise<string[]> {
  const rows = Array.from({ length: count }, (_, index) => {
    const id = randomUUID();
    return {
      id,
      workflowId: callWorkflowId(id),
      providerCallId: `p-${id}`,
      direction: 'outbound' as const,
      status: 'ended',
      outcome: 'completed',
      transcript: `AI: "quoted"\nUser: line ${index} \\ 🙂`,
      createdAt: new Date(doneAt.getTime() - 60_000 - index),
      doneAt,
      ...fields,
    };
  });
  await system.db.vapiCallResult.createMany({ data: rows });
  await system.db.vapiCallEvent.createMany({
    data: rows.flatMap(({ id }) =>
      ['ringing', 'ended'].map((status) => ({ providerCallId: `p-${id}`, type: 'status-update', status, occurredAt: doneAt })),
    ),
  });
  return rows.map(({ id }) => id);
}

async function start(input: Partial<RetentionInput> = {}) {
  return await system.temporal.workflow.start(RETENTION_WORKFLOW, {
    workflowId: `retention-${randomUUID()}`,
    taskQueue: system.taskQueue,
    args: [{ days: 90, action: 'archive', ...input }],
  });
}

async function run(input: Partial<RetentionInput> = {}): Promise<RetentionProgress> {
  return (await (await start(input)).result()) as RetentionProgress;
}

interface ArchivedCall {
  id: string;
  call: { id: string; transcript: string; summary: string | null };
  events: { status: string }[];
}

async function archived(): Promise<ArchivedCall[]> {
  const names = await readdir(archiveDir).catch(() => []);
  const files = await Promise.all(names.filter((name) => name.endsWith('.gz')).map((name) => readFile(join(archiveDir, name))));
  return files.flatMap((file) =>
    gunzipSync(file)
      .toString()
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as ArchivedCall),
  );
}

const remaining = async () => (await system.db.vapiCallResult.findMany({ select: { id: true } })).map(({ id }) => id).sort();
const ids = (found: ArchivedCall[]) => found.map(({ id }) => id).sort();

test('when calls of several months are old enough, then each month is one file with calls and events, and the rows are gone', async () => {
  const [older, old] = [daysAgo(140), daysAgo(100)];
  const due = [...(await calls(7, older)), ...(await calls(5, old))];
  const kept = await calls(2, daysAgo(89));
  const result = await run({ batchSize: 3 });
  expect(result).toMatchObject({ isDone: true, removed: 12, orphans: { unplaced: 0, unfollowed: 0, stopped: 0 } });
  expect(result.due.map(({ month, calls: count }) => [month, count])).toEqual([
    [MONTH_ISO(older), 7],
    [MONTH_ISO(old), 5],
  ]);
  const found = await archived();
  expect(ids(found)).toEqual([...due].sort());
  for (const { call, id, events } of found) {
    expect(call.id).toBe(id);
    expect(call.transcript).toContain('AI: "quoted"\nUser: line');
    expect(events.map(({ status }) => status).sort()).toEqual(['ended', 'ringing']);
  }
  expect(await remaining()).toEqual([...kept].sort());
  expect(await system.db.vapiCallEvent.count()).toBe(2 * kept.length);
  expect(await readdir(archiveDir)).toHaveLength(2);
  expect(result.files.map((file) => file.slice(archiveDir.length + 1)).sort()).toEqual((await readdir(archiveDir)).sort());
  for (const file of result.files) expect((await stat(file)).mode & 0o777).toBe(0o600);
});

test.each(['archive', 'delete'] as const)(
  'when a call had to be placed again and it is time to %s it, then the events of its former placements go with it, and no others',
  async (action) => {
    const [former, other] = [`p-${randomUUID()}`, `p-${randomUUID()}`];
    const [id = ''] = await calls(1, daysAgo(100), { formerProviderCallIds: [former] });
    const fact = { type: 'status-update', occurredAt: daysAgo(100) };
    await system.db.vapiCallEvent.createMany({
      data: [
        { ...fact, providerCallId: former, status: 'no-slot' },
        { ...fact, providerCallId: other, status: 'queued' },
      ],
    });
    await run({ action });
    const statuses = (await archived()).map(({ events }) => events.map(({ status }) => status).sort());
    expect(statuses).toEqual(action === 'archive' ? [['ended', 'no-slot', 'ringing']] : []);
    expect(await remaining()).not.toContain(id);
    expect(await system.db.vapiCallEvent.findMany({ select: { providerCallId: true } })).toEqual([{ providerCallId: other }]);
  },
);

test('when nothing is due, then nothing is written', async () => {
  const kept = await calls(2, daysAgo(1));
  expect(await run()).toMatchObject({ isDone: true, removed: 0, files: [], due: [] });
  expect([await remaining(), await archived()]).toEqual([[...kept].sort(), []]);
});

test('when calls are to be deleted, then no file is written; when they are to be kept, then they stay', async () => {
  const due = await calls(7, daysAgo(100));
  expect(await run({ action: 'keep' })).toMatchObject({ removed: 0 });
  expect(await remaining()).toEqual([...due].sort());
  expect(await run({ action: 'delete', batchSize: 3 })).toMatchObject({ removed: 7, files: [] });
  expect([await remaining(), await system.db.vapiCallEvent.count(), await archived()]).toEqual([[], 0, []]);
});

test('when it is a dry run, then it says what is due and where it would go, and changes nothing', async () => {
  const due = await calls(3, daysAgo(100));
  const lost = [await orphan(), await orphan({ requestHash: null, direction: 'inbound' })];
  const orphans = { unplaced: 1, unfollowed: 1, stopped: 0 };
  expect(await run({ dryRun: true, batchSize: 1 })).toMatchObject({
    dryRun: true,
    removed: 0,
    files: [archiveDir],
    due: [{ calls: 3 }],
    orphans,
  });
  expect([await remaining(), await archived()]).toEqual([[...due, ...lost].sort(), []]);
  expect(await system.db.vapiCallResult.count({ where: { doneAt: null } })).toBe(2);
});

test('when rows cannot be deleted after their file was completed, then the next attempt finishes that file and writes no second one', async () => {
  const due = await calls(5, daysAgo(100));
  const allowDeletes = await refuseDeletes();
  const handle = await start();
  await refusedOnce(handle.workflowId);
  await allowDeletes();
  expect(await handle.result()).toMatchObject({ removed: 5, isDone: true });
  expect(ids(await archived())).toEqual([...due].sort());
  expect([await remaining(), (await readdir(archiveDir)).length]).toEqual([[], 1]);
}, 60_000);

test.each(['.part', '.pending'])(
  'when the worker is killed while a %s file stands, then the next run loses no call and doubles none',
  async (suffix) => {
    const due = await calls(400, daysAgo(100));
    const appeared = fileNamed(suffix);
    const handle = await start({ batchSize: 1 });
    await appeared;
    await system.workers[0]?.kill();
    await handle.terminate();
    system.workers[0] = await system.startWorker();
    expect(await run()).toMatchObject({ isDone: true });
    expect(ids(await archived())).toEqual([...due].sort());
    expect(await remaining()).toEqual([]);
  },
  90_000,
);

test('when a call changes after it was written to a file, then its row stays and goes with its new state', async () => {
  const [id = ''] = await calls(1, daysAgo(100));
  const allowDeletes = await refuseDeletes();
  const handle = await start();
  await refusedOnce(handle.workflowId);
  await system.db.vapiCallResult.update({ where: { id }, data: { summary: 'late' } });
  await allowDeletes();
  // The attempt that finishes the file finds the newer state, and writes it to a second one.
  expect(await handle.result()).toMatchObject({ removed: 1 });
  expect(await remaining()).toEqual([]);
  expect((await archived()).map(({ call }) => call.summary).sort()).toEqual(['late', null]);
});

/** Makes every delete of calls fail for now, as on a full disk, until the returned function is called. */
async function refuseDeletes(): Promise<() => Promise<void>> {
  await system.db.$executeRawUnsafe(
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now' USING ERRCODE = 'disk_full'; END $$",
  );
  await system.db.$executeRawUnsafe(
    'CREATE TRIGGER refuse BEFORE DELETE ON vapi_call_results FOR EACH STATEMENT EXECUTE FUNCTION refuse()',
  );
  return async () => {
    await system.db.$executeRawUnsafe('DROP FUNCTION refuse CASCADE');
  };
}

/** Resolves when the step that runs has failed, and waits for its next attempt. */
async function refusedOnce(workflowId: string): Promise<void> {
  await eventually(async () => {
    const { raw } = await system.temporal.workflow.getHandle(workflowId).describe();
    expect(raw.pendingActivities?.[0]?.attempt).toBe(2);
  });
  expect((await readdir(archiveDir)).filter((name) => name.endsWith('.pending'))).toHaveLength(1);
}

async function orphan(fields: Partial<Prisma.VapiCallResultCreateInput> = {}): Promise<string> {
  const id = randomUUID();
  const createdAt = new Date(Date.now() - 2 * 60 * 60_000);
  await system.db.vapiCallResult.create({
    data: { id, workflowId: callWorkflowId(id), direction: 'outbound', requestHash: 'h', createdAt, ...fields },
  });
  return id;
}

const hoursAgo = (hours: number) => new Date(Date.now() - hours * 60 * 60_000);
const rowOf = (id: string) => system.db.vapiCallResult.findUniqueOrThrow({ where: { id } });
const stateOf = async (workflowId: string) => {
  const { type, status } = await system.temporal.workflow.getHandle(workflowId).describe();
  return [type, status.name];
};

/** A call of ours that somebody is in, and whose workflow an operator has stopped. */
async function stoppedCall(): Promise<{ id: string; to: string; providerCallId: string }> {
  const to = newNumber();
  system.sandbox.vapi.play({ when: ({ number }) => number === to, play: 'answered', talkMs: 60_000, times: 1 });
  const { callId: id } = (await placeCall(system, { to })).body;
  await system.sandbox.vapi.waitForStatus(id, 'in-progress', 15_000);
  const { providerCallId } = await eventually(async () => {
    const row = await rowOf(id);
    expect(row.status).toBe('in-progress');
    return row;
  });
  await system.temporal.workflow.getHandle(callWorkflowId(id)).terminate();
  await system.db.vapiCallResult.update({ where: { id }, data: { createdAt: hoursAgo(2) } });
  return { id, to, providerCallId: providerCallId ?? '' };
}

describe('open calls without a workflow', () => {
  test('when a call of ours was taken and never started, then it is closed and its caller and the conversation are told', async () => {
    const phone = newNumber().slice(1);
    await system.sandbox.kapso.customerSends({ from: phone, text: 'please call me' });
    await outcomesOf(system, phone, 1);
    const lost = await orphan({ callbackUrl: 'https://nowhere.example/', toNumber: `+${phone}` });
    const young = await orphan({ createdAt: new Date() });
    expect(await run({ action: 'keep' })).toMatchObject({ orphans: { unplaced: 1, unfollowed: 0, stopped: 0 } });
    expect(await rowOf(lost)).toMatchObject({
      status: 'ended',
      outcome: 'failed',
      endedReason: 'never-started',
      error: expect.stringContaining('never started'),
      needsAttention: false,
      doneAt: expect.any(Date),
    });
    expect((await rowOf(young)).doneAt).toBeNull();
    expect(await system.db.message.findUnique({ where: { id: lost } })).toMatchObject({ direction: 'note', kind: 'voice_call' });
    expect(await stateOf(callbackWorkflowId(lost))).toEqual([CALLBACK_WORKFLOW, 'RUNNING']);
    await system.temporal.workflow.getHandle(callbackWorkflowId(lost)).terminate();
  });

  test('when the workflow of a call that waited for a slot was stopped, then the call is closed and never dialled', async () => {
    const to = newNumber();
    system.sandbox.vapi.play({ when: ({ number }) => number === to, play: 'concurrency-blocked' });
    const { callId } = (await placeCall(system, { to })).body;
    await eventually(async () => expect((await rowOf(callId)).formerProviderCallIds).toHaveLength(1));
    await system.temporal.workflow.getHandle(callWorkflowId(callId)).terminate();
    await system.db.vapiCallResult.update({ where: { id: callId }, data: { createdAt: hoursAgo(2) } });
    expect(await run({ action: 'keep' })).toMatchObject({ orphans: { unplaced: 1, unfollowed: 0, stopped: 0 } });
    expect(await resultOf(system, callId)).toMatchObject({ outcome: 'failed', endedReason: 'never-started', needsAttention: false });
    expect(system.sandbox.vapi.dialled({ number: to })).toBe(0);
  });

  test('when a call still has its workflow, then it is left alone, however old it is', async () => {
    const followed = [await orphan(), await orphan({ requestHash: null, direction: 'inbound', createdAt: daysAgo(2) })];
    // Any workflow under the call's id will do: that it runs is what counts.
    const following = await Promise.all(
      followed.map((id) =>
        system.temporal.workflow.start(CONVERSATION_WORKFLOW, {
          workflowId: callWorkflowId(id),
          taskQueue: system.taskQueue,
          args: [{ phoneNumberId: 'x', contactKey: 'y' }],
        }),
      ),
    );
    expect(await run({ action: 'keep', batchSize: 1 })).toMatchObject({ orphans: { unplaced: 0, unfollowed: 0, stopped: 0 } });
    for (const [index, id] of followed.entries()) {
      expect([(await rowOf(id)).doneAt, ...(await stateOf(callWorkflowId(id)))]).toEqual([null, CONVERSATION_WORKFLOW, 'RUNNING']);
      await following[index]?.terminate();
    }
  });

  test('when the first signal of a call of others was lost, then Vapi is asked about it, and its report is stored', async () => {
    // Its events go nowhere: what is known is the row that one of them has made.
    const { id: providerCallId } = system.sandbox.vapi.receiveCall({
      from: newNumber(),
      play: 'no-events',
      baseUrl: system.sandbox.vapiUrl,
    });
    const lost = await orphan({ requestHash: null, direction: 'inbound', providerCallId, status: 'ringing' });
    await system.sandbox.vapi.waitForStatus(providerCallId, 'ended', 15_000);
    expect(await run({ action: 'keep' })).toMatchObject({ orphans: { unplaced: 0, unfollowed: 1, stopped: 0 } });
    const result = await resultOf(system, lost, 30_000, 'transcript');
    expect(result).toMatchObject({ outcome: 'completed', transcript: expect.any(String), needsAttention: false });
    // It ends a moment after its result stands.
    await system.temporal.workflow.getHandle(callWorkflowId(lost)).result();
    expect(await stateOf(callWorkflowId(lost))).toEqual([CALL_WORKFLOW, 'COMPLETED']);
    expect(await run({ action: 'keep' })).toMatchObject({ orphans: { unplaced: 0, unfollowed: 0, stopped: 0 } });
  });

  test.each([
    ['a report', { rawPayload: { id: 'kept' } }],
    ['the end', {}],
  ])(
    'when the record has %s, then it says how the call was over, though Vapi cannot be asked',
    async (_what, fields) => {
      const from = newNumber();
      const { id: providerCallId } = system.sandbox.vapi.receiveCall({ from, play: 'no-events', baseUrl: system.sandbox.vapiUrl });
      const comesBack = system.sandbox.vapi.fault({ when: ({ number }) => number === from, on: 'get', answer: 'cut' });
      const lost = await orphan({
        ...{ requestHash: null, direction: 'inbound', providerCallId },
        ...{ status: 'ended', endedReason: 'customer-busy', ...fields },
      });
      await run({ action: 'keep' });
      expect(await resultOf(system, lost, 60_000)).toMatchObject({ outcome: 'busy', endedReason: 'customer-busy', needsAttention: false });
      comesBack();
    },
    90_000,
  );

  test('when the workflow of a call that has ended was stopped, then the call has its result, and was dialled once', async () => {
    const { id, to, providerCallId } = await stoppedCall();
    system.sandbox.vapi.hangUp(id);
    await eventually(async () => expect((await rowOf(id)).rawPayload).not.toBeNull());
    expect(await run({ action: 'keep' })).toMatchObject({ orphans: { unplaced: 0, unfollowed: 0, stopped: 1 } });
    // They hang up before a word was said.
    expect(await resultOf(system, id)).toMatchObject({ outcome: 'no_answer', providerCallId, needsAttention: false });
    expect(system.sandbox.vapi.dialled({ number: to })).toBe(1);
  });

  test('when the workflow of a call that goes on was stopped, then it is followed to its end, and was dialled once', async () => {
    const { id, to } = await stoppedCall();
    await run({ action: 'keep' });
    await eventually(async () => {
      const { searchAttributes } = await system.temporal.workflow.getHandle(callWorkflowId(id)).describe();
      expect(searchAttributes).toMatchObject({ ParleyCallStatus: ['in-progress'] });
    });
    expect((await rowOf(id)).doneAt).toBeNull();
    system.sandbox.vapi.hangUp(id);
    expect(await resultOf(system, id)).toMatchObject({ outcome: 'no_answer', endedReason: 'customer-ended-call' });
    expect(system.sandbox.vapi.dialled({ number: to })).toBe(1);
  });

  test('when it was never heard what became of a placement, then Vapi’s list is searched for it, and it is not placed again', async () => {
    const to = newNumber();
    system.sandbox.vapi.play({ when: ({ number }) => number === to, play: 'no-events', times: 1 });
    const { callId } = (await placeCall(system, { to })).body;
    const { providerCallId } = await eventually(async () => {
      const row = await rowOf(callId);
      expect(row.providerCallId).not.toBeNull();
      return row;
    });
    await system.temporal.workflow.getHandle(callWorkflowId(callId)).terminate();
    await system.db.vapiCallResult.update({ where: { id: callId }, data: { createdAt: hoursAgo(2), providerCallId: null } });
    await system.sandbox.vapi.waitForStatus(callId, 'ended', 15_000);
    expect(await run({ action: 'keep' })).toMatchObject({ orphans: { stopped: 1 } });
    expect(await resultOf(system, callId)).toMatchObject({ outcome: 'completed', providerCallId });
    expect(system.sandbox.vapi.dialled({ number: to })).toBe(1);
  });

  test('when nobody knows whether a phone rang, then the call ends as unknown, a person is asked for, and its caller is told', async () => {
    const to = newNumber();
    const lost = await orphan({ dialledAt: hoursAgo(2), toNumber: to, callbackUrl: 'https://nowhere.example/' });
    await run({ action: 'keep' });
    expect(await resultOf(system, lost)).toMatchObject({ outcome: 'unknown', needsAttention: true, done: true });
    // The workflow's result comes after the record's, and after the callback has begun.
    await system.temporal.workflow.getHandle(callWorkflowId(lost)).result();
    expect(await stateOf(callbackWorkflowId(lost))).toEqual([CALLBACK_WORKFLOW, 'RUNNING']);
    await system.temporal.workflow.getHandle(callbackWorkflowId(lost)).terminate();
    expect(system.sandbox.vapi.dialled({ number: to })).toBe(0);
  });

  test('when there are more than fit into a batch, then all of them are seen to, each once', async () => {
    const lost = await Promise.all(Array.from({ length: 5 }, () => orphan()));
    const others = await Promise.all(Array.from({ length: 4 }, () => orphan({ requestHash: null, direction: 'inbound' })));
    const handle = await start({ action: 'keep', batchSize: 2 });
    expect(await handle.result()).toMatchObject({ orphans: { unplaced: 5, unfollowed: 4, stopped: 0 } });
    for (const id of lost) expect((await rowOf(id)).outcome).toBe('failed');
    for (const id of others) expect(await resultOf(system, id)).toMatchObject({ outcome: 'unknown', needsAttention: true });
  });
});

test('when dead letters are old, then a run deletes them in batches, a dry run counts them, and a run begun by an older version does neither', async () => {
  const letter = (body: number, lastSeenAt: Date) => ({
    ...{ source: 'kapso', reason: 'unreadable', detail: 'test', digest: randomUUID() },
    ...{ body, lastSeenAt, createdAt: daysAgo(200) },
  });
  await system.db.deadLetter.createMany({ data: [1, 2, 3, 4, 5].map((body) => letter(body, daysAgo(31))) });
  await system.db.deadLetter.create({ data: letter(6, daysAgo(29)) });
  await run({ action: 'keep' });
  expect(await run({ action: 'keep', deadLetterDays: 30, dryRun: true })).toMatchObject({ deadLetters: 5 });
  expect(await system.db.deadLetter.count()).toBe(6);
  expect(await run({ action: 'keep', deadLetterDays: 30, batchSize: 2 })).toMatchObject({ deadLetters: 5, isDone: true });
  expect(await system.db.deadLetter.findMany()).toMatchObject([{ body: 6 }]);
});

test('when an old dead letter is deleted, then its conversation no longer asks for attention because of it', async () => {
  const phone = newPhone();
  await system.sandbox.kapso.deliver({ messages: [{ from: phone, id: `wamid.${randomUUID()}`, text: { body: 'hi' } }] });
  await outcomesOf(system, phone, 1);
  const workflowId = await workflowIdOf(system, phone);
  const reason = (kind: string) => ({ kind, since: daysAgo(100).toISOString(), text: 'test' });
  const attention = [reason('dead_letter'), reason('send_unconfirmed')];
  await system.db.conversation.update({ where: { workflowId }, data: { needsAttention: true, attention } });
  const letter = { source: 'conversation', reason: 'record_refused', detail: 'test', digest: randomUUID(), workflowId };
  await system.db.deadLetter.create({ data: { ...letter, lastSeenAt: daysAgo(100) } });
  expect(await run({ action: 'keep', deadLetterDays: 90 })).toMatchObject({ deadLetters: 1 });
  const { attention: left } = await system.db.conversation.findUniqueOrThrow({ where: { workflowId } });
  expect(left).toMatchObject([{ kind: 'send_unconfirmed' }]);
});

describe('rows that expire', () => {
  const expireDays = { statusEvents: 30, callEvents: 40, parkedMessages: 50, auditEntries: 32, spooledRequests: 30 };

  async function rows(days: number, count: number): Promise<void> {
    const numbers = Array.from({ length: count }, (_, index) => index);
    const createdAt = daysAgo(days);
    const fact = { createdAt, occurredAt: createdAt };
    const { db } = system;
    await db.messageStatusEvent.createMany({ data: numbers.map(() => ({ ...fact, providerMessageId: randomUUID(), status: 'sent' })) });
    await db.vapiCallEvent.createMany({ data: numbers.map(() => ({ ...fact, providerCallId: randomUUID(), type: 'status-update' })) });
    const parked = { createdAt, phoneNumberId: 'nobody', workflowId: 'none', reason: 'test', message: {} };
    await db.parkedMessage.createMany({ data: numbers.map(() => ({ ...parked, providerMessageId: randomUUID() })) });
    const change = { createdAt, actor: 'test', action: 'key.created' };
    await db.auditEntry.createMany({ data: numbers.map(() => ({ ...change, subject: randomUUID() })) });
    const spooled = { createdAt, workflowId: 'none', request: '{}' };
    await db.spooledRequest.createMany({ data: numbers.map(() => ({ ...spooled, relayedAt: createdAt })) });
  }

  const counts = async () => {
    const { messageStatusEvent, vapiCallEvent, parkedMessage, auditEntry, spooledRequest } = system.db;
    const tables = [messageStatusEvent.count(), vapiCallEvent.count(), parkedMessage.count(), auditEntry.count(), spooledRequest.count()];
    return await Promise.all(tables);
  };

  beforeEach(async () => {
    // Status events of the replies of other tests.
    await system.sandbox.kapso.settled();
    const { messageStatusEvent, vapiCallEvent, parkedMessage, auditEntry, spooledRequest } = system.db;
    await Promise.all([
      ...[messageStatusEvent.deleteMany(), vapiCallEvent.deleteMany(), parkedMessage.deleteMany(), auditEntry.deleteMany()],
      spooledRequest.deleteMany({ where: { relayedAt: { not: null } } }),
    ]);
  });

  test('when they are too old, then a run deletes them in batches, each kind after its own time', async () => {
    for (const days of [29, 35, 45, 55]) await rows(days, 3);
    const expired = { statusEvents: 9, callEvents: 6, parkedMessages: 3, auditEntries: 9, spooledRequests: 9 };
    expect(await run({ action: 'keep', expireDays, dryRun: true })).toMatchObject({ expired });
    expect(await counts()).toEqual([12, 12, 12, 12, 12]);
    expect(await run({ action: 'keep', expireDays, batchSize: 2 })).toMatchObject({ expired, isDone: true });
    expect(await counts()).toEqual([3, 6, 9, 3, 3]);
  });

  test('when the run was begun by a version that does not know them, then they stay', async () => {
    await rows(400, 1);
    expect(await run({ action: 'keep' })).toMatchObject({
      expired: { statusEvents: 0, callEvents: 0, parkedMessages: 0, spooledRequests: 0 },
    });
    expect(await counts()).toEqual([1, 1, 1, 1, 1]);
  });

  test('when a request still waits in the spool, then it stays, however old it is', async () => {
    await system.db.spooledRequest.create({ data: { createdAt: daysAgo(400), workflowId: 'none', request: '{"kind":"signal"}' } });
    expect(await run({ action: 'keep', expireDays })).toMatchObject({ expired: { spooledRequests: 0 } });
    expect(await system.db.spooledRequest.count({ where: { createdAt: { lt: daysAgo(399) } } })).toBe(1);
    await system.db.spooledRequest.deleteMany();
  });

  test('when a call cannot be archived, then its events stay for the next attempt, however old they are', async () => {
    await calls(1, daysAgo(100));
    await system.db.vapiCallEvent.updateMany({ data: { createdAt: daysAgo(100) } });
    const allowDeletes = await refuseDeletes();
    const handle = await start({ expireDays });
    await refusedOnce(handle.workflowId);
    expect(await system.db.vapiCallEvent.count()).toBe(2);
    await allowDeletes();
    expect(await handle.result()).toMatchObject({ removed: 1 });
    expect((await archived())[0]?.events).toHaveLength(2);
  }, 60_000);

  test('when calls are archived later than their events would expire, then the events are kept longer', () => {
    const settings = {
      ...{ CALL_RETENTION_DAYS: 90, DEAD_LETTER_RETENTION_DAYS: 1, STATUS_EVENT_RETENTION_DAYS: 2 },
      ...{ CALL_EVENT_RETENTION_DAYS: 30, PARKED_MESSAGE_RETENTION_DAYS: 3, AUDIT_RETENTION_DAYS: 4, SPOOL_RETENTION_DAYS: 5 },
    };
    const ends = { statusEvents: 2, parkedMessages: 3, auditEntries: 4, spooledRequests: 5 };
    expect(retentionInput({ ...settings, CALL_RETENTION_ACTION: 'archive' }).expireDays).toEqual({ ...ends, callEvents: 97 });
    expect(retentionInput({ ...settings, CALL_RETENTION_ACTION: 'keep' }).expireDays).toEqual({ ...ends, callEvents: 30 });
  });
});

describe('the schedule', () => {
  const handle = () => system.temporal.schedule.getHandle(retentionScheduleId(system.taskQueue));
  const settings = (days: number) => ({
    CALL_RETENTION_DAYS: days,
    CALL_RETENTION_ACTION: 'archive' as const,
    DEAD_LETTER_RETENTION_DAYS: 90,
    STATUS_EVENT_RETENTION_DAYS: 90,
    CALL_EVENT_RETENTION_DAYS: 365,
    PARKED_MESSAGE_RETENTION_DAYS: 90,
    AUDIT_RETENTION_DAYS: 730,
    SPOOL_RETENTION_DAYS: 7,
    TEMPORAL_TASK_QUEUE: system.taskQueue,
  });

  const expireDays = { statusEvents: 90, callEvents: 365, parkedMessages: 90, auditEntries: 730, spooledRequests: 7 };

  test('when a worker has started, then the schedule is there, daily and never twice at once', async () => {
    const { action, policies, info } = await handle().describe();
    expect(action).toMatchObject({
      workflowType: RETENTION_WORKFLOW,
      args: [{ days: 45, action: 'archive', deadLetterDays: 90, expireDays }],
      taskQueue: system.taskQueue,
    });
    expect(policies.overlap).toBe('SKIP');
    const [first, second] = info.nextActionTimes;
    expect((second?.getTime() ?? 0) - (first?.getTime() ?? 0)).toBe(DAY_MS);
  });

  test('when several workers start at once with other settings, then it is changed, and an operator’s pause stays', async () => {
    await handle().pause('not now');
    await Promise.all([1, 2, 3].map(() => ensureRetentionSchedule(system.temporal, settings(30), silent)));
    const { action, state } = await handle().describe();
    expect([action.args, state.paused]).toEqual([[{ days: 30, action: 'archive', deadLetterDays: 90, expireDays }], true]);
    await handle().delete();
    await Promise.all([1, 2, 3].map(() => ensureRetentionSchedule(system.temporal, settings(45), silent)));
    expect((await handle().describe()).action.args).toEqual([{ days: 45, action: 'archive', deadLetterDays: 90, expireDays }]);
  });

  test('when schedules may not be made, then there is a warning and no crash', async () => {
    const warnings: string[] = [];
    const refused = Object.assign(new Error('7 PERMISSION_DENIED'), { code: 7, details: 'no', metadata: {} });
    const client = { schedule: { create: () => Promise.reject(refused) } } as unknown as typeof system.temporal;
    await ensureRetentionSchedule(client, settings(45), createLogger('test', 'warn', { write: (line) => warnings.push(line) }));
    expect(warnings.join('')).toContain('could not be made');
    const away = Object.assign(new Error('14 UNAVAILABLE'), { code: 14, details: 'away', metadata: {} });
    const down = { schedule: { create: () => Promise.reject(away) } } as unknown as typeof system.temporal;
    await expect(ensureRetentionSchedule(down, settings(45), silent)).rejects.toThrow('UNAVAILABLE');
  });
});

describe('npm run retention', () => {
  const command = async (...args: string[]) => {
    // biome-ignore lint/style/noProcessEnv: a test starts processes like a shell does
    const env = { ...process.env, ...system.environment };
    return (await promisify(execFile)(process.execPath, ['--import', 'tsx', 'src/local/commands/retention.ts', ...args], { env })).stdout;
  };

  test('when it is asked for a dry run, then it prints months and places; without, it does the work through the schedule', async () => {
    const doneAt = daysAgo(60);
    const due = await calls(3, doneAt);
    const lost = await orphan({ requestHash: null, direction: 'inbound' });
    const letter = { source: 'kapso', reason: 'unreadable', detail: 'test', digest: randomUUID(), lastSeenAt: daysAgo(200) };
    await system.db.deadLetter.create({ data: letter });
    const dry = await command('--dry-run');
    expect(dry).toContain('old dead letters that a run would delete: 1\n');
    expect(dry).toContain('calls that nobody followed: 1\n');
    const day = doneAt.toISOString().slice(0, 10);
    expect(dry).toContain(`${MONTH_ISO(doneAt)}: 3 calls, the oldest of ${day}, the newest of ${day}`);
    expect(dry).toContain(archiveDir);
    expect(dry).toContain('nothing was changed');
    expect(await remaining()).toEqual([...due, lost].sort());
    const done = await command();
    expect(done).toContain('archived and deleted: 3 calls');
    expect(done).toContain('calls that nobody followed: 1, followed to their end now');
    expect(done).toContain('.jsonl.gz');
    expect(ids(await archived())).toEqual([...due].sort());
    expect(await remaining()).toEqual([lost]);
  }, 60_000);
});

/** Resolves when a file whose name ends with `suffix` has been seen in the archive. */
async function fileNamed(suffix: string): Promise<void> {
  while (!(await stat(archiveDir).catch(() => undefined))) await delay(5);
  const seen = async () => (await readdir(archiveDir)).some((name) => name.endsWith(suffix));
  const watcher = watch(archiveDir);
  try {
    const changed = new Promise<void>((resolve) => {
      watcher.on('change', (_event, name) => {
        if (String(name).endsWith(suffix)) resolve();
      });
    });
    if (!(await seen())) await changed;
  } finally {
    watcher.close();
  }
}
