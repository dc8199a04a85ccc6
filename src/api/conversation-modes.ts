/**
 * Who answers a conversation. Each change is an Update of the conversation's workflow, which is started if none runs: the response comes
 * once the change has taken effect, or says who has the conversation.
 */
import {
  type Client,
  WithStartWorkflowOperation,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import express, { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import {
  CONVERSATION_WORKFLOW,
  conversationStart,
  HAND_OVER_REASONS,
  type Holder,
  MODE_HELD,
  MODE_INVALID,
  MODE_UNKNOWN_CONVERSATION,
  type ModeAction,
  type ModeChanged,
  type ModeOrder,
  modeUpdates,
  readConversationWorkflowId,
} from '../../workflows/contract';
import { accessOf } from '../http/access';
import { ApiError, guardedProblems, problems, RETRY_AFTER } from '../http/errors';
import { needs } from '../http/permissions';
import { noQuery, orNull, parsed, parsedQuery } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { recordAudit } from '../record/audit';
import { requestedConversation } from './conversation-access';
import { conversationParameters } from './conversations';

/** Timeout of a change. A worker answers within a second, or two while a reply is being sent. */
const UPDATE_TIMEOUT_MS = 10_000;
/** A session may end during the request: the next attempt starts another one. */
const ATTEMPTS = 3;
const BODY_LIMIT_BYTES = 64 * 1024;
/** A longer pause is probably a mistake. */
const MAX_MINUTES = 366 * 24 * 60;

export interface ModeDependencies {
  db: Database;
  temporal: Client;
  taskQueue: string;
  logger: Logger;
}

/** A person's name. */
export const personName = z
  .string()
  .trim()
  .min(1, 'must not be empty')
  .max(100, 'must be at most 100 characters')
  .refine((name) => !/[\p{Cc}\p{Cs}]/u.test(name), 'must be one line of text');
const by = orNull(personName).meta({ description: 'Who does it (default: the name of the API key).', example: 'Ann' });
const from = orNull(personName).meta({
  description: 'The person who has it so far: takes it from them. Refused if somebody else has it by now.',
});
const minutes = orNull(z.number().positive('must be more than 0').max(MAX_MINUTES, `must be at most ${MAX_MINUTES}`)).meta({
  description: 'The bot comes back by itself after this many minutes.',
});
const line = z
  .string()
  .trim()
  .max(1_000, 'must be at most 1000 characters')
  .refine((text) => text.isWellFormed() && !text.includes('\0'), 'must be text without NUL and without lone surrogates');

const BODIES = {
  takeOver: z.strictObject({ by, from, minutes }).meta({ id: 'TakeOver' }),
  release: z.strictObject({ by, from }).meta({ id: 'Release' }),
  pause: z.strictObject({ by, from, minutes }).meta({ id: 'Pause' }),
  assign: z.strictObject({ by, from, minutes, to: personName.meta({ description: 'Who gets it.' }) }).meta({ id: 'Assign' }),
  close: z.strictObject({ by, from }).meta({ id: 'Close' }),
  attention: z
    .union([
      z.strictObject({ by, clear: z.literal(true) }),
      z.strictObject({
        by,
        reason: z.enum(HAND_OVER_REASONS),
        summary: orNull(line.refine((text) => text.split('\n').length <= 3, 'must be at most three lines')).meta({
          description: 'What the person should know: at most three lines.',
        }),
        questions: orNull(z.array(line.min(1, 'must not be empty')).max(10, 'must be at most 10')).meta({
          description: 'What is still open.',
        }),
        language: orNull(z.string().regex(/^[a-z]{2,3}$/, 'must be a language code such as en')).meta({
          description: 'Which of the sentences of HAND_OVER_TEXTS the customer is sent.',
        }),
      }),
    ])
    .meta({ id: 'ConversationAttention' }),
} as const;

const modeChangedSchema = z
  .object({
    conversationId: z.uuid(),
    mode: z
      .enum(['ai', 'human', 'paused'])
      .meta({ description: 'Who answers now; the mode of the workspace and the installation included.' }),
    heldBy: z.string().nullable(),
    withheldIds: z.array(z.uuid()).meta({ description: 'Drafts of the bot that were thrown away.' }),
    onTheirWayIds: z
      .array(z.uuid())
      .meta({ description: 'Messages of the bot that are being sent, or may have been, and cannot be called back.' }),
  })
  .meta({ id: 'ModeChanged' });

const AUDIT_ACTIONS: Record<ModeAction, string> = {
  takeOver: 'conversation.taken_over',
  release: 'conversation.released',
  pause: 'conversation.paused',
  assign: 'conversation.assigned',
  close: 'conversation.closed',
  attend: 'conversation.attended',
  handOver: 'conversation.handed_over',
};

/** Routes under `/api/v1/conversations/:id`. */
export function conversationModeRoutes(dependencies: ModeDependencies): Router {
  const router = Router();
  const route = (path: string, change: (request: Request) => { action: ModeAction; order: Partial<ModeOrder> }) =>
    router.post(`/:id/${path}`, express.json({ limit: BODY_LIMIT_BYTES, type: () => true }), async (request, response) => {
      parsedQuery(noQuery, request.query);
      await respond(dependencies, request, response, change(request));
    });
  route('take-over', ({ body }) => ({ action: 'takeOver', order: heldOrder(parsed(BODIES.takeOver, body ?? {})) }));
  route('release', ({ body }) => ({ action: 'release', order: heldOrder(parsed(BODIES.release, body ?? {})) }));
  route('pause', ({ body }) => ({ action: 'pause', order: heldOrder(parsed(BODIES.pause, body ?? {})) }));
  route('assign', ({ body }) => ({ action: 'assign', order: heldOrder(parsed(BODIES.assign, body ?? {})) }));
  route('close', ({ body }) => ({ action: 'close', order: heldOrder(parsed(BODIES.close, body ?? {})) }));
  route('attention', ({ body }) => attentionOrder(parsed(BODIES.attention, body ?? {})));
  return router;
}

interface HeldBody {
  by?: string | undefined;
  from?: string | undefined;
  to?: string | undefined;
  minutes?: number | undefined;
}

function heldOrder({ minutes: forMinutes, ...people }: HeldBody): Partial<ModeOrder> {
  return { ...given(people), ...(forMinutes === undefined ? {} : { untilMs: Math.round(Date.now() + forMinutes * 60_000) }) };
}

function attentionOrder(body: z.output<typeof BODIES.attention>): { action: ModeAction; order: Partial<ModeOrder> } {
  const who = given({ by: body.by });
  if ('clear' in body) return { action: 'attend', order: who };
  const { reason, summary, questions, language } = body;
  return { action: 'handOver', order: { ...who, handOver: { reason, ...given({ summary, questions, language }) } } };
}

type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function given<T extends object>(fields: T): Given<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Given<T>;
}

async function respond(
  dependencies: ModeDependencies,
  request: Request,
  response: Response,
  { action, order }: { action: ModeAction; order: Partial<ModeOrder> },
): Promise<void> {
  const { id: conversationId, workflowId, workspaceId, mode, heldBy } = await requestedConversation(dependencies.db, request, response);
  const actor = accessOf(response);
  const complete: ModeOrder = { by: actor.name, ...order, conversationId };
  const changed = await update(dependencies, workflowId, action, complete);
  const entry = { actor, workspaceId, action: AUDIT_ACTIONS[action], subject: `conversation ${conversationId}` };
  const [before, after] = [
    { mode, heldBy },
    { mode: changed.mode, heldBy: changed.heldBy, by: complete.by },
  ];
  await fromRecord(recordAudit(dependencies.db, { ...entry, before, after }));
  response.json(changed satisfies z.input<typeof modeChangedSchema>);
}

async function update(dependencies: ModeDependencies, workflowId: string, action: ModeAction, order: ModeOrder): Promise<ModeChanged> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await tryToUpdate(dependencies, workflowId, action, order);
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal) throw refusal;
      if (attempt < ATTEMPTS && hasEndedMeanwhile(error)) continue;
      dependencies.logger.error({ error, conversationId: order.conversationId, action }, 'no worker has confirmed a change of the mode');
      throw new ApiError(503, 'no worker has confirmed the change: it may apply once one runs; please send it again', RETRY_AFTER);
    }
  }
}

