/** Voice calls through Vapi: placing one at most once, finding it again, and recording what became of it. */

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
import { adoptProviderCall } from '../src/record/call-adoption';
import { writeCallNote } from '../src/record/call-notes';
import { type CallEnding, endingFromFacts } from '../src/record/call-outcome';
import {
  claimPlacement,
  findSoughtPlacement,
  forgetPlacement,
  type PlacementClaim,
  type PlacementOrder,
  takeBackClaim,
} from '../src/record/call-placements';
import { keepCallReport } from '../src/record/call-reports';
import { writeCallResult } from '../src/record/call-results';
import { findCallFacts } from '../src/record/calls';
import {
  type CallReport,
  type CallResult,
  CONVERSATION_WORKFLOW,
  callEnded,
  conversationStart,
  readConversationWorkflowId,
} from '../workflows/contract';

/**
 * How old a claim may be when its request leaves, in milliseconds. Claiming and connecting take some tenths of a second; others give
 * the dial up after 45 s (workflows/proxies.ts), of which Vapi's answer may take 30.
 */
const CLAIM_MAX_AGE_MS = 5_000;

/** Timeouts of the requests to Vapi, in milliseconds. Placing a call takes longer: Vapi dials before it answers. */
export const DIAL_TIMEOUT_MS = 30_000;
export const ASK_TIMEOUT_MS = 10_000;

/** What is known after an order to dial. `later`: nothing was dialled. `expired`: nor will it be. `unknown`: a phone may ring. */
export type DialVerdict =
  | { status: 'placed'; providerCallId: string }
  | { status: 'refused'; reason: string }
  /** `dials`: to be passed with the next order. */
  | { status: 'later'; reason: string; retryAfterMs?: number; dials: number }
  | { status: 'expired' }
  | { status: 'unknown'; reason: string };

/** What a look at a call found. */
export interface CallLook {
  kind: 'reported' | 'live' | 'ended' | 'not_found' | 'unreachable';
  /** Whether a report is stored now, or a snapshot of the call after its end. */
  hasReport: boolean;
  isEnded: boolean;
  status?: string;
  endedReason?: string;
}

export interface Conclusion {
  result: CallResult;
  /** Whether the caller named an address for the result. */
  hasCallback: boolean;
  hasConversation: boolean;
}

export interface VoiceActivities {
  /**
   * Sends one request to place the call, unless somebody has sent it. `dials`: how many requests are known to have dialled nothing;
   * if the row has seen more than that, nothing is sent. Nor is it after `notAfterMs` (milliseconds since 1970), or when the process
   * was paused between its claim and the request. Must not be retried.
   */
  dialCall(order: { callId: string; dials: number; notAfterMs?: number }): Promise<DialVerdict>;
  /** Vapi's id of a call whose placement had an unknown outcome; null if Vapi does not list it. @throws when Vapi cannot be asked */
  findCall(order: { callId: string }): Promise<string | null>;
  /** Looks into the record, then at Vapi, and stores the report of a call that has ended. @throws when Vapi cannot be asked */
  lookAtCall(order: { callId: string; providerCallId?: string }): Promise<CallLook>;
  /** Ends a live call. @throws when Vapi cannot be asked, or names no way to end it */
  endCall(order: { providerCallId: string }): Promise<void>;
  /** Forgets a placement that dialled nothing. `followedId`: the call that the row follows all the same. */
  requeueCall(order: { callId: string; providerCallId: string }): Promise<{ followedId: string | null }>;
  /** Writes the result, unless there is one. */
  concludeCall(order: { callId: string; providerCallId?: string; ending?: CallEnding }): Promise<Conclusion>;
  /** Writes a note of the call into the person's conversation and tells its workflow. */
  tellConversation(order: { callId: string }): Promise<void>;
}

export interface VoiceDependencies {
  db: Database;
  vapi: VapiClient;
  logger: Logger;
  taskQueue: string;
  /** Sent on WhatsApp after a completed call with somebody who has a conversation; `{summary}` stands for the call's. */
  followUpText: string | undefined;
  metrics: Pick<WorkerMetrics, 'callConcluded'>;
  /** How old a claim may be when its request leaves, in milliseconds. */
  claimMaxAgeMs?: number;
}

/** Pauses between the attempts to store the id of a call that has been paid for. */
const STORE_PAUSES_MS = [250, 1_000, 2_000];

