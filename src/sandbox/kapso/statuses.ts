/** The status webhooks of accepted sends: which ones, when, and in what order. */
import type { Background, Timers } from '../waiting';
import type { Delivery } from '../webhook-sender';
import { type StoredMessage, statusEvent, statusObject } from './bodies';
import type { Chats } from './chats';
import type { KapsoFault, SendBody, StatusStep } from './requests';
import type { KapsoStore } from './store';
import type { KapsoEvent } from './webhooks';

/** Delays from acceptance to each status webhook, in ms. */
export interface StatusDelays {
  sent: number;
  delivered: number;
  read: number;
}

const DEFAULT_DELAYS_MS: StatusDelays = { sent: 150, delivered: 400, read: 1200 };

/** The planned statuses of a send, with the fault applied, ordered by time. A reaction only gets `sent`. */
export function statusPlan(body: SendBody, fault: KapsoFault, delays = DEFAULT_DELAYS_MS): StatusStep[] {
  const names = body.type === 'reaction' ? (['sent'] as const) : (['sent', 'delivered', 'read'] as const);
  const steps: StatusStep[] = fault.statuses ?? names.map((status) => ({ status, afterMs: delays[status] }));
  return steps
    .filter((step) => !fault.dropStatuses?.includes(step.status))
    .map((step) => (fault.duplicateStatuses?.includes(step.status) ? { ...step, copies: 2 } : step))
    .sort((one, other) => one.afterMs - other.afterMs);
}

/** Dependencies of the status webhooks. */
export interface StatusWebhooksParts {
  store: KapsoStore;
  chats: Chats;
  timers: Timers;
  background: Background;
  deliver(event: KapsoEvent): Delivery;
  /** Called when a message gets a new status. */
  onStatus(wamid: string): void;
}

/** Sends the planned status webhooks on time. */
export class StatusWebhooks {
  readonly #parts: StatusWebhooksParts;

  constructor(parts: StatusWebhooksParts) {
    this.#parts = parts;
  }

  /** Runs the rest of a message's plan in the background; the returned promise resolves after the first attempt of its next webhook. */
  start(message: StoredMessage): Promise<void> {
    const rest = message.plan?.slice(message.statuses.length) ?? [];
    return new Promise((resolve) => this.#parts.background.run(this.#run(message, rest, resolve).finally(resolve)));
  }

  /** Each status waits for the first attempt of the previous one, but not for its retries: the order holds unless a webhook fails. */
  async #run(message: StoredMessage, plan: StatusStep[], onAttempt: () => void): Promise<void> {
    for (const step of plan) {
      const dueInMs = message.createdAtMs + step.afterMs - Date.now();
      if (!(await this.#parts.timers.sleep(dueInMs))) return;
      await this.#emitStatus(message, step);
      onAttempt();
    }
  }

  async #emitStatus(message: StoredMessage, step: StatusStep): Promise<void> {
    const { store, chats, deliver, onStatus } = this.#parts;
    const atMs = Date.now();
    const { conversation } = store.conversation(message.customer, message.phoneNumberId);
    message.statuses.push(statusObject(message, step.status, atMs, step.errorCode));
    store.remember(message);
    chats.emit(message.customer, { type: 'ticks', wamid: message.wamid, direction: 'outbound', status: step.status });
    const body = JSON.stringify(statusEvent(message, conversation, step.status, atMs));
    const order = step.status === 'sent' ? message.customer : undefined;
    const copies = Array.from({ length: step.copies ?? 1 }, () => ({ event: `whatsapp.message.${step.status}`, body, order }));
    await Promise.all(copies.map((event) => deliver(event).first));
    onStatus(message.wamid);
  }
}
