/** Open calls without a running workflow. Whether one is running, only Temporal knows. */

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

/** A batch of open calls created before a time (milliseconds since 1970), oldest first; compares row values, as readDueCalls does. */
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
 * Those of the given calls that are still open. A workflow writes the result before it closes, so a call that is open after its workflow
 * has closed has no result. `hadWorkflow`: whether there was a workflow, by call id; none of them is running.
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

/** A call that was closed without having been dialled, and who must be notified. */
export interface ClosedCall {
  callId: string;
  hasCallback: boolean;
  hasConversation: boolean;
}

const NEVER_STARTED = 'never-started';

/**
 * Closes those of the calls that are still open and not placed, because a workflow may have been started since. One that starts later
 * finds the call done and must not dial. Returns the ids of the closed calls.
 */
export async function closeUnplacedCalls(db: Database, callIds: readonly string[]): Promise<string[]> {
  const closed = await db.query<{ id: string }>(sql`
    UPDATE vapi_call_results SET status = 'ended', outcome = 'failed', ended_reason = ${NEVER_STARTED}, done_at = now(), updated_at = now(),
      error = 'the call was accepted and never started; nothing was dialled', conversation_id = ${conversationWith(sql`to_number`, sql`vapi_call_results.workspace_id`)}
    WHERE id = ANY(${callIds}::uuid[]) AND ${nothingDialled} AND done_at IS NULL
    RETURNING id`);
  return closed.map(({ id }) => id);
}

/** Those of the calls that were closed as never started, now or by an earlier attempt. */
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

/** What a workflow needs to resume following an open call. */
export interface OpenCallFacts extends CallFacts {
  maxDurationSeconds: number;
}

/** Undefined if the call is done. */
export async function findOpenCallFacts(db: Database, callId: string): Promise<OpenCallFacts | undefined> {
  const row = await db.orm.vapiCallResult.findUnique({
    where: { id: callId, doneAt: null },
    select: { ...factColumns, maxDurationSeconds: true },
  });
  return row ? { ...factsOf(row), maxDurationSeconds: row.maxDurationSeconds } : undefined;
}
