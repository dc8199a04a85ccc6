/** Workspaces: the businesses of an installation, with their numbers and credentials. Secrets go in and never come out. */
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { accessOf, workspaceOf } from '../http/access';
import { ApiError, bodyProblems, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import { booleanParameter, cursorFrom, integerParameter, noQuery, parsed, parsedQuery } from '../http/requests';
import { callsState, PROVIDER_NAMES, type Settings, timeZoneSchema, whatsAppState } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { EncryptionKeyError } from '../platform/encryption';
import type { Logger } from '../platform/logger';
import { CREDENTIAL_FIELDS, type CredentialField } from '../record/credentials';
import type { WorkspaceDirectory, Workspaces } from '../record/workspace-directory';
import {
  type CredentialChanges,
  changeWorkspace,
  createWorkspace,
  deleteWorkspace,
  findWorkspace,
  findWorkspaceContent,
  findWorkspaces,
  NumberTakenError,
  type WorkspaceRow,
} from '../record/workspace-rows';

export interface WorkspaceDependencies {
  settings: Settings;
  db: Database;
  directory: WorkspaceDirectory;
  logger: Logger;
  /** Ends the running conversations of a number whose workspace was deleted. */
  endConversations(phoneNumberId: string): Promise<void>;
}

const BODY_LIMIT_BYTES = 64 * 1024;
/** Below the minute after which proxies usually close an idle request. */
const DELETE_MS = 30_000;
const MAX_SECRETS = 5;
const EXAMPLE_ID = '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10';

const time = z.iso.datetime().meta({ description: 'UTC.', example: '2026-11-21T12:00:00.000Z' });
const name = z
  .string()
  .trim()
  .min(1)
  .max(100)
  .refine((value) => !value.includes('\0') && value.isWellFormed(), 'must be valid text');
const providerId = z.string().regex(/^[\w.-]{1,64}$/, 'must be an id: letters, digits, "_", "." or "-"');
/** For values that are sent in a header. */
const secret = z.string().regex(/^[\x21-\x7e]{8,500}$/, 'must be 8 to 500 visible ASCII characters without spaces');

const fields = {
  kapsoPhoneNumberId: providerId.nullable().meta({
    description: "Kapso's id of the WhatsApp number, which is not the phone number itself. Cannot change once there are conversations.",
    example: '100000000000002',
  }),
  vapiPhoneNumberId: providerId
    .nullable()
    .meta({ description: "Vapi's id of the number that people call, and that calls come from.", example: 'number-2' }),
  vapiAssistantId: providerId.nullable().meta({ description: "Vapi's id of the assistant; null: VAPI_ASSISTANT_ID.", example: null }),
  timeZone: timeZoneSchema.nullable().meta({ description: 'IANA time zone; null: TIME_ZONE.', example: 'Europe/Lisbon' }),
};
const oneSecret = secret.nullable().optional();
const severalSecrets = z.array(secret).min(1).max(MAX_SECRETS).nullable().optional();
const credentialBodies = {
  kapsoApiKey: oneSecret,
  kapsoWebhookSecrets: severalSecrets,
  vapiApiKey: oneSecret,
  vapiWebhookSecrets: severalSecrets,
  deepseekApiKey: oneSecret,
  openaiApiKey: oneSecret,
  anthropicApiKey: oneSecret,
  grokApiKey: oneSecret,
} satisfies Record<CredentialField, z.ZodType>;
const credentialsBody = z.strictObject(credentialBodies).meta({
  id: 'NewCredentials',
  description:
    "Stored encrypted, never returned. What is left out stays; null removes it, and the environment's applies. Several webhook secrets may be valid at once, for rotation.",
});

const settingsFields = {
  chatbotEnabled: z.boolean().meta({ description: 'Whether messages are processed further than being recorded.' }),
  aiEnabled: z.boolean().meta({ description: 'Whether a model answers.' }),
  providerChain: z
    .array(z.string().refine((entry) => isModelEntry(entry), 'must be provider or provider:model, with a known provider'))
    .max(20)
    .meta({ description: 'Models in the order of their calls, `provider:model` or `provider`; empty: every provider with a key.' }),
  systemPrompt: z
    .string()
    .min(1)
    .max(20_000)
    .refine((value) => !value.includes('\0') && value.isWellFormed(), 'must be valid text')
    .meta({ description: "The model's system prompt." }),
};
const settingsBody = z.strictObject(settingsFields).partial().meta({
  id: 'NewAnswering',
  description:
    'What is left out stays. For the workspace of KAPSO_PHONE_NUMBER_ID, settings of the environment apply again at every start.',
});

function isModelEntry(entry: string): boolean {
  const [provider, ...model] = entry.split(':');
  return PROVIDER_NAMES.some((name) => name === provider) && /^[\x21-\x7e]{0,200}$/.test(model.join(':'));
}

const partial = {
  settings: settingsBody.optional(),
  kapsoPhoneNumberId: fields.kapsoPhoneNumberId.optional(),
  vapiPhoneNumberId: fields.vapiPhoneNumberId.optional(),
  vapiAssistantId: fields.vapiAssistantId.optional(),
  timeZone: fields.timeZone.optional(),
  credentials: credentialsBody.optional(),
};
const createBody = z.strictObject({ name, ...partial }).meta({ id: 'NewWorkspace' });
const changeBody = z
  .strictObject({ name: name.optional(), ...partial })
  // An empty body arrives as an empty object.
  .refine((body) => Object.keys(body).length > 0, 'must name what to change')
  .meta({
    id: 'WorkspaceChange',
    description: 'What is left out stays as it is. Only a key of `API_KEYS` may change the ids of numbers.',
    minProperties: 1,
  });
const CREATE_EXAMPLE = {
  name: 'Corner Bakery',
  kapsoPhoneNumberId: '100000000000002',
  timeZone: 'Europe/Lisbon',
  settings: { chatbotEnabled: true, aiEnabled: true },
  credentials: { kapsoApiKey: 'example-key-of-kapso', kapsoWebhookSecrets: ['example-secret-of-the-webhook'] },
} satisfies z.input<typeof createBody>;
const CHANGE_EXAMPLE = { name: 'Corner Bakery', timeZone: 'Europe/Lisbon' } satisfies z.input<typeof changeBody>;

const lastFour = z.string().nullable().meta({ description: 'The last four characters; null for a short one.', example: 'a1b2' });
const oneCredential = z.object({ configured: z.boolean(), lastFour }).meta({ id: 'Credential' });
const severalCredentials = z.object({ configured: z.boolean(), lastFour: z.array(lastFour) }).meta({ id: 'Credentials' });
const credentialViews = {
  kapsoApiKey: oneCredential,
  kapsoWebhookSecrets: severalCredentials,
  vapiApiKey: oneCredential,
  vapiWebhookSecrets: severalCredentials,
  deepseekApiKey: oneCredential,
  openaiApiKey: oneCredential,
  anthropicApiKey: oneCredential,
  grokApiKey: oneCredential,
} satisfies Record<CredentialField, z.ZodType>;
const channelState = z.enum(['off', 'simulated', 'real']);

const workspaceSchema = z
  .object({
    id: z.guid(),
    name: z.string(),
    ...fields,
    credentials: z.object(credentialViews).meta({ description: "The workspace's own. Where it has none, the environment's apply." }),
    settings: z.object(settingsFields).nullable().meta({ description: 'Whether and how it answers.' }),
    whatsApp: channelState.meta({ description: 'Whether messages are sent, and reach real people.' }),
    calls: channelState.meta({ description: 'Whether calls are placed, and reach real people.' }),
    problem: z.string().nullable().meta({ description: 'Why its credentials cannot be read; null if they can.', example: null }),
    createdAt: time,
  })
  .meta({ id: 'Workspace' });
const workspacePage = z
  .object({
    data: z.array(workspaceSchema),
    next: z.string().nullable().meta({ description: '`after` for the next page; null on the last page.' }),
  })
  .meta({ id: 'WorkspacePage', description: 'Oldest first.' });

const parameters = z.object({ id: z.guid().meta({ description: 'The id of a workspace.', example: EXAMPLE_ID }) });
const cursor = cursorFrom('next').meta({ description: '`next` of the previous page.', example: `1790000000000_${EXAMPLE_ID}` });
const listQuery = z.strictObject({
  limit: integerParameter(1, 100).default(50).meta({ description: 'Maximum number of results (default 50).', example: 20 }),
  after: cursor.optional(),
});
const deleteQuery = z.strictObject({
  withConversations: booleanParameter
    .optional()
    .meta({ description: 'true: delete its conversations, messages and calls too. Without it, a workspace that has any is not deleted.' }),
});

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });
const tags = ['Workspaces'];
const noSuchWorkspace = problems({ 404: 'No such workspace.' });
const noKey = problems({ 422: 'Credentials cannot be stored, because ENCRYPTION_KEY is not set.' });

