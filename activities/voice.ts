/** Voice calls through Vapi: placing a call at most once, finding it again, and storing its result. */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { ApplicationFailure, Context, getClient } from '@temporalio/activity';
import { startFence } from '../src/platform/claim-fence';
import type { Database } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import { MAX_TEXT_LENGTH } from '../src/providers/kapso/client';
import type { VapiClient } from '../src/providers/vapi/client';
import { readCall } from '../src/providers/vapi/report';
import { raiseAlert } from '../src/record/alerts';
import { adoptProviderCall } from '../src/record/call-adoption';
import { writeCallNote } from '../src/record/call-notes';
import { type CallEnding, callEnding } from '../src/record/call-outcome';
import {
  claimPlacement,
  findSoughtPlacement,
  forgetPlacement,
  type PlacementClaim,
  type PlacementOrder,
  takeBackClaim,
} from '../src/record/call-placements';
import { keepCallReport } from '../src/record/call-reports';
import { type WrittenResult, writeCallResult } from '../src/record/call-results';
import { findCallFacts, findWorkspaceOfCall } from '../src/record/calls';
import {
  type CallReport,
  type CallResult,
  CONVERSATION_WORKFLOW,
  callEnded,
  conversationStart,
  readConversationWorkflowId,
} from '../workflows/contract';
import type { ServicesByWorkspace, WorkspaceServices } from './services';

/**
 * Maximum age of a claim when its request is sent, in milliseconds. Claiming and connecting take some tenths of a second; the activity
 * times out after 45 s (workflows/proxies.ts), of which Vapi's response may take 30.
 */
const CLAIM_MAX_AGE_MS = 5_000;

/** Timeouts of requests to Vapi, in milliseconds. Placing a call takes longer, because Vapi dials before it responds. */
export const DIAL_TIMEOUT_MS = 30_000;
export const ASK_TIMEOUT_MS = 10_000;

/** The result of an order to dial. `later`: not dialled yet. `expired`: not dialled, and it is too late to. `unknown`: a phone may ring. */
export type DialVerdict =
  | { status: 'placed'; providerCallId: string }
  | { status: 'refused'; reason: string }
  /** `dials`: pass this with the next order. */
  | { status: 'later'; reason: string; retryAfterMs?: number; dials: number }
  | { status: 'expired' }
  | { status: 'unknown'; reason: string };

/** What a query about a call found. */
export interface CallLook {
  kind: 'reported' | 'live' | 'ended' | 'not_found' | 'unreachable';
  /** Whether a report, or a snapshot of the call after its end, is now stored. */
  hasReport: boolean;
  isEnded: boolean;
  status?: string;
  endedReason?: string;
}

export interface Conclusion {
  result: CallResult;
  /** Whether the call has a callback URL. */
  hasCallback: boolean;
  hasConversation: boolean;
}

export interface VoiceActivities {
  /**
   * Sends one request to place the call, unless somebody has sent it. `dials`: the number of requests known not to have dialled; if the
   * row has counted more, nothing is sent. Nothing is sent after `notAfterMs` (milliseconds since 1970) either, or if the process was
   * paused between the claim and the request. Must not be retried.
   */
  dialCall(order: { callId: string; dials: number; notAfterMs?: number }): Promise<DialVerdict>;
  /** Vapi's id of a call whose placement had an unknown outcome; null if Vapi does not list it. @throws if Vapi is unreachable */
  findCall(order: { callId: string }): Promise<string | null>;
  /** Checks the database, then queries Vapi, and stores the report of an ended call. @throws if Vapi is unreachable */
  lookAtCall(order: { callId: string; providerCallId?: string }): Promise<CallLook>;
  /** Ends a live call. @throws if Vapi is unreachable, or gives no way to end it */
  endCall(order: { providerCallId: string }): Promise<void>;
  /** Undoes a placement that was not dialled. `followedId`: the call that the row follows nevertheless. */
  requeueCall(order: { callId: string; providerCallId: string }): Promise<{ followedId: string | null }>;
  /** Writes the result, unless the call already has one. */
  concludeCall(order: { callId: string; providerCallId?: string; ending?: CallEnding }): Promise<Conclusion>;
  /** Writes a note about the call into the person's conversation, and signals its workflow. */
  tellConversation(order: { callId: string }): Promise<void>;
}

export interface VoiceDependencies {
  db: Database;
  services: ServicesByWorkspace<Pick<WorkspaceServices, 'vapi' | 'tellsConversations'>>;
  logger: Logger;
  taskQueue: string;
  /** WhatsApp message after a completed call with a person who has a conversation; `{summary}` is replaced with the call's summary. */
  followUpText: string | undefined;
  metrics: Pick<WorkerMetrics, 'callConcluded'>;
  /** Maximum age of a claim when its request is sent, in milliseconds. */
  claimMaxAgeMs?: number;
}

