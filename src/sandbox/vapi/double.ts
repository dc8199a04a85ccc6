/**
 * A double of Vapi: it places calls, plays what happens on the phone, tells it by webhooks, and keeps what was really dialled. It
 * misbehaves on request only. Facts: docs.vapi.ai and the shapes in test/fixtures/vapi.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { json, type NextFunction, type Request, type Response, Router } from 'express';
import type { Logger } from 'pino';
import type { z } from 'zod';
import { type HttpAnswer, leave, reply, withRetryAfter } from '../answers';
import { Programs } from '../programs';
import { Background, Changes, Timers } from '../waiting';
import { type DeliveryResult, type WebhookCounts, WebhookSender } from '../webhook-sender';
import {
  callBody,
  freshCallId,
  messageBody,
  recordingWav,
  SANDBOX_ASSISTANT_ID,
  SANDBOX_VAPI_NUMBER_ID,
  type Snapshot,
  type StoredCall,
  VAPI_ERRORS,
} from './bodies';
import {
  endingOf,
  eventsOf,
  PLAYS_BY_DIGITS,
  type PlayedEvent,
  type PlayName,
  type PlayStep,
  type PlayTimings,
  type Schedule,
  scheduleOf,
  stepsOf,
  TIMINGS_FOR_PEOPLE,
} from './plays';
import {
  type CreateCall,
  createCallSchema,
  isMeantFor,
  type ListCalls,
  listCallsSchema,
  type playProgramSchema,
  type VapiFault,
  type VapiRequest,
  validationMessages,
} from './requests';
import { rawVapiWebhook, type VapiTarget, type VapiWebhookAuth, vapiWebhook } from './webhooks';

export interface VapiDoubleOptions {
  /** How the organisation's webhooks prove themselves. */
  auth: VapiWebhookAuth;
  /** Where events of calls go that name no server of their own; not set: nowhere. */
  serverUrl?: string | undefined;
  /** The key to demand; not set: any. */
  apiKey?: string | undefined;
  /** Times of each call, in ms; what is not set is at a pace for people. */
  timings?: Partial<PlayTimings> | undefined;
  /** Calls at the same time; the next one is blocked (default 10, as Vapi's). */
  concurrencyLimit?: number | undefined;
  /** Waits of a backoff plan are multiplied by this (default 1). */
  backoffFactor?: number | undefined;
  /** Replaces the time limit that a server names for its webhooks, in ms. */
  webhookTimeoutMs?: number | undefined;
  /** How long the address of a recording is good, in ms (default one minute). */
  recordingForMs?: number | undefined;
  /** How many calls are remembered (default 20,000). */
  keepCalls?: number | undefined;
  log: Logger;
}

/** Which calls get which play: `when` is for callers in the same process, as is `schedule`, applied after the play's own. */
export interface PlayProgram extends z.output<typeof playProgramSchema> {
  when?: ((request: VapiRequest) => boolean) | undefined;
  schedule?: Schedule | undefined;
}

/** A call as a test sees it. */
export interface CallView {
  /** Vapi's id. */
  id: string;
  name: string | undefined;
  direction: 'inbound' | 'outbound';
  number: string;
  metadata: Record<string, unknown> | undefined;
  play: PlayName;
  status: string;
  endedReason: string | undefined;
  /** False for a call that found no free slot: no phone rang. */
  dialled: boolean;
  createdAtMs: number;
}

/** What happens in a call, for who watches it. `answer` of a webhook: the last HTTP status, 0 for none. */
export type CallEvent =
  | { type: 'status'; callId: string; status: string; endedReason?: string; atMs: number }
  | { type: 'words'; callId: string; role: 'bot' | 'user'; text: string; atMs: number }
  | { type: 'webhook'; callId: string; event: string; answer: number; attempts: number; atMs: number };

/** Totals since the start. `dialled` calls rang a phone, `blocked` ones found no free slot, `refused` and `unanswered` are requests. */
export interface VapiCounts {
  creates: number;
  placed: number;
  dialled: number;
  blocked: number;
  refused: number;
  unanswered: number;
  gets: number;
  lists: number;
  ends: number;
  active: number;
  webhooks: WebhookCounts;
}

/** A hook over all calls: decides per event, after the play's own schedule. */
export type CallSchedule = (events: PlayedEvent[], call: CallView) => PlayedEvent[];

