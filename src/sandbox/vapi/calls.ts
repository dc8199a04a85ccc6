/** The calls of the Vapi double: how each goes, and the webhooks that tell of it. */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { z } from 'zod';
import { Programs } from '../programs';
import { type Background, type Changes, Timers } from '../waiting';
import type { WebhookSender } from '../webhook-sender';
import { freshCallId, messageBody, type StoredCall } from './bodies';
import { type CallEvent, type CallView, requestOf, statusOf, viewOf } from './call-view';
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
import { type CreateCall, isMeantFor, type playProgramSchema, type VapiRequest } from './requests';
import { type VapiTarget, type VapiWebhookAuth, type VapiWebhookOptions, vapiWebhook } from './webhooks';

export interface VapiCallsOptions {
  /** How the organisation's webhooks prove themselves. */
  auth: VapiWebhookAuth;
  /** Where events of calls go that name no server of their own; not set: nowhere. */
  serverUrl?: string | undefined;
  /** Times of each call, in ms; what is not set is at a pace for people. */
  timings?: Partial<PlayTimings> | undefined;
  /** Calls at the same time; the next one is blocked (default 10, as Vapi's). */
  concurrencyLimit?: number | undefined;
  /** Waits of a backoff plan are multiplied by this (default 1). */
  backoffFactor?: number | undefined;
  /** Replaces the time limit that a server names for its webhooks, in ms. */
  webhookTimeoutMs?: number | undefined;
  /** How many calls are remembered (default 20,000). */
  keepCalls?: number | undefined;
}

/** What the calls need of the double. */
export interface VapiCallsParts {
  webhooks: WebhookSender;
  changes: Changes;
  timers: Timers;
  background: Background;
}

/** Which calls get which play: `when` is for callers in the same process, as is `schedule`, applied after the play's own. */
export interface PlayProgram extends z.output<typeof playProgramSchema> {
  when?: ((request: VapiRequest) => boolean) | undefined;
  schedule?: Schedule | undefined;
}

/** A hook over all calls: decides per event, after the play's own schedule. */
export type CallSchedule = (events: PlayedEvent[], call: CallView) => PlayedEvent[];

/** serverMessages when a call names none (schema Assistant), as far as the double plays them. */
const DEFAULT_MESSAGES = ['conversation-update', 'end-of-call-report', 'speech-update', 'status-update'];
const DEFAULT_MAX_DURATION_SECONDS = 600;
const DEFAULT_CONCURRENCY = 10;

/** A call in play. */
export interface Playing {
  call: StoredCall;
  schedule: Schedule;
  timings: PlayTimings;
  /** Closed when the rest of the call changes: the earlier plan stops. */
  plan: Timers;
  events: CallEvent[];
}

/** Every call of the double. */
export class VapiCalls {
  readonly plays = new Programs<PlayProgram>();
  readonly counts = { placed: 0, dialled: 0, blocked: 0, active: 0 };
  readonly #options: VapiCallsOptions;
  readonly #parts: VapiCallsParts;
  readonly #plans = new Set<Timers>();
  readonly #watchers = new EventEmitter().setMaxListeners(0);
  readonly #calls = new Map<string, Playing>();
  readonly #dialledNumbers = new Map<string, number>();
  readonly #dialledNames = new Map<string, number>();
  #schedule: CallSchedule = (events) => events;

  constructor(options: VapiCallsOptions, parts: VapiCallsParts) {
    this.#options = options;
    this.#parts = parts;
  }

  /** Calls at the same time. */
  get concurrencyLimit(): number {
    return this.#options.concurrencyLimit ?? DEFAULT_CONCURRENCY;
  }

  /** Takes all plays back, and the hook of `scheduleEvents`. */
  clearPlays(): void {
    this.plays.clear();
    this.#schedule = (events) => events;
  }

  /** Sets the hook that may lose, repeat or delay each event of each call to come; there is one. */
  scheduleEvents(schedule: CallSchedule): void {
    this.#schedule = schedule;
  }

