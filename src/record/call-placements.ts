/** Placing a call of ours: who may send the request, how the placed call is found again, and what is forgotten when none was dialled. */
import { Prisma } from '../../prisma/generated/client';
import { type Database, sql } from '../platform/database';
import { findCallFacts } from './calls';

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

/** `taken`: the request of this number was claimed before, the row follows a call already, or it is done. */
export type PlacementClaim = { kind: 'claimed'; call: CallToPlace } | { kind: 'taken'; providerCallId: string | null };

/**
 * Claims the right to send one request that places the call; `dials` is the number of requests that are known to have dialled
 * nothing. One atomic UPDATE: whoever raises the count may dial, once. An operator's reset of the workflow starts with an old
 * number, and so dials nothing.
 */
export async function claimPlacement(db: Database, { callId, dials }: { callId: string; dials: number }): Promise<PlacementClaim> {
  const rows = await db.query<CallToPlace>(sql`
    UPDATE vapi_call_results SET dialled_at = now(), dial_count = dial_count + 1, updated_at = now()
    WHERE id = ${callId}::uuid AND dial_count = ${dials} AND provider_call_id IS NULL AND done_at IS NULL
    RETURNING to_number AS "to", assistant_id AS "assistantId", phone_number_id AS "phoneNumberId",
      COALESCE(variables, '{}') AS variables, COALESCE(metadata, '{}') AS metadata, max_duration_seconds AS "maxDurationSeconds"`);
  if (rows[0]) return { kind: 'claimed', call: rows[0] };
  return { kind: 'taken', providerCallId: (await findCallFacts(db, callId))?.providerCallId ?? null };
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
