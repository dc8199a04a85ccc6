/**
 * Open calls without a workflow: Temporal or our process was down between writing the row and starting the workflow, or somebody stopped
 * the workflow. Vapi does not repeat events that we have acknowledged, so nothing else would end these calls. Nothing here dials, and
 * neither do the workflows started here.
 */
import { getClient } from '@temporalio/activity';
import { WorkflowNotFoundError } from '@temporalio/client';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import {
  type ClosedCall,
  closeUnplacedCalls,
  findNeverStarted,
  findOpenCallFacts,
  findOpenCalls,
  findOrphans,
  type OpenCallFacts,
} from '../src/record/orphaned-calls';
import { CALL_WORKFLOW, type CallPosition, type CallReported, callReported, callStart, type Orphan } from '../workflows/contract';
import { reportProgress } from './progress';

export type { ClosedCall };

/** Interval between queries to Vapi, in milliseconds: an outage can leave many such calls. */
const ASK_EVERY_MS = 100;

/** How long a call that is still live waits for its report: the default of `CALL_REPORT_GRACE_SECONDS`. */
const REPORT_GRACE_MS = 90_000;

export interface OrphanActivities {
  /** Finds orphans in a batch of open calls, oldest first; `next`: where the next batch begins. */
  findOrphans(order: {
    createdBeforeMs: number;
    batchSize: number;
    after?: CallPosition;
  }): Promise<{ orphans: Orphan[]; next?: CallPosition }>;
  /** Closes those of the calls that still were not dialled. */
  closeUnplaced(order: { callIds: string[] }): Promise<ClosedCall[]>;
  /** Starts workflows that follow these calls to their end without dialling. */
  followAgain(order: { callIds: string[] }): Promise<void>;
}

export interface OrphanDependencies {
  db: Database;
  logger: Logger;
  taskQueue: string;
  metrics: Pick<WorkerMetrics, 'callConcluded'>;
}

/** The activities for open calls without a workflow. */
export function createOrphanActivities({ db, logger, taskQueue, metrics }: OrphanDependencies): OrphanActivities {
  return {
    async findOrphans(order) {
      const open = await findOpenCalls(db, order);
      const hadWorkflow = new Map<string, boolean>();
      for (const { id, workflowId } of open) {
        const state = await findWorkflowState(workflowId);
        if (state !== 'running') hadWorkflow.set(id, state === 'closed');
        reportProgress({ orphans: hadWorkflow.size });
      }
      const last = open.at(-1);
      return {
        orphans: await findOrphans(db, hadWorkflow),
        ...(last && open.length === order.batchSize ? { next: { createdAt: last.createdAt, id: last.id } } : {}),
      };
    },

    async closeUnplaced({ callIds }) {
      for (const callId of await closeUnplacedCalls(db, callIds)) {
        logger.error({ callId }, 'a call was accepted but never started; closed as failed');
        metrics.callConcluded({ outcome: 'failed', durationSeconds: null });
      }
      // Including those that an earlier attempt closed, because their callers were not notified yet.
      return await findNeverStarted(db, callIds);
    },

    async followAgain({ callIds }) {
      let followed = 0;
      for (const callId of callIds) {
        // Calls that are done by now are skipped, so a second attempt does not restart them.
        const facts = await findOpenCallFacts(db, callId);
        if (!facts) continue;
        logger.warn({ callId }, 'an open call had no workflow; following it again');
        await startFollowing(callId, facts, { askAfterMs: followed * ASK_EVERY_MS, taskQueue });
        followed += 1;
        reportProgress({ followed });
      }
    },
  };
}

async function findWorkflowState(workflowId: string): Promise<'running' | 'closed' | 'missing'> {
  try {
    const { closeTime } = await getClient().workflow.getHandle(workflowId).describe();
    return closeTime === undefined ? 'running' : 'closed';
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return 'missing';
    throw error;
  }
}

/** Starts a workflow as the webhook does for the first event of a call placed elsewhere. If one is already running, it is signalled. */
async function startFollowing(
  callId: string,
  facts: OpenCallFacts,
  { askAfterMs, taskQueue }: { askAfterMs: number; taskQueue: string },
): Promise<void> {
  const input = {
    callId,
    dials: false,
    // Events would have arrived long ago, so query Vapi at once.
    ringTimeoutMs: askAfterMs,
    reportGraceMs: facts.status === 'ended' ? 0 : REPORT_GRACE_MS,
    maxDurationMs: facts.maxDurationSeconds * 1_000,
    queueForMs: 0,
  };
  const options = {
    ...callStart(input, taskQueue),
    // Only here: the workflow with this id was stopped, and its call is not done.
    workflowIdReusePolicy: 'ALLOW_DUPLICATE' as const,
    staticSummary: 'Voice call, followed again',
  };
  const { workflow } = getClient();
  const lastReport = lastReportOf(facts);
  if (lastReport) await workflow.signalWithStart(CALL_WORKFLOW, { ...options, signal: callReported, signalArgs: [lastReport] });
  else await workflow.start(CALL_WORKFLOW, options);
}

/** The end of the call according to the database: with it, the call can be concluded even if Vapi is unreachable. */
function lastReportOf({ providerCallId, status, endedReason, hasReport }: OpenCallFacts): CallReported | undefined {
  if (providerCallId === null || (!hasReport && status !== 'ended')) return undefined;
  return {
    providerCallId,
    ...(hasReport ? { type: 'end-of-call-report' as const } : { type: 'status-update' as const, status }),
    ...(endedReason === null ? {} : { endedReason }),
    atMs: Date.now(),
  };
}
