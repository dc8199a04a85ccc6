/** The way through the storage of late webhook events whose history is kept. */
import { randomUUID } from 'node:crypto';
import { LATE_EVENTS_WORKFLOW, lateEventsStart } from '../../workflows/contract';
import type { Road } from './road';

export const lateEventsRoads: Record<string, Road> = {
  async stored({ temporal, taskQueue, phoneNumberId }) {
    const statuses = [{ id: 'wamid.late', status: 'delivered', timestamp: '1795165200' }];
    const events = { source: 'kapso', body: { json: { phone_number_id: phoneNumberId, statuses } } } as const;
    const start = lateEventsStart(events, randomUUID(), taskQueue);
    await temporal.workflow.start(LATE_EVENTS_WORKFLOW, start);
    return start.workflowId;
  },
};