export const workspacePaths: ZodOpenApiPathsObject = {
  '/api/v1/workspaces': {
    get: {
      tags,
      summary: 'List workspaces',
      description: 'The key of a workspace lists that one.',
      operationId: 'listWorkspaces',
      ...needs('workspaces:read'),
      requestParams: { query: listQuery },
      responses: { 200: { description: 'Oldest first.', content: json(workspacePage) }, ...guardedProblems },
    },
    post: {
      tags,
      summary: 'Create a workspace',
      operationId: 'createWorkspace',
      ...needs('installation:write'),
      requestBody: { required: true, content: { 'application/json': { schema: createBody, example: CREATE_EXAMPLE } } },
      responses: {
        201: { description: 'The workspace.', content: json(workspaceSchema) },
        ...problems({ 409: 'Another workspace has the number.' }),
        ...noKey,
        ...bodyProblems,
        ...guardedProblems,
      },
    },
  },
  '/api/v1/workspaces/{id}': {
    get: {
      tags,
      summary: 'Show a workspace',
      operationId: 'getWorkspace',
      ...needs('workspaces:read'),
      requestParams: { path: parameters },
      responses: { 200: { description: 'The workspace.', content: json(workspaceSchema) }, ...noSuchWorkspace, ...guardedProblems },
    },
    patch: {
      tags,
      summary: 'Change a workspace',
      description: 'Every process uses the change within a few seconds.',
      operationId: 'changeWorkspace',
      ...needs('workspaces:write'),
      requestParams: { path: parameters },
      requestBody: { required: true, content: { 'application/json': { schema: changeBody, example: CHANGE_EXAMPLE } } },
      responses: {
        200: { description: 'The workspace.', content: json(workspaceSchema) },
        ...noSuchWorkspace,
        ...problems({ 409: 'Another workspace has the number, or there are conversations with the old one.' }),
        ...noKey,
        ...bodyProblems,
        ...guardedProblems,
      },
    },
    delete: {
      tags,
      summary: 'Delete a workspace',
      description:
        'With its keys, credentials and settings. Its conversations end without a reply; messages that still come to its number are parked. The audit log keeps its entries.',
      operationId: 'deleteWorkspace',
      ...needs('installation:write'),
      requestParams: { path: parameters, query: deleteQuery },
      responses: {
        204: { description: 'It is deleted.' },
        ...noSuchWorkspace,
        ...problems({ 409: 'It has conversations or open calls, or belongs to KAPSO_PHONE_NUMBER_ID; `detail` says which.' }),
        ...guardedProblems,
      },
    },
  },
};

