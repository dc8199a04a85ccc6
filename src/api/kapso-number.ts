/** A workspace's access to Kapso, for the routes that need it. */
import type { Request, Response } from 'express';
import { z } from 'zod';
import { accessOf, workspaceOf } from '../http/access';
import { ApiError, RETRY_AFTER } from '../http/errors';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { type KapsoFailure, type KapsoProject, listNumbers } from '../providers/kapso/platform';
import { recordAudit } from '../record/audit';
import { findWorkspace } from '../record/workspaces';

/** The settings that apply to a workspace at Kapso. */
export type KapsoSettings = Pick<Settings, 'KAPSO_API_KEY' | 'KAPSO_BASE_URL' | 'KAPSO_WEBHOOK_SECRET' | 'PUBLIC_URL' | 'SANDBOX_URL'>;
/** Finds them. */
export type SettingsOf = (workspaceId: string) => Promise<KapsoSettings>;

export const workspaceParameters = z.object({
  id: z.guid().meta({ description: 'The id of a workspace.', example: '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10' }),
});

/** The workspace of a request. @throws ApiError 404 if there is none, or it is not the sender's */
export async function requestedWorkspace(
  db: Database,
  request: Request,
  response: Response,
): Promise<{ id: string; kapsoPhoneNumberId: string | null }> {
  const parameters = workspaceParameters.safeParse(request.params);
  const id = parameters.success ? workspaceOf(response, parameters.data.id) : undefined;
  const workspace = id === undefined ? undefined : await fromRecord(findWorkspace(db.orm, id));
  if (!workspace) throw new ApiError(404, 'no such workspace');
  return workspace;
}

/** Records what the request has changed in a workspace. */
export async function audit(
  db: Database,
  response: Response,
  workspaceId: string,
  change: { action: string; after?: object },
): Promise<void> {
  const { name, keyId } = accessOf(response);
  await recordAudit(db, { ...change, actor: { name, keyId }, workspaceId, subject: `workspace ${workspaceId}` });
}

/** The number of a workspace, and the project that has it. */
export interface KapsoNumberAccess {
  project: KapsoProject;
  phoneNumberId: string;
}

/** The account of the environment, which workspaces without a key of their own share. */
export type SharedAccount = Pick<KapsoSettings, 'KAPSO_API_KEY' | 'KAPSO_WEBHOOK_SECRET'>;

/** Whether the sender may see every number of the workspace's Kapso project: a shared one has those of other workspaces. */
export function maySeeNumbers(response: Response, { KAPSO_API_KEY }: KapsoSettings, shared: SharedAccount): boolean {
  return accessOf(response).workspaceId === undefined || KAPSO_API_KEY !== shared.KAPSO_API_KEY;
}

/**
 * Checks that Kapso knows the workspace's number. @throws ApiError 409 that says what to set, with the numbers that the key can see if
 * `showsNumbers`; 503 if Kapso is away
 */
export async function requireNumber(
  { kapsoPhoneNumberId }: { kapsoPhoneNumberId: string | null },
  { KAPSO_API_KEY: apiKey, KAPSO_BASE_URL: baseUrl }: Pick<KapsoSettings, 'KAPSO_API_KEY' | 'KAPSO_BASE_URL'>,
  showsNumbers: boolean,
): Promise<KapsoNumberAccess> {
  if (apiKey === undefined) throw new ApiError(409, 'WhatsApp is off: set KAPSO_API_KEY to a key of the Kapso project');
  const project = { baseUrl, apiKey };
  const listed = await listNumbers(project);
  if (listed.kind !== 'rows') throw kapsoError(listed);
  if (kapsoPhoneNumberId !== null && listed.rows.some(({ id }) => id === kapsoPhoneNumberId))
    return { project, phoneNumberId: kapsoPhoneNumberId };
  const what = kapsoPhoneNumberId === null ? 'the workspace has no number' : `Kapso does not know the number id ${kapsoPhoneNumberId}`;
  const seen = listed.rows.map(({ id, name }) => (name === undefined ? id : `${id} (${name})`));
  const choice = seen.length === 0 ? '; the key sees no number' : `; the key sees ${seen.slice(0, MOST_NUMBERS).join(', ')}`;
  const advice = "set Kapso's phone number id of the workspace (KAPSO_PHONE_NUMBER_ID for the first one)";
  throw new ApiError(409, `${what}: ${advice}${showsNumbers ? choice : ''}`);
}

const MOST_NUMBERS = 20;

/** The response to a request that failed at Kapso. */
export function kapsoError(failure: KapsoFailure): ApiError {
  if (failure.kind === 'unreachable') return new ApiError(503, `Kapso is unreachable (${failure.reason}); please retry`, RETRY_AFTER);
  const { status } = failure;
  if (status === 401 || status === 403) return new ApiError(409, `Kapso refuses the key (${status}): check KAPSO_API_KEY`);
  if (status === 429 || status >= 500) return new ApiError(503, `Kapso responded with ${status}; please retry`, RETRY_AFTER);
  return new ApiError(409, `Kapso responded with ${status}`);
}