/** serverMessages when a call names none (schema Assistant), as far as the double plays them. */
const DEFAULT_MESSAGES = ['conversation-update', 'end-of-call-report', 'speech-update', 'status-update'];
const DEFAULT_MAX_DURATION_SECONDS = 600;
const DEFAULT_CONCURRENCY = 10;
const MIN_WAV_SECONDS = 0.2;
const MAX_WAV_SECONDS = 2;

/** A call in play. */
interface Playing {
  call: StoredCall;
  schedule: Schedule;
  timings: PlayTimings;
  /** Closed when the rest of the call changes: the earlier plan stops. */
  plan: Timers;
  events: CallEvent[];
}

/** Vapi, played. Methods never throw because of Parley's answers. */
export class VapiDouble {
  readonly #options: VapiDoubleOptions;
  readonly #webhooks: WebhookSender;
  readonly #plays = new Programs<PlayProgram>();
  readonly #faults = new Programs<VapiFault>();
  readonly #changes = new Changes();
  readonly #timers = new Timers();
  readonly #plans = new Set<Timers>();
  readonly #background: Background;
  readonly #watchers = new EventEmitter().setMaxListeners(0);
  readonly #calls = new Map<string, Playing>();
  readonly #recordings = new Map<string, { id: string; untilMs: number }>();
  readonly #dialledNumbers = new Map<string, number>();
  readonly #dialledNames = new Map<string, number>();
  readonly #counts = { creates: 0, placed: 0, dialled: 0, blocked: 0, refused: 0, unanswered: 0, gets: 0, lists: 0, ends: 0, active: 0 };
  #schedule: CallSchedule = (events) => events;

  constructor(options: VapiDoubleOptions) {
    const failed = (error: unknown) => options.log.error({ err: error }, 'the sandbox failed in the background');
    this.#options = options;
    this.#background = new Background(failed);
    this.#webhooks = new WebhookSender(failed);
  }

  /** Chooses the play of calls to come (`times`: of the next ones only); the returned function takes it back. */
  play(program: PlayProgram): () => void {
    return this.#plays.add(program);
  }

  /** The plays that still wait for calls. */
  plays(): PlayProgram[] {
    return this.#plays.list();
  }

  /** Takes all plays back, and the hook of `scheduleEvents`. */
  clearPlays(): void {
    this.#plays.clear();
    this.#schedule = (events) => events;
  }

  /** Sets the hook that may lose, repeat or delay each event of each call to come; there is one. */
  scheduleEvents(schedule: CallSchedule): void {
    this.#schedule = schedule;
  }

  /** Adds a fault; the returned function takes it back. */
  fault(fault: VapiFault): () => void {
    return this.#faults.add(fault);
  }

  /** The faults that still wait for requests. */
  faults(): VapiFault[] {
    return this.#faults.list();
  }

  /** Takes all faults back. */
  clearFaults(): void {
    this.#faults.clear();
  }