/** Routes under `/api/v1/workspaces`. */
export function workspaceRoutes(dependencies: WorkspaceDependencies): Router {
  const router = Router();
  const readBody = express.json({ limit: BODY_LIMIT_BYTES, type: () => true });
  router.get('/', (request, response) => list(dependencies, request, response));
  router.post('/', readBody, (request, response) => create(dependencies, request, response));
  router.get('/:id', (request, response) => show(dependencies, request, response));
  router.patch('/:id', readBody, (request, response) => change(dependencies, request, response));
  router.delete('/:id', (request, response) => remove(dependencies, request, response));
  return router;
}

async function list({ db, directory }: WorkspaceDependencies, request: Request, response: Response): Promise<void> {
  const { limit, after } = parsedQuery(listQuery, request.query);
  const { rows, hasMore } = await fromRecord(findWorkspaces(db, { id: workspaceOf(response) }, { limit, after }));
  const known = await fromRecord(directory.current());
  const last = rows.at(-1);
  response.json({
    data: rows.map((row) => workspaceView(row, known)),
    next: hasMore && last ? `${last.createdAt.getTime()}_${last.id}` : null,
  } satisfies z.input<typeof workspacePage>);
}

async function create(dependencies: WorkspaceDependencies, request: Request, response: Response): Promise<void> {
  const { settings, db } = dependencies;
  parsedQuery(noQuery, request.query);
  const { credentials = {}, settings: answering = {}, ...given } = parsed(createBody, request.body);
  const change = { fields: given, settings: answering, credentials: credentialChanges(credentials) };
  const id = await refusable(fromRecord(createWorkspace(db, change, settings.ENCRYPTION_KEY, accessOf(response))));
  response.status(201).location(`/api/v1/workspaces/${id}`);
  await send(dependencies, id, response);
}

async function show(dependencies: WorkspaceDependencies, request: Request, response: Response): Promise<void> {
  parsedQuery(noQuery, request.query);
  await send(dependencies, requestedId(request, response), response);
}

