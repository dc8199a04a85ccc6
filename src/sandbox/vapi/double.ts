/**
 * A double of Vapi: it places calls, plays what happens on the phone, tells it by webhooks, and keeps what was really dialled. It
 * misbehaves on request only. Facts: docs.vapi.ai and the shapes in test/fixtures/vapi.
 */
import type { Router } from 'express';
import type { Logger } from 'pino';
import { Background, Changes, Timers } from '../waiting';
import { type DeliveryResult, type WebhookCounts, WebhookSender } from '../webhook-sender';
import { SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID } from './bodies';
import { type CallEvent, type CallView, viewOf } from './call-view';
import { type CallSchedule, type PlayProgram, VapiCalls, type VapiCallsOptions } from './calls';
import { VapiApi, type VapiApiOptions } from './http-api';
import type { PlayName } from './plays';
import type { VapiFault } from './requests';
import { rawVapiWebhook } from './webhooks';

export type { CallEvent, CallView } from './call-view';

export interface VapiDoubleOptions extends VapiCallsOptions, VapiApiOptions {
  log: Logger;
}

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

/** Vapi, played. Methods never throw because of Parley's answers. */
export class VapiDouble {
  readonly #options: VapiDoubleOptions;
  readonly #calls: VapiCalls;
  readonly #api: VapiApi;
  readonly #webhooks: WebhookSender;
  readonly #changes = new Changes();
  readonly #timers = new Timers();
  readonly #background: Background;

  constructor(options: VapiDoubleOptions) {
    const failed = (error: unknown) => options.log.error({ err: error }, 'the sandbox failed in the background');
    this.#options = options;
    this.#background = new Background(failed);
    this.#webhooks = new WebhookSender(failed);
    this.#calls = new VapiCalls(options, {
      webhooks: this.#webhooks,
      changes: this.#changes,
      timers: this.#timers,
      background: this.#background,
    });
    this.#api = new VapiApi(options, this.#calls, this.#timers);
  }

  /** Chooses the play of calls to come (`times`: of the next ones only); the returned function takes it back. */
  play(program: PlayProgram): () => void {
    return this.#calls.plays.add(program);
  }

  /** The plays that still wait for calls. */
  plays(): PlayProgram[] {
    return this.#calls.plays.list();
  }

  /** Takes all plays back, and the hook of `scheduleEvents`. */
  clearPlays(): void {
    this.#calls.clearPlays();
  }

  /** Sets the hook that may lose, repeat or delay each event of each call to come; there is one. */
  scheduleEvents(schedule: CallSchedule): void {
    this.#calls.scheduleEvents(schedule);
  }

  /** Adds a fault; the returned function takes it back. */
  fault(fault: VapiFault): () => void {
    return this.#api.faults.add(fault);
  }

  /** The faults that still wait for requests. */
  faults(): VapiFault[] {
    return this.#api.faults.list();
  }

  /** Takes all faults back. */
  clearFaults(): void {
    this.#api.faults.clear();
  }

  /** Somebody calls the business, or a call is made by others: its events go to the organisation's address. `baseUrl` as a client names it. */
  receiveCall({ from, play, baseUrl }: { from: string; play?: PlayName | undefined; baseUrl: string }): CallView {
    const request = { assistantId: SANDBOX_ASSISTANT_ID, phoneNumberId: SANDBOX_VAPI_NUMBER_ID, customer: { number: from } };
    return viewOf(this.#calls.place(request, baseUrl, 'inbound', play).call);
  }

  /** The person on the phone hangs up. @returns false when no such call is live */
  hangUp(idOrName: string): boolean {
    return this.#calls.end(idOrName, 'customer-ended-call');
  }

  /** The remembered calls, oldest first. */
  calls(): CallView[] {
    return this.#calls.all().map(({ call }) => viewOf(call));
  }

  /** The calls with this id or name, oldest first. */
  find(idOrName: string): CallView[] {
    return this.#calls.found(idOrName).map(({ call }) => viewOf(call));
  }

  /** How many phones rang for a number (E.164), for a name, or in all. */
  dialled(of: { number?: string | undefined; name?: string | undefined } = {}): number {
    return this.#calls.dialled(of);
  }

  /** How many phones rang, per number and per name. */
  dialledBy(): { numbers: Record<string, number>; names: Record<string, number> } {
    return this.#calls.dialledBy();
  }

  /** Totals since the start. */
  counts(): VapiCounts {
    const { placed, dialled, blocked, active } = this.#calls.counts;
    const { creates, ...requests } = this.#api.counts;
    return { creates, placed, dialled, blocked, ...requests, active, webhooks: { ...this.#webhooks.counts } };
  }

  /** Resolves when at least `count` calls were placed. @throws Error after `timeoutMs` */
  waitForCalls(count: number, timeoutMs: number): Promise<CallView[]> {
    const look = () => (this.#calls.counts.placed >= count ? this.calls() : undefined);
    return this.#changes.until('calls', look, timeoutMs, () => `${this.#calls.counts.placed} of ${count} calls were placed`);
  }

  /** Resolves when a call with this id or name has this status, or had it. @throws Error after `timeoutMs` */
  waitForStatus(idOrName: string, status: string, timeoutMs: number): Promise<CallView> {
    const look = () => this.#calls.found(idOrName).find(({ call }) => call.statuses.includes(status));
    const waited = this.#changes.until('statuses', look, timeoutMs, () => `no call ${idOrName} is ${status}`);
    return waited.then(({ call }) => viewOf(call));
  }

  /** What happened so far in the calls with this id or name. */
  events(idOrName: string): CallEvent[] {
    return this.#calls.found(idOrName).flatMap(({ events }) => events);
  }

  /** Calls `listener` with what happens in calls with this id or name, also one that is placed later; the returned function ends it. */
  subscribe(idOrName: string, listener: (event: CallEvent) => void): () => void {
    return this.#calls.subscribe(idOrName, listener);
  }

  /** Delivers these bytes to the organisation's address with its proof, once; a header given wins, an empty one goes. */
  deliver(body: string | Buffer | object, headers: Record<string, string> = {}): Promise<DeliveryResult> {
    const bytes = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    return this.#webhooks.send(rawVapiWebhook(this.#calls.webhookOptions(), this.#options.serverUrl ?? '', bytes, headers)).done;
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
    this.#calls.close();
    this.#changes.close();
    await this.#webhooks.close();
    await this.#background.settled();
  }

  /** Vapi's routes: mount anywhere; that address is the base address. */
  routes(): Router {
    return this.#api.routes();
  }
}