async function tryToUpdate(
  { temporal, taskQueue }: ModeDependencies,
  workflowId: string,
  action: ModeAction,
  order: ModeOrder,
): Promise<ModeChanged> {
  const start = conversationStart({ ...readConversationWorkflowId(workflowId), taskQueue });
  const startWorkflowOperation = new WithStartWorkflowOperation(CONVERSATION_WORKFLOW, {
    ...start,
    workflowIdConflictPolicy: 'USE_EXISTING',
  });
  return await temporal.connection.withDeadline(Date.now() + UPDATE_TIMEOUT_MS, () =>
    temporal.workflow.executeUpdateWithStart(modeUpdates[action], { args: [order], startWorkflowOperation }),
  );
}

/** Refusals by the workflow. */
function refusalOf(error: unknown): ApiError | undefined {
  const cause = error instanceof WorkflowUpdateFailedError ? error.cause : undefined;
  if (!(cause instanceof ApplicationFailure)) return undefined;
  switch (cause.type) {
    case MODE_HELD: {
      const { heldBy = 'somebody else', since = '' } = (cause.details?.[0] ?? {}) as Partial<Holder>;
      return new ApiError(409, `${heldBy} has the conversation since ${since}; send "from" to take it from them`);
    }
    case MODE_UNKNOWN_CONVERSATION:
      return new ApiError(404, 'no such conversation');
    case MODE_INVALID:
      return new ApiError(400, cause.message);
    default:
      return undefined;
  }
}

