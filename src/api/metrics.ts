/** The numbers of a day, and whether every message is accounted for. */
import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathsObject } from 'zod-openapi';
import { workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import { parsedQuery } from '../http/requests';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { MessageOutcome } from '../record/conversations';
import { countParked, findHourBalances, type MessageBalance, totalBalance } from '../record/message-balance';
import { findMessageMetrics, type MessageMetricsRow } from '../record/message-metrics';
import { findTimeZones } from '../record/workspaces';

const DAY_MS = 24 * 60 * 60_000;
/** Bounds what a request reads. */
const MAX_DAYS = 92;
const DEFAULT_DAYS = 7;
const MAX_BALANCE_DAYS = 31;
/** The first request for a long range computes every day of it. */
const COMPUTE_TIMEOUT_MS = 30_000;

const FIRST_DAY = '2000-01-01';
const LAST_DAY = '2999-12-31';

const day = z.iso.date().refine((text) => text >= FIRST_DAY && text <= LAST_DAY, `must be between ${FIRST_DAY} and ${LAST_DAY}`);
const workspaceId = z.guid().optional().meta({ description: 'Only this workspace. Default: every workspace of the key.' });
export const messageMetricsQuery = z.strictObject({
  from: day.optional().meta({ description: `The first day. Default: ${DEFAULT_DAYS} days, with \`to\`.`, example: '2026-11-21' }),
  to: day.optional().meta({ description: `The last day; at most ${MAX_DAYS} days together. Default: today.`, example: '2026-11-27' }),
  workspaceId,
});

/** An unescaped plus in a URL arrives as a space. */
const instant = z
  .string()
  .transform((written) => written.replace(/ (?=\d\d:\d\d$)/, '+'))
  .pipe(z.iso.datetime({ offset: true }))
  .transform((written) => new Date(written))
  .refine((at) => at.toISOString() >= FIRST_DAY && at.toISOString() <= LAST_DAY, `must be between ${FIRST_DAY} and ${LAST_DAY}`);
const instantMeta = { override: { type: 'string', format: 'date-time' }, example: '2026-11-27T00:00:00+01:00' } as const;
export const balanceQuery = z.strictObject({
  from: instant.optional().meta({ ...instantMeta, description: 'Default: 24 hours before `to`.' }),
  to: instant.optional().meta({ ...instantMeta, description: `Excluded; at most ${MAX_BALANCE_DAYS} days later. Default: now.` }),
  workspaceId,
});

const count = z.int().min(0);
const milliseconds = z.int().min(0).nullable();
export const dayMetricsSchema = z
  .object({
    workspaceId: z.uuid(),
    day: z.iso.date().meta({ description: "In the workspace's time zone." }),
    timeZone: z.string().meta({ example: 'Europe/Berlin' }),
    received: count.meta({ description: 'Messages that customers wrote on this day, without imported ones and those of groups.' }),
    answered: count.meta({ description: 'How many of them were answered, alone or together with a later one.' }),
    totalSent: count.meta({ description: 'Messages that Parley sent on this day.' }),
    delivered: count.meta({ description: 'How many of them were delivered, whenever that was reported.' }),
    read: count.meta({ description: 'How many of them were read, whenever that was reported.' }),
    failed: count.meta({ description: 'Messages that Parley tried to send on this day, and that were not delivered.' }),
    handedOver: count.meta({ description: 'Conversations in which a message of this day was left to a person.' }),
    answerP50Ms: milliseconds.meta({
      description: 'Median time from the first message of a turn to its reply; null if nothing was answered.',
    }),
    answerP95Ms: milliseconds.meta({ description: '95th percentile of the same.' }),
    computedAt: z.iso
      .datetime()
      .meta({ description: 'The numbers of the last 8 days are at most 5 seconds old, of earlier ones at most an hour.' }),
  })
  .meta({ id: 'MessageMetrics' });
export const messageMetricsSchema = z
  .object({ data: z.array(dayMetricsSchema) })
  .meta({ id: 'MessageMetricsList', description: 'One entry per workspace and day, oldest first.' });

const balanceFields = {
  accepted: count.meta({ description: 'Messages of customers in the database.' }),
  pending: count.meta({ description: 'Those without an outcome.' }),
  outcomes: z.object(
    Object.fromEntries(Object.values(MessageOutcome).map((outcome) => [outcome, count])) as Record<MessageOutcome, typeof count>,
  ),
  balanced: z.boolean().meta({
    description:
      '`accepted` is the sum of all outcomes and of `pending`, and every message that counts as answered has a reply that was sent.',
  }),
};
export const balanceSchema = z
  .object({
    ...balanceFields,
    from: z.iso.datetime(),
    to: z.iso.datetime(),
    parked: count.nullable().meta({
      description: 'Messages that wait for a workspace with their number, whenever they came; null for one workspace, which has none.',
    }),
    hours: z
      .array(z.object({ hour: z.iso.datetime().meta({ description: 'Its beginning, UTC.' }), ...balanceFields }))
      .meta({ description: 'The hours that have messages, oldest first, by the time at which they were written.' }),
  })
  .meta({ id: 'MessageBalance' });

interface MetricsDependencies {
  db: Database;
  settings: Pick<Settings, 'TIME_ZONE'>;
}

/** Routes under `/api/v1/metrics`. */
export function metricsRoutes(dependencies: MetricsDependencies): Router {
  const router = Router();
  router.get('/messages', (request, response) => showMessageMetrics(dependencies, request, response));
  router.get('/balance', (request, response) => showBalance(dependencies.db, request, response));
  return router;
}

async function showMessageMetrics({ db, settings }: MetricsDependencies, request: Request, response: Response): Promise<void> {
  const query = parsedQuery(messageMetricsQuery, request.query);
  daysOf(query, settings.TIME_ZONE);
  const zones = await fromRecord(findTimeZones(db, workspaceOf(response, query.workspaceId), settings.TIME_ZONE));
  if (zones.length === 0 && query.workspaceId !== undefined) throw new ApiError(404, 'no such workspace');
  const ranges = zones.map((zone) => ({ ...zone, ...daysOf(query, zone.timeZone) }));
  const data: z.input<typeof dayMetricsSchema>[] = [];
  for (const range of ranges) data.push(...(await fromRecord(findMessageMetrics(db, range), COMPUTE_TIMEOUT_MS)).map(dayView));
  data.sort((one, other) => (one.day < other.day ? -1 : Number(one.day > other.day)));
  response.set('Cache-Control', 'no-store').json({ data } satisfies z.input<typeof messageMetricsSchema>);
}

/** @throws ApiError 400 if the days are in the wrong order or too many */
function daysOf({ from, to }: { from?: string | undefined; to?: string | undefined }, timeZone: string): { from: string; to: string } {
  const last = to ?? (from === undefined ? today(timeZone) : later(today(timeZone), from));
  const first = from ?? addDays(last, 1 - DEFAULT_DAYS);
  if (first > last) throw new ApiError(400, 'to: must not be before from');
  if (addDays(first, MAX_DAYS - 1) < last) throw new ApiError(400, `to: must be at most ${MAX_DAYS - 1} days after from`);
  return { from: first, to: last };
}

function today(timeZone: string): string {
  return new Intl.DateTimeFormat('sv-SE', { timeZone, dateStyle: 'short' }).format(Date.now());
}

function later(one: string, other: string): string {
  return one > other ? one : other;
}

function addDays(text: string, days: number): string {
  return new Date(Date.parse(text) + days * DAY_MS).toISOString().slice(0, 10);
}

function dayView(row: MessageMetricsRow): z.input<typeof dayMetricsSchema> {
  return { ...row, computedAt: row.computedAt.toISOString() };
}

async function showBalance(db: Database, request: Request, response: Response): Promise<void> {
  const query = parsedQuery(balanceQuery, request.query);
  const to = query.to ?? new Date();
  const from = query.from ?? new Date(to.getTime() - DAY_MS);
  if (from >= to) throw new ApiError(400, 'to: must be after from');
  if (to.getTime() - from.getTime() > MAX_BALANCE_DAYS * DAY_MS)
    throw new ApiError(400, `to: must be at most ${MAX_BALANCE_DAYS} days after from`);
  const scope = workspaceOf(response, query.workspaceId);
  const hours = await fromRecord(findHourBalances(db, { workspaceId: scope, from, to }), COMPUTE_TIMEOUT_MS);
  const parked = scope === undefined ? await fromRecord(countParked(db)) : null;
  response.set('Cache-Control', 'no-store').json({
    ...totalBalance(hours),
    from: from.toISOString(),
    to: to.toISOString(),
    parked,
    hours: hours.map(({ hour, ...balance }): MessageBalance & { hour: string } => ({ hour: hour.toISOString(), ...balance })),
  } satisfies z.input<typeof balanceSchema>);
}

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });
const noSuchWorkspace = problems({ 404: 'No such workspace.' });

export const metricsPaths: ZodOpenApiPathsObject = {
  '/api/v1/metrics/messages': {
    get: {
      tags: ['Metrics'],
      summary: 'Show the numbers of each day',
      description:
        'A fact counts on the day of the message that it is about: a reply that is sent today and read tomorrow counts as read today. So the numbers of a day rise for some time.',
      operationId: 'getMessageMetrics',
      ...needs('metrics:read'),
      requestParams: { query: messageMetricsQuery },
      responses: { 200: { description: 'The days.', content: json(messageMetricsSchema) }, ...noSuchWorkspace, ...guardedProblems },
    },
  },
  '/api/v1/metrics/balance': {
    get: {
      tags: ['Metrics'],
      summary: 'Check that every message is accounted for',
      operationId: 'getMessageBalance',
      ...needs('metrics:read'),
      requestParams: { query: balanceQuery },
      responses: {
        200: { description: 'The balance, in total and by hour.', content: json(balanceSchema) },
        ...noSuchWorkspace,
        ...guardedProblems,
      },
    },
  },
};