/** Pauses between the attempts to store the id of a placed call. */
const STORE_PAUSES_MS = [250, 1_000, 2_000];

/** The voice activities. */
export function createVoiceActivities(dependencies: VoiceDependencies): VoiceActivities {
  const { db, services, logger, followUpText, metrics, claimMaxAgeMs = CLAIM_MAX_AGE_MS } = dependencies;
  return {
    async dialCall({ callId, dials, notAfterMs }) {
      const order = { callId, dials, notAfterMs, claimId: randomUUID() };
      const fence = startFence({ maxAgeMs: claimMaxAgeMs, signal: Context.current().cancellationSignal });
      const claim = await claimUnlessAway(order);
      if (claim === undefined) {
        const wasClaimed = await takeBackUnlessAway(order);
        return { status: 'later', reason: 'the database is unavailable', dials: wasClaimed ? dials + 1 : dials };
      }
      if (claim.kind === 'expired') return { status: 'expired' };
      if (claim.kind === 'taken') {
        if (claim.providerCallId) return placedVerdict(claim.providerCallId);
        return { status: 'unknown', reason: 'the request was sent before' };
      }
      const { workspaceId, ...call } = claim.call;
      const { vapi } = await services.ofWorkspace(workspaceId);
      const answer = await vapi.placeCall({ callId, ...call }, () => fence.check());
      const { kind: placement, ...details } = answer;
      logger.info({ workflowId: workflowId(), callId, placement, ...details }, 'call placement');
      switch (answer.kind) {
        case 'placed':
          await adoptPatiently(callId, answer.providerCallId);
          return placedVerdict(answer.providerCallId);
        case 'refused':
          return { status: 'refused', reason: `Vapi refused the call (${answer.httpStatus})` };
        case 'later':
          await takeBackUnlessAway(order);
          return {
            status: 'later',
            reason: answer.reason,
            dials: dials + 1,
            ...(answer.retryAfterMs === undefined ? {} : { retryAfterMs: answer.retryAfterMs }),
          };
        case 'unknown':
          return { status: 'unknown', reason: answer.reason };
      }
    },

    async findCall({ callId }) {
      const sought = await findSoughtPlacement(db, callId);
      if (!sought || sought.providerCallId) return sought?.providerCallId ?? null;
      const { assistantId, phoneNumberId, dialledAtMs, formerIds, workspaceId } = sought;
      // A request to place a call always has both.
      if (assistantId === null || phoneNumberId === null) return null;
      const { vapi } = await services.ofWorkspace(workspaceId);
      const found = await askVapi(() => vapi.findPlacement({ callId, assistantId, phoneNumberId, sinceMs: dialledAtMs, formerIds }));
      if (found === undefined || (await adoptProviderCall(db, { callId, providerCallId: found }))) return found ?? null;
      // In the meantime an event has linked the row to another call; the row decides which one is followed.
      return (await findCallFacts(db, callId))?.providerCallId ?? null;
    },

    async lookAtCall({ callId, providerCallId }) {
      const facts = await findCallFacts(db, callId);
      if (facts?.hasReport) return { kind: 'reported', hasReport: true, isEnded: true, ...endedReasonOf(facts) };
      const knownId = providerCallId ?? facts?.providerCallId;
      if (!knownId) return { kind: 'not_found', hasReport: false, isEnded: false };
      const { vapi } = await services.ofWorkspace(facts?.workspaceId ?? null);
      const report = await askVapi(() => fetchReport(vapi, knownId));
      if (!report) return { kind: 'not_found', hasReport: false, isEnded: facts?.status === 'ended', ...endedReasonOf(facts) };
      if (!report.isEnded) return { kind: 'live', hasReport: false, isEnded: false, ...(report.status ? { status: report.status } : {}) };
      await keepCallReport(db, callId, report);
      return { kind: 'ended', hasReport: true, isEnded: true, ...endedReasonOf(report) };
    },

    async endCall({ providerCallId }) {
      const { vapi } = await services.ofWorkspace(await findWorkspaceOfCall(db, providerCallId));
      const answer = await askVapi(() => vapi.endCall(providerCallId));
      logger.info({ workflowId: workflowId(), providerCallId, answer }, 'end of a call requested');
      if (answer === 'no_way')
        throw ApplicationFailure.create({ type: 'VapiError.NoControl', message: 'Vapi gives no way to end the call' });
    },

    async requeueCall({ callId, providerCallId }) {
      await forgetPlacement(db, { callId, providerCallId });
      return { followedId: (await findCallFacts(db, callId))?.providerCallId ?? null };
    },

    async concludeCall({ callId, providerCallId, ending }) {
      if (providerCallId) await adoptProviderCall(db, { callId, providerCallId });
      const facts = await findCallFacts(db, callId);
      if (!facts) throw new Error(`call ${callId} is not in the database`);
      const known = ending ?? callEnding({ ...facts, endedReason: facts.endedReason ?? undefined });
      const { result: written, isNew } = await writeCallResult(db, callId, known);
      // Even if an earlier attempt wrote the result and then died.
      if (written.needsAttention) await raiseCallAlert(db, written);
      if (isNew) {
        const { outcome, endedReason, durationSeconds } = written;
        logger.info({ workflowId: workflowId(), callId, outcome, endedReason }, 'call concluded');
        metrics.callConcluded({ outcome, durationSeconds });
      }
      const { callbackUrl, conversationId, ...result } = written;
      const { tellsConversations } = await services.ofWorkspace(facts.workspaceId);
      return { result, hasCallback: callbackUrl !== null, hasConversation: tellsConversations && conversationId !== null };
    },

    async tellConversation({ callId }) {
      const { tellsConversations } = await services.ofWorkspace((await findCallFacts(db, callId))?.workspaceId ?? null);
      if (!tellsConversations) return;
      const note = await writeCallNote(db, callId, { text: followUpText, maxLength: MAX_TEXT_LENGTH });
      if (!note) return;
      const { workflowId: ownerId, conversationId, sendConfirmMs, followUpId } = note;
      await getClient().workflow.signalWithStart(CONVERSATION_WORKFLOW, {
        ...conversationStart({ ...readConversationWorkflowId(ownerId), taskQueue: dependencies.taskQueue }),
        signal: callEnded,
        signalArgs: [{ noteId: callId, conversationId, sendConfirmMs, ...(followUpId ? { followUpId } : {}) }],
      });
    },
  };

  /** Undefined if PostgreSQL did not respond; the claim may still have taken effect. */
  async function claimUnlessAway(order: PlacementOrder): Promise<PlacementClaim | undefined> {
    try {
      return await claimPlacement(db, order);
    } catch {
      return undefined;
    }
  }

  /**
   * Undoes the claim, for those who conclude the call without this activity's verdict; if it fails, they must assume that a phone may
   * ring. Returns whether the claim was in effect, as far as is known.
   */
  async function takeBackUnlessAway(order: PlacementOrder): Promise<boolean> {
    try {
      return await takeBackClaim(db, order);
    } catch (error) {
      logger.warn({ error, callId: order.callId }, 'undoing the claim on a call failed; nothing was dialled');
      return false;
    }
  }

  /** Gives up eventually: the workflow also has the id and writes it with the result, so an outage only costs the link to early events. */
  async function adoptPatiently(callId: string, providerCallId: string): Promise<void> {
    for (const pauseMs of [...STORE_PAUSES_MS, 0]) {
      try {
        await adoptProviderCall(db, { callId, providerCallId });
        return;
      } catch (error) {
        logger.warn({ error, callId }, 'storing the id of the call failed; retrying');
        await delay(pauseMs);
      }
    }
  }
}

