/** Rows of calls: created once, read by their keys, listed newest first. */
import { Prisma, type VapiCallResult } from '../../prisma/generated/client';
import { type CallStatus, callWorkflowId } from '../../workflows/contract';
import { type Database, sql } from '../platform/database';
import { phoneSpellings } from '../platform/phone';
import { type Actor, auditInsert } from './audit';
import { CALL_OUTCOMES, type CallOutcome } from './call-outcome';
import { type Page, pageOf } from './page';
import { inScope, type Scope } from './scope';

/** The whole row of a call. */
export type Call = VapiCallResult;

/** Columns that may be many kilobytes long. Lists do not read them. */
const largeColumns = { transcript: true, messages: true, rawPayload: true, providerContext: true, variables: true } satisfies {
  [K in keyof Call]?: true;
};
export type LargeCallFields = Pick<Call, keyof typeof largeColumns>;
/** A call without its large columns. */
export type CallSummary = Omit<Call, keyof typeof largeColumns>;

/** A requested call. */
export interface NewCall {
  id: string;
  /** E.164. */
  to: string;
  /** Undefined if there is no workspace. */
  workspaceId: string | undefined;
  assistantId: string;
  phoneNumberId: string;
  variables?: object | undefined;
  metadata?: object | undefined;
  maxDurationSeconds: number;
  serviceRequestId?: string | undefined;
  callbackUrl?: string | undefined;
  /** Hash of the request. */
  requestHash: string;
}

/** Creates the row of an outbound call, or finds the one that an earlier request with the same id created. */
export async function findOrCreateCall(db: Database, call: NewCall): Promise<Call> {
  const { id, to, workspaceId, variables, metadata, serviceRequestId, callbackUrl, ...fields } = call;
  const row = {
    ...fields,
    id,
    workflowId: callWorkflowId(id),
    direction: 'outbound' as const,
    toNumber: to,
    workspaceId: workspaceId ?? null,
    variables: (variables ?? Prisma.DbNull) as Prisma.InputJsonObject,
    metadata: (metadata ?? Prisma.DbNull) as Prisma.InputJsonObject,
    serviceRequestId: serviceRequestId ?? null,
    callbackUrl: callbackUrl ?? null,
  };
  await db.orm.vapiCallResult.createMany({ data: [row], skipDuplicates: true });
  return await getCall(db, id);
}

/** @throws if there is no such call */
export async function getCall(db: Database, id: string): Promise<Call> {
  return await db.orm.vapiCallResult.findUniqueOrThrow({ where: { id } });
}

/** Null if the scope has no such call. */
export async function findCall(db: Database, id: string, scope?: Scope): Promise<Call | null> {
  return await db.orm.vapiCallResult.findUnique({ where: { id, ...inScope(scope) } });
}

/** The call with this id at Vapi; null if the scope has none. */
export async function findCallByProviderId(db: Database, providerCallId: string, scope: Scope): Promise<Call | null> {
  return await db.orm.vapiCallResult.findUnique({ where: { providerCallId, ...inScope(scope) } });
}

/** The columns that say whether a call has a recording. */
export type RecordedCall = Pick<Call, 'id' | 'workspaceId' | 'providerCallId' | 'recordingUrl' | 'doneAt'>;

/** Finds a call by either id; null if the scope has no such call. */
export async function findRecordedCall(
  db: Database,
  keys: { id?: string; providerCallId: string },
  scope: Scope,
): Promise<RecordedCall | null> {
  return await db.orm.vapiCallResult.findFirst({
    where: { ...inScope(scope), OR: [{ providerCallId: keys.providerCallId }, ...(keys.id === undefined ? [] : [{ id: keys.id }])] },
    select: { id: true, workspaceId: true, providerCallId: true, recordingUrl: true, doneAt: true },
  });
}

/** Undefined fields do not filter. */
export interface CallFilter {
  workspaceId?: string | undefined;
  status?: CallStatus | undefined;
  outcome?: CallOutcome | undefined;
  serviceRequestId?: string | undefined;
  needsAttention?: boolean | undefined;
  since?: Date | undefined;
  /** Caller or called number, E.164, in any spelling. */
  number?: string | undefined;
}

/** Ordered by creation time, newest first; `before`: time and id of the last row of the previous page. */
export async function findCalls(
  db: Database,
  { workspaceId, status, outcome, serviceRequestId, needsAttention, since, number }: CallFilter,
  { limit, before }: { limit: number; before?: { at: Date; id: string } | undefined },
): Promise<Page<CallSummary>> {
  const wanted = {
    ...(workspaceId ? { workspaceId } : {}),
    ...(status ? { status } : {}),
    ...(outcome ? { outcome } : {}),
    ...(serviceRequestId ? { serviceRequestId } : {}),
    ...(needsAttention === undefined ? {} : { needsAttention }),
    ...(since ? { createdAt: { gte: since } } : {}),
    ...(number ? { OR: [{ toNumber: { in: spellings(number) } }, { fromNumber: { in: spellings(number) } }] } : {}),
  };
  const older = before ? { OR: [{ createdAt: { lt: before.at } }, { createdAt: before.at, id: { lt: before.id } }] } : {};
  const rows = await db.orm.vapiCallResult.findMany({
    where: { AND: [wanted, older] },
    orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
    take: limit + 1,
    omit: largeColumns,
  });
  return pageOf(rows, limit);
}

