/**
 * The recording of a call, fetched from Vapi when somebody asks for it: only its reference stands in the record. Vapi
 * answers with a short-lived address that opens the recording for anybody; it stays in here, out of answers and logs.
 */
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';
import { type Response as ApiResponse, type Request, type RequestHandler, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathItemObject } from 'zod-openapi';
import { ApiError, guardedProblems, problems } from '../http/errors';
import { clientLeft, noQuery, parsed } from '../http/requests';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { withDeadline } from '../platform/deadline';
import type { Logger } from '../platform/logger';
import { retryAfterMs } from '../platform/retry-after';
import { vapiId } from '../providers/vapi/id';
import { callIdParameter } from './call-requests';

/** Until the headers of an answer are there. The body has no bound but the one between two pieces (undici, 300 s): it may be long. */
const HEADERS_TIMEOUT_MS = 10_000;

/** What a caller waits when Vapi is busy and names no time. */
const DEFAULT_RETRY_SECONDS = 5;

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** Answers of the store that are handed on: whole, part, unchanged (RFC 9110). */
const HANDED_ON = new Set([200, 206, 304]);

const ASKED_BY_THE_CALLER = ['range', 'if-range', 'if-none-match', 'if-modified-since'] as const;
const TOLD_BY_THE_STORE = ['content-range', 'content-length', 'etag', 'last-modified'] as const;

const uuid = z.guid();

export interface RecordingDependencies {
  db: Database;
  vapi: { baseUrl: string; apiKey: string | undefined };
  logger: Logger;
}

/** The route `/:callId/recording`, to be mounted under `/api/v1/vapi/calls` behind the check of the key. GET and HEAD. */
export function recordingRoutes(dependencies: RecordingDependencies): Router {
  const router = Router();
  router.get('/:callId/recording', recordingHandler(dependencies));
  return router;
}

/** Streams the recording of the call that `:callId` names (ours or Vapi's). Errors are ApiErrors: 404, 502, 503. */
export function recordingHandler({ db, vapi, logger }: RecordingDependencies): RequestHandler {
  return async (request, response) => {
    const left = clientLeft(response);
    parsed(noQuery, request.query);
    const { id, providerCallId } = await findRecording(db, request.params.callId);
    if (left.aborted) return;
    if (vapi.apiKey === undefined) throw new ApiError(503, 'recordings cannot be fetched: no key is set (VAPI_API_KEY)');
    try {
      const address = await recordingAddress({ baseUrl: vapi.baseUrl, apiKey: vapi.apiKey }, providerCallId, response, left);
      const answer = await withDeadline(HEADERS_TIMEOUT_MS, (signal) => openRecording(address, request, signal), left);
      await handOn(answer, request, response);
    } catch (error) {
      if (left.aborted) return;
      // A code, never the error: its text may have the address in it.
      const problem = error instanceof ApiError ? error : new ApiError(502, 'the recording could not be fetched');
      const reason = error instanceof ApiError ? error.message : codeOf(error);
      if (problem.status >= 500) logger.error({ callId: id, status: problem.status, reason }, 'recording not fetched');
      // Cut short in the middle: the caller must see that the rest is missing.
      if (response.headersSent) response.destroy();
      else throw problem;
    }
  };
}

async function findRecording(db: Database, text: unknown): Promise<{ id: string; providerCallId: string }> {
  // Our own ids have this form as well.
  const callId = vapiId.safeParse(text).data;
  if (callId === undefined) throw new ApiError(404, 'no such call');
  const row = await fromRecord(
    db.orm.vapiCallResult.findFirst({
      where: { OR: [{ providerCallId: callId }, ...(uuid.safeParse(callId).success ? [{ id: callId }] : [])] },
      select: { id: true, providerCallId: true, recordingUrl: true, doneAt: true },
    }),
  );
  if (row === null) throw new ApiError(404, 'no such call');
  if (row.doneAt === null) throw new ApiError(404, 'the call is not done yet: its recording comes afterwards');
  if (row.recordingUrl === null || row.providerCallId === null) throw new ApiError(404, 'the call has no recording');
  return { id: row.id, providerCallId: row.providerCallId };
}

/** Asks Vapi for the short-lived address: `GET /call/{id}/mono-recording` answers 302 (Vapi, private call recordings). */
async function recordingAddress(
  vapi: { baseUrl: string; apiKey: string },
  providerCallId: string,
  response: ApiResponse,
  left: AbortSignal,
): Promise<URL> {
  const url = `${vapi.baseUrl}/call/${encodeURIComponent(providerCallId)}/mono-recording`;
  const headers = { Authorization: `Bearer ${vapi.apiKey}` };
  return await withDeadline(
    HEADERS_TIMEOUT_MS,
    async (signal) => {
      const answer = await fetch(url, { headers, redirect: 'manual', signal });
      await answer.body?.cancel();
      const location = answer.headers.get('location') ?? '';
      if (REDIRECTS.has(answer.status)) return readLocation(location, url);
      throw refusal(answer, response);
    },
    left,
  );
}

