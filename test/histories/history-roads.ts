/** The ways through an import of history whose histories are kept. */
import { randomUUID } from 'node:crypto';
import { SYNC_WORKFLOW, type SyncInput } from '../../workflows/contract';
import { newPhone } from '../support/expectations';
import type { RecordedSystem, Road } from './road';

export const syncRoads: Record<string, Road> = {
  'two-pages': async (system) => {
    const phone = newPhone();
    system.sandbox.kapso.remembers(
      Array.from({ length: 120 }, (_, index) => ({
        ...{ with: phone, direction: 'inbound' as const, text: `number ${index}`, atMs: Date.now() - 3_600_000 - index * 1_000 },
      })),
    );
    return await startSync(system);
  },
  canceled: async (system) => {
    const answerAgain = system.sandbox.kapso.fault({ on: 'list', answer: '503_empty' });
    const workflowId = await startSync(system);
    await system.workers[0]?.line('KapsoError.Unavailable', workflowId);
    await system.temporal.workflow.getHandle(workflowId).cancel();
    answerAgain();
    return workflowId;
  },
  'key-refused': async (system) => {
    const answerAgain = system.sandbox.kapso.fault({ on: 'list', answer: '401' });
    const workflowId = await startSync(system);
    await system.temporal.workflow
      .getHandle(workflowId)
      .result()
      .catch(() => undefined);
    answerAgain();
    return workflowId;
  },
};

async function startSync(system: RecordedSystem): Promise<string> {
  const workflowId = `sync-${randomUUID()}`;
  const { id: workspaceId } = await system.db.workspace.findFirstOrThrow();
  const args: [SyncInput] = [{ workspaceId, phoneNumberId: system.phoneNumberId, syncId: randomUUID(), fromStart: true }];
  await system.temporal.workflow.start(SYNC_WORKFLOW, { workflowId, taskQueue: system.taskQueue, args });
  return workflowId;
}
