/** The result of a call. */
import type { CallResult } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { type CallEnding, UNANSWERED } from './call-outcome';
import { NOT_DIALLED, nothingDialled } from './call-placements';
import { conversationWith } from './contacts';
import { firstWorkspace } from './workspaces';

/** A result, with what its notifications need. */
export type WrittenResult = CallResult & { callbackUrl: string | null; conversationId: string | null };

const resultColumns = sql`id AS "callId", provider_call_id AS "providerCallId", status, outcome, ended_reason AS "endedReason",
  duration_seconds AS "durationSeconds", needs_attention AS "needsAttention", callback_url AS "callbackUrl", conversation_id AS "conversationId"`;

/**
 * Writes the result, unless there already is one. `unknown` becomes `failed` if the row says that nothing was dialled; that is final,
 * because a done row cannot be claimed. @throws if there is no such call
 */
export async function writeCallResult(
  db: Database,
  callId: string,
  ending: CallEnding,
): Promise<{ result: WrittenResult; isNew: boolean }> {
  const isNotDialled = sql`(${ending.outcome === 'unknown'} AND ${nothingDialled})`;
  const [written] = await db.query<WrittenResult>(sql`
    UPDATE vapi_call_results SET status = 'ended', ended_reason = COALESCE(ended_reason, ${ending.endedReason}),
      outcome = CASE WHEN ${isNotDialled} THEN 'failed' ELSE ${ending.outcome} END,
      error = CASE WHEN ${isNotDialled} THEN ${NOT_DIALLED} ELSE ${ending.error ?? null} END,
      needs_attention = ${ending.needsAttention}, ended_at = COALESCE(ended_at, now()), done_at = now(), updated_at = now(),
      answered_at = CASE WHEN ${UNANSWERED.includes(ending.outcome)} THEN NULL ELSE answered_at END,
      conversation_id = ${conversationWith(sql`CASE WHEN direction = 'inbound' THEN from_number ELSE to_number END`, sql`vapi_call_results.workspace_id`)},
      workspace_id = COALESCE(workspace_id, ${firstWorkspace})
    WHERE id = ${callId}::uuid AND done_at IS NULL
    RETURNING ${resultColumns}`);
  if (written) return { result: written, isNew: true };
  return { result: await readResult(db, callId), isNew: false };
}

async function readResult(db: Database, callId: string): Promise<WrittenResult> {
  const row = await db.orm.vapiCallResult.findUnique({
    where: { id: callId },
    select: {
      providerCallId: true,
      status: true,
      outcome: true,
      endedReason: true,
      durationSeconds: true,
      needsAttention: true,
      callbackUrl: true,
      conversationId: true,
    },
  });
  if (!row) throw new Error(`call ${callId} is not in the database`);
  if (row.outcome === null) throw new Error(`call ${callId} has no result`);
  return { ...row, callId, outcome: row.outcome };
}
