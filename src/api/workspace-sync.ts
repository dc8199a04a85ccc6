/** The import of a workspace's history from Kapso: start, watch, cancel. */
import { randomUUID } from 'node:crypto';
import { type Client, WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError } from '@temporalio/client';
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { SYNC_WORKFLOW, type SyncInput, syncWorkflowId } from '../../workflows/contract';
import { ApiError, bodyProblems, guardedProblems, logged, problems, RETRY_AFTER } from '../http/errors';
import { needs } from '../http/permissions';
import { noQuery, parsed, parsedQuery } from '../http/requests';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { findSync } from '../record/history';
import {
  audit,
  maySeeNumbers,
  requestedWorkspace,
  requireNumber,
  type SettingsOf,
  type SharedAccount,
  workspaceParameters,
} from './kapso-number';

const TEMPORAL_TIMEOUT_MS = 5_000;

const startBody = z
  .strictObject({ fromStart: z.boolean().optional().meta({ description: 'Begins anew, although an earlier import was not finished.' }) })
  .optional();
const time = z.iso.datetime().meta({ description: 'UTC.', example: '2026-11-27T12:00:00.000Z' });
const syncSchema = z
  .object({
    workspaceId: z.guid(),
    workflowId: z.string().meta({ description: 'Id of its workflow in Temporal.' }),
    status: z.enum(['running', 'done', 'failed', 'canceled', 'stopped']).meta({
      description: '`stopped`: its workflow was terminated. Any that is not `done` is resumed by the next start.',
    }),
    phase: z.enum(['conversations', 'messages', 'done']),
    conversations: z.int().meta({ description: 'Conversations that Kapso has listed so far.' }),
    messages: z.int().meta({ description: 'Messages that Kapso has listed so far.' }),
    imported: z.int().meta({ description: 'Those messages that are history in the record; the others were there already.' }),
    unreadable: z.int().meta({ description: 'Rows that could not be read. They stay at Kapso only.' }),
    until: time.meta({ description: 'Only messages before this time are history; newer ones come by webhook.' }),
    problem: z.string().nullable().meta({ description: 'Why it failed, or what it waits for.' }),
    startedAt: time,
    updatedAt: time,
    finishedAt: time.nullable(),
  })
  .meta({ id: 'HistorySync' });

const content = (schema: z.ZodType) => ({ 'application/json': { schema } });
const common = { tags: ['Workspaces'], requestParams: { path: workspaceParameters } };
const BODY_LIMIT_BYTES = 1_024;

export const syncPaths: ZodOpenApiPathsObject = {
  '/api/v1/workspaces/{id}/sync': {
    post: {
      ...common,
      summary: "Import the workspace's history from Kapso",
      description:
        'Walks all conversations and messages of the number, within the rate limit, and answers nobody. A second request while it runs changes nothing.',
      operationId: 'startSync',
      ...needs('workspaces:write'),
      requestBody: { required: false, content: { 'application/json': { schema: startBody.unwrap(), example: { fromStart: false } } } },
      responses: {
        202: { description: 'It runs.', content: content(syncSchema) },
        ...problems({
          404: 'No such workspace.',
          409: 'The number id is not set or unknown to Kapso, or the key is refused; `detail` says what to set.',
        }),
        ...bodyProblems,
        ...guardedProblems,
      },
    },
    get: {
      ...common,
      summary: 'Show the newest import',
      operationId: 'getSync',
      ...needs('workspaces:read'),
      responses: {
        200: { description: 'How far it has come.', content: content(syncSchema) },
        ...problems({ 404: 'No such workspace, or no import was started.' }),
        ...guardedProblems,
      },
    },
    delete: {
      ...common,
      summary: 'Cancel the import',
      description: 'What was imported stays.',
      operationId: 'cancelSync',
      ...needs('workspaces:write'),
      responses: {
        202: { description: 'It ends after the current page.', content: content(syncSchema) },
        ...problems({ 404: 'No such workspace, or no import was started.', 409: 'No import is running.' }),
        ...guardedProblems,
      },
    },
  },
};

interface Parts {
  settings: Pick<Settings, 'TEMPORAL_TASK_QUEUE'> & SharedAccount;
  settingsOf: SettingsOf;
  db: Database;
  temporal: Client;
  logger: Logger;
}

/** Routes under `/api/v1/workspaces`. */
export function syncRoutes(parts: Parts): Router {
  const router = Router();
  router.post('/:id/sync', express.json({ limit: BODY_LIMIT_BYTES, type: () => true }), (request, response) =>
    startSync(parts, request, response),
  );
  router.get('/:id/sync', (request, response) => showSync(parts, request, response));
  router.delete('/:id/sync', (request, response) => cancelSync(parts, request, response));
  return router;
}