async function change(dependencies: WorkspaceDependencies, request: Request, response: Response): Promise<void> {
  const { settings, db } = dependencies;
  parsedQuery(noQuery, request.query);
  const id = requestedId(request, response);
  const { credentials = {}, settings: answering = {}, ...given } = parsed(changeBody, request.body);
  const access = accessOf(response);
  const numbers = (['kapsoPhoneNumberId', 'vapiPhoneNumberId'] as const).filter((field) => given[field] !== undefined);
  // Events with the environment's secret go to whoever has the number.
  if (access.workspaceId !== undefined && numbers.length > 0)
    throw new ApiError(403, `only a key of API_KEYS may change ${numbers.join()}`);
  const wanted = { fields: given, settings: answering, credentials: credentialChanges(credentials) };
  const result = await refusable(fromRecord(changeWorkspace(db, id, wanted, settings.ENCRYPTION_KEY, access)));
  switch (result) {
    case 'not_found':
      throw new ApiError(404, 'no such workspace');
    case 'has_conversations':
      throw new ApiError(409, 'kapsoPhoneNumberId: the workspace has conversations with its number; create a workspace for the new one');
    case 'changed':
      await send(dependencies, id, response);
  }
}

async function remove(dependencies: WorkspaceDependencies, request: Request, response: Response): Promise<void> {
  const { settings, db, logger, endConversations } = dependencies;
  const { withConversations = false } = parsedQuery(deleteQuery, request.query);
  const id = requestedId(request, response);
  const content = await fromRecord(findWorkspaceContent(db, id));
  if (!content) throw new ApiError(404, 'no such workspace');
  const { kapsoPhoneNumberId, conversations, openCalls } = content;
  if (kapsoPhoneNumberId !== null && kapsoPhoneNumberId === settings.KAPSO_PHONE_NUMBER_ID)
    throw new ApiError(409, 'the workspace belongs to KAPSO_PHONE_NUMBER_ID, and every start creates it; remove that setting first');
  if (openCalls > 0) throw new ApiError(409, `the workspace has ${openCalls} calls that are not done; wait for them, or end them`);
  if (conversations > 0 && !withConversations)
    throw new ApiError(409, `the workspace has ${conversations} conversations; ?withConversations=true deletes them too`);
  const isDeleted = await deleteWorkspace(db, id, content, accessOf(response), Date.now() + DELETE_MS);
  if (!isDeleted) throw new ApiError(503, 'there is more to delete; please send the request again', { 'Retry-After': '1' });
  if (kapsoPhoneNumberId !== null) await endConversations(kapsoPhoneNumberId);
  logger.info({ workspaceId: id, conversations }, 'workspace deleted');
  response.status(204).end();
}

async function send({ db, directory }: WorkspaceDependencies, id: string, response: Response): Promise<void> {
  const row = await fromRecord(findWorkspace(db, id));
  if (!row) throw new ApiError(404, 'no such workspace');
  // Read anew, so that the response shows what was just changed.
  const known = await fromRecord(directory.current(0));
  response.json(workspaceView(row, known));
}

/** @throws ApiError 404, also for a string that cannot be an id */
function requestedId(request: Request, response: Response): string {
  const { data } = parameters.safeParse(request.params);
  const id = data && workspaceOf(response, data.id);
  if (id === undefined) throw new ApiError(404, 'no such workspace');
  return id;
}

function credentialChanges(credentials: z.output<typeof credentialsBody>): CredentialChanges {
  return Object.fromEntries(
    Object.entries(credentials).flatMap(([field, value]) => (value === undefined ? [] : [[field, value === null ? null : [value].flat()]])),
  );
}

/** @throws ApiError 409 for a number that is taken, 422 without a key */
async function refusable<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof NumberTakenError) throw new ApiError(409, error.message);
    if (error instanceof EncryptionKeyError) throw new ApiError(422, `credentials: ${error.message}`);
    throw error;
  }
}

function workspaceView(row: WorkspaceRow, known: Workspaces): z.input<typeof workspaceSchema> {
  const { id, kapsoPhoneNumberId, vapiPhoneNumberId, vapiAssistantId, timeZone, credentials, createdAt } = row;
  const workspace = known.byId.get(id);
  const shown = Object.entries(CREDENTIAL_FIELDS).map(([field, kind]) => {
    const stored = credentials.find((each) => each.field === field);
    const fours = (stored?.lastFours ?? []).map((four) => four || null);
    return [field, { configured: stored !== undefined, lastFour: kind === 'one' ? (fours[0] ?? null) : fours }];
  });
  return {
    ...{ id, name: row.name, kapsoPhoneNumberId, vapiPhoneNumberId, vapiAssistantId, timeZone, settings: row.settings },
    credentials: Object.fromEntries(shown) as z.input<typeof workspaceSchema>['credentials'],
    whatsApp: workspace ? whatsAppState(workspace.settings) : 'off',
    calls: workspace ? callsState(workspace.settings) : 'off',
    problem: workspace?.problem ?? null,
    createdAt: createdAt.toISOString(),
  };
}