  /** Somebody calls the business, or a call is made by others: its events go to the organisation's address. `baseUrl` as a client names it. */
  receiveCall({ from, play, baseUrl }: { from: string; play?: PlayName | undefined; baseUrl: string }): CallView {
    const request = { assistantId: SANDBOX_ASSISTANT_ID, phoneNumberId: SANDBOX_VAPI_NUMBER_ID, customer: { number: from } };
    return viewOf(this.#place(request, baseUrl, 'inbound', play).call);
  }

  /** The person on the phone hangs up. @returns false when no such call is live */
  hangUp(idOrName: string): boolean {
    return this.#end(idOrName, 'customer-ended-call');
  }

  /** The remembered calls, oldest first. */
  calls(): CallView[] {
    return [...this.#calls.values()].map(({ call }) => viewOf(call));
  }

  /** The calls with this id or name, oldest first. */
  find(idOrName: string): CallView[] {
    return this.#found(idOrName).map(({ call }) => viewOf(call));
  }

  /** How many phones rang for a number (E.164), for a name, or in all. */
  dialled({ number, name }: { number?: string | undefined; name?: string | undefined } = {}): number {
    if (number !== undefined) return this.#dialledNumbers.get(number) ?? 0;
    if (name !== undefined) return this.#dialledNames.get(name) ?? 0;
    return this.#counts.dialled;
  }

  /** How many phones rang, per number and per name. */
  dialledBy(): { numbers: Record<string, number>; names: Record<string, number> } {
    return { numbers: Object.fromEntries(this.#dialledNumbers), names: Object.fromEntries(this.#dialledNames) };
  }

  /** Totals since the start. */
  counts(): VapiCounts {
    return { ...this.#counts, webhooks: { ...this.#webhooks.counts } };
  }

  /** Resolves when at least `count` calls were placed. @throws Error after `timeoutMs` */
  waitForCalls(count: number, timeoutMs: number): Promise<CallView[]> {
    const look = () => (this.#counts.placed >= count ? this.calls() : undefined);
    return this.#changes.until('calls', look, timeoutMs, () => `${this.#counts.placed} of ${count} calls were placed`);
  }

  /** Resolves when a call with this id or name has this status, or had it. @throws Error after `timeoutMs` */
  waitForStatus(idOrName: string, status: string, timeoutMs: number): Promise<CallView> {
    const look = () => this.#found(idOrName).find(({ call }) => call.statuses.includes(status));
    const waited = this.#changes.until('statuses', look, timeoutMs, () => `no call ${idOrName} is ${status}`);
    return waited.then(({ call }) => viewOf(call));
  }

  /** What happened so far in the calls with this id or name. */
  events(idOrName: string): CallEvent[] {
    return this.#found(idOrName).flatMap(({ events }) => events);
  }

  /** Calls `listener` with what happens in calls with this id or name, also one that is placed later; the returned function ends it. */
  subscribe(idOrName: string, listener: (event: CallEvent) => void): () => void {
    this.#watchers.on(idOrName, listener);
    return () => this.#watchers.off(idOrName, listener);
  }

  /** Delivers these bytes to the organisation's address with its proof, once; a header given wins, an empty one goes. */
  deliver(body: string | Buffer | object, headers: Record<string, string> = {}): Promise<DeliveryResult> {
    const bytes = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    return this.#webhooks.send(rawVapiWebhook(this.#webhookOptions(), this.#options.serverUrl ?? '', bytes, headers)).done;
  }

  /** Resolves when all calls are over and all their webhooks were taken or given up. */
  async settled(): Promise<void> {
    await this.#background.settled();
    await this.#webhooks.settled();
    await this.#background.settled();
  }

  /** Ends timers, webhooks and waits. */
  async close(): Promise<void> {
    this.#timers.close();
    for (const plan of this.#plans) plan.close();
    this.#changes.close();
    await this.#webhooks.close();
    await this.#background.settled();
  }

  /** Vapi's routes: mount anywhere; that address is the base address. */
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

  // --- HTTP ---

  #guard(request: Request, response: Response, next: NextFunction): void {
    const key = /^Bearer (.+)$/.exec(request.get('Authorization') ?? '')?.[1];
    const { apiKey } = this.#options;
    if (key === undefined || (apiKey !== undefined && key !== apiKey)) reply(response, VAPI_ERRORS['401']);
    else next();
  }

  async #create(request: Request, response: Response): Promise<void> {
    this.#counts.creates += 1;
    const parsed = createCallSchema.safeParse(request.body);
    if (!parsed.success) return this.#refuse(response, badRequest(parsed.error));
    const body = parsed.data;
    const asked = requestOf('create', body);
    await this.#withFault(asked, response, () => {
      const { call } = this.#place(body, baseUrlOf(request), 'outbound', undefined);
      return { status: 201, body: { subscriptionLimits: this.#limits(call), ...callBody(call, 'placed') } };
    });
  }

  async #list(request: Request, response: Response): Promise<void> {
    this.#counts.lists += 1;
    const parsed = listCallsSchema.safeParse(request.query);
    if (!parsed.success) return this.#refuse(response, badRequest(parsed.error));
    const query = parsed.data;
    await this.#withFault({ on: 'list', number: undefined, name: undefined, metadata: undefined }, response, (isStale) => {
      const calls = isStale ? [] : [...this.#calls.values()].filter(({ call }) => isListed(call, query));
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
    this.#counts.gets += 1;
    const playing = this.#calls.get(String(request.params.id));
    if (playing === undefined) return reply(response, VAPI_ERRORS['404']);
    const { call } = playing;
    await this.#withFault(requestOf('get', call.request), response, (isStale) => {
      return { status: 200, body: callBody(call, isStale ? 'placed' : snapshotOf(call)) };
    });
  }

  /** Whoever knows the address ends the call: no key (`monitorPlan.controlAuthenticationEnabled` is off by default). */
  async #control(request: Request, response: Response): Promise<void> {
    const playing = this.#calls.get(String(request.params.id));
    const isKnown = playing !== undefined && isSame(String(request.params.token), playing.call.controlToken);
    if (!isKnown || statusOf(playing.call) === 'ended') return reply(response, VAPI_ERRORS['404']);
    const body: unknown = request.body;
    const isEnd = typeof body === 'object' && body !== null && 'type' in body && body.type === 'end-call';
    if (!isEnd) return reply(response, { status: 400, body: { message: 'type must be end-call', statusCode: 400 } });
    await this.#withFault(requestOf('end', playing.call.request), response, () => {
      this.#counts.ends += 1;
      this.#end(playing.call.id, 'manually-canceled');
      return { status: 200, body: { success: true } };
    });
  }

