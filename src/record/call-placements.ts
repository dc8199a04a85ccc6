/**
 * Placing a call: who may send the request, how to find the placed call again, and how to undo a claim when nothing was dialled.
 * `dialled_at` and `dial_count` change only here.
 */
import { Prisma } from '../../prisma/generated/client';
import { type Database, sql } from '../platform/database';

/** What the request to place a call needs. */
export interface CallToPlace {
  /** Null if it belongs to none. */
  workspaceId: string | null;
  /** E.164. */
  to: string;
  assistantId: string;
  phoneNumberId: string;
  variables: Record<string, unknown>;
  metadata: Record<string, unknown>;
  maxDurationSeconds: number;
}

/** The request to be sent: the next one after `dials` requests that are known not to have dialled. */
export interface PlacementOrder {
  callId: string;
  /** Identifies the claim; a new UUID each time. */
  claimId: string;
  dials: number;
  /** The request must not be sent after this time; milliseconds since 1970. */
  notAfterMs?: number | undefined;
}

/**
 * `taken`: the request was claimed before, the row already follows a call, or it is done. `expired`: nobody has claimed it, but it is too
 * late.
 */
export type PlacementClaim =
  | { kind: 'claimed'; call: CallToPlace }
  | { kind: 'taken'; providerCallId: string | null }
  | { kind: 'expired' };

/** Condition for a call of ours that cannot have rung a phone: no request has an unknown outcome, and Vapi has reported nothing. */
export const nothingDialled = sql`(request_hash IS NOT NULL AND status = 'queued' AND dialled_at IS NULL AND provider_call_id IS NULL)`;

/** The error of a call whose request was never sent. */
export const NOT_DIALLED = 'nothing was dialled: the worker that was to place the call was lost or paused before it sent the request';

/**
 * Claims the right to send the request, with one atomic UPDATE: whoever raises the count may dial, once, and soon (see claim-fence.ts). If
 * an operator resets the workflow, it starts with an old count and does not dial.
 */
export async function claimPlacement(db: Database, { callId, claimId, dials, notAfterMs }: PlacementOrder): Promise<PlacementClaim> {
  const notAfter = notAfterMs === undefined ? null : new Date(notAfterMs);
  const rows = await db.query<CallToPlace>(sql`
    UPDATE vapi_call_results SET dialled_at = now(), dial_count = dial_count + 1, dial_claim = ${claimId}::uuid, updated_at = now()
    WHERE id = ${callId}::uuid AND dial_count = ${dials} AND provider_call_id IS NULL AND done_at IS NULL
      AND now() <= COALESCE(${notAfter}::timestamptz, 'infinity')
    RETURNING workspace_id AS "workspaceId", to_number AS "to", assistant_id AS "assistantId", phone_number_id AS "phoneNumberId",
      COALESCE(variables, '{}') AS variables, COALESCE(metadata, '{}') AS metadata, max_duration_seconds AS "maxDurationSeconds"`);
  if (rows[0]) return { kind: 'claimed', call: rows[0] };
  const row = await db.orm.vapiCallResult.findUnique({
    where: { id: callId },
    select: { dialCount: true, providerCallId: true, doneAt: true },
  });
  const isFree = row?.dialCount === dials && row.providerCallId === null && row.doneAt === null;
  return isFree ? { kind: 'expired' } : { kind: 'taken', providerCallId: row?.providerCallId ?? null };
}

/**
 * Undoes a claim whose request certainly dialled nothing. The count stays, so that only an order that knows about this one may dial
 * again. If the call was concluded as `unknown` in the meantime, it becomes `failed`. Returns whether the claim was in effect.
 */
export async function takeBackClaim(db: Database, { callId, claimId }: Pick<PlacementOrder, 'callId' | 'claimId'>): Promise<boolean> {
  const rows = await db.query(sql`
    UPDATE vapi_call_results SET dialled_at = NULL, dial_claim = NULL, updated_at = now(),
      outcome = CASE WHEN outcome = 'unknown' THEN 'failed' ELSE outcome END,
      error = CASE WHEN outcome = 'unknown' THEN ${NOT_DIALLED} ELSE error END
    WHERE id = ${callId}::uuid AND dial_claim = ${claimId}::uuid AND provider_call_id IS NULL
    RETURNING 1`);
  return rows.length > 0;
}

/** What identifies, at Vapi, a placement with an unknown outcome. */
export interface SoughtPlacement {
  /** Vapi's id, if known. */
  providerCallId: string | null;
  workspaceId: string | null;
  assistantId: string | null;
  phoneNumberId: string | null;
  /** When the last request to place the call began. */
  dialledAtMs: number;
  /** Earlier placements that were not dialled. */
  formerIds: string[];
}

/** Undefined if there is no such call. */
export async function findSoughtPlacement(db: Database, callId: string): Promise<SoughtPlacement | undefined> {
  const row = await db.orm.vapiCallResult.findUnique({
    where: { id: callId },
    select: {
      providerCallId: true,
      workspaceId: true,
      assistantId: true,
      phoneNumberId: true,
      dialledAt: true,
      createdAt: true,
      formerProviderCallIds: true,
    },
  });
  if (!row) return undefined;
  const { dialledAt, createdAt, formerProviderCallIds, ...rest } = row;
  return { ...rest, dialledAtMs: (dialledAt ?? createdAt).getTime(), formerIds: formerProviderCallIds };
}

/**
 * Undoes a placement that Vapi ended without dialling: restores the row, and keeps the id as a former one. Does nothing if the row
 * follows another call or is done.
 */
export async function forgetPlacement(db: Database, { callId, providerCallId }: { callId: string; providerCallId: string }): Promise<void> {
  await db.orm.vapiCallResult.updateMany({
    where: { id: callId, providerCallId, doneAt: null },
    data: {
      formerProviderCallIds: { push: providerCallId },
      providerCallId: null,
      status: 'queued',
      endedReason: null,
      dialledAt: null,
      dialClaim: null,
      startedAt: null,
      answeredAt: null,
      endedAt: null,
      durationSeconds: null,
      cost: null,
      transcript: null,
      messages: Prisma.DbNull,
      customerSpoke: null,
      recordingUrl: null,
      summary: null,
      structuredData: Prisma.DbNull,
      successEvaluation: null,
      providerContext: Prisma.DbNull,
      rawPayload: Prisma.DbNull,
    },
  });
}