/** The voice activities of one Vapi organisation. */
export function createVoiceActivities(dependencies: VoiceDependencies): VoiceActivities {
  const { db, vapi, logger, followUpText, metrics, claimMaxAgeMs = CLAIM_MAX_AGE_MS } = dependencies;
  return {
    async dialCall({ callId, dials, notAfterMs }) {
      const order = { callId, dials, notAfterMs, claimId: randomUUID() };
      const fence = startFence({ maxAgeMs: claimMaxAgeMs, signal: Context.current().cancellationSignal });
      const claim = await claimUnlessAway(order);
      if (claim === undefined) {
        const wasClaimed = await takeBackUnlessAway(order);
        return { status: 'later', reason: 'the record is away', dials: wasClaimed ? dials + 1 : dials };
      }
      if (claim.kind === 'expired') return { status: 'expired' };
      if (claim.kind === 'taken') {
        if (claim.providerCallId) return placedVerdict(claim.providerCallId);
        return { status: 'unknown', reason: 'the request was sent before' };
      }
      const answer = await vapi.placeCall({ callId, ...claim.call }, () => fence.check());
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
      const { assistantId, phoneNumberId, dialledAtMs, formerIds } = sought;
      // A request to place a call names both.
      if (assistantId === null || phoneNumberId === null) return null;
      const found = await askVapi(() => vapi.findPlacement({ callId, assistantId, phoneNumberId, sinceMs: dialledAtMs, formerIds }));
      if (found === undefined || (await adoptProviderCall(db, { callId, providerCallId: found }))) return found ?? null;
      // Meanwhile an event has named another call: the row decides which one is followed.
      return (await findCallFacts(db, callId))?.providerCallId ?? null;
    },

    async lookAtCall({ callId, providerCallId }) {
      const facts = await findCallFacts(db, callId);
      if (facts?.hasReport) return { kind: 'reported', hasReport: true, isEnded: true, ...endedReasonOf(facts) };
      const knownId = providerCallId ?? facts?.providerCallId;
      if (!knownId) return { kind: 'not_found', hasReport: false, isEnded: false };
      const report = await askVapi(() => fetchReport(vapi, knownId));
      if (!report) return { kind: 'not_found', hasReport: false, isEnded: facts?.status === 'ended', ...endedReasonOf(facts) };
      if (!report.isEnded) return { kind: 'live', hasReport: false, isEnded: false, ...(report.status ? { status: report.status } : {}) };
      await keepCallReport(db, callId, report);
      return { kind: 'ended', hasReport: true, isEnded: true, ...endedReasonOf(report) };
    },

    async endCall({ providerCallId }) {
      const answer = await askVapi(() => vapi.endCall(providerCallId));
      logger.info({ workflowId: workflowId(), providerCallId, answer }, 'end of a call asked for');
      if (answer === 'no_way')
        throw ApplicationFailure.create({ type: 'VapiError.NoControl', message: 'Vapi names no way to end the call' });
    },

    async requeueCall({ callId, providerCallId }) {
      await forgetPlacement(db, { callId, providerCallId });
      return { followedId: (await findCallFacts(db, callId))?.providerCallId ?? null };
    },

    async concludeCall({ callId, providerCallId, ending }) {
      if (providerCallId) await adoptProviderCall(db, { callId, providerCallId });
      const facts = await findCallFacts(db, callId);
      if (!facts) throw new Error(`call ${callId} is not in the record`);
      const { result: written, isNew } = await writeCallResult(db, callId, ending ?? endingFromFacts(facts));
      if (isNew) {
        const { outcome, endedReason, durationSeconds } = written;
        logger.info({ workflowId: workflowId(), callId, outcome, endedReason }, 'call concluded');
        metrics.callConcluded({ outcome, durationSeconds });
      }
      const { callbackUrl, conversationId, ...result } = written;
      return { result, hasCallback: callbackUrl !== null, hasConversation: conversationId !== null };
    },

    async tellConversation({ callId }) {
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

  /** Undefined when PostgreSQL did not answer; the claim may be in effect all the same. */
  async function claimUnlessAway(order: PlacementOrder): Promise<PlacementClaim | undefined> {
    try {
      return await claimPlacement(db, order);
    } catch {
      return undefined;
    }
  }

  /**
   * Returns whether the claim was in effect, as far as is known. For those who conclude without this activity's verdict; if it fails,
   * they must take it that a phone may ring.
   */
  async function takeBackUnlessAway(order: PlacementOrder): Promise<boolean> {
    try {
      return await takeBackClaim(db, order);
    } catch (error) {
      logger.warn({ error, callId: order.callId }, 'the claim on a call could not be taken back; nothing was dialled');
      return false;
    }
  }

  /** Gives up in the end: the workflow has the id too and writes it with the result, so an outage costs only the link of early events. */
  async function adoptPatiently(callId: string, providerCallId: string): Promise<void> {
    for (const pauseMs of [...STORE_PAUSES_MS, 0]) {
      try {
        await adoptProviderCall(db, { callId, providerCallId });
        return;
      } catch (error) {
        logger.warn({ error, callId }, 'the id of the call could not be stored yet');
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

/** Vapi's own words stay out of the failure: they may quote a phone number, and failures stand in the history. */
async function askVapi<T>(question: () => Promise<T>): Promise<T> {
  try {
    return await question();
  } catch (error) {
    const message = error instanceof Error && error.message.startsWith('Vapi answered') ? error.message : 'Vapi could not be asked';
    throw ApplicationFailure.create({ type: 'VapiError.Unavailable', message });
  }
}

/** What Vapi says of a call; undefined when it knows none. @throws when it answers with something else */
async function fetchReport(vapi: VapiClient, providerCallId: string): Promise<CallReport | undefined> {
  const snapshot = await vapi.getCall(providerCallId);
  const report = snapshot === undefined ? undefined : readCall(snapshot);
  if (snapshot !== undefined && report?.providerCallId !== providerCallId)
    throw new Error('Vapi answered with something else than the call');
  return report;
}
