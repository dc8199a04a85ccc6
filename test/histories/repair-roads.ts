/** The ways through a pass of repair whose histories are kept. */
import { randomUUID } from 'node:crypto';
import { REPAIR_WORKFLOW, type RepairInput } from '../../workflows/contract';
import { newPhone } from '../support/expectations';
import type { RecordedSystem, Road } from './road';

export const repairRoads: Record<string, Road> = {
  'lost-message': async (system) => {
    const { kapso } = system.sandbox;
    kapso.remembers([{ with: newPhone(), direction: 'inbound', text: 'lost', atMs: Date.now() - 1_000 }]);
    return await startRepair(system);
  },
  'webhook-paused': async (system) => {
    const { platform } = system.sandbox.kapso;
    for (const webhook of platform.webhooks) webhook.active = false;
    const workflowId = await startRepair(system);
    await system.workers[0]?.line('Kapso has paused a webhook');
    for (const webhook of platform.webhooks) webhook.active = true;
    return workflowId;
  },
  'key-refused': async (system) => {
    const answerAgain = system.sandbox.kapso.fault({ on: 'list', answer: '401' });
    const workflowId = await startRepair(system);
    await system.temporal.workflow.getHandle(workflowId).result();
    answerAgain();
    return workflowId;
  },
};

async function startRepair(system: RecordedSystem): Promise<string> {
  const workflowId = `repair-${randomUUID()}`;
  const args: [RepairInput] = [{ phoneNumberId: system.phoneNumberId }];
  await system.temporal.workflow.start(REPAIR_WORKFLOW, { workflowId, taskQueue: system.taskQueue, args });
  return workflowId;
}
