/**
 * Fetches the recording of a call from Vapi on demand; the database has only a reference. Vapi returns a short-lived URL that opens the
 * recording for anybody, so the URL must never get into a response or a log line.
 */
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';
import { type Response as ApiResponse, type Request, type RequestHandler, Router } from 'express';
import { z } from 'zod';
import type { ZodOpenApiPathItemObject } from 'zod-openapi';
import { workspaceOf } from '../http/access';
import { ApiError, guardedProblems, problems } from '../http/errors';
import { needs } from '../http/permissions';
import { clientLeft, noQuery, parsedQuery } from '../http/requests';
import type { Settings } from '../platform/config';
import type { Database } from '../platform/database';
import { fromRecord } from '../platform/database-errors';
import { withDeadline } from '../platform/deadline';
import { fetchStream } from '../platform/http-request';
import type { Logger } from '../platform/logger';
import { retryAfterMs } from '../platform/retry-after';
import { vapiId } from '../providers/vapi/id';
import { findRecordedCall } from '../record/calls';
import type { Scope } from '../record/scope';
import { callIdParameter } from './call-requests';

/** Timeout for the headers of a response, in milliseconds. The body may take long; only the pause between two chunks is limited (undici, 300 s). */
const HEADERS_TIMEOUT_MS = 10_000;

/** `Retry-After` if Vapi is busy and gives none. */
const DEFAULT_RETRY_SECONDS = 5;

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** Responses of the storage that are passed on: complete, partial, unchanged (RFC 9110). */
const PASSED_ON = new Set([200, 206, 304]);

const REQUEST_HEADERS = ['range', 'if-range', 'if-none-match', 'if-modified-since'] as const;
const RESPONSE_HEADERS = ['content-range', 'content-length', 'etag', 'last-modified'] as const;

const uuid = z.guid();

export interface RecordingDependencies {
  db: Database;
  /** The settings of a workspace; of the environment for null. */
  settingsOf(workspaceId: string | null): Promise<Pick<Settings, 'VAPI_BASE_URL' | 'VAPI_API_KEY'>>;
  logger: Logger;
}

/** The route `/:callId/recording` (GET and HEAD), to be mounted under `/api/v1/vapi/calls`, after the API key was checked. */
export function recordingRoutes(dependencies: RecordingDependencies): Router {
  const router = Router();
  router.get('/:callId/recording', recordingHandler(dependencies));
  return router;
}

/** Streams the recording of the call that `:callId` names (ours or Vapi's). Errors are ApiErrors: 404, 502, 503. */
export function recordingHandler({ db, settingsOf, logger }: RecordingDependencies): RequestHandler {
  return async (request, response) => {
    const left = clientLeft(response);
    parsedQuery(noQuery, request.query);
    const { id, workspaceId, providerCallId } = await findRecording(db, request.params.callId, workspaceOf(response));
    if (left.aborted) return;
    const { VAPI_BASE_URL: baseUrl, VAPI_API_KEY: apiKey } = await settingsOf(workspaceId);
    if (apiKey === undefined) throw new ApiError(503, 'recordings cannot be fetched: no API key is set (VAPI_API_KEY)');
    try {
      const address = await fetchAddress({ baseUrl, apiKey }, providerCallId, response, left);
      const answer = await withDeadline(HEADERS_TIMEOUT_MS, (signal) => openRecording(address, request, signal), left);
      await passOn(answer, request, response);
    } catch (error) {
      if (left.aborted) return;
      // Only a code: the error message may contain the URL.
      const problem = error instanceof ApiError ? error : new ApiError(502, 'fetching the recording failed');
      const reason = error instanceof ApiError ? error.message : codeOf(error);
      if (problem.status >= 500) logger.error({ callId: id, status: problem.status, reason }, 'recording not fetched');
      // The client must notice that the rest is missing.
      if (response.headersSent) response.destroy();
      else throw problem;
    }
  };
}

/** @throws ApiError 404 */
async function findRecording(
  db: Database,
  written: unknown,
  scope: Scope,
): Promise<{ id: string; workspaceId: string | null; providerCallId: string }> {
  // Our own ids have this form as well.
  const callId = vapiId.safeParse(written).data;
  if (callId === undefined) throw new ApiError(404, 'no such call');
  const keys = { providerCallId: callId, ...(uuid.safeParse(callId).success ? { id: callId } : {}) };
  const call = await fromRecord(findRecordedCall(db, keys, scope));
  if (call === null) throw new ApiError(404, 'no such call');
  if (call.doneAt === null) throw new ApiError(404, 'the call is not done yet; its recording will be available afterwards');
  if (call.recordingUrl === null || call.providerCallId === null) throw new ApiError(404, 'the call has no recording');
  return { id: call.id, workspaceId: call.workspaceId, providerCallId: call.providerCallId };
}