/** Over TLS when Vapi is asked over TLS. */
function readLocation(location: string, base: string): URL {
  const url = location !== '' && URL.canParse(location, base) ? new URL(location, base) : undefined;
  const isSafe = url?.protocol === 'https:' || (url?.protocol === 'http:' && base.startsWith('http:'));
  if (url === undefined || !isSafe) throw new ApiError(502, 'Vapi named no address for the recording');
  return url;
}

function refusal(answer: Response, response: ApiResponse): ApiError {
  if (answer.status === 404 || answer.status === 410) return new ApiError(404, 'Vapi has no recording of the call (any more)');
  if (answer.status !== 429 && answer.status !== 503) return new ApiError(502, `Vapi answered ${answer.status}`);
  const waitMs = retryAfterMs(answer.headers);
  response.set('Retry-After', String(waitMs === undefined ? DEFAULT_RETRY_SECONDS : Math.ceil(waitMs / 1_000)));
  return new ApiError(503, 'Vapi is busy');
}

/** Without our key, and nowhere but there: a store that sends on to somebody else is refused. Always a GET: the address is signed for it. */
async function openRecording(address: URL, request: Request, signal: AbortSignal): Promise<Response> {
  // Compressed on the way, the length would not be the recording's.
  const headers = new Headers({ 'Accept-Encoding': 'identity' });
  for (const name of ASKED_BY_THE_CALLER) {
    const value = request.get(name);
    if (value !== undefined) headers.set(name, value);
  }
  const answer = await fetch(address, { headers, redirect: 'manual', signal });
  if (HANDED_ON.has(answer.status)) return answer;
  await answer.body?.cancel();
  const range = answer.headers.get('content-range');
  if (answer.status === 416) throw new ApiError(416, 'the recording has no such part', range === null ? {} : { 'Content-Range': range });
  if (answer.status === 404 || answer.status === 410) throw new ApiError(404, 'the recording is not there any more');
  throw new ApiError(502, `the store of the recording answered ${answer.status}`);
}

async function handOn(answer: Response, request: Request, response: ApiResponse): Promise<void> {
  const isDecoded = answer.headers.has('content-encoding');
  response.status(answer.status);
  for (const name of TOLD_BY_THE_STORE) {
    const value = answer.headers.get(name);
    if (value !== null && !(isDecoded && name === 'content-length')) response.setHeader(name, value);
  }
  response.setHeader('Accept-Ranges', answer.headers.get('accept-ranges') ?? (answer.status === 206 ? 'bytes' : 'none'));
  response.setHeader('Cache-Control', 'private, no-cache');
  response.setHeader('X-Content-Type-Options', 'nosniff');
  const hasBody = request.method !== 'HEAD' && (answer.status === 200 || answer.status === 206);
  if (hasBody || request.method === 'HEAD') response.setHeader('Content-Type', mediaType(answer));
  if (hasBody && answer.body !== null) {
    response.flushHeaders();
    await pipeline(Readable.fromWeb(answer.body as ReadableStream), response);
    return;
  }
  await answer.body?.cancel();
  const finished = once(response, 'finish');
  response.end();
  await finished;
}

/** Sound or video only: nothing that a browser would run. */
function mediaType(answer: Response): string {
  const type = answer.headers.get('content-type') ?? '';
  return /^(audio|video)\/[\w.+-]+/.test(type) ? type : 'application/octet-stream';
}

function codeOf(error: unknown): string {
  const { name, code, cause } = error as { name?: unknown; code?: unknown; cause?: { code?: unknown } };
  const found = cause?.code ?? code;
  if (name === 'AbortError') return 'took too long';
  return typeof found === 'string' ? found : 'connection failed';
}

const recordingHeaders = {
  'Accept-Ranges': { schema: { type: 'string' as const }, description: '`bytes` when parts can be asked for' },
};
const sound = { 'audio/wav': {}, 'application/octet-stream': {} };

/** What the OpenAPI document says of the route. */
export const recordingPath = {
  get: {
    tags: ['Calls'],
    operationId: 'getCallRecording',
    summary: 'The recording of a call',
    description: 'Fetched from Vapi each time and streamed; parts can be asked for with `Range`.',
    security: [{ bearer: [] }],
    requestParams: {
      path: callIdParameter,
      header: z.object({ Range: z.string().optional().meta({ description: 'A part of it (RFC 9110, 14.2)', example: 'bytes=0-1023' }) }),
    },
    responses: {
      200: { description: 'The whole recording.', headers: recordingHeaders, content: sound },
      206: { description: 'The part that was asked for.', headers: recordingHeaders, content: sound },
      304: { description: 'Unchanged (If-None-Match, If-Modified-Since).' },
      ...guardedProblems,
      ...problems({
        404: 'No such call, it is not done yet, or it has no recording.',
        416: 'There is no such part.',
        502: 'Vapi could not give it.',
        503: 'Vapi is busy, or cannot be asked here; see `Retry-After`.',
      }),
    },
  },
} satisfies ZodOpenApiPathItemObject;
