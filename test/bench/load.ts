/** The load: the same messages in the same pattern for either side, and the ledger of what became of each. */
import { setTimeout as sleep } from 'node:timers/promises';
import { nowMs } from './protocol';

/** Longer than what a killed or stuck process takes to be replaced: whatever comes later is lost. */
const DONE_WITHIN_MS = 60_000;

export interface BenchMessage {
  mark: string;
  /** Digits of the customer's number: one customer is one conversation. */
  customer: string;
}

/** When a message was begun and acknowledged. */
export interface Acknowledged {
  startedAtMs: number;
  endedAtMs: number;
}

/** What messages are given to: the product, or the bare workflow. */
export interface Side {
  name: 'ours' | 'bare';
  /** Makes what is needed before messages of these customers may be sent. */
  prepare(customers: string[]): Promise<void>;
  /** @throws Error when the message was not taken */
  send(message: BenchMessage): Promise<Acknowledged>;
  /** Resolves when nothing of the load is under way any more. */
  settle(): Promise<void>;
}

interface Entry {
  answers: number;
  doneAtMs: number | undefined;
  done: () => void;
}

/** Which messages are done: answered, or through their third activity. */
export class Ledger {
  readonly #entries = new Map<string, Entry>();
  readonly problems: string[] = [];

  /** Resolves with the time at which the message was done, undefined when it was not in time. */
  async expect(mark: string): Promise<number | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const entry: Entry = { answers: 0, doneAtMs: undefined, done: () => undefined };
    const done = new Promise<void>((resolve) => {
      entry.done = resolve;
      timer = setTimeout(resolve, DONE_WITHIN_MS);
    });
    this.#entries.set(mark, entry);
    await done;
    clearTimeout(timer);
    return entry.doneAtMs;
  }

  done(mark: string, atMs: number): void {
    const entry = this.#entries.get(mark);
    if (entry === undefined) {
      this.problems.push(`${mark} was done, and nobody had sent it`);
      return;
    }
    entry.answers += 1;
    if (entry.answers > 1) this.problems.push(`${mark} was done ${entry.answers} times`);
    entry.doneAtMs ??= atMs;
    entry.done();
  }
}

let lastMark = 0;
let lastCustomer = 0;

/** Messages over fresh conversations, in turn: the next message of a person comes when everybody else has written. */
export function makeMessages(count: number, conversations: number): BenchMessage[] {
  const customers = Array.from({ length: conversations }, () => `1555${String(++lastCustomer).padStart(7, '0')}`);
  return Array.from({ length: count }, (_, index) => ({
    mark: `bench-${++lastMark}`,
    customer: customers[index % conversations] ?? '',
  }));
}

export interface Samples {
  messages: number;
  conversations: number;
  ackMs: number[];
  /** From the beginning of the request until the message was done. */
  doneMs: number[];
  /** From the first request until the last message was done. */
  elapsedMs: number;
}

/** As fast as it goes with `concurrency` messages under way, each until it is done. */
export async function sendClosedLoop(side: Side, ledger: Ledger, messages: BenchMessage[], concurrency: number): Promise<Samples> {
  const run = new Run(side, ledger, messages);
  const rest = messages.values();
  const lane = async () => {
    for (const message of rest) await run.send(message);
  };
  await Promise.all(Array.from({ length: concurrency }, lane));
  return run.samples();
}

/** One message every 1/rate s, however long the answers take. */
export async function sendOpenLoop(side: Side, ledger: Ledger, messages: BenchMessage[], perSecond: number): Promise<Samples> {
  const run = new Run(side, ledger, messages);
  const startedAtMs = nowMs();
  const sent: Promise<void>[] = [];
  for (const [index, message] of messages.entries()) {
    await sleep(Math.max(0, startedAtMs + (index * 1_000) / perSecond - nowMs()));
    const one = run.send(message);
    // Awaited below, with all others; one that fails before must not count as unhandled.
    one.catch(() => undefined);
    sent.push(one);
  }
  await Promise.all(sent);
  return run.samples();
}

class Run {
  readonly #side: Side;
  readonly #ledger: Ledger;
  readonly #messages: BenchMessage[];
  readonly #ackMs: number[] = [];
  readonly #doneMs: number[] = [];
  readonly #startedAtMs = nowMs();
  #lastDoneAtMs = 0;

  constructor(side: Side, ledger: Ledger, messages: BenchMessage[]) {
    this.#side = side;
    this.#ledger = ledger;
    this.#messages = messages;
  }

  async send(message: BenchMessage): Promise<void> {
    const done = this.#ledger.expect(message.mark);
    let acknowledged: Acknowledged;
    try {
      acknowledged = await this.#side.send(message);
    } catch (error) {
      this.#ledger.problems.push(`${message.mark}: ${error instanceof Error ? error.message : error}`);
      return;
    }
    this.#ackMs.push(acknowledged.endedAtMs - acknowledged.startedAtMs);
    const doneAtMs = await done;
    // Nothing can be measured any more, and every further message would cost as much time.
    if (doneAtMs === undefined) throw new Error(`${message.mark} was not done within ${DONE_WITHIN_MS / 1_000} s (${this.#side.name})`);
    this.#doneMs.push(doneAtMs - acknowledged.startedAtMs);
    this.#lastDoneAtMs = Math.max(this.#lastDoneAtMs, doneAtMs);
  }

  samples(): Samples {
    return {
      messages: this.#messages.length,
      conversations: new Set(this.#messages.map(({ customer }) => customer)).size,
      ackMs: this.#ackMs,
      doneMs: this.#doneMs,
      elapsedMs: this.#lastDoneAtMs - this.#startedAtMs,
    };
  }
}