function hasEndedMeanwhile(error: unknown): boolean {
  if (error instanceof WorkflowUpdateRPCTimeoutOrCancelledError) return false;
  return error instanceof WorkflowNotFoundError || error instanceof WorkflowUpdateFailedError;
}

const json = (schema: z.ZodType) => ({ content: { 'application/json': { schema } } });

function path(operationId: string, summary: string, description: string, body: z.ZodType, example: object): ZodOpenApiPathsObject[string] {
  return {
    post: {
      tags: ['Conversations'],
      summary,
      description,
      operationId,
      ...needs('conversations:write'),
      requestParams: { path: conversationParameters },
      requestBody: { content: { 'application/json': { schema: body, example } } },
      responses: {
        200: { description: 'It applies.', ...json(modeChangedSchema) },
        ...guardedProblems,
        ...problems({
          404: 'No such conversation.',
          409: 'Another person has the conversation; `detail` says who.',
          413: 'The body is larger than 64 KB.',
          415: 'Unsupported content encoding or charset.',
        }),
      },
    },
  };
}

const AFTER = 'After the response, the bot says nothing but `onTheirWayIds`.';

/** These routes in the OpenAPI document. */
export const conversationModePaths: ZodOpenApiPathsObject = {
  '/api/v1/conversations/{id}/take-over': path('takeOver', 'Take a conversation over', AFTER, BODIES.takeOver, { by: 'Ann' }),
  '/api/v1/conversations/{id}/release': path(
    'release',
    'Give a conversation back to the bot',
    'What is still open gets one reply.',
    BODIES.release,
    { by: 'Ann' },
  ),
  '/api/v1/conversations/{id}/pause': path('pause', 'Let nobody answer', AFTER, BODIES.pause, { by: 'Ann', minutes: 60 }),
  '/api/v1/conversations/{id}/assign': path('assign', 'Give a conversation to a person', AFTER, BODIES.assign, { to: 'Ben' }),
  '/api/v1/conversations/{id}/close': path(
    'close',
    'Close a conversation',
    'The person has settled it: what is open gets the outcome `human`, the reasons for attention go, and the bot answers the next message.',
    BODIES.close,
    { by: 'Ann' },
  ),
  '/api/v1/conversations/{id}/attention': path(
    'handOver',
    'Hand a conversation over to a person, or say that one has looked at it',
    'With `reason`, the bot stops, and the conversation waits for somebody. With `clear`, the reasons for attention go.',
    BODIES.attention,
    { reason: 'customer_asked', summary: 'Wants to change an order.', questions: ['Which order?'] },
  ),
};
