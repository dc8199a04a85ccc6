/**
 * Thin client of the Vapi calls that Parley makes. No retries, no hidden state. Facts: Vapi's API reference and call features
 * pages, as of November 2026. Vapi's own SDK repeats `POST /call` after a 5xx, which could ring a phone twice, and checks nothing.
 */
import { z } from 'zod';
import type { Settings } from '../../platform/config';
import { type ConnectionFailure, connectionFailure } from '../../platform/connection-failure';
import { withDeadline } from '../../platform/deadline';
import { type HttpAnswer, sendRequest } from '../../platform/http-request';
import { retryAfterMs } from '../../platform/retry-after';
import { vapiId } from './id';

export interface CallPlacement {
  /** Ours, a UUID. Travels in `name` (40 characters at most) and in the metadata, so that the call can be found again. */
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
 * What is known after a placement. `placed`: Vapi has the call. `refused`: it certainly has not, and would not the next time.
 * `later`: nothing was dialled, and it may work later. `unknown`: a phone may ring; placing again could ring it twice.
 */
export type PlacementAnswer =
  | { kind: 'placed'; providerCallId: string }
  | { kind: 'refused'; httpStatus: number }
  | { kind: 'later'; reason: string; retryAfterMs?: number }
  | { kind: 'unknown'; reason: string };

/** The server that a call's events go to, and the header that proves that they are Vapi's. */
export interface CallServer {
  url: string;
  headers: Record<string, string>;
}

/** Where Vapi reaches this API. */
export const VAPI_WEBHOOK_PATH = '/api/v1/vapi/webhooks/vapi';

/** The server of our own calls, from the settings; undefined without a public address. A signature is made by Vapi's own credential. */
export function callServer(settings: Settings): CallServer | undefined {
  const { PUBLIC_URL, VAPI_WEBHOOK_AUTH, VAPI_WEBHOOK_SECRET } = settings;
  if (!PUBLIC_URL) return undefined;
  const [secret] = VAPI_WEBHOOK_SECRET;
  const url = `${PUBLIC_URL}${VAPI_WEBHOOK_PATH}`;
  if (!secret || VAPI_WEBHOOK_AUTH === 'hmac') return { url, headers: {} };
  return { url, headers: VAPI_WEBHOOK_AUTH === 'bearer' ? { Authorization: `Bearer ${secret}` } : { 'X-Vapi-Secret': secret } };
}

export interface VapiClient {
  placeCall(placement: CallPlacement): Promise<PlacementAnswer>;
  /** The call as Vapi knows it now, unread; undefined when it knows none. @throws when Vapi cannot be asked */
  getCall(providerCallId: string): Promise<unknown>;
  /** Vapi's id of the call that carries our id, among those placed since then. @throws when Vapi cannot be asked */
  findPlacement(placement: SoughtPlacement): Promise<string | undefined>;
  /** Ends a live call. @throws when Vapi cannot be asked, or refuses */
  endCall(providerCallId: string): Promise<EndAnswer>;
}

/** `formerIds`: placements of the same call that are known to have come to nothing. */
export interface SoughtPlacement {
  callId: string;
  assistantId: string;
  phoneNumberId: string;
  sinceMs: number;
  formerIds: readonly string[];
}

/** `over`: there is nothing to end. `no_way`: the call lives, and Vapi names no way to end it (yet). */
export type EndAnswer = 'asked' | 'over' | 'no_way';

export interface VapiClientOptions {
  baseUrl: string;
  apiKey: string;
  /** Bound of a placement with its answer: Vapi dials before it answers. */
  dialTimeoutMs: number;
  /** Bound of every other request. */
  timeoutMs: number;
  /** Not set: the assistant's or the organisation's server gets the events. */
  server?: CallServer;
}

/** An id that could not be stored is none. */
const placed = z.object({ id: vapiId });
const refusal = z.object({ message: z.union([z.string(), z.array(z.string())]) });
const listed = z.array(z.object({ id: z.string(), name: z.string().nullish().catch(undefined) }));
const monitored = z.object({ monitor: z.object({ controlUrl: z.url() }) });
const over = z.object({ status: z.literal('ended') });

/** What Vapi tells in 20 s at most (its default), and how it comes again when we could not store it: its longest plan. */
const SERVER_TIMEOUT_SECONDS = 20;
const BACKOFF_PLAN = { type: 'exponential', maxRetries: 10, baseDelaySeconds: 1 };

/** Events that are used; each carries the growing artifact, so the default list would be heavy. */
const SERVER_MESSAGES = ['status-update', 'end-of-call-report'];

/** Clocks of Vapi and ours may differ by this much when a call is looked for. */
const CLOCK_SKEW_MS = 60_000;
const LIST_LIMIT = '1000';

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
    if (status !== 200) throw new Error(`Vapi answered ${status} when asked for a call`);
    return body;
  }

  return {
    async placeCall(placement) {
      const body = JSON.stringify(placementBody(placement, server));
      try {
        return await withDeadline(dialTimeoutMs, async (signal) => {
          return readPlacement(await sendRequest(`${baseUrl}/call`, { method: 'POST', headers, body, signal }));
        });
      } catch (error) {
        return unanswered(connectionFailure(error));
      }
    },

    getCall,

    async findPlacement({ callId, assistantId, phoneNumberId, sinceMs, formerIds }) {
      const createdAtGe = new Date(sinceMs - CLOCK_SKEW_MS).toISOString();
      const query = new URLSearchParams({ assistantId, phoneNumberId, createdAtGe, limit: LIST_LIMIT });
      const { status, body } = await get(`/call?${query}`);
      if (status !== 200) throw new Error(`Vapi answered ${status} when asked for its calls`);
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
        // Not there yet, or not any more: the next look says which.
        if (status === 404 || status === 410) return 'no_way';
        if (status < 200 || status > 299) throw new Error(`Vapi answered ${status} when asked to end a call`);
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
      // Off by default: without it a machine that answers counts as a person.
      voicemailDetection: { provider: 'vapi' },
      ...(server ? { server: { ...server, timeoutSeconds: SERVER_TIMEOUT_SECONDS, backoffPlan: BACKOFF_PLAN } } : {}),
    },
  };
}

/** Decides by the status, never by the text, except for the one 400 that stands for a missing slot (the page names its words only). */
function readPlacement({ status: httpStatus, headers, text }: HttpAnswer): PlacementAnswer {
  const body = parseJson(text);
  if (httpStatus >= 200 && httpStatus < 300) {
    const call = placed.safeParse(body);
    if (!call.success) return { kind: 'unknown', reason: `answered ${httpStatus} without a call id` };
    return { kind: 'placed', providerCallId: call.data.id };
  }
  const waitMs = retryAfterMs(headers);
  const later = (reason: string): PlacementAnswer => ({ kind: 'later', reason, ...(waitMs === undefined ? {} : { retryAfterMs: waitMs }) });
  if (httpStatus === 429) return later('too many requests');
  if (httpStatus === 400 && /concurren/i.test(String(refusal.safeParse(body).data?.message ?? ''))) return later('no free slot');
  if (httpStatus < 400 || httpStatus === 408 || httpStatus >= 500) return { kind: 'unknown', reason: `answered ${httpStatus}` };
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
