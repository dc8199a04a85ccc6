/** Kapso's webhook to Parley: shows what is set up and what would change, and changes it. */
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { ApiError, bodyProblems, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import { noQuery, parsed, parsedQuery } from '../http/requests';
import { whatsAppState } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { listWebhooks, type NumberWebhook } from '../providers/kapso/platform';
import { applyPlan, describePlan, isAt, parleyWebhooks, plainUrl, planWebhook, type WebhookPlan } from '../providers/kapso/webhook-setup';
import {
  audit,
  type KapsoNumberAccess,
  type KapsoSettings,
  kapsoError,
  maySeeNumbers,
  requestedWorkspace,
  requireNumber,
  type SettingsOf,
  type SharedAccount,
  workspaceParameters,
} from './kapso-number';

const webhookSchema = z
  .object({
    id: z.string().nullable().meta({ description: "Kapso's id." }),
    url: z.string(),
    kind: z.string().nullable(),
    events: z.array(z.string()),
    isActive: z.boolean().meta({ description: 'False: Kapso has paused it, and never resumes it by itself.' }),
    payloadVersion: z.string().nullable(),
    isBuffered: z.boolean(),
  })
  .meta({ id: 'KapsoWebhook' });
const setupSchema = z
  .object({
    phoneNumberId: z.string().meta({ description: "Kapso's id of the number." }),
    webhook: webhookSchema.nullable().meta({ description: 'The webhook to this API; null if there is none.' }),
    changes: z.array(z.string()).meta({
      description: 'GET: what would be changed. POST: what was changed. Empty: the webhook is right.',
      example: ['switch it on: it is paused'],
    }),
    others: z.array(webhookSchema).meta({ description: 'Webhooks to Parley at other addresses, which are left alone.' }),
  })
  .meta({ id: 'WebhookSetup' });

const BODY_LIMIT_BYTES = 1_024;
const common = { tags: ['Workspaces'], requestParams: { path: workspaceParameters } };
const failures = {
  ...problems({
    404: 'No such workspace.',
    409: 'A setting is missing, or the number is unknown to Kapso, or Kapso refuses; `detail` says what to do.',
  }),
  ...guardedProblems,
};
const setup = (description: string) => ({ description, content: { 'application/json': { schema: setupSchema } } });

export const webhookPaths: ZodOpenApiPathsObject = {
  '/api/v1/workspaces/{id}/webhook': {
    get: {
      ...common,
      summary: 'Check the webhook at Kapso',
      description: 'Changes nothing.',
      operationId: 'getWebhook',
      ...needs('workspaces:read'),
      responses: { 200: setup('What is set up, and what would be changed.'), ...failures },
    },
    post: {
      ...common,
      summary: 'Set up the webhook at Kapso',
      description:
        'Creates the webhook to `PUBLIC_URL`, or corrects its events, secret, payload version and buffering, and switches it on. Safe to repeat.',
      operationId: 'setUpWebhook',
      ...needs('workspaces:write'),
      requestBody: { required: false, content: { 'application/json': { schema: z.strictObject({}), example: {} } } },
      responses: { 200: setup('What is set up now, and what was changed.'), ...bodyProblems, ...failures },
    },
  },
};

interface Parts {
  settingsOf: SettingsOf;
  shared: SharedAccount;
  db: Database;
  logger: Logger;
}

/** Routes under `/api/v1/workspaces`. */
export function webhookRoutes(parts: Parts): Router {
  const router = Router();
  router.get('/:id/webhook', (request, response) => checkWebhook(parts, request, response));
  router.post('/:id/webhook', express.json({ limit: BODY_LIMIT_BYTES, type: () => true }), (request, response) =>
    setUpWebhook(parts, request, response),
  );
  return router;
}

async function checkWebhook(parts: Parts, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  const workspace = await requestedWorkspace(parts.db, request, response);
  const settings = await parts.settingsOf(workspace.id);
  const access = await requireNumber(workspace, settings, maySeeNumbers(response, settings, parts.shared));
  const { plan, rows } = await planFor(access, settings, parts.shared);
  response.json(viewOf(access, settings, rows, describePlan(plan)));
}

async function setUpWebhook(parts: Parts, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  parsed(z.strictObject({}), request.body ?? {});
  const workspace = await requestedWorkspace(parts.db, request, response);
  const settings = await parts.settingsOf(workspace.id);
  const access = await requireNumber(workspace, settings, maySeeNumbers(response, settings, parts.shared));
  const { plan, rows } = await planFor(access, settings, parts.shared);
  const changes = describePlan(plan);
  if (changes.length === 0) return void response.json(viewOf(access, settings, rows, changes));
  const applied = await applyPlan(access.project, access.phoneNumberId, plan);
  if (applied.kind !== 'done') throw kapsoError(applied);
  parts.logger.info({ phoneNumberId: access.phoneNumberId, changes }, "Kapso's webhook was changed");
  await fromRecord(audit(parts.db, response, workspace.id, { action: 'webhook.set_up', after: { changes } }));
  response.json(viewOf(access, settings, await rowsOf(access), changes));
}

/** @throws ApiError 409 if PUBLIC_URL or the secret is missing */
async function planFor(
  access: KapsoNumberAccess,
  settings: KapsoSettings,
  shared: SharedAccount,
): Promise<{ plan: WebhookPlan; rows: NumberWebhook[] }> {
  const rows = await rowsOf(access);
  return { plan: planWebhook(rows, { publicUrl: publicUrlOf(settings), secrets: secretsOf(settings, shared) }), rows };
}

function publicUrlOf(settings: KapsoSettings): string {
  const { PUBLIC_URL } = settings;
  if (PUBLIC_URL === undefined)
    throw new ApiError(409, 'PUBLIC_URL is not set: set it to the https address at which Kapso reaches this API');
  if (!PUBLIC_URL.startsWith('https:') && whatsAppState(settings) === 'real')
    throw new ApiError(409, 'PUBLIC_URL is not https, and Kapso sends to https only');
  return PUBLIC_URL;
}

/** Kapso shows a secret to those who have the account, and the environment's proves the events of every number. */
function secretsOf({ KAPSO_API_KEY, KAPSO_WEBHOOK_SECRET: secrets }: KapsoSettings, shared: SharedAccount): string[] {
  if (KAPSO_API_KEY !== shared.KAPSO_API_KEY) {
    const own = secrets.filter((secret) => !shared.KAPSO_WEBHOOK_SECRET.includes(secret));
    if (own.length > 0) return own;
    throw new ApiError(
      409,
      'credentials.kapsoWebhookSecrets is not set: a workspace with a Kapso key of its own needs a secret of its own',
    );
  }
  if (secrets.length === 0) throw new ApiError(409, 'KAPSO_WEBHOOK_SECRET is not set: set it to a secret of your own');
  return secrets;
}

async function rowsOf({ project, phoneNumberId }: KapsoNumberAccess): Promise<NumberWebhook[]> {
  const listed = await listWebhooks(project, phoneNumberId);
  if (listed.kind !== 'rows') throw kapsoError(listed);
  return listed.rows;
}

function viewOf(
  { phoneNumberId }: KapsoNumberAccess,
  { PUBLIC_URL }: KapsoSettings,
  rows: NumberWebhook[],
  changes: string[],
): z.input<typeof setupSchema> {
  const webhooks = parleyWebhooks(rows);
  const own = webhooks.find((row) => isAt(row, PUBLIC_URL));
  return { phoneNumberId, webhook: own ? webhookView(own) : null, changes, others: webhooks.filter((row) => row !== own).map(webhookView) };
}

/** Without secrets. */
function webhookView({ id, url, kind, events, isActive, payloadVersion, isBuffered }: NumberWebhook): z.input<typeof webhookSchema> {
  return { id: id ?? null, url: plainUrl(url), kind: kind ?? null, events, isActive, payloadVersion: payloadVersion ?? null, isBuffered };
}