/** The calls with one reference, in one workspace or, if none is given, in all. */
export interface CallReference {
  serviceRequestId: string;
  workspaceId?: string | undefined;
}

/** Progress of the calls with one reference. */
export interface CallProgress {
  /** Calls that are not done. */
  pending: number;
  /** Calls that are done, by outcome. */
  counts: Record<CallOutcome, number>;
  /** Workflows of the newest calls that are not done, newest first. */
  awaited: string[];
}

/** Reads the progress, with at most `awaited` workflows. */
export async function findCallProgress(
  db: Database,
  { serviceRequestId, workspaceId }: CallReference,
  { awaited }: { awaited: number },
): Promise<CallProgress> {
  const inWorkspace = workspaceId === undefined ? sql`TRUE` : sql`workspace_id = ${workspaceId}::uuid`;
  const [row] = await db.query<Pick<CallProgress, 'pending' | 'awaited'> & { done: Partial<CallProgress['counts']> | null }>(sql`
    WITH calls AS MATERIALIZED (
      SELECT workflow_id, created_at, done_at, COALESCE(outcome, 'unknown') AS outcome
      FROM vapi_call_results WHERE service_request_id = ${serviceRequestId} AND ${inWorkspace})
    SELECT (SELECT count(*)::int FROM calls WHERE done_at IS NULL) AS pending,
      (SELECT json_object_agg(outcome, count) FROM (SELECT outcome, count(*)::int FROM calls WHERE done_at IS NOT NULL GROUP BY 1) c) AS done,
      ARRAY(SELECT workflow_id FROM calls WHERE done_at IS NULL ORDER BY created_at DESC LIMIT ${awaited}) AS awaited`);
  if (!row) throw new Error('counting the calls failed');
  const counts = Object.fromEntries(CALL_OUTCOMES.map((outcome) => [outcome, row.done?.[outcome] ?? 0]));
  return { pending: row.pending, counts: counts as CallProgress['counts'], awaited: row.awaited };
}

const spellings = (number: string) => phoneSpellings(number).map((digits) => `+${digits}`);

/** Marks the call as needing a person, because its callback was given up. */
export async function recordCallbackFailure(db: Database, id: string): Promise<void> {
  await db.orm.vapiCallResult.updateMany({ where: { id }, data: { needsAttention: true, callbackFailedAt: new Date() } });
}

/** A person has looked: the call no longer needs attention. */
export async function clearCallAttention(db: Database, { id, workspaceId }: Pick<Call, 'id' | 'workspaceId'>, actor: Actor): Promise<void> {
  const entry = { actor, workspaceId: workspaceId ?? undefined, action: 'call.attention_cleared', subject: `call ${id}` };
  await db.query(sql`
    WITH cleared AS (
      UPDATE vapi_call_results SET needs_attention = false, callback_failed_at = NULL, updated_at = now()
      WHERE id = ${id}::uuid AND (needs_attention OR callback_failed_at IS NOT NULL) RETURNING 1
    )
    ${auditInsert(entry, sql`SELECT 1 FROM cleared`)}`);
}

/** What is known about a call so far. */
export interface CallFacts {
  workspaceId: string | null;
  providerCallId: string | null;
  status: string;
  endedReason: string | null;
  /** Whether a report is stored, or a snapshot of the call after its end. */
  hasReport: boolean;
  /** Whether there was a conversation. */
  wasInProgress: boolean;
  /** Whether the person on the phone said anything; undefined if no report shows it. */
  customerSpoke?: boolean | undefined;
}

/** The columns that `factsOf` reads. */
export const factColumns = {
  workspaceId: true,
  providerCallId: true,
  status: true,
  endedReason: true,
  startedAt: true,
  answeredAt: true,
  rawPayload: true,
  customerSpoke: true,
} satisfies Prisma.VapiCallResultSelect;

type FactRow = Prisma.VapiCallResultGetPayload<{ select: typeof factColumns }>;

/** The facts in a row. */
export function factsOf({
  workspaceId,
  providerCallId,
  status,
  endedReason,
  startedAt,
  answeredAt,
  rawPayload,
  customerSpoke,
}: FactRow): CallFacts {
  return {
    workspaceId,
    providerCallId,
    status,
    endedReason,
    hasReport: rawPayload !== null,
    wasInProgress: startedAt !== null || answeredAt !== null,
    customerSpoke: customerSpoke ?? undefined,
  };
}

/** The workspace of the call with this id at Vapi; null if none is known. */
export async function findWorkspaceOfCall(db: Database, providerCallId: string): Promise<string | null> {
  const row = await db.orm.vapiCallResult.findUnique({ where: { providerCallId }, select: { workspaceId: true } });
  return row?.workspaceId ?? null;
}

/** Undefined if there is no such call. */
export async function findCallFacts(db: Database, callId: string): Promise<CallFacts | undefined> {
  const row = await db.orm.vapiCallResult.findUnique({ where: { id: callId }, select: factColumns });
  return row ? factsOf(row) : undefined;
}