/** Gets the short-lived URL from Vapi: `GET /call/{id}/mono-recording` responds with 302 (Vapi, private call recordings). */
async function fetchAddress(
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
      const answer = await fetchStream(url, { headers, signal });
      await answer.body?.cancel();
      const location = answer.headers.get('location') ?? '';
      if (REDIRECTS.has(answer.status)) return readLocation(location, url);
      throw refusal(answer, response);
    },
    left,
  );
}

/** Checks that the URL uses TLS if Vapi is called over TLS. @throws ApiError 502 */
export function readLocation(location: string, base: string): URL {
  const url = location !== '' && URL.canParse(location, base) ? new URL(location, base) : undefined;
  const isSafe = url?.protocol === 'https:' || (url?.protocol === 'http:' && base.startsWith('http:'));
  if (url === undefined || !isSafe) throw new ApiError(502, 'Vapi returned no URL for the recording');
  return url;
}

function refusal(answer: Response, response: ApiResponse): ApiError {
  if (answer.status === 404 || answer.status === 410) return new ApiError(404, 'Vapi has no recording of the call, or no longer has it');
  if (answer.status !== 429 && answer.status !== 503) return new ApiError(502, `Vapi responded with ${answer.status}`);
  const waitMs = retryAfterMs(answer.headers);
  response.set('Retry-After', String(waitMs === undefined ? DEFAULT_RETRY_SECONDS : Math.ceil(waitMs / 1_000)));
  return new ApiError(503, 'Vapi is busy');
}

/** Sent without our API key and without following redirects. Always a GET, because the URL is signed for that. */
async function openRecording(address: URL, request: Request, signal: AbortSignal): Promise<Response> {
  // If compressed, the response would not have the recording's length.
  const headers: Record<string, string> = { 'Accept-Encoding': 'identity' };
  for (const name of REQUEST_HEADERS) {
    const value = request.get(name);
    if (value !== undefined) headers[name] = value;
  }
  const answer = await fetchStream(address, { headers, signal });
  if (PASSED_ON.has(answer.status)) return answer;
  await answer.body?.cancel();
  const range = answer.headers.get('content-range');
  if (answer.status === 416) throw new ApiError(416, 'the recording has no such part', range === null ? {} : { 'Content-Range': range });
  if (answer.status === 404 || answer.status === 410) throw new ApiError(404, 'the recording no longer exists');
  throw new ApiError(502, `the storage of the recording responded with ${answer.status}`);
}

async function passOn(answer: Response, request: Request, response: ApiResponse): Promise<void> {
  const isDecoded = answer.headers.has('content-encoding');
  response.status(answer.status);
  for (const name of RESPONSE_HEADERS) {
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

/** Only audio or video: nothing that a browser would execute. */
function mediaType(answer: Response): string {
  const type = answer.headers.get('content-type') ?? '';
  return /^(audio|video)\/[\w.+-]+/.test(type) ? type : 'application/octet-stream';
}

function codeOf(error: unknown): string {
  const { name, code, cause } = error as { name?: unknown; code?: unknown; cause?: { code?: unknown } };
  const found = cause?.code ?? code;
  if (name === 'AbortError') return 'timed out';
  return typeof found === 'string' ? found : 'connection failed';
}

const recordingHeaders = {
  'Accept-Ranges': { schema: { type: 'string' as const }, description: '`bytes` if range requests are supported' },
};
const sound = { 'audio/wav': {}, 'application/octet-stream': {} };

/** The route in the OpenAPI document. */
export const recordingPath = {
  get: {
    tags: ['Calls'],
    operationId: 'getCallRecording',
    summary: 'Get the recording of a call',
    description: 'Fetched from Vapi each time and streamed. Supports `Range`.',
    ...needs('calls:read'),
    requestParams: {
      path: callIdParameter,
      header: z.object({
        Range: z.string().optional().meta({ description: 'The requested part (RFC 9110, section 14.2)', example: 'bytes=0-1023' }),
      }),
    },
    responses: {
      200: { description: 'The whole recording.', headers: recordingHeaders, content: sound },
      206: { description: 'The requested part.', headers: recordingHeaders, content: sound },
      304: { description: 'Unchanged (If-None-Match, If-Modified-Since).' },
      ...guardedProblems,
      ...problems({
        404: 'No such call, it is not done yet, or it has no recording.',
        416: 'The requested part does not exist.',
        502: 'Vapi could not provide it.',
        503: 'Vapi is busy (see `Retry-After`), or no Vapi API key is configured.',
      }),
    },
  },
} satisfies ZodOpenApiPathItemObject;