async function startSync(parts: Parts, request: Request, response: Response): Promise<void> {
  const { settings, settingsOf, db, temporal, logger } = parts;
  parsedQuery(noQuery, request.query);
  const { fromStart = false } = parsed(startBody, request.body ?? {}) ?? {};
  const workspace = await requestedWorkspace(db, request, response);
  const own = await settingsOf(workspace.id);
  const { phoneNumberId } = await requireNumber(workspace, own, maySeeNumbers(response, own, settings));
  const input: SyncInput = { workspaceId: workspace.id, phoneNumberId, syncId: randomUUID(), fromStart };
  const start = {
    workflowId: syncWorkflowId(phoneNumberId),
    taskQueue: settings.TEMPORAL_TASK_QUEUE,
    args: [input],
    staticSummary: `imports history · number id ${phoneNumberId}`,
  };
  await withTemporal(parts, () =>
    temporal.workflow.start(SYNC_WORKFLOW, start).catch((error: unknown) => {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    }),
  );
  logger.info({ workspaceId: workspace.id, fromStart }, 'import of history requested');
  await fromRecord(audit(db, response, workspace.id, { action: 'history.sync_started', after: { fromStart } }));
  const view = await viewOf(parts, { id: workspace.id, phoneNumberId });
  const now = new Date().toISOString();
  response
    .status(202)
    .json(view?.status === 'running' ? view : { ...newView(workspace.id, phoneNumberId, now), ...(fromStart ? {} : pick(view)) });
}

type SyncView = z.input<typeof syncSchema>;

/** The state until a worker has started the workflow. */
function newView(workspaceId: string, phoneNumberId: string, now: string): SyncView {
  return {
    ...{ workspaceId, workflowId: syncWorkflowId(phoneNumberId), status: 'running', phase: 'conversations' },
    ...{ conversations: 0, messages: 0, imported: 0, unreadable: 0, until: now, problem: null },
    ...{ startedAt: now, updatedAt: now, finishedAt: null },
  };
}

/** What an import that resumes this one begins with. */
function pick(view: SyncView | undefined): Partial<SyncView> {
  if (view === undefined || view.status === 'done') return {};
  const { phase, conversations, messages, imported, unreadable, until } = view;
  return { phase, conversations, messages, imported, unreadable, until };
}

async function showSync(parts: Parts, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  response.json(await existingSync(parts, await requestedWorkspace(parts.db, request, response)));
}

async function cancelSync(parts: Parts, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  const workspace = await requestedWorkspace(parts.db, request, response);
  const view = await existingSync(parts, workspace);
  if (view.status !== 'running') throw new ApiError(409, 'no import is running');
  await withTemporal(parts, () => parts.temporal.workflow.getHandle(view.workflowId).cancel());
  await fromRecord(audit(parts.db, response, workspace.id, { action: 'history.sync_canceled' }));
  response.status(202).json(view);
}

/** @throws ApiError 404 */
async function existingSync(
  parts: Parts,
  { id, kapsoPhoneNumberId }: { id: string; kapsoPhoneNumberId: string | null },
): Promise<SyncView> {
  const view = kapsoPhoneNumberId === null ? undefined : await viewOf(parts, { id, phoneNumberId: kapsoPhoneNumberId });
  if (view === undefined) throw new ApiError(404, 'no import of this workspace was started');
  return view;
}

/** The import's row, and while it is running, what its workflow is doing. */
async function viewOf(parts: Parts, { id, phoneNumberId }: { id: string; phoneNumberId: string }): Promise<SyncView | undefined> {
  const row = await fromRecord(findSync(parts.db, id));
  if (!row) return undefined;
  const workflowId = syncWorkflowId(phoneNumberId);
  // Also for a finished one: the row is an earlier import's until a worker has begun the next. Without Temporal, the row is all there is.
  const look = lookAt(parts, workflowId);
  const live = row.status === 'running' ? await look : await look.catch(() => undefined);
  const status = statusOf(row.status as SyncView['status'], live);
  return {
    ...{ workspaceId: id, workflowId, status },
    phase: row.phase as SyncView['phase'],
    ...{ conversations: row.conversations, messages: row.messages, imported: row.imported, unreadable: row.unreadable },
    until: row.until.toISOString(),
    problem: live?.waitsFor ?? (status === row.status ? row.problem : null),
    ...{
      startedAt: row.startedAt.toISOString(),
      updatedAt: row.updatedAt.toISOString(),
      finishedAt: status === 'running' ? null : (row.finishedAt?.toISOString() ?? null),
    },
  };
}

function statusOf(stored: SyncView['status'], live: Live | undefined): SyncView['status'] {
  if (live?.isRunning) return 'running';
  return stored === 'running' && live !== undefined ? 'stopped' : stored;
}

interface Live {
  isRunning: boolean;
  /** The failure after which a step is retried. */
  waitsFor: string | undefined;
}

async function lookAt(parts: Parts, workflowId: string): Promise<Live> {
  return await withTemporal(parts, async () => {
    try {
      const { status, raw } = await parts.temporal.workflow.getHandle(workflowId).describe();
      const waitsFor = raw.pendingActivities?.map(({ lastFailure }) => lastFailure?.message).find((message) => message) ?? undefined;
      return { isRunning: status.name === 'RUNNING', waitsFor };
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error;
      return { isRunning: false, waitsFor: undefined };
    }
  });
}

async function withTemporal<T>({ temporal, logger }: Parts, work: () => Promise<T>): Promise<T> {
  try {
    return await temporal.connection.withDeadline(Date.now() + TEMPORAL_TIMEOUT_MS, work);
  } catch (error) {
    const id = logged(logger, error, 'Temporal did not answer about an import of history');
    throw new ApiError(503, 'Temporal is unavailable; please retry', RETRY_AFTER, id);
  }
}
