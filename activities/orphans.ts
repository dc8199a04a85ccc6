/**
 * Open calls that no workflow follows: Temporal or our process was away between the row and the start, or somebody stopped
 * the workflow. Vapi repeats nothing, so nobody else will end them. None of them is dialled here, nor by what is started here.
 */
import { getClient } from '@temporalio/activity';
import { WorkflowNotFoundError } from '@temporalio/client';
import { type Database, sql } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import { CALL_WORKFLOW, type CallPosition, type CallReported, callReported, callStart, type Orphan } from '../workflows/contract';
import { progress } from './progress';

/** Vapi is asked about one call after the other: an outage leaves many, and each is asked for at once otherwise. */
const ASK_EVERY_MS = 100;

/** For the report of a call that is found alive: as long as a call waits by default (`CALL_REPORT_GRACE_SECONDS`). */
const REPORT_GRACE_MS = 90_000;

/** A call that was never dialled is over; who is to be told of it. */
export interface ClosedCall {
  callId: string;
  hasCallback: boolean;
  hasConversation: boolean;
}

export interface OrphanActivities {
  /** Looks at a batch of open calls, oldest first; `next` is where the following batch begins. */
  findOrphans(order: {
    createdBeforeMs: number;
    batchSize: number;
    after?: CallPosition;
  }): Promise<{ orphans: Orphan[]; next?: CallPosition }>;
  /** Closes those of which nothing was dialled even now. */
  closeUnplaced(order: { callIds: string[] }): Promise<ClosedCall[]>;
  /** Starts workflows that see these calls to their end and dial nothing. */
  followAgain(order: { callIds: string[] }): Promise<void>;
}

export interface OrphanDependencies {
  db: Database;
  logger: Logger;
  taskQueue: string;
  metrics: Pick<WorkerMetrics, 'callConcluded'>;
}

/** The activities that see to open calls without a workflow. */
export function createOrphanActivities({ db, logger, taskQueue, metrics }: OrphanDependencies): OrphanActivities {
  return {
    async findOrphans({ createdBeforeMs, batchSize, after }) {
      const open = await openCalls(db, createdBeforeMs, batchSize, after);
      const stopped = new Map<string, boolean>();
      for (const { id, workflowId } of open) {
        const state = await stateOf(workflowId);
        if (state !== 'running') stopped.set(id, state === 'closed');
        progress({ orphans: stopped.size });
      }
      const last = open.at(-1);
      return {
        orphans: await stillOpen(db, stopped),
        ...(last && open.length === batchSize ? { next: { createdAt: last.createdAt, id: last.id } } : {}),
      };
    },

    async closeUnplaced({ callIds }) {
      for (const { id } of await writeNeverStarted(db, callIds)) {
        logger.error({ callId: id }, 'a call was taken and never started; closed as failed');
        metrics.callConcluded({ outcome: 'failed', durationSeconds: null });
      }
      // Also those that an earlier attempt closed: nobody was told of them yet.
      return await db.query<ClosedCall>(sql`
        SELECT id AS "callId", callback_url IS NOT NULL AS "hasCallback", conversation_id IS NOT NULL AS "hasConversation"
        FROM vapi_call_results WHERE id = ANY(${callIds}::uuid[]) AND ended_reason = 'never-started' AND done_at IS NOT NULL`);
    },

    async followAgain({ callIds }) {
      for (const [index, call] of (await openFacts(db, callIds)).entries()) {
        logger.warn({ callId: call.callId }, 'an open call had no workflow; it is followed again');
        await startFollowing(call, index * ASK_EVERY_MS, taskQueue);
        progress({ followed: index + 1 });
      }
    },
  };
}

async function openCalls(
  db: Database,
  createdBeforeMs: number,
  batchSize: number,
  after: CallPosition = { createdAt: '-infinity', id: '00000000-0000-0000-0000-000000000000' },
): Promise<(CallPosition & { workflowId: string })[]> {
  return await db.query(sql`
    SELECT id, created_at::text AS "createdAt", workflow_id AS "workflowId" FROM vapi_call_results
    WHERE done_at IS NULL AND created_at < ${new Date(createdBeforeMs)}
      AND (created_at, id) > (${after.createdAt}::timestamptz, ${after.id}::uuid)
    ORDER BY created_at, id LIMIT ${batchSize}`);
}

async function stateOf(workflowId: string): Promise<'running' | 'closed' | 'missing'> {
  try {
    const { closeTime } = await getClient().workflow.getHandle(workflowId).describe();
    return closeTime === undefined ? 'running' : 'closed';
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return 'missing';
    throw error;
  }
}

