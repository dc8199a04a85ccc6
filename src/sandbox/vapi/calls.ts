/** Simulates calls: runs the scenario of each call and sends its webhooks. */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { z } from 'zod';
import type { Journal } from '../journal';
import { Programs } from '../programs';
import { type Background, type Changes, Timers } from '../waiting';
import type { WebhookSender } from '../webhook-sender';
import { freshCallId, messageBody, type StoredCall } from './bodies';
import { type CallEvent, type CallView, requestOf, statusOf, viewOf } from './call-view';
import {
  DEFAULT_TIMINGS,
  endingOf,
  eventsOf,
  PLAYS_BY_DIGITS,
  type PlayedEvent,
  type PlayName,
  type PlayStep,
  type PlayTimings,
  reportDelayMs,
  type Schedule,
  scheduleOf,
  stepsOf,
} from './plays';
import { appliesTo, type CreateCall, type playProgramSchema, type VapiRequest } from './requests';
import { type VapiTarget, type VapiWebhookAuth, type VapiWebhookOptions, vapiWebhook } from './webhooks';

/** Options of the simulated calls. */
export interface VapiCallsOptions {
  /** How the organisation's webhooks are authenticated. */
  auth: VapiWebhookAuth;
  /** The organisation's server URL, for events of calls without a server of their own (default: none, such events are not sent). */
  serverUrl?: string | undefined;
  /** Timings of each call, in ms (default: a pace that people can follow). */
  timings?: Partial<PlayTimings> | undefined;
  /** Maximum number of concurrent calls; further calls are blocked (default 10, as with Vapi). */
  concurrencyLimit?: number | undefined;
  /** Factor for the delays of backoff plans (default 1). */
  backoffFactor?: number | undefined;
  /** Overrides the webhook timeout of servers, in ms. */
  webhookTimeoutMs?: number | undefined;
  /** Maximum number of stored calls (default 20,000). */
  keepCalls?: number | undefined;
}

/** Dependencies of the simulated calls. */
export interface VapiCallsParts {
  webhooks: WebhookSender;
  changes: Changes;
  timers: Timers;
  background: Background;
  /** Keeps calls across restarts (default: none). */
  journal?: Journal<StoredCall> | undefined;
}

/** Assigns a scenario to calls. `when` and `schedule`, applied after the scenario's own, are available within the same process only. */
export interface PlayProgram extends z.output<typeof playProgramSchema> {
  when?: ((request: VapiRequest) => boolean) | undefined;
  schedule?: Schedule | undefined;
}

/** A schedule for the events of all calls, applied after the scenario's own. */
export type CallSchedule = (events: PlayedEvent[], call: CallView) => PlayedEvent[];

/** The default `serverMessages` (schema Assistant), as far as they are simulated. */
const DEFAULT_MESSAGES = ['conversation-update', 'end-of-call-report', 'speech-update', 'status-update'];
const DEFAULT_MAX_DURATION_SECONDS = 600;
const DEFAULT_CONCURRENCY = 10;

/** A call goes on while the double is down. Overdue events happen this long after the restart, in ms, when Parley is up again. */
const RESUME_AFTER_MS = 5_000;

/** A call and the state of its simulation. */
export interface SimulatedCall {
  call: StoredCall;
  schedule: Schedule;
  timings: PlayTimings;
  /** Timers of the steps to come; closed when the rest of the call changes. */
  plan: Timers;
  events: CallEvent[];
}

/** All calls of the double. */
export class VapiCalls {
  readonly plays = new Programs<PlayProgram>();
  readonly counts = { placed: 0, dialled: 0, blocked: 0, active: 0 };
  readonly #options: VapiCallsOptions;
  readonly #parts: VapiCallsParts;
  readonly #plans = new Set<Timers>();
  readonly #watchers = new EventEmitter().setMaxListeners(0);
  readonly #calls = new Map<string, SimulatedCall>();
  readonly #dialledNumbers = new Map<string, number>();
  readonly #dialledNames = new Map<string, number>();
  #schedule: CallSchedule = (events) => events;

  constructor(options: VapiCallsOptions, parts: VapiCallsParts) {
    this.#options = options;
    this.#parts = parts;
    for (const call of parts.journal?.rows() ?? []) this.#resume(call);
  }

  /** Maximum number of concurrent calls. */
  get concurrencyLimit(): number {
    return this.#options.concurrencyLimit ?? DEFAULT_CONCURRENCY;
  }

  /** Removes all scenarios and the schedule of `scheduleEvents`. */
  clearPlays(): void {
    this.plays.clear();
    this.#schedule = (events) => events;
  }

  /** Sets the schedule that may drop, repeat or delay events of later calls; replaces the previous one. */
  scheduleEvents(schedule: CallSchedule): void {
    this.#schedule = schedule;
  }

