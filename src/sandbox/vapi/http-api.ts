/** The HTTP API of the Vapi double: calls, call control, recordings, and the faults that apply to them. */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { json, type NextFunction, type Request, type Response, Router } from 'express';
import type { z } from 'zod';
import { Programs } from '../programs';
import { type SimulatedResponse, sendResponse, withholdResponse, withRetryAfter } from '../responses';
import type { Timers } from '../waiting';
import { callBody, type Snapshot, type StoredCall, VAPI_ERRORS } from './bodies';
import { requestOf, statusOf } from './call-view';
import type { VapiCalls } from './calls';
import { recordingWav } from './recording';
import {
  appliesTo,
  createCallSchema,
  type ListCalls,
  listCallsSchema,
  type VapiFault,
  type VapiRequest,
  validationMessages,
} from './requests';

/** Options of the API. */
export interface VapiApiOptions {
  /** The required API key (default: any). */
  apiKey?: string | undefined;
  /** Validity of a recording's URL, in ms (default one minute). */
  recordingForMs?: number | undefined;
}

/** The response to a request that is accepted and then forgotten. */
const WITHOUT_EFFECT: SimulatedResponse = { status: 200, body: { success: true } };

const MIN_WAV_SECONDS = 0.2;
const MAX_WAV_SECONDS = 2;

/** Vapi's HTTP API. */
export class VapiApi {
  readonly faults = new Programs<VapiFault>();
  readonly counts = { creates: 0, refused: 0, unanswered: 0, gets: 0, lists: 0, ends: 0 };
  readonly #options: VapiApiOptions;
  readonly #calls: VapiCalls;
  readonly #timers: Timers;
  readonly #recordings = new Map<string, { id: string; untilMs: number }>();

  constructor(options: VapiApiOptions, calls: VapiCalls, timers: Timers) {
    this.#options = options;
    this.#calls = calls;
    this.#timers = timers;
  }

  /** Vapi's routes; the path at which they are mounted is part of the base URL. */
  routes(): Router {
    const router = Router();
    const guard = (request: Request, response: Response, next: NextFunction) => this.#guard(request, response, next);
    router.use('/call', guard, json({ limit: '1mb' }));
    router.post('/call', (request, response) => this.#create(request, response));
    router.get('/call', (request, response) => this.#list(request, response));
    router.get('/call/:id', (request, response) => this.#one(request, response));
    router.get('/call/:id/mono-recording', (request, response) => this.#recording(request, response));
    router.post('/control/:id/:token', json(), (request, response) => this.#control(request, response));
    router.get('/recordings/:token', (request, response) => this.#download(request, response));
    return router;
  }

  #guard(request: Request, response: Response, next: NextFunction): void {
    const key = /^Bearer (.+)$/.exec(request.get('Authorization') ?? '')?.[1];
    const { apiKey } = this.#options;
    if (key === undefined || (apiKey !== undefined && key !== apiKey)) sendResponse(response, VAPI_ERRORS['401']);
    else next();
  }

  async #create(request: Request, response: Response): Promise<void> {
    this.counts.creates += 1;
    const parsed = createCallSchema.safeParse(request.body);
    if (!parsed.success) return this.#refuse(response, badRequest(parsed.error));
    const body = parsed.data;
    const vapiRequest = requestOf('create', body);
    await this.#withFault(vapiRequest, response, () => {
      const { call } = this.#calls.place(body, baseUrlOf(request), 'outbound', undefined);
      return { status: 201, body: { subscriptionLimits: this.#limits(call), ...callBody(call, 'placed') } };
    });
  }

  async #list(request: Request, response: Response): Promise<void> {
    this.counts.lists += 1;
    const parsed = listCallsSchema.safeParse(request.query);
    if (!parsed.success) return this.#refuse(response, badRequest(parsed.error));
    const query = parsed.data;
    await this.#withFault({ on: 'list', number: undefined, name: undefined, metadata: undefined }, response, (isStale) => {
      const calls = isStale ? [] : this.#calls.all().filter(({ call }) => isListed(call, query));
      return {
        status: 200,
        body: calls
          .toReversed()
          .slice(0, query.limit)
          .map(({ call }) => callBody(call, snapshotOf(call))),
      };
    });
  }

  async #one(request: Request, response: Response): Promise<void> {
    this.counts.gets += 1;
    const simulated = this.#calls.get(String(request.params.id));
    if (simulated === undefined) return sendResponse(response, VAPI_ERRORS['404']);
    const { call } = simulated;
    await this.#withFault(requestOf('get', call.request), response, (isStale) => {
      return { status: 200, body: callBody(call, isStale ? 'placed' : snapshotOf(call)) };
    });
  }

  /** Needs no key, only the URL (`monitorPlan.controlAuthenticationEnabled` is off by default). */
  async #control(request: Request, response: Response): Promise<void> {
    const simulated = this.#calls.get(String(request.params.id));
    const isKnown = simulated !== undefined && isEqualInConstantTime(String(request.params.token), simulated.call.controlToken);
    if (!isKnown || statusOf(simulated.call) === 'ended') return sendResponse(response, VAPI_ERRORS['404']);
    const body: unknown = request.body;
    const isEnd = typeof body === 'object' && body !== null && 'type' in body && body.type === 'end-call';
    if (!isEnd) return sendResponse(response, { status: 400, body: { message: 'type must be end-call', statusCode: 400 } });
    await this.#withFault(requestOf('end', simulated.call.request), response, () => {
      this.counts.ends += 1;
      this.#calls.end(simulated.call.id, 'manually-canceled');
      return { status: 200, body: { success: true } };
    });
  }

  async #recording(request: Request, response: Response): Promise<void> {
    const simulated = this.#calls.get(String(request.params.id));
    if (simulated?.call.startedAtMs === undefined || !simulated.call.isReportReady) return sendResponse(response, VAPI_ERRORS['404']);
    const { call } = simulated;
    await this.#withFault(requestOf('recording', call.request), response, () => {
      const token = randomBytes(12).toString('hex');
      this.#recordings.set(token, { id: call.id, untilMs: Date.now() + (this.#options.recordingForMs ?? 60_000) });
      return { status: 302, body: {}, headers: { Location: `${baseUrlOf(request)}/recordings/${token}` } };
    });
  }

  /** The storage behind the short-lived URL: needs no key, supports ranges. */
  #download(request: Request, response: Response): void {
    const granted = this.#recordings.get(String(request.params.token));
    const call = this.#calls.get(granted?.id ?? '')?.call;
    if (granted === undefined || call === undefined || granted.untilMs < Date.now()) {
      sendResponse(response, { status: 403, body: '<Error><Code>AccessDenied</Code></Error>' });
      return;
    }
    const seconds = ((call.endedAtMs ?? 0) - (call.startedAtMs ?? 0)) / 1000;
    sendFile(request, response, recordingWav(Math.min(MAX_WAV_SECONDS, Math.max(MIN_WAV_SECONDS, seconds))));
  }

  /** Handles a request under the programmed fault. `act` performs its effect and returns the response for success. */
  async #withFault(vapiRequest: VapiRequest, response: Response, act: (isStale: boolean) => SimulatedResponse): Promise<void> {
    const fault = this.faults.take((candidate) => (candidate.on ?? 'create') === vapiRequest.on && appliesTo(candidate, vapiRequest)) ?? {};
    const name = fault.answer ?? 'success';
    const isSuccess = name === 'success' || name === 'stale';
    await this.#timers.sleep(fault.delayBeforeMs ?? 0);
    const answer = (fault.takesEffect ?? isSuccess) ? act(name === 'stale') : isSuccess ? WITHOUT_EFFECT : undefined;
    await this.#timers.sleep(fault.delayAfterMs ?? 0);
    if (name === 'hang' || name === 'cut') {
      this.counts.unanswered += 1;
      withholdResponse(name, response);
    } else if (!isSuccess) {
      this.#refuse(response, withRetryAfter(VAPI_ERRORS[name], fault.retryAfterSeconds));
    } else if (answer !== undefined) {
      sendResponse(response, answer);
    }
  }

  #refuse(response: Response, answer: SimulatedResponse): void {
    this.counts.refused += 1;
    sendResponse(response, answer);
  }

  #limits(call: StoredCall): object {
    const limit = this.#calls.concurrencyLimit;
    return {
      concurrencyBlocked: !call.dialled,
      concurrencyLimit: limit,
      remainingConcurrentCalls: call.dialled ? Math.max(0, limit - this.#calls.counts.active) : 0,
    };
  }
}

