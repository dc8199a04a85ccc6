/** Dead letters: list them, replay them once their cause is gone, and delete those that nobody will ever read. */
import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import type { DeadLetter } from '../../prisma/generated/client';
import { accessOf, workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import { booleanParameter, clientLeft, cursorFrom, integerParameter, noQuery, parsedQuery } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import type { Logger } from '../platform/logger';
import { recordAudit } from '../record/audit';
import {
  DEAD_LETTER_REASONS,
  DEAD_LETTER_SOURCES,
  type DeadLetterPosition,
  deleteDeadLetter,
  findDeadLetter,
  listDeadLetters,
  listOpenDeadLetters,
  type Replayed,
} from '../record/dead-letters';
import { deadLetterHeadSchema, deadLetterHeadView, deadLetterSchema, deadLetterView } from './views/dead-letter';

/** Below the minute after which proxies usually close an idle request. */
const REPLAY_ALL_MS = 20_000;
const REPLAY_ALL_LIMIT = 1_000;

const cursor = cursorFrom('next');
const EXAMPLE_CURSOR = '1790000000000_2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10';

const filters = {
  reason: z.enum(DEAD_LETTER_REASONS).optional().meta({ description: 'Only those with this reason.', example: 'no_sender' }),
  source: z.enum(DEAD_LETTER_SOURCES).optional().meta({ description: 'Only those from this source.' }),
};
export const deadLettersQuery = z.strictObject({
  limit: integerParameter(1, 100).default(50).meta({ description: 'Maximum number of results (default 50).', example: 20 }),
  before: cursor.optional().meta({ description: '`next` of the previous page.', example: EXAMPLE_CURSOR }),
  replayed: booleanParameter.optional().meta({ description: 'Only those that were replayed, or only the open ones.' }),
  ...filters,
});
export const replayQuery = z.strictObject({
  limit: integerParameter(1, REPLAY_ALL_LIMIT)
    .default(REPLAY_ALL_LIMIT)
    .meta({ description: `Maximum number of letters (default ${REPLAY_ALL_LIMIT}).`, example: 100 }),
  after: cursor.optional().meta({ description: '`next` of the previous response.', example: EXAMPLE_CURSOR }),
  ...filters,
});
export const deadLetterParameters = z.object({
  id: z.guid().meta({ description: 'An `id` from the list.', example: '2f0c2d5e-4a55-4b8c-9a1e-0c5d7c7f1a10' }),
});

const deadLetterPage = z
  .object({
    data: z.array(deadLetterHeadSchema),
    next: z.string().nullable().meta({ description: '`before` for the next page; null on the last page.' }),
  })
  .meta({ id: 'DeadLetterPage' });
const replaySchema = z
  .object({
    id: z.guid(),
    result: z.enum(['taken', 'skipped', 'failed']).meta({
      description: '`taken`: handed over, as from a webhook. `skipped`: understood, but irrelevant. `failed`: the letter stays open.',
    }),
    reason: z.string().nullable().meta({ description: 'Why it failed, as a short code', example: null }),
    detail: z.string().nullable().meta({ description: 'Why it failed, in words', example: null }),
  })
  .meta({ id: 'DeadLetterReplay' });
const replayPage = z
  .object({
    data: z.array(replaySchema),
    next: z.string().nullable().meta({ description: '`after` for the next request; null when all were tried.' }),
  })
  .meta({ id: 'DeadLetterReplays' });

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });
const noSuchLetter = problems({ 404: 'No such dead letter.' });
const tags = ['Dead letters'];
const reading = { tags, ...needs('dead-letters:read') };
const writing = { tags, ...needs('dead-letters:write') };

export const deadLetterPaths: ZodOpenApiPathsObject = {
  '/api/v1/dead-letters': {
    get: {
      ...reading,
      summary: 'List dead letters',
      operationId: 'listDeadLetters',
      requestParams: { query: deadLettersQuery },
      responses: { 200: { description: 'Newest first, without their bodies.', content: json(deadLetterPage) }, ...guardedProblems },
    },
  },
  '/api/v1/dead-letters/replay': {
    post: {
      ...writing,
      summary: 'Replay all open dead letters',
      description: 'Oldest first. Those that fail stay open; continue with `next` to skip them.',
      operationId: 'replayDeadLetters',
      requestParams: { query: replayQuery },
      responses: { 200: { description: 'The result of each letter.', content: json(replayPage) }, ...guardedProblems },
    },
  },
  '/api/v1/dead-letters/{id}': {
    get: {
      ...reading,
      summary: 'Show a dead letter with its body',
      operationId: 'getDeadLetter',
      requestParams: { path: deadLetterParameters },
      responses: { 200: { description: 'The letter.', content: json(deadLetterSchema) }, ...noSuchLetter, ...guardedProblems },
    },
    delete: {
      ...writing,
      summary: 'Delete a dead letter',
      description:
        'For a letter that will never be readable, once somebody has dealt with it by hand. If the same item arrives again, there is a new one.',
      operationId: 'deleteDeadLetter',
      requestParams: { path: deadLetterParameters },
      responses: { 204: { description: 'It is deleted.' }, ...noSuchLetter, ...guardedProblems },
    },
  },
  '/api/v1/dead-letters/{id}/replay': {
    post: {
      ...writing,
      summary: 'Replay a dead letter',
      description: 'Reads the letter and hands it over, as from a webhook. Safe to repeat, because messages have ids.',
      operationId: 'replayDeadLetter',
      requestParams: { path: deadLetterParameters },
      responses: {
        200: { description: 'It was taken or skipped.', content: json(replaySchema) },
        ...noSuchLetter,
        ...problems({ 409: 'It still cannot be read or stored; `detail` says why.' }),
        ...guardedProblems,
      },
    },
  },
};