  /** All stored calls, oldest first. */
  all(): SimulatedCall[] {
    return [...this.#calls.values()];
  }

  /** The call with this id. */
  get(id: string): SimulatedCall | undefined {
    return this.#calls.get(id);
  }

  /** The calls with this id or name, oldest first. */
  findAll(idOrName: string): SimulatedCall[] {
    const byId = this.#calls.get(idOrName);
    return byId === undefined ? [...this.#calls.values()].filter(({ call }) => call.request.name === idOrName) : [byId];
  }

  /** How often a phone rang for a number (E.164), for a name, or in total. */
  dialled({ number, name }: { number?: string | undefined; name?: string | undefined } = {}): number {
    if (number !== undefined) return this.#dialledNumbers.get(number) ?? 0;
    if (name !== undefined) return this.#dialledNames.get(name) ?? 0;
    return this.counts.dialled;
  }

  /** How often a phone rang, by number and by name. */
  dialledBy(): { numbers: Record<string, number>; names: Record<string, number> } {
    return { numbers: Object.fromEntries(this.#dialledNumbers), names: Object.fromEntries(this.#dialledNames) };
  }

  /** Calls `listener` for each event of calls with this id or name, including later ones; the returned function unsubscribes. */
  subscribe(idOrName: string, listener: (event: CallEvent) => void): () => void {
    this.#watchers.on(idOrName, listener);
    return () => this.#watchers.off(idOrName, listener);
  }

  /** Stops all live calls. */
  close(): void {
    for (const plan of this.#plans) plan.close();
  }

  /** The webhook options of the organisation. */
  webhookOptions(): VapiWebhookOptions {
    const { auth, backoffFactor, webhookTimeoutMs } = this.#options;
    return { auth, backoffFactor, timeoutMs: webhookTimeoutMs };
  }

  /** Places a call. Its scenario is `named`, or else that of the next matching program, or else that of the number's last digits. */
  place(request: CreateCall, baseUrl: string, direction: StoredCall['direction'], named: PlayName | undefined): SimulatedCall {
    const vapiRequest = requestOf('create', request);
    const program = this.plays.take((candidate) => appliesTo(candidate, vapiRequest));
    const isFull = this.counts.active >= this.concurrencyLimit;
    const chosen = named ?? program?.play ?? this.#playByDigits(request);
    const call = newCall(request, baseUrl, direction, isFull ? 'concurrency-blocked' : chosen);
    const timings = { ...DEFAULT_TIMINGS, ...this.#options.timings, ...(program?.talkMs !== undefined && { talkMs: program.talkMs }) };
    const own = program?.schedule ?? ((events: PlayedEvent[]) => events);
    const hook = this.#schedule;
    const schedule: Schedule = (events) => hook(own(scheduleOf(call.play)(events)), viewOf(call));
    const simulated = { call, schedule, timings, plan: new Timers(), events: [] };
    this.#store(simulated);
    this.#start(simulated, stepsOf(call.play, timings, maxDurationMs(request)));
    return simulated;
  }

  /** By digits, "no free slot" applies only to the first placement of a call, so that a person's trial call eventually goes through. */
  #playByDigits({ name, customer }: CreateCall): PlayName {
    const play = PLAYS_BY_DIGITS[customer.number.slice(-4)] ?? 'answered';
    const isAgain = play === 'concurrency-blocked' && name !== undefined && this.findAll(name).length > 0;
    return isAgain ? 'answered' : play;
  }

  /** Ends the live call with this id or name. @returns false if there is none */
  end(idOrName: string, endedReason: string): boolean {
    const live = this.findAll(idOrName).find(({ call }) => statusOf(call) !== 'ended');
    if (live === undefined) return false;
    const { call, timings } = live;
    this.#start(live, endingOf(endedReason, Date.now() - call.createdAtMs, reportDelayMs(call.play, timings)));
    return true;
  }

  /** Continues a call from before the restart. */
  #resume(call: StoredCall): void {
    const timings = { ...DEFAULT_TIMINGS, ...this.#options.timings };
    const simulated = { call, schedule: scheduleOf(call.play), timings, plan: new Timers(), events: [] };
    this.#calls.set(call.id, simulated);
    if (call.dialled && statusOf(call) !== 'ended') this.counts.active += 1;
    const earliestMs = Date.now() - call.createdAtMs + RESUME_AFTER_MS;
    this.#start(
      simulated,
      stepsLeft(call, timings).map((step, place) => ({ ...step, atMs: Math.max(step.atMs, earliestMs + place) })),
    );
  }

  #store(simulated: SimulatedCall): void {
    const { call } = simulated;
    this.#calls.set(call.id, simulated);
    if (this.#calls.size > (this.#options.keepCalls ?? 20_000)) this.#calls.delete(this.#calls.keys().next().value ?? '');
    this.#parts.journal?.write(call.id, call);
    this.counts.placed += 1;
    if (call.dialled) {
      this.counts.active += 1;
      this.counts.dialled += 1;
      increment(this.#dialledNumbers, call.request.customer.number);
      if (call.request.name !== undefined) increment(this.#dialledNames, call.request.name);
    } else {
      this.counts.blocked += 1;
    }
    this.#parts.changes.notify('calls');
  }

  /** Runs the steps on time, and sends the events of each. Cancels the steps that were planned before. */
  #start(simulated: SimulatedCall, steps: PlayStep[]): void {
    simulated.plan.close();
    simulated.plan = new Timers();
    const wanted = simulated.call.request.assistantOverrides?.serverMessages ?? DEFAULT_MESSAGES;
    const events = simulated.schedule(eventsOf(steps).filter(({ type }) => isSubscribed(type, wanted)));
    this.#parts.background.run(this.#runSteps(simulated, steps, events));
  }

  async #runSteps(simulated: SimulatedCall, steps: PlayStep[], events: PlayedEvent[]): Promise<void> {
    const { call, plan } = simulated;
    this.#plans.add(plan);
    for (const step of steps) {
      if (!(await plan.sleep(call.createdAtMs + step.atMs - Date.now()))) break;
      this.#applyStep(simulated, step);
      for (const event of events.filter((candidate) => isEventOf(candidate, step))) {
        this.#parts.background.run(this.#sendWebhookLater(simulated, event, event.atMs - step.atMs));
      }
    }
    this.#plans.delete(plan);
  }

  #applyStep(simulated: SimulatedCall, step: PlayStep): void {
    const { call } = simulated;
    const atMs = Date.now();
    call.updatedAtMs = atMs;
    switch (step.type) {
      case 'status':
        call.statuses.push(step.status);
        if (step.status === 'in-progress') call.startedAtMs = atMs;
        if (step.status === 'ended') Object.assign(call, { endedAtMs: atMs, endedReason: step.endedReason });
        if (step.status === 'ended' && call.dialled) this.counts.active -= 1;
        this.#publish(simulated, { type: 'status', callId: call.id, status: step.status, ...reasonOf(step), atMs });
        this.#parts.changes.notify('statuses');
        break;
      case 'words':
        call.spoken.push({ line: step.line, atMs });
        this.#publish(simulated, { type: 'words', callId: call.id, role: step.line.role, text: step.line.text, atMs });
        break;
      case 'report':
        call.isReportReady = true;
        break;
    }
    this.#parts.journal?.write(call.id, call);
  }

  async #sendWebhookLater(simulated: SimulatedCall, event: PlayedEvent, delayMs: number): Promise<void> {
    const target = this.#targetOf(simulated.call);
    if (target === undefined || !(await this.#parts.timers.sleep(delayMs))) return;
    const webhook = vapiWebhook(this.webhookOptions(), target, () => messageBody(simulated.call, event));
    const { status, attempts } = await this.#parts.webhooks.send(webhook).done;
    const name = event.status === undefined ? event.type : `${event.type} ${event.status}`;
    this.#publish(simulated, { type: 'webhook', callId: simulated.call.id, event: name, answer: status, attempts, atMs: Date.now() });
  }

  /** The call's own server takes precedence over the organisation's (docs.vapi.ai/server-url/setting-server-urls). */
  #targetOf({ request }: StoredCall): VapiTarget | undefined {
    const own = request.assistantOverrides?.server;
    if (own !== undefined) return { server: own, isOrganisation: false };
    const { serverUrl } = this.#options;
    return serverUrl === undefined ? undefined : { server: { url: serverUrl }, isOrganisation: true };
  }

  #publish(simulated: SimulatedCall, event: CallEvent): void {
    simulated.events.push(event);
    this.#watchers.emit(simulated.call.id, event);
    if (simulated.call.request.name !== undefined) this.#watchers.emit(simulated.call.request.name, event);
  }
}

function maxDurationMs(request: CreateCall): number {
  return 1_000 * (request.assistantOverrides?.maxDurationSeconds ?? DEFAULT_MAX_DURATION_SECONDS);
}

/** The steps of a call's scenario that have not happened yet. For a call that somebody ended, only the report is left. */
function stepsLeft(call: StoredCall, timings: PlayTimings): PlayStep[] {
  const steps = stepsOf(call.play, timings, maxDurationMs(call.request));
  if (statusOf(call) !== 'ended') return steps.slice(call.statuses.length + call.spoken.length);
  return call.isReportReady ? [] : steps.filter(({ type }) => type === 'report');
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

function isSubscribed(type: PlayedEvent['type'], serverMessages: string[]): boolean {
  return serverMessages.some((wanted) => wanted === type || (type === 'transcript' && wanted === 'transcript[transcriptType="final"]'));
}

/** Compares lines by identity, not text: a schedule may copy an event, but the copy keeps the line object. */
function isEventOf(event: PlayedEvent, step: PlayStep): boolean {
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

function increment(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
