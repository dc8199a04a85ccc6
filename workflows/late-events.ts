/** Stores webhook events while the database is down, and puts them into the spool once it is back. The API then processes them. */
import { workflowInfo } from '@temporalio/workflow';
import type { LateEvents } from './contract';
import { spooling } from './proxies';

export async function lateEventsWorkflow(events: LateEvents): Promise<void> {
  const { workflowId } = workflowInfo();
  await spooling.spoolEvents.executeWithOptions({ summary: 'put the events into the spool' }, [{ workflowId, events }]);
}
