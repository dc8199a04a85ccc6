/**
 * The inbox of a conversation: what has arrived and is not recorded yet, and which ids were seen.
 * Pure: no Temporal API, so that its rules can be read and tested alone.
 */
import type { ContactIdentity, InboundMessage, MessagesReceived } from '../contract';

/**
 * Maximum number of remembered message ids. A sender's retries come within minutes; the database's unique key catches older ones.
 * Limited, because the ids are passed on with every continue-as-new.
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

  /**
   * Takes what is new. Never throws, whatever it is given: it runs inside a signal handler, and an operator may have typed the
   * argument. Returns how many messages were new.
   */
  add(received: unknown): number {
    const { contact, messages } = readable(received);
    const fresh = messages.filter((message) => this.#remember(message.providerMessageId));
    this.duplicatesDropped += messages.length - fresh.length;
    if (fresh.length > 0) this.#pending.push({ contact, messages: fresh });
    return fresh.length;
  }

  get isEmpty(): boolean {
    return this.#pending.length === 0;
  }

  get size(): number {
    return countMessages(this.#pending);
  }

  /** Puts back what was taken: it came before everything else that waits. */
  putBack(taken: MessagesReceived[]): void {
    this.#pending.unshift(...taken);
  }

  /** The deliveries that came last and hold `count` messages together; they stay. */
  newest(count: number): MessagesReceived[] {
    const newest: MessagesReceived[] = [];
    for (const { contact, messages } of [...this.#pending].reverse()) {
      const wanted = count - countMessages(newest);
      if (wanted <= 0) break;
      newest.unshift({ contact, messages: messages.slice(-wanted) });
    }
    return newest;
  }

  /** Everything that waits, delivery by delivery: each knows its own contact. Empties the inbox. */
  takeAll(): MessagesReceived[] {
    const taken = this.#pending;
    this.#pending = [];
    return taken;
  }

  /** Forgets messages (by our ids) that may come again: a dead letter by a replay, and messages that another workflow hands back. */
  forget(taken: readonly MessagesReceived[], ids: readonly string[]): void {
    for (const message of taken.flatMap(({ messages }) => messages))
      if (ids.includes(message.id)) this.#seen.delete(message.providerMessageId);
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

export function countMessages(deliveries: readonly MessagesReceived[]): number {
  return deliveries.reduce((sum, { messages }) => sum + messages.length, 0);
}

/** How many of them the owner of the business wrote. */
export function countOwners(deliveries: readonly MessagesReceived[]): number {
  return deliveries.flatMap(({ messages }) => messages).filter(({ fromBusiness }) => fromBusiness !== undefined).length;
}

/** What of a signal's argument can be recorded. Webhooks send nothing else. */
function readable(received: unknown): MessagesReceived {
  const { contact, messages } = (isObject(received) ? received : {}) as { contact?: unknown; messages?: unknown };
  if (!isContact(contact) || !Array.isArray(messages)) return { contact: {}, messages: [] };
  return { contact, messages: messages.filter(isMessage) };
}

function isContact(value: unknown): value is ContactIdentity {
  if (!isObject(value)) return false;
  const { phone, businessScopedUserId, ...details } = value;
  const areTexts = [phone, businessScopedUserId, ...Object.values(details)].every((each) => each === undefined || typeof each === 'string');
  return areTexts && (isText(phone) || isText(businessScopedUserId));
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

function isMessage(value: unknown): value is InboundMessage {
  if (!isObject(value)) return false;
  const { id, providerMessageId, kind, text, payload, sentAtMs } = value;
  const isKnown = typeof id === 'string' && UUID.test(id) && isText(providerMessageId) && isText(kind);
  const hasContent = (text === undefined || typeof text === 'string') && (payload === undefined || isObject(payload));
  return isKnown && hasContent && isTime(sentAtMs);
}

/** The range of JavaScript's dates (ECMA-262, 21.4.1.1). */
function isTime(value: unknown): boolean {
  return typeof value === 'number' && Math.abs(value) <= 8.64e15;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}