/** The state that GET /call/{id} shows. */
function snapshotOf(call: StoredCall): Snapshot {
  return call.play === 'stale-snapshots' ? 'behind' : 'now';
}

function isListed(call: StoredCall, query: ListCalls): boolean {
  const { request, createdAtMs: created, updatedAtMs: updated } = call;
  return (
    (query.id ?? call.id) === call.id &&
    (query.assistantId ?? request.assistantId) === request.assistantId &&
    (query.phoneNumberId ?? request.phoneNumberId) === request.phoneNumberId &&
    isWithin(created, query.createdAtGt, query.createdAtLt, query.createdAtGe, query.createdAtLe) &&
    isWithin(updated, query.updatedAtGt, query.updatedAtLt, query.updatedAtGe, query.updatedAtLe)
  );
}

function isWithin(atMs: number, gt?: Date, lt?: Date, ge?: Date, le?: Date): boolean {
  return (
    (gt === undefined || atMs > gt.getTime()) &&
    (lt === undefined || atMs < lt.getTime()) &&
    (ge === undefined || atMs >= ge.getTime()) &&
    (le === undefined || atMs <= le.getTime())
  );
}

function badRequest(error: z.ZodError): SimulatedResponse {
  return { status: 400, body: { message: validationMessages(error), error: 'Bad Request', statusCode: 400 } };
}

/** The base URL that the client used. */
function baseUrlOf(request: Request): string {
  return `${request.protocol}://${request.get('host')}${request.baseUrl}`;
}

function isEqualInConstantTime(one: string, other: string): boolean {
  return one.length === other.length && timingSafeEqual(Buffer.from(one), Buffer.from(other));
}

/** Sends the whole file, one range of it, or a 416. */
function sendFile(request: Request, response: Response, file: Buffer): void {
  response.set({ 'Content-Type': 'audio/wav', 'Accept-Ranges': 'bytes' });
  const ranges = request.range(file.length);
  if (ranges === -1) {
    response.status(416).set('Content-Range', `bytes */${file.length}`).end();
    return;
  }
  const range = Array.isArray(ranges) && ranges.length === 1 ? ranges[0] : undefined;
  if (range === undefined) {
    response.send(file);
    return;
  }
  response.status(206).set('Content-Range', `bytes ${range.start}-${range.end}/${file.length}`);
  response.send(file.subarray(range.start, range.end + 1));
}
