/**
 * Voice calls over HTTP: start one, wait for its result, look for earlier ones, end one. Made for callers such as Kestra: what a
 * real one does with an answer decided the form (always 200 with a whole body while the call is known, `done` a boolean, no 204).
 */
import { createHash } from 'node:crypto';
import { type Client, WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError } from '@temporalio/client';
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { Prisma, type PrismaClient, type VapiCallResult } from '../../prisma/generated/client';
import { CALL_WORKFLOW, callInput, callStart, callWorkflowId, endRequested, QUEUE_FOR_MS } from '../../workflows/contract';
import { ApiError, guardedProblems, problems, RETRY_AFTER } from '../http/errors';
import { keyHash } from '../http/rate-limits';
import { clientLeft, noQuery, parsed } from '../http/requests';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { normalisedPhone } from '../platform/phone';
import { callbackProblem, callbackSettings } from '../providers/callback/client';
import { vapiId } from '../providers/vapi/id';
import type { Identity } from '../record/identity';
import {
  callIdParameter,
  listQuery,
  pageQuery,
  phoneParameter,
  refuseUnsafeText,
  START_EXAMPLE,
  type StartBody,
  showQuery,
  startBody,
  startHeaders,
} from './call-requests';
import type { CallWaiters } from './call-waiters';
import { type CallInclude, callView, callViewSchema } from './views/call';

export interface CallDependencies {
  settings: Settings;
  db: Database;
  temporal: Client;
  waiters: CallWaiters;
  logger: Logger;
  /** Undefined until the record has been reached once. */
  identity(): Identity | undefined;
}

/** Temporal refuses or is slow after this long; the caller comes again with the same key. */
const START_TIMEOUT_MS = 5_000;
const BODY_LIMIT_BYTES = 256 * 1024;
/** A workflow that is over without a result: whether somebody has started it again is looked at this often. */
const LOOK_AGAIN_MS = 5_000;

const callPage = z
  .object({
    data: z.array(callViewSchema),
    next: z.string().nullable().meta({ description: '`before` of the next page; null on the last.' }),
  })
  .meta({ id: 'CallPage', description: 'Newest first.' });

/** Routes under `/api/v1/vapi/calls`. */
export function callRoutes(dependencies: CallDependencies): Router {
  const router = Router();
  router.post('/', express.json({ limit: BODY_LIMIT_BYTES, type: () => true }), (request, response) =>
    startCall(dependencies, request, response),
  );
  router.get('/', (request, response) => listCalls(dependencies, request, response));
  router.get('/by-phone/:phone', (request, response) => listCallsByPhone(dependencies, request, response));
  router.get('/:callId', (request, response) => showCall(dependencies, request, response));
  router.delete('/:callId', (request, response) => endCall(dependencies, request, response));
  return router;
}

async function startCall(dependencies: CallDependencies, request: Request, response: Response): Promise<void> {
  const { settings, db, logger } = dependencies;
  parsed(noQuery, request.query);
  const { 'Idempotency-Key': idempotencyKey } = parsed(startHeaders, { 'Idempotency-Key': request.get('Idempotency-Key') });
  refuseUnsafeText(request.body);
  const body = parsed(startBody, request.body);
  const identity = dependencies.identity();
  if (!identity) throw new ApiError(503, 'the record has not been reached yet; please come again', RETRY_AFTER);
  if (!settings.VAPI_API_KEY) throw new ApiError(422, 'voice calls are not set up here (VAPI_API_KEY)');
  const placement = placementOf(body, settings);
  const callId = identity.callId({ caller: keyHash(request), idempotencyKey });
  const row = await ensureRow(db.orm, callId, body, placement);
  if (row.requestHash !== hashOf(body)) throw new ApiError(409, 'this Idempotency-Key was used with another body');
  if (row.doneAt === null) await startWorkflow(dependencies, row);
  // No word of the caller's: a reference may be somebody's name or number.
  logger.info({ callId, workflowId: row.workflowId }, 'call taken');
  response.status(202).location(callView(row).links.self).json(callView(row));
}

