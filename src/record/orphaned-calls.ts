/** Open calls that no workflow follows. Temporal knows whether one does; the record knows the rest. */

import type { CallPosition, Orphan } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { nothingDialled } from './call-placements';
import { FIRST_POSITION } from './call-retention';
import { type CallFacts, factColumns, factsOf } from './calls';
import { conversationWith } from './contacts';

/** An open call, and the workflow that should follow it. */
export interface OpenCall extends CallPosition {
  workflowId: string;
}

/** A batch of open calls that were created before a time (milliseconds since 1970), oldest first; compares pairs, as readDueCalls does. */
export async function findOpenCalls(
  db: Database,
  { createdBeforeMs, batchSize, after = FIRST_POSITION }: { createdBeforeMs: number; batchSize: number; after?: CallPosition | undefined },
): Promise<OpenCall[]> {
  return await db.query(sql`
    SELECT id, created_at::text AS "createdAt", workflow_id AS "workflowId" FROM vapi_call_results
    WHERE done_at IS NULL AND created_at < ${new Date(createdBeforeMs)}
      AND (created_at, id) > (${after.createdAt}::timestamptz, ${after.id}::uuid)
    ORDER BY created_at, id LIMIT ${batchSize}`);
}

/**
 * The calls without a running workflow that are still open. A workflow writes the result before it closes, so a call that is open
 * after its workflow has closed has none. `hadWorkflow`: whether there was a workflow, by call id.
 */
export async function findOrphans(db: Database, hadWorkflow: ReadonlyMap<string, boolean>): Promise<Orphan[]> {
  const rows = await db.query<{ callId: string; isUnplaced: boolean; isPlacementUnknown: boolean }>(sql`
    SELECT id AS "callId", ${nothingDialled} AS "isUnplaced", provider_call_id IS NULL AND dialled_at IS NOT NULL AS "isPlacementUnknown"
    FROM vapi_call_results WHERE id = ANY(${[...hadWorkflow.keys()]}::uuid[]) AND done_at IS NULL
    ORDER BY created_at, id`);
  return rows.map(({ callId, isPlacementUnknown, ...row }) => {
    if (row.isUnplaced) return { callId, why: 'unplaced', isPlacementUnknown };
    return { callId, why: hadWorkflow.get(callId) ? 'stopped' : 'unfollowed', isPlacementUnknown };
  });
}

/** A call that was closed without having been dialled, and who has to be told. */
export interface ClosedCall {
  callId: string;
  hasCallback: boolean;
  hasConversation: boolean;
}

const NEVER_STARTED = 'never-started';

/**
 * Closes the calls that are unplaced and open even now: a workflow may have been started since. One that starts later finds the call
 * done and may not dial. Returns the ids of the closed calls.
 */
export async function closeUnplacedCalls(db: Database, callIds: readonly string[]): Promise<string[]> {
  const closed = await db.query<{ id: string }>(sql`
    UPDATE vapi_call_results SET status = 'ended', outcome = 'failed', ended_reason = ${NEVER_STARTED}, done_at = now(), updated_at = now(),
      error = 'the call was accepted and never started; nothing was dialled', conversation_id = ${conversationWith(sql`to_number`)}
    WHERE id = ANY(${callIds}::uuid[]) AND ${nothingDialled} AND done_at IS NULL
    RETURNING id`);
  return closed.map(({ id }) => id);
}

/** The calls that were closed as never started, now or by an earlier attempt. */
export async function findNeverStarted(db: Database, callIds: readonly string[]): Promise<ClosedCall[]> {
  const rows = await db.orm.vapiCallResult.findMany({
    where: { id: { in: [...callIds] }, endedReason: NEVER_STARTED, doneAt: { not: null } },
    select: { id: true, callbackUrl: true, conversationId: true },
  });
  return rows.map(({ id, callbackUrl, conversationId }) => ({
    callId: id,
    hasCallback: callbackUrl !== null,
    hasConversation: conversationId !== null,
  }));
}

/** What a workflow needs to follow an open call again. */
export interface OpenCallFacts extends CallFacts {
  maxDurationSeconds: number;
}

/** Undefined when the call is done. */
export async function findOpenCallFacts(db: Database, callId: string): Promise<OpenCallFacts | undefined> {
  const row = await db.orm.vapiCallResult.findUnique({
    where: { id: callId, doneAt: null },
    select: { ...factColumns, maxDurationSeconds: true },
  });
  return row ? { ...factsOf(row), maxDurationSeconds: row.maxDurationSeconds } : undefined;
}
