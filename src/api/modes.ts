/** Who answers in a whole workspace, or everywhere: above the conversations' own modes. */
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { accessOf, workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import { noQuery, orNull, parsed, parsedQuery } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { recordAudit } from '../record/audit';
import { changeModeAbove, findModeAbove } from '../record/modes';

/** Long, because the drafts of all conversations are searched. */
const CHANGE_TIMEOUT_MS = 10_000;
const MAX_MINUTES = 366 * 24 * 60;

const modeBody = z
  .strictObject({
    mode: z.enum(['ai', 'human', 'paused']),
    minutes: orNull(z.number().positive('must be more than 0').max(MAX_MINUTES, `must be at most ${MAX_MINUTES}`)).meta({
      description: 'The AI comes back by itself after this many minutes.',
    }),
  })
  .meta({ id: 'ModeAbove' });
const modeView = z
  .object({ mode: z.enum(['ai', 'human', 'paused']), modeUntil: z.iso.datetime().nullable() })
  .meta({ id: 'CurrentMode', description: 'Applies to every conversation whose own mode is `ai`.' });
const workspaceParameters = z.object({ id: z.guid().meta({ description: 'Id of a workspace.' }) });

interface ModeAboveDependencies {
  db: Database;
  logger: Logger;
}

/** Routes under `/api/v1`. */
export function modeRoutes(dependencies: ModeAboveDependencies): Router {
  const router = Router();
  const body = express.json({ limit: 64 * 1024, type: () => true });
  for (const path of ['/mode', '/workspaces/:id/mode']) {
    router.put(path, body, (request, response) => changeMode(dependencies, request, response));
  }
  return router;
}

async function changeMode({ db, logger }: ModeAboveDependencies, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  const { mode, minutes } = parsed(modeBody, request.body);
  const workspaceId = placeOf(request, response);
  const untilMs = minutes === undefined ? undefined : Math.round(Date.now() + minutes * 60_000);
  if (!(await fromRecord(changeModeAbove(db, workspaceId, { mode, untilMs }), CHANGE_TIMEOUT_MS)))
    throw new ApiError(404, 'no such workspace');
  const [action, subject] =
    workspaceId === undefined ? ['installation.mode_changed', 'installation'] : ['workspace.mode_changed', `workspace ${workspaceId}`];
  await fromRecord(recordAudit(db, { actor: accessOf(response), workspaceId, action, subject, after: { mode, untilMs } }));
  logger.info({ workspaceId, mode }, 'mode of a workspace, or of all of them, changed');
  response.json(await currentMode(db, workspaceId));
}

async function currentMode(db: Database, workspaceId: string | undefined): Promise<z.input<typeof modeView>> {
  const found = await fromRecord(findModeAbove(db, workspaceId));
  if (!found) throw new ApiError(404, 'no such workspace');
  return { mode: found.mode, modeUntil: found.modeUntil?.toISOString() ?? null };
}

/** The workspace that the request names; undefined: the installation, which only its own keys may name (src/http/permissions.ts). @throws ApiError 404 */
function placeOf(request: Request, response: Response): string | undefined {
  if (request.params.id === undefined) return undefined;
  const parameters = workspaceParameters.safeParse(request.params);
  if (!parameters.success) throw new ApiError(404, 'no such workspace');
  return workspaceOf(response, parameters.data.id);
}

const json = (schema: z.ZodType) => ({ content: { 'application/json': { schema } } });

function paths(of: 'Installation' | 'Workspace'): ZodOpenApiPathsObject[string] {
  const isWorkspace = of === 'Workspace';
  const shared = {
    tags: ['Conversations'],
    ...(isWorkspace ? { requestParams: { path: workspaceParameters } } : {}),
    responses: {
      200: { description: 'The mode.', ...json(modeView) },
      ...guardedProblems,
      ...problems({ 404: 'No such workspace.', 413: 'The body is larger than 64 KB.', 415: 'Unsupported content encoding or charset.' }),
    },
  };
  const where = isWorkspace ? 'in a workspace' : 'everywhere';
  return {
    put: {
      ...shared,
      ...needs(isWorkspace ? 'conversations:write' : 'installation:write'),
      operationId: `set${of}Mode`,
      summary: `Change who answers ${where}`,
      description:
        'Applies at once: after the response, the bot begins to send nothing more. Back in `ai`, what is open is answered within seconds.',
      requestBody: { required: true, content: { 'application/json': { schema: modeBody, example: { mode: 'paused', minutes: 60 } } } },
    },
  };
}

/** These routes in the OpenAPI document. */
export const modePaths: ZodOpenApiPathsObject = {
  '/api/v1/mode': paths('Installation'),
  '/api/v1/workspaces/{id}/mode': paths('Workspace'),
};
