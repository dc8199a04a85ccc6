import { randomUUID } from 'node:crypto';
import { endReport, insertOwnCall, newProviderCallId, statusUpdate, T0 } from '../../test/support/call-rows';
import { type TestDatabase, testDatabase } from '../../test/support/engine';
import { type Database, openDatabase } from '../platform/database';
import { adoptProviderCall } from './call-adoption';
import { keepCallEvent } from './call-events';
import { keepCallReport } from './call-reports';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase('call_adoption');
  db = openDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const rowOf = (id: string) => db.orm.vapiCallResult.findUniqueOrThrow({ where: { id } });

describe('adopting', () => {
  test('when a webhook names our call before we know its id, then our row gets the id, whoever is first', async () => {
    const [providerCallId, callId, stranger] = [newProviderCallId(), await insertOwnCall(db), randomUUID()];
    const events = ['queued', 'ringing', 'in-progress'].map((status) => statusUpdate(providerCallId, status, { ownCallId: callId }));
    const [kept] = await Promise.all([
      Promise.all(events.map((event) => keepCallEvent(db, event, stranger))),
      adoptProviderCall(db, { callId, providerCallId }),
    ]);
    expect(kept.map(({ row }) => row.callId)).toEqual([callId, callId, callId]);
    expect(await rowOf(callId)).toMatchObject({ providerCallId, status: 'in-progress' });
    expect(await db.orm.vapiCallResult.findUnique({ where: { id: stranger } })).toBeNull();
  });

  test('when an event without our id comes first, then our row takes over the id and the data, and the other row is closed', async () => {
    const [providerCallId, callId, stranger] = [newProviderCallId(), await insertOwnCall(db), randomUUID()];
    await keepCallEvent(db, statusUpdate(providerCallId, 'in-progress'), stranger);
    await keepCallReport(db, stranger, endReport(providerCallId, { analysis: { summary: 'All well.' } }));
    const kept = await keepCallEvent(db, statusUpdate(providerCallId, 'ringing', { ownCallId: callId }), stranger);
    expect(kept.row).toMatchObject({ callId, providerCallId, status: 'ended' });
    expect(await rowOf(callId)).toMatchObject({
      providerCallId,
      summary: 'All well.',
      answeredAt: new Date(T0),
      rawPayload: expect.anything(),
    });
    expect(await rowOf(stranger)).toMatchObject({
      providerCallId: null,
      outcome: 'canceled',
      endedReason: 'adopted',
      doneAt: expect.any(Date),
    });
  });

  test('when first events with and without our id race, then only our row has the id in the end', async () => {
    for (let round = 0; round < 20; round += 1) {
      const [providerCallId, callId, stranger] = [newProviderCallId(), await insertOwnCall(db), randomUUID()];
      await Promise.all([
        keepCallEvent(db, statusUpdate(providerCallId, 'ringing'), stranger),
        keepCallEvent(db, statusUpdate(providerCallId, 'in-progress', { ownCallId: callId }), stranger),
        adoptProviderCall(db, { callId, providerCallId }),
        keepCallEvent(db, statusUpdate(providerCallId, 'ended'), stranger),
      ]);
      await keepCallEvent(db, statusUpdate(providerCallId, 'forwarding'), stranger);
      expect(await rowOf(callId)).toMatchObject({ providerCallId, status: 'ended', answeredAt: new Date(T0) });
      expect(await db.orm.vapiCallResult.count({ where: { providerCallId } })).toBe(1);
    }
  });

  test('when our row already follows another call, then it stays with that one, and the new call gets its own row', async () => {
    const [mine, copy, stranger] = [newProviderCallId(), newProviderCallId(), randomUUID()];
    const callId = await insertOwnCall(db, { providerCallId: mine });
    expect(await adoptProviderCall(db, { callId, providerCallId: copy })).toBe(false);
    const kept = await keepCallEvent(db, statusUpdate(copy, 'ended', { ownCallId: callId }), stranger);
    expect(kept.row).toMatchObject({ callId: stranger, providerCallId: copy });
    expect(await rowOf(callId)).toMatchObject({ providerCallId: mine, status: 'queued' });
  });

  test('when another row of ours has the id, then it keeps it', async () => {
    const providerCallId = newProviderCallId();
    const [owner, other] = [await insertOwnCall(db, { providerCallId }), await insertOwnCall(db)];
    expect(await adoptProviderCall(db, { callId: other, providerCallId })).toBe(false);
    const kept = await keepCallEvent(db, statusUpdate(providerCallId, 'ringing', { ownCallId: other }), randomUUID());
    expect(kept.row.callId).toBe(owner);
    expect(await rowOf(other)).toMatchObject({ providerCallId: null, doneAt: null });
  });

  test('when the previous placement was abandoned, then the next one is adopted', async () => {
    const [former, next] = [newProviderCallId(), newProviderCallId()];
    const callId = await insertOwnCall(db, { providerCallId: former, formerProviderCallIds: [former] });
    expect(await adoptProviderCall(db, { callId, providerCallId: former })).toBe(false);
    expect((await keepCallEvent(db, statusUpdate(next, 'ringing', { ownCallId: callId }), randomUUID())).row).toMatchObject({
      callId,
      providerCallId: next,
    });
  });
});
