/**
 * Placing a call of ours: who may send the request, how the placed call is found again, and what is taken back when nothing was
 * dialled. `dialled_at` and `dial_count` change nowhere else.
 */
import { Prisma } from '../../prisma/generated/client';
import { type Database, sql } from '../platform/database';

/** What the request to place a call needs. */
export interface CallToPlace {
  /** E.164. */
  to: string;
  assistantId: string;
  phoneNumberId: string;
  variables: Record<string, unknown>;
  metadata: Record<string, unknown>;
  maxDurationSeconds: number;
}

/** Which request is to be sent: the first one after `dials` requests that are known to have dialled nothing. */
export interface PlacementOrder {
  callId: string;
  /** Names the claim; a new UUID each time. */
  claimId: string;
  dials: number;
  /** Milliseconds since 1970; afterwards the request must not be sent any more. */
  notAfterMs?: number | undefined;
}

/**
 * `taken`: the request was claimed before, the row follows a call already, or it is done. `expired`: nobody has claimed it, and it is
 * too late now.
 */
export type PlacementClaim =
  | { kind: 'claimed'; call: CallToPlace }
  | { kind: 'taken'; providerCallId: string | null }
  | { kind: 'expired' };

/** A call of ours that has rung no phone: no request to place it has an unknown outcome, and Vapi has reported nothing. */
export const nothingDialled = sql`(request_hash IS NOT NULL AND status = 'queued' AND dialled_at IS NULL AND provider_call_id IS NULL)`;

/** The error of a call whose request was claimed, or was to be, and never sent. */
export const NOT_DIALLED = 'nothing was dialled: the worker that was to place the call was lost or paused before it sent the request';

/**
 * Claims the right to send the request. One atomic UPDATE: whoever raises the count may dial, once, and soon (see claim-fence.ts). An
 * operator's reset of the workflow starts with an old number, and so dials nothing.
 */
export async function claimPlacement(db: Database, { callId, claimId, dials, notAfterMs }: PlacementOrder): Promise<PlacementClaim> {
  const notAfter = notAfterMs === undefined ? null : new Date(notAfterMs);
  const rows = await db.query<CallToPlace>(sql`
    UPDATE vapi_call_results SET dialled_at = now(), dial_count = dial_count + 1, dial_claim = ${claimId}::uuid, updated_at = now()
    WHERE id = ${callId}::uuid AND dial_count = ${dials} AND provider_call_id IS NULL AND done_at IS NULL
      AND now() <= COALESCE(${notAfter}::timestamptz, 'infinity')
    RETURNING to_number AS "to", assistant_id AS "assistantId", phone_number_id AS "phoneNumberId",
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
 * Takes back a claim whose request has certainly dialled nothing. The count stays: only an order that knows of this one may dial
 * again. If somebody has concluded meanwhile that the outcome is unknown, the row now says what it was. Returns whether the claim
 * was in effect.
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

/** How a placement whose outcome is unknown can be recognised at Vapi. */
export interface SoughtPlacement {
  /** Vapi's id, once it is known. */
  providerCallId: string | null;
  assistantId: string | null;
  phoneNumberId: string | null;
  /** When the last request to place the call was begun. */
  dialledAtMs: number;
  /** Placements that came to nothing. */
  formerIds: string[];
}

/** Undefined when there is no such call. */
export async function findSoughtPlacement(db: Database, callId: string): Promise<SoughtPlacement | undefined> {
  const row = await db.orm.vapiCallResult.findUnique({
    where: { id: callId },
    select: {
      providerCallId: true,
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
 * Forgets a placement that Vapi ended without dialling: the row is as it was before it, and keeps the id as a former one. Does
 * nothing when the row follows another call or is done.
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
      recordingUrl: null,
      summary: null,
      structuredData: Prisma.DbNull,
      successEvaluation: null,
      providerContext: Prisma.DbNull,
      rawPayload: Prisma.DbNull,
    },
  });
}
