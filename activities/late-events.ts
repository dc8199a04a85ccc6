/** Puts webhook events that came while the database was away into the spool, from which the API takes them. */
import type { Database } from '../src/platform/database';
import { spoolRequest } from '../src/record/spool';
import type { LateEvents } from '../workflows/contract';

export interface LateEventActivities {
  /** Safe to repeat: events that are processed twice change nothing. */
  spoolEvents(order: { workflowId: string; events: LateEvents }): Promise<void>;
}

/** The activity of late events. */
export function createLateEventActivities({ db }: { db: Database }): LateEventActivities {
  return {
    async spoolEvents({ workflowId, events }) {
      await spoolRequest(db, { workflowId, request: JSON.stringify({ kind: 'events', events }) });
    },
  };
}
