/**
 * Voice calls: start one, wait for its result, list earlier ones, end one. The responses are shaped for Kestra: a known call is always a
 * 200 with a complete body, `done` is a boolean, and there is no 204.
 */
import { createHash } from 'node:crypto';
import { type Client, WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError } from '@temporalio/client';
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { CALL_WORKFLOW, callInput, callStart, endRequested, QUEUE_FOR_MS } from '../../workflows/contract';
import { accessOf, workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems, RETRY_AFTER } from '../http/errors';
import { needs } from '../http/permissions';
import { keyHash } from '../http/rate-limits';
import { clientLeft, noQuery, parsed, parsedQuery } from '../http/requests';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { callbackProblem, callbackSettings } from '../providers/callback/client';
import { vapiId } from '../providers/vapi/id';
import { recordAudit } from '../record/audit';
import { CALL_OUTCOMES, type CallOutcome } from '../record/call-outcome';
import {
  type Call,
  type CallFilter,
  clearCallAttention,
  findCall,
  findCallByProviderId,
  findCalls,
  findOrCreateCall,
  getCall,
} from '../record/calls';
import type { Identity } from '../record/identity';
import { type CallWorkspace, findCallWorkspace, isVapiNumberOfAnother } from '../record/workspaces';
import { createProgressWaiters, isDone, type ProgressWaiters } from './call-progress';
import {
  attentionBody,
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
import { callView, callViewSchema } from './views/call';

export interface CallDependencies {
  settings: Settings;
  /** The settings of a workspace; of the environment for null. */
  settingsOf(workspaceId: string | null): Promise<Settings>;
  db: Database;
  temporal: Client;
  waiters: CallWaiters;
  logger: Logger;
  /** Undefined until PostgreSQL has been reached once. */
  identity(): Identity | undefined;
}

/** Timeout of a request to Temporal. After a timeout the client retries with the same key. */
const TEMPORAL_TIMEOUT_MS = 5_000;
const BODY_LIMIT_BYTES = 256 * 1024;
const NO_SUCH_WORKSPACE = 'workspaceId: there is no such workspace';
/** How often to check whether a workflow that ended without a result was started again, in milliseconds. */
const LOOK_AGAIN_MS = 5_000;

const callPage = z
  .object({
    data: z.array(callViewSchema),
    next: z.string().nullable().meta({ description: '`before` for the next page; null on the last page.' }),
  })
  .meta({ id: 'CallPage', description: 'Newest first.' });

const count = z.int().min(0);
const callList = callPage
  .extend({
    done: z.boolean().nullable().meta({
      description: 'Whether there are calls with this `serviceRequestId`, and all of them are done; null if the request has none.',
    }),
    pending: count.nullable().meta({ description: 'How many calls with this `serviceRequestId` are not done.' }),
    counts: z
      .object(Object.fromEntries(CALL_OUTCOMES.map((outcome) => [outcome, count])) as Record<CallOutcome, typeof count>)
      .nullable()
      .meta({
        description:
          'How many calls with this `serviceRequestId` ended with each outcome. Neither other filters nor pages affect this or `done`.',
      }),
  })
  .meta({ id: 'CallList', description: 'Newest first.' });

/** Routes under `/api/v1/vapi/calls`. */
export function callRoutes(dependencies: CallDependencies): Router {
  const router = Router();
  const progress = createProgressWaiters(dependencies);
  router.post('/', express.json({ limit: BODY_LIMIT_BYTES, type: () => true }), (request, response) =>
    startCall(dependencies, request, response),
  );
  router.get('/', (request, response) => listCalls(dependencies.db, progress, request, response));
  router.get('/by-phone/:phone', (request, response) => listCallsByPhone(dependencies, request, response));
  router.get('/:callId', (request, response) => showCall(dependencies, request, response));
  router.post('/:callId/attention', express.json({ limit: BODY_LIMIT_BYTES, type: () => true }), (request, response) =>
    clearAttention(dependencies, request, response),
  );
  router.delete('/:callId', (request, response) => endCall(dependencies, request, response));
  return router;
}

async function startCall(dependencies: CallDependencies, request: Request, response: Response): Promise<void> {
  const { settingsOf, db, logger } = dependencies;
  parsedQuery(noQuery, request.query);
  const { 'Idempotency-Key': idempotencyKey } = parsed(startHeaders, { 'Idempotency-Key': request.get('Idempotency-Key') });
  refuseUnsafeText(request.body);
  const body = parsed(startBody, request.body);
  const identity = dependencies.identity();
  if (!identity) throw new ApiError(503, 'still starting; please retry', RETRY_AFTER);
  const scope = workspaceOf(response);
  // Not `workspaceOf`'s 404: the body is at fault, as with a workspace that does not exist.
  if (scope !== undefined && body.workspaceId !== undefined && body.workspaceId !== scope) throw new ApiError(422, NO_SUCH_WORKSPACE);
  const workspace = await fromRecord(findCallWorkspace(db, scope ?? body.workspaceId));
  const own = await settingsOf(workspace?.id ?? null);
  if (!own.VAPI_API_KEY) throw new ApiError(422, 'voice calls are not configured (VAPI_API_KEY, or the vapiApiKey of the workspace)');
  const placement = placementOf(body, workspace, own);
  if (scope !== undefined && (await fromRecord(isVapiNumberOfAnother(db, placement.phoneNumberId, scope))))
    throw new ApiError(422, 'phoneNumberId: is not a number of this workspace');
  const callId = identity.callId({ caller: keyHash(request), idempotencyKey });
  const requestHash = hashOf(body);
  const call = await fromRecord(findOrCreateCall(db, { ...body, ...placement, id: callId, requestHash }));
  if (call.requestHash !== requestHash) throw new ApiError(409, 'this Idempotency-Key was used with a different body');
  if (call.doneAt === null) await startWorkflow(dependencies, call);
  // Log nothing that the client wrote: a reference may be a name or a phone number.
  logger.info({ callId, workflowId: call.workflowId }, 'call accepted');
  const view = callView(call);
  response.status(202).location(view.links.self).json(view);
}

interface Placement {
  workspaceId: string | undefined;
  assistantId: string;
  phoneNumberId: string;
}

/** @throws ApiError 422 for a valid request that cannot be carried out here */
function placementOf(body: StartBody, workspace: CallWorkspace | undefined, settings: Settings): Placement {
  const assistantId = body.assistantId ?? settings.VAPI_ASSISTANT_ID;
  const phoneNumberId = body.phoneNumberId ?? settings.VAPI_PHONE_NUMBER_ID;
  if (body.workspaceId !== undefined && !workspace) throw new ApiError(422, NO_SUCH_WORKSPACE);
  if (!assistantId) throw new ApiError(422, 'assistantId: is missing, and VAPI_ASSISTANT_ID is not set');
  if (!phoneNumberId) throw new ApiError(422, 'phoneNumberId: is missing, and VAPI_PHONE_NUMBER_ID is not set');
  const refusal = body.callbackUrl === undefined ? undefined : callbackProblem(body.callbackUrl, callbackSettings(settings));
  if (refusal !== undefined) throw new ApiError(422, `callbackUrl: ${refusal}`);
  return { workspaceId: workspace?.id, assistantId, phoneNumberId };
}

/** Hash of the parsed request with sorted keys: a flow that renders the same body again may order them differently. */
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

/**
 * While an execution of the call is running, starting another does nothing. A closed one has written its result, was stopped from
 * outside, or belonged to an earlier row with this key that retention has deleted. Reading the row after the execution has closed tells
 * which: with a result, nothing is started; an open row is followed again. That cannot dial twice: an execution dials only if no other
 * has claimed the row, and otherwise looks for the placed call.
 */
async function startWorkflow(dependencies: CallDependencies, call: Call): Promise<void> {
  if (await tryStart(dependencies, call, 'REJECT_DUPLICATE')) return;
  const { doneAt } = await fromRecord(getCall(dependencies.db, call.id));
  if (doneAt === null) await tryStart(dependencies, call, 'ALLOW_DUPLICATE');
}

/** False if the policy forbids it. @throws ApiError 503 if Temporal fails or is slow; the row then waits for the next request */
async function tryStart(
  { settings, temporal, logger }: CallDependencies,
  call: Call,
  workflowIdReusePolicy: 'REJECT_DUPLICATE' | 'ALLOW_DUPLICATE',
): Promise<boolean> {
  const input = callInput(call, settings, { dials: true, queueForMs: QUEUE_FOR_MS });
  const start = { ...callStart(input, settings.TEMPORAL_TASK_QUEUE), workflowIdReusePolicy };
  try {
    await temporal.connection.withDeadline(Date.now() + TEMPORAL_TIMEOUT_MS, () => temporal.workflow.start(CALL_WORKFLOW, start));
    return true;
  } catch (error) {
    if (error instanceof WorkflowExecutionAlreadyStartedError) return false;
    logger.error({ error, callId: call.id }, 'Temporal did not accept the call; asking the client to retry');
    throw new ApiError(503, 'the call was not accepted; please send it again with the same Idempotency-Key', RETRY_AFTER);
  }
}

async function showCall(dependencies: CallDependencies, request: Request, response: Response): Promise<void> {
  const left = clientLeft(response);
  const { wait = 0, include: parts = [] } = parsedQuery(showQuery, request.query);
  const call = await requestedCall(dependencies.db, request, response);
  const current = call.doneAt !== null || wait === 0 ? call : await waitUntilDone(dependencies, call, wait * 1_000, left);
  if (!left.aborted) response.set('Cache-Control', 'no-store').json(callView(current, parts));
}

/** The call once it is done or the time is over, not earlier: otherwise clients would poll in a tight loop. */
async function waitUntilDone({ db, waiters }: CallDependencies, call: Call, waitMs: number, left: AbortSignal): Promise<Call> {
  const untilMs = Date.now() + waitMs;
  for (;;) {
    const isOver = await waiters.wait(call.workflowId, untilMs - Date.now(), left);
    if (left.aborted) return call;
    const current = await fromRecord(getCall(db, call.id));
    const restMs = Math.min(untilMs - Date.now(), LOOK_AGAIN_MS);
    if (!isOver || current.doneAt !== null || restMs <= 0) return current;
    // The workflow was stopped from outside, or was not started yet.
    await waiters.rest(restMs, left);
  }
}

/** The call with the id `:callId`, ours or Vapi's. @throws ApiError 404 */
async function requestedCall(db: Database, request: Request, response: Response): Promise<Call> {
  const { callId } = parsed(callIdParameter, request.params);
  const scope = workspaceOf(response);
  // Vapi's ids are usually UUIDs too; ours take precedence.
  const ours = z.guid().safeParse(callId).success ? await fromRecord(findCall(db, callId, scope)) : null;
  if (ours) return ours;
  const providers = vapiId.safeParse(callId).success ? await fromRecord(findCallByProviderId(db, callId, scope)) : null;
  if (!providers) throw new ApiError(404, 'no such call');
  return providers;
}

async function endCall(dependencies: CallDependencies, request: Request, response: Response): Promise<void> {
  const { db, temporal, logger } = dependencies;
  parsedQuery(noQuery, request.query);
  const call = await requestedCall(db, request, response);
  if (call.doneAt === null) {
    try {
      await temporal.connection.withDeadline(Date.now() + TEMPORAL_TIMEOUT_MS, () =>
        temporal.workflow.getHandle(call.workflowId).signal(endRequested),
      );
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) throw new ApiError(409, 'the call is not running');
      logger.error({ error, callId: call.id }, 'requesting the end of a call failed');
      throw new ApiError(503, 'ending the call failed; please retry', RETRY_AFTER);
    }
    const entry = { actor: accessOf(response), workspaceId: call.workspaceId ?? undefined, subject: `call ${call.id}` };
    await fromRecord(recordAudit(db, { ...entry, action: 'call.end_requested', before: { status: call.status } }));
    logger.info({ callId: call.id }, 'end of the call requested');
  }
  response.status(call.doneAt === null ? 202 : 200).json(callView(call));
}