  async #recording(request: Request, response: Response): Promise<void> {
    const playing = this.#calls.get(String(request.params.id));
    if (playing?.call.startedAtMs === undefined || !playing.call.isReportReady) return reply(response, VAPI_ERRORS['404']);
    const { call } = playing;
    await this.#withFault(requestOf('recording', call.request), response, () => {
      const token = randomBytes(12).toString('hex');
      this.#recordings.set(token, { id: call.id, untilMs: Date.now() + (this.#options.recordingForMs ?? 60_000) });
      return { status: 302, body: {}, headers: { Location: `${baseUrlOf(request)}/recordings/${token}` } };
    });
  }

  /** The storage behind the short-lived address: no key, ranges. */
  #download(request: Request, response: Response): void {
    const granted = this.#recordings.get(String(request.params.token));
    const call = this.#calls.get(granted?.id ?? '')?.call;
    if (granted === undefined || call === undefined || granted.untilMs < Date.now()) {
      reply(response, { status: 403, body: '<Error><Code>AccessDenied</Code></Error>' });
      return;
    }
    const seconds = ((call.endedAtMs ?? 0) - (call.startedAtMs ?? 0)) / 1000;
    sendFile(request, response, recordingWav(Math.min(MAX_WAV_SECONDS, Math.max(MIN_WAV_SECONDS, seconds))));
  }

  /** `act` takes effect and says what the answer of a success would be. */
  async #withFault(asked: VapiRequest, response: Response, act: (isStale: boolean) => HttpAnswer): Promise<void> {
    const fault = this.#faults.take((candidate) => (candidate.on ?? 'create') === asked.on && isMeantFor(candidate, asked)) ?? {};
    const name = fault.answer ?? 'success';
    const isSuccess = name === 'success' || name === 'stale';
    await this.#timers.sleep(fault.delayBeforeMs ?? 0);
    const answer = isSuccess || fault.takesEffect === true ? act(name === 'stale') : undefined;
    await this.#timers.sleep(fault.delayAfterMs ?? 0);
    if (name === 'hang' || name === 'cut') {
      this.#counts.unanswered += 1;
      leave(name, response);
    } else if (!isSuccess) {
      this.#refuse(response, withRetryAfter(VAPI_ERRORS[name], fault.retryAfterSeconds));
    } else if (answer !== undefined) {
      reply(response, answer);
    }
  }

  #refuse(response: Response, answer: HttpAnswer): void {
    this.#counts.refused += 1;
    reply(response, answer);
  }

  #limits(call: StoredCall): object {
    const limit = this.#options.concurrencyLimit ?? DEFAULT_CONCURRENCY;
    return {
      concurrencyBlocked: !call.dialled,
      concurrencyLimit: limit,
      remainingConcurrentCalls: call.dialled ? Math.max(0, limit - this.#counts.active) : 0,
    };
  }

  // --- What happens to a call ---

  #place(request: CreateCall, baseUrl: string, direction: StoredCall['direction'], named: PlayName | undefined): Playing {
    const asked = requestOf('create', request);
    const program = this.#plays.take((candidate) => isMeantFor(candidate, asked));
    const isFull = this.#counts.active >= (this.#options.concurrencyLimit ?? DEFAULT_CONCURRENCY);
    const chosen = named ?? program?.play ?? this.#playByDigits(request);
    const call = newCall(request, baseUrl, direction, isFull ? 'concurrency-blocked' : chosen);
    const timings = { ...TIMINGS_FOR_PEOPLE, ...this.#options.timings, ...(program?.talkMs !== undefined && { talkMs: program.talkMs }) };
    const own = program?.schedule ?? ((events: PlayedEvent[]) => events);
    const hook = this.#schedule;
    const schedule: Schedule = (events) => hook(own(scheduleOf(call.play)(events)), viewOf(call));
    const playing = { call, schedule, timings, plan: new Timers(), events: [] };
    this.#remember(playing);
    const maxMs = 1000 * (request.assistantOverrides?.maxDurationSeconds ?? DEFAULT_MAX_DURATION_SECONDS);
    this.#begin(playing, stepsOf(call.play, timings, maxMs));
    return playing;
  }

  /** A call that found no slot finds one when it is placed again: for a person who tries it, it shall end some time. */
  #playByDigits({ name, customer }: CreateCall): PlayName {
    const play = PLAYS_BY_DIGITS[customer.number.slice(-4)] ?? 'answered';
    const isAgain = play === 'concurrency-blocked' && name !== undefined && this.#found(name).length > 0;
    return isAgain ? 'answered' : play;
  }

  #remember(playing: Playing): void {
    const { call } = playing;
    this.#calls.set(call.id, playing);
    if (this.#calls.size > (this.#options.keepCalls ?? 20_000)) this.#calls.delete(this.#calls.keys().next().value ?? '');
    this.#counts.placed += 1;
    if (call.dialled) {
      this.#counts.active += 1;
      this.#counts.dialled += 1;
      countUp(this.#dialledNumbers, call.request.customer.number);
      if (call.request.name !== undefined) countUp(this.#dialledNames, call.request.name);
    } else {
      this.#counts.blocked += 1;
    }
    this.#changes.notify('calls');
  }

  /** Lets the steps happen in their time, each followed by the events that tell of it. */
  #begin(playing: Playing, steps: PlayStep[]): void {
    playing.plan.close();
    playing.plan = new Timers();
    const wanted = playing.call.request.assistantOverrides?.serverMessages ?? DEFAULT_MESSAGES;
    const events = playing.schedule(eventsOf(steps).filter(({ type }) => isWanted(type, wanted)));
    this.#background.run(this.#follow(playing, steps, events));
  }

  async #follow(playing: Playing, steps: PlayStep[], events: PlayedEvent[]): Promise<void> {
    const { call, plan } = playing;
    this.#plans.add(plan);
    for (const step of steps) {
      if (!(await plan.sleep(call.createdAtMs + step.atMs - Date.now()))) break;
      this.#happen(playing, step);
      for (const event of events.filter((candidate) => tellsOf(candidate, step))) {
        this.#background.run(this.#tellLater(playing, event, event.atMs - step.atMs));
      }
    }
    this.#plans.delete(plan);
  }

  #happen(playing: Playing, step: PlayStep): void {
    const { call } = playing;
    const atMs = Date.now();
    call.updatedAtMs = atMs;
    switch (step.type) {
      case 'status':
        call.statuses.push(step.status);
        if (step.status === 'in-progress') call.startedAtMs = atMs;
        if (step.status === 'ended') Object.assign(call, { endedAtMs: atMs, endedReason: step.endedReason });
        if (step.status === 'ended' && call.dialled) this.#counts.active -= 1;
        this.#show(playing, { type: 'status', callId: call.id, status: step.status, ...reasonOf(step), atMs });
        this.#changes.notify('statuses');
        break;
      case 'words':
        call.spoken.push({ line: step.line, atMs });
        this.#show(playing, { type: 'words', callId: call.id, role: step.line.role, text: step.line.text, atMs });
        break;
      case 'report':
        call.isReportReady = true;
        break;
    }
  }

  async #tellLater(playing: Playing, event: PlayedEvent, delayMs: number): Promise<void> {
    const target = this.#targetOf(playing.call);
    if (target === undefined || !(await this.#timers.sleep(delayMs))) return;
    const webhook = vapiWebhook(this.#webhookOptions(), target, () => messageBody(playing.call, event));
    const { status, attempts } = await this.#webhooks.send(webhook).done;
    const name = event.status === undefined ? event.type : `${event.type} ${event.status}`;
    this.#show(playing, { type: 'webhook', callId: playing.call.id, event: name, answer: status, attempts, atMs: Date.now() });
  }

  /** The call's own server comes before the organisation's address (docs.vapi.ai/server-url/setting-server-urls). */
  #targetOf({ request }: StoredCall): VapiTarget | undefined {
    const own = request.assistantOverrides?.server;
    if (own !== undefined) return { server: own, isOrganisation: false };
    const { serverUrl } = this.#options;
    return serverUrl === undefined ? undefined : { server: { url: serverUrl }, isOrganisation: true };
  }

  #webhookOptions() {
    const { auth, backoffFactor, webhookTimeoutMs } = this.#options;
    return { auth, backoffFactor, timeoutMs: webhookTimeoutMs };
  }

  #end(idOrName: string, endedReason: string): boolean {
    const live = this.#found(idOrName).find(({ call }) => statusOf(call) !== 'ended');
    if (live === undefined) return false;
    const { call, timings } = live;
    const { reportMs } = timings;
    this.#begin(live, endingOf(endedReason, Date.now() - call.createdAtMs, reportMs));
    return true;
  }

  #found(idOrName: string): Playing[] {
    const byId = this.#calls.get(idOrName);
    return byId === undefined ? [...this.#calls.values()].filter(({ call }) => call.request.name === idOrName) : [byId];
  }

  #show(playing: Playing, event: CallEvent): void {
    playing.events.push(event);
    this.#watchers.emit(playing.call.id, event);
    if (playing.call.request.name !== undefined) this.#watchers.emit(playing.call.request.name, event);
  }
}

