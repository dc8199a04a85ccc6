/**
 * A thin client for the parts of Vapi's API that Parley uses. Stateless, without retries. Sources: Vapi's API reference and call
 * features pages, as of November 2026. Vapi's own SDK retries `POST /call` after a 5xx, which could ring a phone twice, and does not
 * validate responses.
 */
import { z } from 'zod';
import { ClaimExpiredError } from '../../platform/claim-fence';
import type { Settings } from '../../platform/config';
import { type ConnectionFailure, connectionFailure } from '../../platform/connection-failure';
import { withDeadline } from '../../platform/deadline';
import { type HttpAnswer, sendRequest } from '../../platform/http-request';
import { retryAfterMs } from '../../platform/retry-after';
import { vapiId } from './id';

export interface CallPlacement {
  /** Our UUID. Sent in `name` (at most 40 characters) and in the metadata, so that the call can be found again. */
  callId: string;
  /** E.164. */
  to: string;
  assistantId: string;
  phoneNumberId: string;
  variables: Record<string, unknown>;
  metadata: Record<string, unknown>;
  maxDurationSeconds: number;
}

/**
 * The result of placing a call. `placed`: Vapi has the call. `refused`: Vapi rejected it for good. `later`: nothing was dialled,
 * and a retry may succeed. `unknown`: a phone may be ringing; a retry could ring it twice.
 */
export type PlacementAnswer =
  | { kind: 'placed'; providerCallId: string }
  | { kind: 'refused'; httpStatus: number }
  | { kind: 'later'; reason: string; retryAfterMs?: number }
  | { kind: 'unknown'; reason: string };

/** The server that receives a call's events, with the header that authenticates them. */
export interface CallServer {
  url: string;
  headers: Record<string, string>;
}

/** Path of our webhook endpoint for Vapi. */
export const VAPI_WEBHOOK_PATH = '/api/v1/vapi/webhooks/vapi';

/** The event server for our own calls; undefined if PUBLIC_URL is not set. Needs no header for HMAC: Vapi signs with its own credential. */
export function callServer(settings: Settings): CallServer | undefined {
  const { PUBLIC_URL, VAPI_WEBHOOK_AUTH, VAPI_WEBHOOK_SECRET } = settings;
  if (!PUBLIC_URL) return undefined;
  const [secret] = VAPI_WEBHOOK_SECRET;
  const url = `${PUBLIC_URL}${VAPI_WEBHOOK_PATH}`;
  if (!secret || VAPI_WEBHOOK_AUTH === 'hmac') return { url, headers: {} };
  return { url, headers: VAPI_WEBHOOK_AUTH === 'bearer' ? { Authorization: `Bearer ${secret}` } : { 'X-Vapi-Secret': secret } };
}

export interface VapiClient {
  /** Calls `beforeSending` right before the request leaves; if that throws a ClaimExpiredError, the answer is `later`. */
  placeCall(placement: CallPlacement, beforeSending: () => void): Promise<PlacementAnswer>;
  /** The call's current state as Vapi returns it, unparsed; undefined if Vapi does not know the call. @throws if the request fails */
  getCall(providerCallId: string): Promise<unknown>;
  /** Vapi's id of the call that has our id as its name, among those placed since `sinceMs`. @throws if the request fails */
  findPlacement(placement: SoughtPlacement): Promise<string | undefined>;
  /** Ends a live call. @throws if the request fails or Vapi rejects it */
  endCall(providerCallId: string): Promise<EndAnswer>;
}

/** `formerIds`: Vapi's ids of earlier placements of the same call that were never dialled; they are skipped. */
export interface SoughtPlacement {
  callId: string;
  assistantId: string;
  phoneNumberId: string;
  sinceMs: number;
  formerIds: readonly string[];
}

/** `asked`: Vapi accepted the request. `over`: the call has ended already. `no_way`: it is live, but has no control URL (yet). */
export type EndAnswer = 'asked' | 'over' | 'no_way';

export interface VapiClientOptions {
  baseUrl: string;
  apiKey: string;
  /** Timeout for placing a call. Longer, because Vapi dials before it responds. */
  dialTimeoutMs: number;
  /** Timeout for every other request. */
  timeoutMs: number;
  /** Receives the events of our calls (default: the assistant's or the organisation's server). */
  server?: CallServer;
}

/** An id that does not fit `vapiId` could not be stored, so it counts as missing. */
const placed = z.object({ id: vapiId });
const refusal = z.object({ message: z.union([z.string(), z.array(z.string())]) });
const listed = z.array(z.object({ id: z.string(), name: z.string().nullish().catch(undefined) }));
const monitored = z.object({ monitor: z.object({ controlUrl: z.url() }) });
const over = z.object({ status: z.literal('ended') });

/** Webhook timeout (Vapi's default), and Vapi's longest retry plan, for events that we could not store. */
const SERVER_TIMEOUT_SECONDS = 20;
const BACKOFF_PLAN = { type: 'exponential', maxRetries: 10, baseDelaySeconds: 1 };

/** Only the events that are used: each carries the growing artifact, so Vapi's default list would be heavy. */
const SERVER_MESSAGES = ['status-update', 'end-of-call-report'];

/** Allowed difference between Vapi's clock and ours when searching for a call. */
const CLOCK_SKEW_MS = 60_000;
const LIST_LIMIT = '1000';