export interface DeadLetterDependencies {
  db: Database;
  logger: Logger;
  /** Replays a letter. @throws ApiError 503 */
  replay(letter: DeadLetter): Promise<Replayed>;
}

/** Routes under `/api/v1/dead-letters`. */
export function deadLetterRoutes(dependencies: DeadLetterDependencies): Router {
  const router = Router();
  router.get('/', (request, response) => list(dependencies, request, response));
  router.post('/replay', (request, response) => replayAll(dependencies, request, response));
  router.get('/:id', (request, response) => show(dependencies, request, response));
  router.delete('/:id', (request, response) => remove(dependencies, request, response));
  router.post('/:id/replay', (request, response) => replayOne(dependencies, request, response));
  return router;
}

async function list({ db }: DeadLetterDependencies, request: Request, response: Response): Promise<void> {
  const { limit, before, ...filter } = parsedQuery(deadLettersQuery, request.query);
  const rows = await fromRecord(listDeadLetters(db, { ...filter, workspaceId: workspaceOf(response) }, { limit: limit + 1, before }));
  const last = rows[limit - 1];
  response.json({
    data: rows.slice(0, limit).map(deadLetterHeadView),
    next: rows.length > limit && last ? cursorOf({ at: last.createdAt, id: last.id }) : null,
  } satisfies z.input<typeof deadLetterPage>);
}

async function show({ db }: DeadLetterDependencies, request: Request, response: Response): Promise<void> {
  const letter = await letterOf(db, request, response);
  response.set('Cache-Control', 'no-store').json(deadLetterView(letter));
}

async function remove({ db, logger }: DeadLetterDependencies, request: Request, response: Response): Promise<void> {
  const letter = await letterOf(db, request, response);
  await fromRecord(
    deleteDeadLetter(db, letter, { actor: accessOf(response), workspaceId: workspaceOf(response, letter.workspaceId ?? undefined) }),
  );
  logger.info({ deadLetterId: letter.id, reason: letter.reason }, 'dead letter deleted');
  response.status(204).end();
}

async function replayOne({ db, replay }: DeadLetterDependencies, request: Request, response: Response): Promise<void> {
  const letter = await letterOf(db, request, response);
  const replayed = await replay(letter);
  const workspaceId = workspaceOf(response, letter.workspaceId ?? undefined);
  const entry = { actor: accessOf(response), workspaceId, action: 'dead_letter.replayed', subject: `dead_letter ${letter.id}` };
  await fromRecord(recordAudit(db, { ...entry, after: { result: replayed.result } }));
  if (replayed.result === 'failed') throw new ApiError(409, `${replayed.reason}: ${replayed.detail}`);
  response.json(replayView(letter.id, replayed));
}

/** One after the other, in order of arrival, because several may be from one person. */
async function replayAll({ db, replay }: DeadLetterDependencies, request: Request, response: Response): Promise<void> {
  const left = clientLeft(response);
  const { limit, after, ...filter } = parsedQuery(replayQuery, request.query);
  const untilMs = Date.now() + REPLAY_ALL_MS;
  const positions = await fromRecord(
    listOpenDeadLetters(db, { ...filter, workspaceId: workspaceOf(response) }, { limit: limit + 1, after }),
  );
  const data: z.input<typeof replaySchema>[] = [];
  let last: DeadLetterPosition | undefined;
  for (const position of positions.slice(0, limit)) {
    if (Date.now() > untilMs || left.aborted) break;
    const letter = await fromRecord(findDeadLetter(db, position.id));
    // It may have been replayed or deleted in the meantime.
    if (letter?.replayedAt === null) data.push(replayView(letter.id, await replay(letter)));
    last = position;
  }
  const isOver = last === undefined ? positions.length === 0 : last.id === positions.at(-1)?.id;
  response.json({ data, next: isOver || last === undefined ? null : cursorOf(last) } satisfies z.input<typeof replayPage>);
}

function replayView(id: string, replayed: Replayed): z.input<typeof replaySchema> {
  const { reason = null, detail = null } = replayed.result === 'failed' ? replayed : {};
  return { id, result: replayed.result, reason, detail };
}

function cursorOf({ at, id }: DeadLetterPosition): string {
  return `${at.getTime()}_${id}`;
}

/** @throws ApiError 404, also for a string that cannot be an id */
async function letterOf(db: Database, request: Request, response: Response): Promise<DeadLetter> {
  const { data } = deadLetterParameters.safeParse(request.params);
  parsedQuery(noQuery, request.query);
  const letter = data ? await fromRecord(findDeadLetter(db, data.id, workspaceOf(response))) : null;
  if (!letter) throw new ApiError(404, 'no such dead letter');
  return letter;
}