interface Placement {
  assistantId: string;
  phoneNumberId: string;
}

/** @throws ApiError 422 for what is right in form and cannot be done */
function placementOf(body: StartBody, settings: Settings): Placement {
  const assistantId = body.assistantId ?? settings.VAPI_ASSISTANT_ID;
  const phoneNumberId = body.phoneNumberId ?? settings.VAPI_PHONE_NUMBER_ID;
  if (!assistantId) throw new ApiError(422, 'assistantId: none is given, and VAPI_ASSISTANT_ID is not set');
  if (!phoneNumberId) throw new ApiError(422, 'phoneNumberId: none is given, and VAPI_PHONE_NUMBER_ID is not set');
  const refusal = body.callbackUrl === undefined ? undefined : callbackProblem(body.callbackUrl, callbackSettings(settings));
  if (refusal !== undefined) throw new ApiError(422, `callbackUrl: ${refusal}`);
  return { assistantId, phoneNumberId };
}

/** The row of the key: made by the first request, found by every other. */
async function ensureRow(orm: PrismaClient, callId: string, body: StartBody, placement: Placement): Promise<VapiCallResult> {
  const { to, variables, metadata, maxDurationSeconds, serviceRequestId, callbackUrl } = body;
  const row = {
    id: callId,
    workflowId: callWorkflowId(callId),
    direction: 'outbound' as const,
    toNumber: to,
    ...placement,
    variables: (variables ?? Prisma.DbNull) as Prisma.InputJsonObject,
    metadata: (metadata ?? Prisma.DbNull) as Prisma.InputJsonObject,
    maxDurationSeconds,
    serviceRequestId: serviceRequestId ?? null,
    callbackUrl: callbackUrl ?? null,
    requestHash: hashOf(body),
  };
  await fromRecord(orm.vapiCallResult.createMany({ data: [row], skipDuplicates: true }));
  return await rowOf(orm, callId);
}

/** A body that a flow renders anew has its keys in another order: what was parsed is compared, not what was sent. */
function hashOf(body: StartBody): string {
  return createHash('sha256')
    .update(JSON.stringify(sorted(body)))
    .digest('hex');
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  );
}

async function rowOf(orm: PrismaClient, callId: string): Promise<VapiCallResult> {
  return await fromRecord(orm.vapiCallResult.findUniqueOrThrow({ where: { id: callId } }));
}

/**
 * Starting twice is starting once, while the first one runs. A closed execution is another matter: it has written its result, or
 * it was stopped from outside, or it belonged to an earlier row of this key that retention has removed. Read after it has closed,
 * the row tells: with a result nothing is started; an open one is followed anew. That cannot dial twice: an execution dials
 * only a row that no other has claimed, and otherwise looks for the call that was placed.
 */
async function startWorkflow(dependencies: CallDependencies, row: VapiCallResult): Promise<void> {
  if (await begin(dependencies, row, 'REJECT_DUPLICATE')) return;
  const { doneAt } = await rowOf(dependencies.db.orm, row.id);
  if (doneAt === null) await begin(dependencies, row, 'ALLOW_DUPLICATE');
}

/** False when the policy forbids it. @throws ApiError 503 when Temporal did not take it: the row waits for the next attempt */
async function begin(
  { settings, temporal, logger }: CallDependencies,
  row: VapiCallResult,
  workflowIdReusePolicy: 'REJECT_DUPLICATE' | 'ALLOW_DUPLICATE',
): Promise<boolean> {
  const input = callInput(row, settings, { dials: true, queueForMs: QUEUE_FOR_MS });
  const start = { ...callStart(input, settings.TEMPORAL_TASK_QUEUE), workflowIdReusePolicy };
  try {
    await temporal.connection.withDeadline(Date.now() + START_TIMEOUT_MS, () => temporal.workflow.start(CALL_WORKFLOW, start));
    return true;
  } catch (error) {
    if (error instanceof WorkflowExecutionAlreadyStartedError) return false;
    logger.error({ error, callId: row.id }, 'Temporal did not take the call; the caller is asked to come again');
    throw new ApiError(503, 'the call was not taken; please send it again with the same Idempotency-Key', RETRY_AFTER);
  }
}