/** The status of a request that only reads, by which Vapi shows whether it accepts the key. @throws if there is no response */
export async function keyStatus({
  baseUrl,
  apiKey,
  timeoutMs,
}: Pick<VapiClientOptions, 'baseUrl' | 'apiKey' | 'timeoutMs'>): Promise<number> {
  const headers = { Authorization: `Bearer ${apiKey}` };
  const { status } = await withDeadline(timeoutMs, (signal) => sendRequest(`${baseUrl}/call?limit=1`, { method: 'GET', headers, signal }));
  return status;
}

/** Stands in for Vapi if the workspace's key cannot be decrypted. It dials nothing, and calls are retried until the key can be decrypted. */
export function unreadableVapi(): VapiClient {
  const fail = () => Promise.reject(new Error("the workspace's credentials cannot be decrypted (ENCRYPTION_KEY)"));
  return {
    placeCall: async () => ({ kind: 'later', reason: "the workspace's credentials cannot be decrypted (ENCRYPTION_KEY)" }),
    getCall: fail,
    findPlacement: fail,
    endCall: fail,
  };
}

/** A client for one Vapi organisation. */
export function createVapiClient({ baseUrl, apiKey, dialTimeoutMs, timeoutMs, server }: VapiClientOptions): VapiClient {
  const headers = { Authorization: `Bearer ${apiKey}`, 'Content-Type': 'application/json' };

  async function get(path: string): Promise<{ status: number; body: unknown }> {
    return await withDeadline(timeoutMs, async (signal) => {
      const { status, text } = await sendRequest(`${baseUrl}${path}`, { method: 'GET', headers, signal });
      return { status, body: status === 200 ? JSON.parse(text) : text };
    });
  }

  async function getCall(providerCallId: string): Promise<unknown> {
    const { status, body } = await get(`/call/${encodeURIComponent(providerCallId)}`);
    if (status === 404) return undefined;
    if (status !== 200) throw new Error(`Vapi responded with ${status} when asked for a call`);
    return body;
  }

  return {
    async placeCall(placement, beforeSending) {
      const body = JSON.stringify(placementBody(placement, server));
      try {
        return await withDeadline(dialTimeoutMs, async (signal) => {
          return readPlacement(await sendRequest(`${baseUrl}/call`, { method: 'POST', headers, body, signal, beforeSending }));
        });
      } catch (error) {
        if (error instanceof ClaimExpiredError) return { kind: 'later', reason: error.message };
        return unanswered(connectionFailure(error));
      }
    },

    getCall,

    async findPlacement({ callId, assistantId, phoneNumberId, sinceMs, formerIds }) {
      const createdAtGe = new Date(sinceMs - CLOCK_SKEW_MS).toISOString();
      const query = new URLSearchParams({ assistantId, phoneNumberId, createdAtGe, limit: LIST_LIMIT });
      const { status, body } = await get(`/call?${query}`);
      if (status !== 200) throw new Error(`Vapi responded with ${status} when asked for its calls`);
      return listed.parse(body).find(({ id, name }) => name === callId && !formerIds.includes(id))?.id;
    },

    async endCall(providerCallId) {
      const call = await getCall(providerCallId);
      if (call === undefined || over.safeParse(call).success) return 'over';
      const control = monitored.safeParse(call);
      if (!control.success) return 'no_way';
      return await withDeadline(timeoutMs, async (signal) => {
        const { status } = await sendRequest(control.data.monitor.controlUrl, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify({ type: 'end-call' }),
          signal,
        });
        // The control URL does not exist yet, or no longer; the next look-up of the call shows which.
        if (status === 404 || status === 410) return 'no_way';
        if (status < 200 || status > 299) throw new Error(`Vapi responded with ${status} when asked to end a call`);
        return 'asked';
      });
    },
  };
}

function placementBody(placement: CallPlacement, server: CallServer | undefined): Record<string, unknown> {
  const { callId, to, assistantId, phoneNumberId, variables, metadata, maxDurationSeconds } = placement;
  return {
    name: callId,
    assistantId,
    phoneNumberId,
    customer: { number: to },
    assistantOverrides: {
      metadata: { ...metadata, parleyCallId: callId },
      variableValues: variables,
      maxDurationSeconds,
      serverMessages: SERVER_MESSAGES,
      // Off by default at Vapi; without it, an answering machine counts as a person.
      voicemailDetection: { provider: 'vapi' },
      ...(server ? { server: { ...server, timeoutSeconds: SERVER_TIMEOUT_SECONDS, backoffPlan: BACKOFF_PLAN } } : {}),
    },
  };
}

/** Classifies by status, not text, except for the 400 that means "no free slot": Vapi documents only its wording. */
function readPlacement({ status: httpStatus, headers, text }: HttpAnswer): PlacementAnswer {
  const body = parseJson(text);
  if (httpStatus >= 200 && httpStatus < 300) {
    const call = placed.safeParse(body);
    if (!call.success) return { kind: 'unknown', reason: `responded with ${httpStatus} without a call id` };
    return { kind: 'placed', providerCallId: call.data.id };
  }
  const waitMs = retryAfterMs(headers);
  const later = (reason: string): PlacementAnswer => ({ kind: 'later', reason, ...(waitMs === undefined ? {} : { retryAfterMs: waitMs }) });
  if (httpStatus === 429) return later('too many requests');
  if (httpStatus === 400 && /concurren/i.test(String(refusal.safeParse(body).data?.message ?? ''))) return later('no free slot');
  if (httpStatus < 400 || httpStatus === 408 || httpStatus >= 500) return { kind: 'unknown', reason: `responded with ${httpStatus}` };
  return { kind: 'refused', httpStatus };
}

function unanswered(failure: ConnectionFailure): PlacementAnswer {
  return failure.kind === 'not_sent' ? { kind: 'later', reason: `unreachable ${failure.code}` } : failure;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
