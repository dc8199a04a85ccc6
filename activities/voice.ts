/** Voice calls through Vapi: placing one at most once, finding it again, and writing down what became of it. */

import { setTimeout as delay } from 'node:timers/promises';
import { ApplicationFailure, Context, getClient } from '@temporalio/activity';
import { type Database, sql } from '../src/platform/database';
import type { Logger } from '../src/platform/logger';
import type { WorkerMetrics } from '../src/platform/metrics';
import { MAX_TEXT_LENGTH } from '../src/providers/kapso/client';
import type { CallPlacement, VapiClient } from '../src/providers/vapi/client';
import { readCall } from '../src/providers/vapi/report';
import { adoptProviderCall } from '../src/record/call-adoption';
import { type CallOutcome, callOutcome } from '../src/record/call-outcome';
import { keepCallReport } from '../src/record/call-reports';
import { type CallReport, type CallResult, CONVERSATION_WORKFLOW, callEnded, conversationStart } from '../workflows/contract';

/** Bounds of the requests to Vapi, in milliseconds: placing a call dials before it answers. */
export const DIAL_TIMEOUT_MS = 30_000;
export const ASK_TIMEOUT_MS = 10_000;

/** What is known after the one request. `later`: nothing was dialled. `unknown`: a phone may ring. */
export type DialVerdict =
  | { status: 'placed'; providerCallId: string }
  | { status: 'refused'; reason: string }
  /** `dials`: of the next order. */
  | { status: 'later'; reason: string; retryAfterMs?: number; dials: number }
  | { status: 'unknown'; reason: string };

/** What a look at a call found. */
export interface CallLook {
  kind: 'reported' | 'live' | 'ended' | 'not_found' | 'unreachable';
  /** The record has the report now (or a snapshot that says as much). */
  hasReport: boolean;
  isEnded: boolean;
  status?: string;
  endedReason?: string;
}

/** How a call is over when its facts do not say it. */
export interface CallEnding {
  outcome: CallOutcome;
  endedReason: string | null;
  /** In words, without anything personal. */
  error?: string;
  needsAttention: boolean;
}

export interface Conclusion {
  result: CallResult;
  /** Whether the caller named an address for the result. */
  hasCallback: boolean;
  hasConversation: boolean;
}

export interface VoiceActivities {
  /**
   * Sends the one request that places the call, when nobody has sent it. `dials`: the requests that are known to have dialled
   * nothing; a row that has seen one more is not dialled for. Never to be retried.
   */
  dialCall(order: { callId: string; dials: number }): Promise<DialVerdict>;
  /** Vapi's id of a call whose placement had no clear outcome; null when Vapi does not list it. Fails when Vapi cannot be asked. */
  findCall(order: { callId: string }): Promise<string | null>;
  /** Looks into the record, then at Vapi. Stores what Vapi says of a call that has ended. Fails when Vapi cannot be asked. */
  lookAtCall(order: { callId: string; providerCallId?: string }): Promise<CallLook>;
  /** Ends a live call. Fails when Vapi cannot be asked, or names no way to end it. */
  endCall(order: { providerCallId: string }): Promise<void>;
  /** Nothing was dialled by that placement: the row is as it was before. Returns the id that the row follows all the same. */
  requeueCall(order: { callId: string; providerCallId: string }): Promise<{ followedId: string | null }>;
  /** Writes the result. A row that has one keeps it. */
  concludeCall(order: { callId: string; providerCallId?: string; ending?: CallEnding }): Promise<Conclusion>;
  /** Puts a note of the call into the person's conversation and tells its workflow. */
  tellConversation(order: { callId: string }): Promise<void>;
}

export interface VoiceDependencies {
  db: Database;
  vapi: VapiClient;
  logger: Logger;
  taskQueue: string;
  /** Sent on WhatsApp after a completed call with somebody who has a conversation. */
  followUpText: string | undefined;
  metrics: Pick<WorkerMetrics, 'callConcluded'>;
}

/** A paid call is worth waiting for the record: this often, with these pauses. */
const STORE_PAUSES_MS = [250, 1_000, 2_000];

/** Outcomes of calls whose cause lies with us: somebody must mend an account or a configuration. */
const OURS_TO_MEND = /^(?:account|config):/;