  /** All remembered calls, oldest first. */
  all(): Playing[] {
    return [...this.#calls.values()];
  }

  /** The call with this id. */
  get(id: string): Playing | undefined {
    return this.#calls.get(id);
  }

  /** The calls with this id or name, oldest first. */
  found(idOrName: string): Playing[] {
    const byId = this.#calls.get(idOrName);
    return byId === undefined ? [...this.#calls.values()].filter(({ call }) => call.request.name === idOrName) : [byId];
  }

  /** How many phones rang for a number (E.164), for a name, or in all. */
  dialled({ number, name }: { number?: string | undefined; name?: string | undefined } = {}): number {
    if (number !== undefined) return this.#dialledNumbers.get(number) ?? 0;
    if (name !== undefined) return this.#dialledNames.get(name) ?? 0;
    return this.counts.dialled;
  }

  /** How many phones rang, per number and per name. */
  dialledBy(): { numbers: Record<string, number>; names: Record<string, number> } {
    return { numbers: Object.fromEntries(this.#dialledNumbers), names: Object.fromEntries(this.#dialledNames) };
  }

  /** Calls `listener` with what happens in calls with this id or name, also one that is placed later; the returned function ends it. */
  subscribe(idOrName: string, listener: (event: CallEvent) => void): () => void {
    this.#watchers.on(idOrName, listener);
    return () => this.#watchers.off(idOrName, listener);
  }

  /** Stops the calls that are not over. */
  close(): void {
    for (const plan of this.#plans) plan.close();
  }

  /** The options of this organisation's webhooks. */
  webhookOptions(): VapiWebhookOptions {
    const { auth, backoffFactor, webhookTimeoutMs } = this.#options;
    return { auth, backoffFactor, timeoutMs: webhookTimeoutMs };
  }

  /** Places a call; its play is the named one, the next program's, or that of its last digits. */
  place(request: CreateCall, baseUrl: string, direction: StoredCall['direction'], named: PlayName | undefined): Playing {
    const asked = requestOf('create', request);
    const program = this.plays.take((candidate) => isMeantFor(candidate, asked));
    const isFull = this.counts.active >= this.concurrencyLimit;
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
    const isAgain = play === 'concurrency-blocked' && name !== undefined && this.found(name).length > 0;
    return isAgain ? 'answered' : play;
  }

  /** Ends the live call with this id or name. @returns false when there is none */
  end(idOrName: string, endedReason: string): boolean {
    const live = this.found(idOrName).find(({ call }) => statusOf(call) !== 'ended');
    if (live === undefined) return false;
    const { call, timings } = live;
    const { reportMs } = timings;
    this.#begin(live, endingOf(endedReason, Date.now() - call.createdAtMs, reportMs));
    return true;
  }

  #remember(playing: Playing): void {
    const { call } = playing;
    this.#calls.set(call.id, playing);
    if (this.#calls.size > (this.#options.keepCalls ?? 20_000)) this.#calls.delete(this.#calls.keys().next().value ?? '');
    this.counts.placed += 1;
    if (call.dialled) {
      this.counts.active += 1;
      this.counts.dialled += 1;
      countUp(this.#dialledNumbers, call.request.customer.number);
      if (call.request.name !== undefined) countUp(this.#dialledNames, call.request.name);
    } else {
      this.counts.blocked += 1;
    }
    this.#parts.changes.notify('calls');
  }

  /** Lets the steps happen in their time, each followed by the events that tell of it. */
  #begin(playing: Playing, steps: PlayStep[]): void {
    playing.plan.close();
    playing.plan = new Timers();
    const wanted = playing.call.request.assistantOverrides?.serverMessages ?? DEFAULT_MESSAGES;
    const events = playing.schedule(eventsOf(steps).filter(({ type }) => isWanted(type, wanted)));
    this.#parts.background.run(this.#follow(playing, steps, events));
  }

  async #follow(playing: Playing, steps: PlayStep[], events: PlayedEvent[]): Promise<void> {
    const { call, plan } = playing;
    this.#plans.add(plan);
    for (const step of steps) {
      if (!(await plan.sleep(call.createdAtMs + step.atMs - Date.now()))) break;
      this.#happen(playing, step);
      for (const event of events.filter((candidate) => tellsOf(candidate, step))) {
        this.#parts.background.run(this.#tellLater(playing, event, event.atMs - step.atMs));
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
        if (step.status === 'ended' && call.dialled) this.counts.active -= 1;
        this.#show(playing, { type: 'status', callId: call.id, status: step.status, ...reasonOf(step), atMs });
        this.#parts.changes.notify('statuses');
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
    if (target === undefined || !(await this.#parts.timers.sleep(delayMs))) return;
    const webhook = vapiWebhook(this.webhookOptions(), target, () => messageBody(playing.call, event));
    const { status, attempts } = await this.#parts.webhooks.send(webhook).done;
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

function countUp(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