async function showCall(dependencies: CallDependencies, request: Request, response: Response): Promise<void> {
  const left = clientLeft(response);
  const { wait = 0, include: parts = [] } = parsed(showQuery, request.query);
  const row = await findCall(dependencies.db.orm, request);
  const current = row.doneAt !== null || wait === 0 ? row : await whenDone(dependencies, row, wait * 1_000, left);
  if (!left.aborted) answer(response, current, parts);
}

/** The row when it is done, or when the time is over. An open one before that would only be asked for again, at once and for ever. */
async function whenDone(
  { db, waiters }: CallDependencies,
  row: VapiCallResult,
  waitMs: number,
  left: AbortSignal,
): Promise<VapiCallResult> {
  const untilMs = Date.now() + waitMs;
  for (;;) {
    const isOver = await waiters.wait(row.workflowId, untilMs - Date.now(), left);
    if (left.aborted) return row;
    const current = await rowOf(db.orm, row.id);
    const restMs = Math.min(untilMs - Date.now(), LOOK_AGAIN_MS);
    if (!isOver || current.doneAt !== null || restMs <= 0) return current;
    // Stopped from outside, or not started yet.
    await waiters.rest(restMs, left);
  }
}

function answer(response: Response, row: VapiCallResult, parts: readonly CallInclude[]): void {
  response.set('Cache-Control', 'no-store').json(callView(row, parts));
}

/** @throws ApiError 404 */
async function findCall(orm: PrismaClient, request: Request): Promise<VapiCallResult> {
  const { callId } = parsed(callIdParameter, request.params);
  const isUuid = z.guid().safeParse(callId).success;
  // Vapi's ids are UUIDs as well, as a rule: ours is looked for first.
  const own = isUuid ? await fromRecord(orm.vapiCallResult.findUnique({ where: { id: callId } })) : null;
  const isVapis = own === null && vapiId.safeParse(callId).success;
  const row = isVapis ? await fromRecord(orm.vapiCallResult.findUnique({ where: { providerCallId: callId } })) : own;
  if (!row) throw new ApiError(404, 'no such call');
  return row;
}

async function endCall(dependencies: CallDependencies, request: Request, response: Response): Promise<void> {
  const { db, temporal, logger } = dependencies;
  parsed(noQuery, request.query);
  const row = await findCall(db.orm, request);
  if (row.doneAt === null) {
    try {
      await temporal.connection.withDeadline(Date.now() + START_TIMEOUT_MS, () =>
        temporal.workflow.getHandle(row.workflowId).signal(endRequested),
      );
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) throw new ApiError(409, 'the call is not running');
      logger.error({ error, callId: row.id }, 'the end of a call could not be asked for');
      throw new ApiError(503, 'the end of the call could not be asked for; please come again', RETRY_AFTER);
    }
    logger.info({ callId: row.id }, 'end of the call asked for');
  }
  response.status(row.doneAt === null ? 202 : 200).json(callView(row));
}

async function listCalls({ db }: CallDependencies, request: Request, response: Response): Promise<void> {
  const { limit, before, status, outcome, serviceRequestId, needsAttention, since } = parsed(listQuery, request.query);
  const where = {
    ...(status ? { status } : {}),
    ...(outcome ? { outcome } : {}),
    ...(serviceRequestId ? { serviceRequestId } : {}),
    ...(needsAttention === undefined ? {} : { needsAttention }),
    ...(since ? { createdAt: { gte: since } } : {}),
  };
  response.json(await callPageOf(db.orm, where, { limit, before }));
}

