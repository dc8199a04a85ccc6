import { randomUUID } from 'node:crypto';
import { insertOwnCall, newProviderCallId, statusUpdate, T0 } from '../../test/support/call-rows';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { type CallEvent, callWorkflowId } from '../../workflows/contract';
import { type Database, openDatabase } from '../platform/database';
import { adoptProviderCall } from './call-adoption';
import { findCallRow, keepCallEvent } from './call-events';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('call_events');
  db = openDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const rowOf = (id: string) => db.orm.vapiCallResult.findUniqueOrThrow({ where: { id } });
const eventsOf = (providerCallId: string) => db.orm.vapiCallEvent.count({ where: { providerCallId } });

describe('finding the row', () => {
  test('when our id comes with a call that our row can follow, then it is our row; when the row follows another call, then not', async () => {
    const callId = await insertOwnCall(db);
    const providerCallId = newProviderCallId();
    expect(await findCallRow(db, { providerCallId })).toBeUndefined();
    expect(await findCallRow(db, { ownCallId: callId, providerCallId })).toMatchObject({ callId, providerCallId: null, status: 'queued' });
    await adoptProviderCall(db, { callId, providerCallId });
    expect(await findCallRow(db, { providerCallId })).toMatchObject({ callId });
    expect(await findCallRow(db, { ownCallId: callId, providerCallId: newProviderCallId() })).toBeUndefined();
    expect(await findCallRow(db, { ownCallId: randomUUID(), providerCallId })).toMatchObject({ callId });
  });

  test('when an event of an earlier placement arrives, then it is stored, and neither changes our row nor creates another', async () => {
    const [former, callId] = [newProviderCallId(), await insertOwnCall(db)];
    await db.orm.vapiCallResult.update({ where: { id: callId }, data: { formerProviderCallIds: [former] } });
    const before = await db.orm.vapiCallResult.count();
    const kept = await keepCallEvent(db, statusUpdate(former, 'ended', { ownCallId: callId, endedReason: 'x' }), randomUUID());
    expect(kept).toMatchObject({ isFormer: true, isNew: true, row: { callId, providerCallId: null } });
    expect(await rowOf(callId)).toMatchObject({ status: 'queued', endedReason: null, providerCallId: null });
    expect(await db.orm.vapiCallResult.count()).toBe(before);
  });
});

describe('an event', () => {
  test('when the call is unknown, then a row is created from the event', async () => {
    const [providerCallId, callId] = [newProviderCallId(), randomUUID()];
    const parties = {
      direction: 'inbound',
      fromNumber: '+15555550123',
      toNumber: '+15555550100',
      assistantId: 'a1',
      phoneNumberId: 'n1',
    } as const;
    const kept = await keepCallEvent(db, statusUpdate(providerCallId, 'ringing', { ...parties, maxDurationSeconds: 900 }), callId);
    expect(kept).toMatchObject({
      isNew: true,
      isFormer: false,
      row: { callId, providerCallId, status: 'ringing', maxDurationSeconds: 900 },
    });
    expect(await rowOf(callId)).toMatchObject({ ...parties, workflowId: callWorkflowId(callId), status: 'ringing', doneAt: null });
  });

  test('when many first events arrive at once, then there is one row with the highest status', async () => {
    const [providerCallId, callId] = [newProviderCallId(), randomUUID()];
    const statuses = ['ringing', 'in-progress', 'ended', 'queued', 'ended', 'scheduled', 'in-progress', 'forwarding'];
    const kept = await Promise.all(statuses.map((status) => keepCallEvent(db, statusUpdate(providerCallId, status), callId)));
    expect(new Set(kept.map(({ row }) => row.callId))).toEqual(new Set([callId]));
    expect(kept.filter(({ isNew }) => isNew)).toHaveLength(6);
    expect(await rowOf(callId)).toMatchObject({ status: 'ended' });
    expect(await db.orm.vapiCallResult.count({ where: { providerCallId } })).toBe(1);
    expect(await eventsOf(providerCallId)).toBe(6);
  });

  test('when events arrive late and twice, then the status only rises and the first times stay', async () => {
    const [providerCallId, callId] = [newProviderCallId(), randomUUID()];
    const at = (seconds: number) => new Date(T0 + seconds * 1_000);
    const keep = (status: string, seconds: number, fields: Partial<CallEvent> = {}) =>
      keepCallEvent(db, statusUpdate(providerCallId, status, { atMs: T0 + seconds * 1_000, ...fields }), callId);
    await keep('ended', 70, { endedReason: 'customer-ended-call' });
    await keep('in-progress', 40);
    await keep('in-progress', 10);
    await keep('in-progress', 50);
    await keep('ringing', 5);
    const again = await keep('ended', 90, { endedReason: 'something-else' });
    expect(again.isNew).toBe(false);
    expect(await rowOf(callId)).toMatchObject({
      status: 'ended',
      endedReason: 'customer-ended-call',
      answeredAt: at(10),
      endedAt: at(70),
    });
  });

  test.each(['not-found', 'deletion-failed', 'on-hold'])('when the status is %s, then it is an event and no state', async (status) => {
    const [providerCallId, callId] = [newProviderCallId(), randomUUID()];
    await keepCallEvent(db, statusUpdate(providerCallId, 'in-progress'), callId);
    expect(await keepCallEvent(db, statusUpdate(providerCallId, status), callId)).toMatchObject({
      isNew: true,
      row: { status: 'in-progress' },
    });
    expect(await eventsOf(providerCallId)).toBe(2);
  });

  test('when the call is done, then an event is stored, but does not change the row', async () => {
    const providerCallId = newProviderCallId();
    const callId = await insertOwnCall(db, { providerCallId, status: 'ringing', outcome: 'unknown', doneAt: new Date(T0) });
    const before = await rowOf(callId);
    expect(await keepCallEvent(db, statusUpdate(providerCallId, 'in-progress'), randomUUID())).toMatchObject({
      isNew: true,
      row: { callId },
    });
    expect(await rowOf(callId)).toEqual(before);
    expect(await eventsOf(providerCallId)).toBe(1);
  });

  test('when a report arrives as an event, then the call has ended', async () => {
    const [providerCallId, callId] = [newProviderCallId(), randomUUID()];
    await keepCallEvent(
      db,
      { type: 'end-of-call-report', providerCallId, direction: 'outbound', endedReason: 'voicemail', atMs: T0 },
      callId,
    );
    expect(await rowOf(callId)).toMatchObject({ status: 'ended', endedReason: 'voicemail', endedAt: new Date(T0) });
  });
});

