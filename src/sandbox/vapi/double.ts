/**
 * A double of Vapi: it places calls, simulates what happens on the phone, sends the webhooks, and records what was really dialled.
 * Misbehaves only as programmed. Sources: docs.vapi.ai and the shapes in test/fixtures/vapi.
 */
import { join } from 'node:path';
import type { Router } from 'express';
import type { Logger } from 'pino';
import { Journal } from '../journal';
import { Background, Changes, Timers } from '../waiting';
import { type DeliveryResult, type WebhookCounts, WebhookSender } from '../webhook-sender';
import { SANDBOX_ASSISTANT_ID, SANDBOX_VAPI_NUMBER_ID, type StoredCall } from './bodies';
import { type CallEvent, type CallView, viewOf } from './call-view';
import { type CallSchedule, type PlayProgram, VapiCalls, type VapiCallsOptions } from './calls';
import { VapiApi, type VapiApiOptions } from './http-api';
import type { PlayName } from './plays';
import type { VapiFault } from './requests';
import { rawVapiWebhook } from './webhooks';

export type { CallEvent, CallView } from './call-view';

const REMEMBERED_CALLS = 500;

/** Options of the Vapi double. */
export interface VapiDoubleOptions extends VapiCallsOptions, VapiApiOptions {
  /** Folder in which the calls survive a restart (default: none). */
  memoryDir?: string | undefined;
  log: Logger;
}

/** Totals since the start. `dialled` calls rang a phone, `blocked` ones had no free slot; `refused` and `unanswered` count requests. */
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

/** Simulates Vapi. Methods never throw because of Parley's responses. */
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
      journal:
        options.memoryDir === undefined ? undefined : new Journal<StoredCall>(join(options.memoryDir, 'calls.jsonl'), REMEMBERED_CALLS),
    });
    this.#api = new VapiApi(options, this.#calls, this.#timers);
  }

  /** Sets the scenario of later calls (`times` limits how many); the returned function removes it. */
  play(program: PlayProgram): () => void {
    return this.#calls.plays.add(program);
  }

  /** The scenarios that are still active. */
  plays(): PlayProgram[] {
    return this.#calls.plays.list();
  }

  /** Removes all scenarios and the schedule of `scheduleEvents`. */
  clearPlays(): void {
    this.#calls.clearPlays();
  }

  /** Sets the schedule that may drop, repeat or delay events of later calls; replaces the previous one. */
  scheduleEvents(schedule: CallSchedule): void {
    this.#calls.scheduleEvents(schedule);
  }

  /** Adds a fault; the returned function removes it. */
  fault(fault: VapiFault): () => void {
    return this.#api.faults.add(fault);
  }

  /** The faults that are still active. */
  faults(): VapiFault[] {
    return this.#api.faults.list();
  }

  /** Removes all faults. */
  clearFaults(): void {
    this.#api.faults.clear();
  }

  /** Simulates an inbound call; its events go to the organisation's server. `baseUrl`: the double's base URL, as used by clients. */
  receiveCall({ from, play, baseUrl }: { from: string; play?: PlayName | undefined; baseUrl: string }): CallView {
    const request = { assistantId: SANDBOX_ASSISTANT_ID, phoneNumberId: SANDBOX_VAPI_NUMBER_ID, customer: { number: from } };
    return viewOf(this.#calls.place(request, baseUrl, 'inbound', play).call);
  }

  /** Hangs up as the person on the phone. @returns false if there is no such live call */
  hangUp(idOrName: string): boolean {
    return this.#calls.end(idOrName, 'customer-ended-call');
  }

  /** All stored calls, oldest first. */
  calls(): CallView[] {
    return this.#calls.all().map(({ call }) => viewOf(call));
  }

  /** The calls with this id or name, oldest first. */
  find(idOrName: string): CallView[] {
    return this.#calls.findAll(idOrName).map(({ call }) => viewOf(call));
  }

  /** How often a phone rang for a number (E.164), for a name, or in total. */
  dialled(of: { number?: string | undefined; name?: string | undefined } = {}): number {
    return this.#calls.dialled(of);
  }

  /** How often a phone rang, by number and by name. */
  dialledBy(): { numbers: Record<string, number>; names: Record<string, number> } {
    return this.#calls.dialledBy();
  }

  /** Totals since the start. */
  counts(): VapiCounts {
    const { placed, dialled, blocked, active } = this.#calls.counts;
    const { creates, ...requests } = this.#api.counts;
    return { creates, placed, dialled, blocked, ...requests, active, webhooks: { ...this.#webhooks.counts } };
  }

  /** Resolves once at least `count` calls have been placed. @throws Error after `timeoutMs` */
  waitForCalls(count: number, timeoutMs: number): Promise<CallView[]> {
    const check = () => (this.#calls.counts.placed >= count ? this.calls() : undefined);
    return this.#changes.until('calls', check, timeoutMs, () => `${this.#calls.counts.placed} of ${count} calls were placed`);
  }

  /** Resolves once a call with this id or name has, or has had, this status. @throws Error after `timeoutMs` */
  waitForStatus(idOrName: string, status: string, timeoutMs: number): Promise<CallView> {
    const check = () => this.#calls.findAll(idOrName).find(({ call }) => call.statuses.includes(status));
    const waited = this.#changes.until('statuses', check, timeoutMs, () => `no call ${idOrName} is ${status}`);
    return waited.then(({ call }) => viewOf(call));
  }

  /** The events so far of the calls with this id or name. */
  events(idOrName: string): CallEvent[] {
    return this.#calls.findAll(idOrName).flatMap(({ events }) => events);
  }

  /** Calls `listener` for each event of calls with this id or name, including later ones; the returned function unsubscribes. */
  subscribe(idOrName: string, listener: (event: CallEvent) => void): () => void {
    return this.#calls.subscribe(idOrName, listener);
  }

  /** Delivers the given body once to the organisation's server, authenticated; `headers` override the defaults, empty ones remove them. */
  deliver(body: string | Buffer | object, headers: Record<string, string> = {}): Promise<DeliveryResult> {
    const bytes = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    return this.#webhooks.send(rawVapiWebhook(this.#calls.webhookOptions(), this.#options.serverUrl ?? '', bytes, headers)).done;
  }

  /** Resolves when all calls have ended and all their webhooks have been accepted or abandoned. */
  async settled(): Promise<void> {
    await this.#background.settled();
    await this.#webhooks.settled();
    await this.#background.settled();
  }

  /** Ends all timers, webhooks and waits. */
  async close(): Promise<void> {
    this.#timers.close();
    this.#calls.close();
    this.#changes.close();
    await this.#webhooks.close();
    await this.#background.settled();
  }

  /** Vapi's routes; the path at which they are mounted is part of the base URL. */
  routes(): Router {
    return this.#api.routes();
  }
}