async function listCallsByPhone({ db }: CallDependencies, request: Request, response: Response): Promise<void> {
  const query = parsed(pageQuery, request.query);
  const { phone: written } = parsed(phoneParameter, request.params);
  const phone = normalisedPhone(written.trim().startsWith('+') ? written : `+${written.trim()}`);
  if (phone === undefined) throw new ApiError(400, 'phone: must be a phone number with its country code');
  response.json(await callPageOf(db.orm, { OR: [{ toNumber: phone }, { fromNumber: phone }] }, query));
}

type Page = { limit?: number | undefined; before?: { at: Date; id: string } | undefined };

async function callPageOf(
  orm: PrismaClient,
  where: Prisma.VapiCallResultWhereInput,
  { limit = 50, before }: Page,
): Promise<z.output<typeof callPage>> {
  const older = before ? { OR: [{ createdAt: { lt: before.at } }, { createdAt: before.at, id: { lt: before.id } }] } : {};
  const rows = await fromRecord(
    orm.vapiCallResult.findMany({
      where: { AND: [where, older] },
      orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
      take: limit + 1,
    }),
  );
  const last = rows[limit - 1];
  return {
    data: rows.slice(0, limit).map((row) => callView(row)),
    next: rows.length > limit && last ? `${last.createdAt.getTime()}_${last.id}` : null,
  };
}

const json = <T extends z.ZodType>(schema: T) => ({ content: { 'application/json': { schema } } });

/** What the OpenAPI document says of these routes. */
export const callPaths: ZodOpenApiPathsObject = {
  '/api/v1/vapi/calls': {
    post: {
      tags: ['Calls'],
      security: [{ bearer: [] }],
      operationId: 'startCall',
      summary: 'Start a call',
      description:
        'The same key and body is the same call: send it again whenever the answer was lost. Over the limit of calls at once, it is queued.',
      requestParams: { header: startHeaders },
      requestBody: { required: true, content: { 'application/json': { schema: startBody, example: START_EXAMPLE } } },
      responses: {
        202: { description: 'Taken. `done` is true when the same key was used before and the call is over.', ...json(callViewSchema) },
        ...guardedProblems,
        ...problems({
          409: 'The key was used with another body.',
          413: 'The body is larger than 256 KB.',
          415: 'A compression or a character set of the body that is not known.',
          422: 'Right in form, and cannot be done here; `detail` says why.',
        }),
      },
    },
    get: {
      tags: ['Calls'],
      security: [{ bearer: [] }],
      operationId: 'listCalls',
      summary: 'List calls, newest first',
      requestParams: { query: listQuery },
      responses: { 200: { description: 'A page.', ...json(callPage) }, ...guardedProblems },
    },
  },
  '/api/v1/vapi/calls/by-phone/{phone}': {
    get: {
      tags: ['Calls'],
      security: [{ bearer: [] }],
      operationId: 'listCallsByPhone',
      summary: 'List the calls with one number, newest first',
      requestParams: { path: phoneParameter, query: pageQuery },
      responses: { 200: { description: 'A page.', ...json(callPage) }, ...guardedProblems },
    },
  },
  '/api/v1/vapi/calls/{callId}': {
    get: {
      tags: ['Calls'],
      security: [{ bearer: [] }],
      operationId: 'showCall',
      summary: 'Show a call, or wait for its result',
      description: 'Always 200 while the call is known, with every field. A call that failed is no error of this request: see `outcome`.',
      requestParams: { path: callIdParameter, query: showQuery },
      responses: {
        200: { description: 'The call as it stands.', ...json(callViewSchema) },
        ...guardedProblems,
        ...problems({ 404: 'No such call.' }),
      },
    },
    delete: {
      tags: ['Calls'],
      security: [{ bearer: [] }],
      operationId: 'endCall',
      summary: 'End a call, or take it out of the queue',
      requestParams: { path: callIdParameter },
      responses: {
        200: { description: 'It was over already.', ...json(callViewSchema) },
        202: { description: 'Its end was asked for; wait for it with GET.', ...json(callViewSchema) },
        ...guardedProblems,
        ...problems({ 404: 'No such call.', 409: 'The call is not running.' }),
      },
    },
  },
};