describe('the workspace of a call that others placed', () => {
  const newWorkspace = async (vapiPhoneNumberId: string | null) =>
    (await db.orm.workspace.create({ data: { name: 'w', kapsoPhoneNumberId: randomUUID(), vapiPhoneNumberId } })).id;
  const inbound = (providerCallId: string, status: string, phoneNumberId?: string) =>
    statusUpdate(providerCallId, status, { direction: 'inbound', ...(phoneNumberId === undefined ? {} : { phoneNumberId }) });

  afterEach(() => db.orm.workspace.deleteMany());

  test('when somebody calls a number of a workspace, then the call belongs to it, otherwise to the first one', async () => {
    const [first, second] = [await newWorkspace(null), await newWorkspace('line-2')];
    for (const [number, workspaceId] of [
      ['line-2', second],
      ['line-of-nobody', first],
      [undefined, first],
    ] as const) {
      const callId = randomUUID();
      await keepCallEvent(db, inbound(newProviderCallId(), 'ringing', number), callId);
      expect(await rowOf(callId)).toMatchObject({ workspaceId });
    }
  });

  test('when only a later event names the number, then the call moves to its workspace, and stays there', async () => {
    const [first, second] = [await newWorkspace(null), await newWorkspace('line-2')];
    const [callId, providerCallId] = [randomUUID(), newProviderCallId()];
    await keepCallEvent(db, inbound(providerCallId, 'ringing'), callId);
    expect(await rowOf(callId)).toMatchObject({ workspaceId: first });
    await keepCallEvent(db, inbound(providerCallId, 'in-progress', 'line-2'), callId);
    await keepCallEvent(db, inbound(providerCallId, 'ended'), callId);
    expect(await rowOf(callId)).toMatchObject({ workspaceId: second, phoneNumberId: 'line-2', status: 'ended' });
  });

  test('when a call of ours uses the number of another workspace, then it stays with its own', async () => {
    const [first, second] = [await newWorkspace(null), await newWorkspace('line-2')];
    const providerCallId = newProviderCallId();
    const callId = await insertOwnCall(db, { workspaceId: first, providerCallId });
    await keepCallEvent(db, statusUpdate(providerCallId, 'ringing', { phoneNumberId: 'line-2' }), randomUUID());
    expect(await rowOf(callId)).toMatchObject({ workspaceId: first, phoneNumberId: 'line-2' });
    expect(second).not.toBe(first);
  });
});