function newCall(request: CreateCall, baseUrl: string, direction: StoredCall['direction'], play: PlayName): StoredCall {
  const now = Date.now();
  return {
    id: freshCallId(),
    direction,
    request,
    play,
    baseUrl,
    controlToken: randomBytes(12).toString('hex'),
    dialled: play !== 'concurrency-blocked',
    createdAtMs: now,
    updatedAtMs: now,
    statuses: [],
    spoken: [],
    isReportReady: false,
  };
}

function viewOf(call: StoredCall): CallView {
  const { id, direction, request, play, dialled, createdAtMs, endedReason } = call;
  const { number, name, metadata } = requestOf('create', request);
  return { id, name, direction, number: number ?? '', metadata, play, status: statusOf(call), endedReason, dialled, createdAtMs };
}

function statusOf({ statuses }: StoredCall): string {
  return statuses.at(-1) ?? 'queued';
}

function requestOf(on: VapiRequest['on'], request: CreateCall): VapiRequest {
  const metadata = request.assistantOverrides?.metadata ?? request.metadata;
  return { on, number: request.customer.number, name: request.name, metadata };
}

/** What a look at the call shows. */
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

function isWanted(type: PlayedEvent['type'], serverMessages: string[]): boolean {
  return serverMessages.some((wanted) => wanted === type || (type === 'transcript' && wanted === 'transcript[transcriptType="final"]'));
}

/** By the line itself, not its words: a schedule copies events and leaves the line in them. */
function tellsOf(event: PlayedEvent, step: PlayStep): boolean {
  switch (step.type) {
    case 'status':
      return event.type === 'status-update' && event.status === step.status;
    case 'words':
      return event.line === step.line;
    case 'report':
      return event.type === 'end-of-call-report';
  }
}

function reasonOf(step: PlayStep): { endedReason?: string } {
  return step.type === 'status' && step.status === 'ended' ? { endedReason: step.endedReason } : {};
}

function badRequest(error: z.ZodError): HttpAnswer {
  return { status: 400, body: { message: validationMessages(error), error: 'Bad Request', statusCode: 400 } };
}

/** The address under which the client reached the double. */
function baseUrlOf(request: Request): string {
  return `${request.protocol}://${request.get('host')}${request.baseUrl}`;
}

function isSame(one: string, other: string): boolean {
  return one.length === other.length && timingSafeEqual(Buffer.from(one), Buffer.from(other));
}

function countUp(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

/** A whole file, one range of it, or 416. */
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
