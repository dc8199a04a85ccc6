/**
 * The inbox of a conversation: what has arrived and is not recorded yet, and which ids were seen.
 * Pure: no Temporal API, so that its rules can be read and tested alone.
 */
import type { InboundMessage, MessagesReceived } from '../contract';

/**
 * How many message ids are remembered. A sender's retries come within minutes; what is older
 * is caught by the unique key of the record. Bounded, because the ring travels through every continue-as-new.
 */
export const SEEN_LIMIT = 500;

export class Inbox {
  #pending: MessagesReceived[];
  readonly #seen: Set<string>;
  duplicatesDropped = 0;

  constructor(pending: MessagesReceived[] = [], seenIds: string[] = []) {
    this.#pending = [...pending];
    this.#seen = new Set(seenIds);
  }

  /** Takes what is new. Never throws: it runs inside a signal handler. Returns how many messages were new. */
  add(received: MessagesReceived): number {
    const fresh = received.messages.filter((message) => this.#remember(message.providerMessageId));
    this.duplicatesDropped += received.messages.length - fresh.length;
    if (fresh.length > 0) this.#pending.push({ contact: received.contact, messages: fresh });
    return fresh.length;
  }

  get isEmpty(): boolean {
    return this.#pending.length === 0;
  }

  get size(): number {
    return this.#pending.reduce((sum, received) => sum + received.messages.length, 0);
  }

  /** Puts back what was taken: it came before everything else that waits. */
  putBack(taken: MessagesReceived): void {
    this.#pending.unshift(taken);
  }

  /** The `count` messages that came last, as one delivery; they stay. */
  newest(count: number): MessagesReceived {
    const { contact, messages } = merged(this.#pending);
    return { contact, messages: messages.slice(-count) };
  }

  /** Everything that waits, as one delivery; the newest knowledge of the contact wins. Empties the inbox. */
  takeAll(): MessagesReceived {
    const taken = this.#pending;
    this.#pending = [];
    return merged(taken);
  }

  snapshot(): { pending: MessagesReceived[]; seenIds: string[] } {
    return { pending: this.#pending, seenIds: [...this.#seen] };
  }

  #remember(id: string): boolean {
    if (this.#seen.has(id)) return false;
    this.#seen.add(id);
    if (this.#seen.size > SEEN_LIMIT) {
      const oldest = this.#seen.values().next().value;
      if (oldest !== undefined) this.#seen.delete(oldest);
    }
    return true;
  }
}

function merged(deliveries: MessagesReceived[]): MessagesReceived {
  return {
    contact: Object.assign({}, ...deliveries.map((received) => received.contact)) as MessagesReceived['contact'],
    messages: deliveries.flatMap((received): InboundMessage[] => received.messages),
  };
}