function workflowId(): string | undefined {
  return Context.current().info.workflowExecution?.workflowId;
}

function placedVerdict(providerCallId: string): DialVerdict {
  return { status: 'placed', providerCallId };
}

function endedReasonOf(facts: { endedReason?: string | null | undefined } | undefined): { endedReason?: string } {
  return facts?.endedReason ? { endedReason: facts.endedReason } : {};
}

/** Leaves Vapi's text out of the failure, because it may quote a phone number, and failures are stored in the history. */
async function askVapi<T>(question: () => Promise<T>): Promise<T> {
  try {
    return await question();
  } catch (error) {
    const message = error instanceof Error && error.message.startsWith('Vapi answered') ? error.message : 'Vapi could not be asked';
    throw ApplicationFailure.create({ type: 'VapiError.Unavailable', message });
  }
}

/** Vapi's snapshot of a call; undefined if it does not exist. @throws if the response is about something else */
async function fetchReport(vapi: VapiClient, providerCallId: string): Promise<CallReport | undefined> {
  const snapshot = await vapi.getCall(providerCallId);
  const report = snapshot === undefined ? undefined : readCall(snapshot);
  if (snapshot !== undefined && report?.providerCallId !== providerCallId)
    throw new Error('Vapi answered with something other than the call');
  return report;
}

async function raiseCallAlert(db: Database, { callId, outcome, endedReason }: WrittenResult): Promise<void> {
  const cause = `call ${outcome}: ${endedReason ?? 'no reason known'}`;
  await raiseAlert(db, { cause, text: `call needs attention: ${outcome}, ${endedReason ?? 'no reason known'}`, subject: `call ${callId}` });
}