async function clearAttention({ db, logger }: CallDependencies, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  parsed(attentionBody, request.body);
  const call = await requestedCall(db, request, response);
  await fromRecord(clearCallAttention(db, call, accessOf(response)));
  logger.info({ callId: call.id }, 'attention of the call cleared');
  response.json(callView({ ...call, needsAttention: false }));
}

async function listCalls(db: Database, waiters: ProgressWaiters, request: Request, response: Response): Promise<void> {
  const left = clientLeft(response);
  const { limit, before, wait, workspaceId: requested, ...fields } = parsedQuery(listQuery, request.query);
  const filter = { ...fields, workspaceId: workspaceOf(response, requested) };
  const { serviceRequestId } = filter;
  if (serviceRequestId === undefined) {
    if (wait !== undefined) throw new ApiError(400, 'wait: needs serviceRequestId, which says what to wait for');
    const page = await readPage(db, filter, { limit, before });
    response.json({ ...page, done: null, pending: null, counts: null } satisfies z.input<typeof callList>);
    return;
  }
  const progress = await waiters.wait({ serviceRequestId, workspaceId: filter.workspaceId }, (wait ?? 0) * 1_000, left);
  if (left.aborted) return;
  const page = await readPage(db, filter, { limit, before });
  const { pending, counts } = progress;
  response.set('Cache-Control', 'no-store').json({ ...page, done: isDone(progress), pending, counts } satisfies z.input<typeof callList>);
}