/**
 * A workflow writes its result before it closes, so a call that is open after its workflow was seen closed has none.
 * `stopped`: for each call whether it had a workflow.
 */
async function stillOpen(db: Database, stopped: ReadonlyMap<string, boolean>): Promise<Orphan[]> {
  const rows = await db.query<{ callId: string; isUnplaced: boolean; isPlacementUnknown: boolean }>(sql`
    SELECT id AS "callId", ${isUnplaced} AS "isUnplaced", provider_call_id IS NULL AND dialled_at IS NOT NULL AS "isPlacementUnknown"
    FROM vapi_call_results WHERE id = ANY(${[...stopped.keys()]}::uuid[]) AND done_at IS NULL
    ORDER BY created_at, id`);
  return rows.map(({ callId, isPlacementUnknown, ...row }) => {
    if (row.isUnplaced) return { callId, why: 'unplaced', isPlacementUnknown };
    return { callId, why: stopped.get(callId) ? 'stopped' : 'unfollowed', isPlacementUnknown };
  });
}

/** Ours, and no phone rang: no request to place it was begun whose outcome is not known, and Vapi has told nothing. */
const isUnplaced = sql`(request_hash IS NOT NULL AND status = 'queued' AND dialled_at IS NULL AND provider_call_id IS NULL)`;

/**
 * The conditions are asked again: a workflow may have been started since. One that comes later finds the call done, and
 * may not dial. The person's conversation is the newest one with their number.
 */
async function writeNeverStarted(db: Database, callIds: string[]): Promise<{ id: string }[]> {
  return await db.query(sql`
    UPDATE vapi_call_results SET status = 'ended', outcome = 'failed', ended_reason = 'never-started', done_at = now(), updated_at = now(),
      error = 'the call was accepted and never started; nothing was dialled', conversation_id = (
        SELECT c.id FROM contacts p JOIN conversations c ON c.contact_id = p.id
        WHERE p.phone = ltrim(to_number, '+') ORDER BY c.last_message_at DESC NULLS LAST LIMIT 1)
    WHERE id = ANY(${callIds}::uuid[]) AND ${isUnplaced} AND done_at IS NULL
    RETURNING id`);
}

interface OpenFacts {
  callId: string;
  providerCallId: string | null;
  status: string;
  endedReason: string | null;
  hasReport: boolean;
  maxDurationSeconds: number;
}

/** A call that was concluded meanwhile is left out: so a second attempt starts nothing anew. */
async function openFacts(db: Database, callIds: string[]): Promise<OpenFacts[]> {
  return await db.query(sql`
    SELECT id AS "callId", provider_call_id AS "providerCallId", status, ended_reason AS "endedReason", raw_payload IS NOT NULL AS "hasReport",
      max_duration_seconds AS "maxDurationSeconds"
    FROM vapi_call_results WHERE id = ANY(${callIds}::uuid[]) AND done_at IS NULL ORDER BY created_at, id`);
}

/** As the webhook does with the first event of a call that others placed; should the call be followed by now, it is told again. */
async function startFollowing(call: OpenFacts, askAfterMs: number, taskQueue: string): Promise<void> {
  const input = {
    callId: call.callId,
    dials: false,
    // What could be heard was heard long ago: Vapi is asked at once.
    ringTimeoutMs: askAfterMs,
    reportGraceMs: call.status === 'ended' ? 0 : REPORT_GRACE_MS,
    maxDurationMs: call.maxDurationSeconds * 1_000,
    queueForMs: 0,
  };
  const options = {
    ...callStart(input, taskQueue),
    // Other than everywhere else: the workflow under this id was stopped, and the call is not done.
    workflowIdReusePolicy: 'ALLOW_DUPLICATE' as const,
    staticSummary: 'Voice call, followed again',
  };
  const { workflow } = getClient();
  const fact = lastFact(call);
  if (fact) await workflow.signalWithStart(CALL_WORKFLOW, { ...options, signal: callReported, signalArgs: [fact] });
  else await workflow.start(CALL_WORKFLOW, options);
}

/** What the record knows of the end: with it, the call is concluded whether or not Vapi can be asked. */
function lastFact({ providerCallId, status, endedReason, hasReport }: OpenFacts): CallReported | undefined {
  if (providerCallId === null || (!hasReport && status !== 'ended')) return undefined;
  return {
    providerCallId,
    ...(hasReport ? { type: 'end-of-call-report' as const } : { type: 'status-update' as const, status }),
    ...(endedReason === null ? {} : { endedReason }),
    atMs: Date.now(),
  };
}
