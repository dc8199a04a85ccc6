/** Rows of calls and facts about them, as tests of the record need them. */
import { randomUUID } from 'node:crypto';
import type { Database } from '../../src/platform/database';
import { readCall } from '../../src/providers/vapi/report';
import { type CallEvent, type CallReport, callWorkflowId } from '../../workflows/contract';

/** When the facts below happened, unless a test says otherwise. */
export const T0 = Date.UTC(2026, 10, 20, 15);

export const newProviderCallId = () => `vapi-${randomUUID()}`;

/** A status of a call, as its webhook reports it. */
export function statusUpdate(providerCallId: string, status: string, fields: Partial<CallEvent> = {}): CallEvent {
  return { type: 'status-update', providerCallId, direction: 'outbound', status, atMs: T0, ...fields };
}

/** A report of a call that has ended; `fields` in Vapi's own form. */
export function endReport(providerCallId: string, fields: object = {}): CallReport {
  const read = readCall({ id: providerCallId, status: 'ended', endedReason: 'customer-ended-call', ...fields });
  if (!read) throw new Error('not a call');
  return read;
}

/** Inserts a row as a request of the API does, and returns its id. */
export async function insertOwnCall(db: Database, fields: object = {}): Promise<string> {
  const id = randomUUID();
  await db.orm.vapiCallResult.create({
    data: { id, workflowId: callWorkflowId(id), direction: 'outbound', requestHash: 'hash', ...fields },
  });
  return id;
}