async function listCallsByPhone({ db }: CallDependencies, request: Request, response: Response): Promise<void> {
  const { workspaceId: requested, ...page } = parsedQuery(pageQuery, request.query);
  const workspaceId = workspaceOf(response, requested);
  const { phone: number } = parsed(phoneParameter, request.params);
  response.json(await readPage(db, { number, workspaceId }, page));
}

async function readPage(
  db: Database,
  filter: CallFilter,
  { limit = 50, before }: Omit<z.output<typeof pageQuery>, 'workspaceId'>,
): Promise<z.output<typeof callPage>> {
  const { rows, hasMore } = await fromRecord(findCalls(db, filter, { limit, before }));
  const last = rows.at(-1);
  return {
    data: rows.map((row) => callView(row)),
    next: hasMore && last ? `${last.createdAt.getTime()}_${last.id}` : null,
  };
}

const json = <T extends z.ZodType>(schema: T) => ({ content: { 'application/json': { schema } } });

/** These routes in the OpenAPI document. */
export const callPaths: ZodOpenApiPathsObject = {
  '/api/v1/vapi/calls': {
    post: {
      tags: ['Calls'],
      ...needs('calls:write'),
      operationId: 'startCall',
      summary: 'Start a call',
      description:
        'Safe to repeat: the same key and body return the same call. If too many calls are running, it is queued; a call that cannot be dialled within half an hour fails.',
      requestParams: { header: startHeaders },
      requestBody: { required: true, content: { 'application/json': { schema: startBody, example: START_EXAMPLE } } },
      responses: {
        202: { description: 'Accepted. `done` is true if the same key was used before and the call has ended.', ...json(callViewSchema) },
        ...guardedProblems,
        ...problems({
          409: 'The key was used with a different body.',
          413: 'The body is larger than 256 KB.',
          415: 'Unsupported content encoding or charset.',
          422: 'Valid, but not possible with this configuration; `detail` says why.',
        }),
      },
    },
    get: {
      tags: ['Calls'],
      ...needs('calls:read'),
      operationId: 'listCalls',
      summary: 'List calls, newest first, or wait for all calls with one reference',
      requestParams: { query: listQuery },
      responses: { 200: { description: 'A page, and the progress of the reference.', ...json(callList) }, ...guardedProblems },
    },
  },
  '/api/v1/vapi/calls/by-phone/{phone}': {
    get: {
      tags: ['Calls'],
      ...needs('calls:read'),
      operationId: 'listCallsByPhone',
      summary: 'List the calls from and to a number, newest first',
      requestParams: { path: phoneParameter, query: pageQuery },
      responses: { 200: { description: 'A page.', ...json(callPage) }, ...guardedProblems },
    },
  },
  '/api/v1/vapi/calls/{callId}': {
    get: {
      tags: ['Calls'],
      ...needs('calls:read'),
      operationId: 'showCall',
      summary: 'Show a call, or wait for its result',
      description: 'Always a 200 with every field if the call exists. A failed call is not an error of this request: see `outcome`.',
      requestParams: { path: callIdParameter, query: showQuery },
      responses: {
        200: { description: 'The call in its current state.', ...json(callViewSchema) },
        ...guardedProblems,
        ...problems({ 404: 'No such call.' }),
      },
    },
    delete: {
      tags: ['Calls'],
      ...needs('calls:write'),
      operationId: 'endCall',
      summary: 'End a call, or remove it from the queue',
      requestParams: { path: callIdParameter },
      responses: {
        200: { description: 'It had already ended.', ...json(callViewSchema) },
        202: { description: 'Its end was requested; wait for it with GET.', ...json(callViewSchema) },
        ...guardedProblems,
        ...problems({ 404: 'No such call.', 409: 'The call is not running.' }),
      },
    },
  },
  '/api/v1/vapi/calls/{callId}/attention': {
    post: {
      tags: ['Calls'],
      ...needs('calls:write'),
      operationId: 'clearCallAttention',
      summary: 'Mark a call as reviewed by a person',
      description: 'Sets `needsAttention` to false. Safe to repeat.',
      requestParams: { path: callIdParameter },
      requestBody: { required: true, content: { 'application/json': { schema: attentionBody, example: { clear: true } } } },
      responses: {
        200: { description: 'The call.', ...json(callViewSchema) },
        ...guardedProblems,
        ...problems({
          404: 'No such call.',
          413: 'The body is larger than 256 KB.',
          415: 'Unsupported content encoding or charset.',
        }),
      },
    },
  },
};