/** The voice activities of one Vapi organisation. */
export function createVoiceActivities(dependencies: VoiceDependencies): VoiceActivities {
  const { db, vapi, logger, followUpText, metrics } = dependencies;
  return {
    async dialCall({ callId, dials }) {
      const claimed = await claim(db, callId, dials);
      if (claimed.kind === 'unavailable') return { status: 'later', reason: 'the record is away', dials };
      if (claimed.kind === 'taken') {
        if (claimed.providerCallId) return placedVerdict(claimed.providerCallId);
        return { status: 'unknown', reason: 'the request was sent before' };
      }
      const answer = await vapi.placeCall({ callId, ...claimed.placement });
      const { kind: placement, ...details } = answer;
      logger.info({ workflowId: workflowId(), callId, placement, ...details }, 'call placement');
      switch (answer.kind) {
        case 'placed':
          await adoptPatiently(callId, answer.providerCallId);
          return placedVerdict(answer.providerCallId);
        case 'refused':
          return { status: 'refused', reason: `Vapi refused the call (${answer.httpStatus})` };
        case 'later':
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
      const row = await placementOf(db, callId);
      if (!row || row.providerCallId) return row?.providerCallId ?? null;
      const { assistantId, phoneNumberId, dialledAtMs, formerIds } = row;
      const found = await asked(() => vapi.findPlacement({ callId, assistantId, phoneNumberId, sinceMs: dialledAtMs, formerIds }));
      if (found === undefined || (await adoptProviderCall(db, { callId, providerCallId: found }))) return found ?? null;
      // An event has named another one meanwhile: the row decides which call is followed.
      return (await placementOf(db, callId))?.providerCallId ?? null;
    },

    async lookAtCall({ callId, providerCallId }) {
      const row = await standing(db, callId);
      if (row?.hasReport) return { kind: 'reported', hasReport: true, isEnded: true, ...endedReasonOf(row) };
      const known = providerCallId ?? row?.providerCallId;
      if (!known) return { kind: 'not_found', hasReport: false, isEnded: false };
      const report = await asked(() => readSnapshot(vapi, known));
      if (!report) return { kind: 'not_found', hasReport: false, isEnded: row?.status === 'ended', ...endedReasonOf(row) };
      if (!report.isEnded) return { kind: 'live', hasReport: false, isEnded: false, ...(report.status ? { status: report.status } : {}) };
      await keepCallReport(db, callId, report);
      return { kind: 'ended', hasReport: true, isEnded: true, ...endedReasonOf(report) };
    },

    async endCall({ providerCallId }) {
      const answer = await asked(() => vapi.endCall(providerCallId));
      logger.info({ workflowId: workflowId(), providerCallId, answer }, 'end of a call asked for');
      if (answer === 'no_way')
        throw ApplicationFailure.create({ type: 'VapiError.NoControl', message: 'Vapi names no way to end the call' });
    },

    async requeueCall({ callId, providerCallId }) {
      await db.query(sql`
        UPDATE vapi_call_results SET former_provider_call_ids = array_append(former_provider_call_ids, provider_call_id),
          provider_call_id = NULL, dialled_at = NULL, status = 'queued', ended_reason = NULL, started_at = NULL, answered_at = NULL,
          ended_at = NULL, duration_seconds = NULL, cost = NULL, transcript = NULL, messages = NULL, recording_url = NULL, summary = NULL,
          structured_data = NULL, success_evaluation = NULL, provider_context = NULL, raw_payload = NULL, updated_at = now()
        WHERE id = ${callId}::uuid AND provider_call_id = ${providerCallId} AND done_at IS NULL`);
      return { followedId: (await standing(db, callId))?.providerCallId ?? null };
    },

    async concludeCall({ callId, providerCallId, ending }) {
      if (providerCallId) await adoptProviderCall(db, { callId, providerCallId });
      const facts = await standing(db, callId);
      if (!facts) throw new Error(`call ${callId} is not in the record`);
      const { row, isNew } = await writeResult(db, callId, ending ?? endingOf(facts));
      if (isNew) {
        logger.info({ workflowId: workflowId(), callId, outcome: row.outcome, endedReason: row.endedReason }, 'call concluded');
        metrics.callConcluded({ outcome: row.outcome, durationSeconds: row.durationSeconds });
      }
      const { callbackUrl, conversationId, ...result } = row;
      return {
        result,
        hasCallback: callbackUrl !== null,
        hasConversation: conversationId !== null,
      };
    },

    async tellConversation({ callId }) {
      const note = await writeNote(db, callId, followUpText);
      if (!note) return;
      const { phoneNumberId, contactKey, conversationId, sendConfirmMs, followUpId } = note;
      await getClient().workflow.signalWithStart(CONVERSATION_WORKFLOW, {
        ...conversationStart({ phoneNumberId, contactKey, taskQueue: dependencies.taskQueue }),
        signal: callEnded,
        signalArgs: [{ noteId: callId, conversationId, sendConfirmMs, ...(followUpId ? { followUpId } : {}) }],
      });
    },
  };

  /** The workflow has the id as well, and writes it with the result: an outage costs the link of early events, not the call. */
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

/** Vapi's own text is left out: it may quote a number, and failures stand in the history. */
async function asked<T>(question: () => Promise<T>): Promise<T> {
  try {
    return await question();
  } catch (error) {
    const message = error instanceof Error && error.message.startsWith('Vapi answered') ? error.message : 'Vapi could not be asked';
    throw ApplicationFailure.create({ type: 'VapiError.Unavailable', message });
  }
}

type Claim =
  | { kind: 'claimed'; placement: Omit<CallPlacement, 'callId'> }
  | { kind: 'taken'; providerCallId: string | null }
  | { kind: 'unavailable' };

/** What Vapi says of a call; undefined when it knows none. @throws when it says something else */
async function readSnapshot(vapi: VapiClient, providerCallId: string): Promise<CallReport | undefined> {
  const snapshot = await vapi.getCall(providerCallId);
  const report = snapshot === undefined ? undefined : readCall(snapshot);
  if (snapshot !== undefined && report?.providerCallId !== providerCallId)
    throw new Error('Vapi answered with something else than the call');
  return report;
}

/**
 * One atomic UPDATE: whoever raises the count may dial, once. A request that dialled nothing is followed by one of the next number;
 * an operator's reset of the workflow begins with an old number, and dials no more.
 */
async function claim(db: Database, callId: string, dials: number): Promise<Claim> {
  try {
    const rows = await db.query<Omit<CallPlacement, 'callId'>>(sql`
      UPDATE vapi_call_results SET dialled_at = now(), dial_count = dial_count + 1, updated_at = now()
      WHERE id = ${callId}::uuid AND dial_count = ${dials} AND provider_call_id IS NULL AND done_at IS NULL
      RETURNING to_number AS "to", assistant_id AS "assistantId", phone_number_id AS "phoneNumberId",
        COALESCE(variables, '{}') AS variables, COALESCE(metadata, '{}') AS metadata, max_duration_seconds AS "maxDurationSeconds"`);
    if (rows[0]) return { kind: 'claimed', placement: rows[0] };
    return { kind: 'taken', providerCallId: (await standing(db, callId))?.providerCallId ?? null };
  } catch {
    // Nothing was dialled. Should the claim have been written all the same, the next try finds it taken.
    return { kind: 'unavailable' };
  }
}

interface PlacedRow {
  providerCallId: string | null;
  assistantId: string;
  phoneNumberId: string;
  dialledAtMs: number;
  formerIds: string[];
}

async function placementOf(db: Database, callId: string): Promise<PlacedRow | undefined> {
  const rows = await db.query<PlacedRow>(sql`
    SELECT provider_call_id AS "providerCallId", assistant_id AS "assistantId", phone_number_id AS "phoneNumberId",
      (extract(epoch FROM COALESCE(dialled_at, created_at)) * 1000)::float8 AS "dialledAtMs", former_provider_call_ids AS "formerIds"
    FROM vapi_call_results WHERE id = ${callId}::uuid`);
  return rows[0];
}

interface Standing {
  providerCallId: string | null;
  status: string;
  endedReason: string | null;
  hasReport: boolean;
  wasInProgress: boolean;
}

async function standing(db: Database, callId: string): Promise<Standing | undefined> {
  const rows = await db.query<Standing>(sql`
    SELECT provider_call_id AS "providerCallId", status, ended_reason AS "endedReason", raw_payload IS NOT NULL AS "hasReport",
      (answered_at IS NOT NULL OR started_at IS NOT NULL) AS "wasInProgress"
    FROM vapi_call_results WHERE id = ${callId}::uuid`);
  return rows[0];
}

/** What the facts of the record say. */
function endingOf({ endedReason, wasInProgress }: Standing): CallEnding {
  const { outcome, error } = callOutcome(endedReason ?? undefined, wasInProgress);
  return {
    outcome,
    endedReason,
    ...(error === null ? {} : { error }),
    needsAttention: outcome === 'unknown' || OURS_TO_MEND.test(error ?? ''),
  };
}

type ResultRow = CallResult & { callbackUrl: string | null; conversationId: string | null };

/** The first result stays. The person's conversation is the newest one with their number. */
async function writeResult(db: Database, callId: string, ending: CallEnding): Promise<{ row: ResultRow; isNew: boolean }> {
  const columns = sql`id AS "callId", provider_call_id AS "providerCallId", status, outcome, ended_reason AS "endedReason",
    duration_seconds AS "durationSeconds", needs_attention AS "needsAttention", callback_url AS "callbackUrl", conversation_id AS "conversationId"`;
  const written = await db.query<ResultRow>(sql`
    UPDATE vapi_call_results SET status = 'ended', outcome = ${ending.outcome}, ended_reason = COALESCE(ended_reason, ${ending.endedReason}),
      error = ${ending.error ?? null}, needs_attention = ${ending.needsAttention}, ended_at = COALESCE(ended_at, now()), done_at = now(),
      updated_at = now(), conversation_id = (
        SELECT c.id FROM contacts p JOIN conversations c ON c.contact_id = p.id
        WHERE p.phone = ltrim(CASE WHEN direction = 'inbound' THEN from_number ELSE to_number END, '+')
        ORDER BY c.last_message_at DESC NULLS LAST LIMIT 1)
    WHERE id = ${callId}::uuid AND done_at IS NULL
    RETURNING ${columns}`);
  if (written[0]) return { row: written[0], isNew: true };
  const rows = await db.query<ResultRow>(sql`SELECT ${columns} FROM vapi_call_results WHERE id = ${callId}::uuid`);
  if (!rows[0]) throw new Error(`call ${callId} is not in the record`);
  return { row: rows[0], isNew: false };
}

interface WrittenNote {
  phoneNumberId: string;
  contactKey: string;
  conversationId: string;
  sendConfirmMs: number;
  followUpId: string | null;
}

/** The note has the call's id, and the follow-up one made from it: however often this runs, each stands once. */
async function writeNote(db: Database, callId: string, followUpText: string | undefined): Promise<WrittenNote | undefined> {
  const rows = await db.query<WrittenNote>(sql`
    WITH call AS (
      SELECT r.*, c.workspace_id, c.contact_id FROM vapi_call_results r JOIN conversations c ON c.id = r.conversation_id
      WHERE r.id = ${callId}::uuid
    ), note AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, payload, status)
      SELECT id, workspace_id, conversation_id, 'note', 'voice_call', summary,
        jsonb_build_object('callId', id, 'outcome', outcome, 'direction', direction, 'durationSeconds', duration_seconds), 'received'
      FROM call ON CONFLICT DO NOTHING
    ), follow_up AS (
      SELECT md5(id::text || 'follow-up')::uuid AS id, replace(${followUpText ?? null}::text, '{summary}', COALESCE(summary, '')) AS text
      FROM call WHERE outcome = 'completed' AND ${followUpText ?? null}::text IS NOT NULL
    ), written AS (
      INSERT INTO messages (id, workspace_id, conversation_id, direction, kind, text, status)
      SELECT f.id, call.workspace_id, call.conversation_id, 'outbound', 'text', left(f.text, ${MAX_TEXT_LENGTH}), 'pending'
      FROM follow_up f, call WHERE trim(f.text) <> '' ON CONFLICT DO NOTHING
    )
    SELECT w.kapso_phone_number_id AS "phoneNumberId", p.contact_key AS "contactKey", call.conversation_id AS "conversationId",
      COALESCE(s.send_confirm_ms, 60000) AS "sendConfirmMs", (SELECT id FROM follow_up WHERE trim(text) <> '') AS "followUpId"
    FROM call JOIN workspaces w ON w.id = call.workspace_id JOIN contacts p ON p.id = call.contact_id
    LEFT JOIN chatbot_settings s ON s.workspace_id = w.id`);
  return rows[0];
}
