/** Calls, read by their keys. */
import type { Prisma } from '../../prisma/generated/client';
import type { Database } from '../platform/database';

/** What the record knows of a call so far. */
export interface CallFacts {
  providerCallId: string | null;
  status: string;
  endedReason: string | null;
  /** Whether a report is stored, or a snapshot of the call after its end. */
  hasReport: boolean;
  /** Whether somebody was in conversation. */
  wasInProgress: boolean;
}

/** The columns that `factsOf` reads. */
export const factColumns = {
  providerCallId: true,
  status: true,
  endedReason: true,
  startedAt: true,
  answeredAt: true,
  rawPayload: true,
} satisfies Prisma.VapiCallResultSelect;

type FactRow = Prisma.VapiCallResultGetPayload<{ select: typeof factColumns }>;

export function factsOf({ providerCallId, status, endedReason, startedAt, answeredAt, rawPayload }: FactRow): CallFacts {
  return {
    providerCallId,
    status,
    endedReason,
    hasReport: rawPayload !== null,
    wasInProgress: startedAt !== null || answeredAt !== null,
  };
}

/** Undefined when there is no such call. */
export async function findCallFacts(db: Database, callId: string): Promise<CallFacts | undefined> {
  const row = await db.orm.vapiCallResult.findUnique({ where: { id: callId }, select: factColumns });
  return row ? factsOf(row) : undefined;
}
