/** The load: the same messages in the same pattern for both sides, and the ledger of their outcomes. */
import { setTimeout as sleep } from 'node:timers/promises';
import { nowMs } from './protocol';

/** Longer than it takes to replace a killed or stuck process; a message that takes longer counts as lost. */
const DONE_TIMEOUT_MS = 60_000;

/** A message of the load. */
export interface BenchMessage {
  mark: string;
  /** Digits of the customer's number: one customer is one conversation. */
  customer: string;
}

/** When a message's request was started and acknowledged. */
export interface Acknowledged {
  startedAtMs: number;
  endedAtMs: number;
}

/** What a process is for. `entrance` takes the messages: Parley's API, or the process that signals the bare workflow. */
export type Role = 'entrance' | 'worker' | 'temporal' | 'postgres' | 'sandbox';

/** The processes of a side; the servers are shared by both sides. */
export type Pids = Partial<Record<Role, number>>;

/** A receiver of the load: Parley or the bare workflow. */
export interface Side {
  /** As the report names it. */
  name: string;
  readonly pids: Pids;
  /** Must be called before messages of these customers are sent. */
  prepare(customers: string[]): Promise<void>;
  /** @throws Error if the message is not accepted */
  send(message: BenchMessage): Promise<Acknowledged>;
  /** Resolves when all of the load has been processed. */
  settle(): Promise<void>;
}

interface Entry {
  answers: number;
  doneAtMs: number | undefined;
  done: () => void;
}

/** Tracks which messages are done: answered, or past their third activity. */
export class Ledger {
  readonly #entries = new Map<string, Entry>();
  readonly problems: string[] = [];

  /** Resolves with the time at which the message was done, or undefined if it was not done in time. */
  async expect(mark: string): Promise<number | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const entry: Entry = { answers: 0, doneAtMs: undefined, done: () => undefined };
    const done = new Promise<void>((resolve) => {
      entry.done = resolve;
      timer = setTimeout(resolve, DONE_TIMEOUT_MS);
    });
    this.#entries.set(mark, entry);
    await done;
    clearTimeout(timer);
    return entry.doneAtMs;
  }

  done(mark: string, atMs: number): void {
    const entry = this.#entries.get(mark);
    if (entry === undefined) {
      this.problems.push(`${mark} was done but never sent`);
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

/** Messages for new conversations, round-robin: a customer's next message comes after everybody else's. */
export function makeMessages(count: number, conversations: number): BenchMessage[] {
  const customers = Array.from({ length: conversations }, () => `1555${String(++lastCustomer).padStart(7, '0')}`);
  return Array.from({ length: count }, (_, index) => ({
    mark: `bench-${++lastMark}`,
    customer: customers[index % conversations] ?? '',
  }));
}

/** The measurements of one run. */
export interface Samples {
  messages: number;
  conversations: number;
  ackMs: number[];
  /** From the start of the request until the message is done. */
  doneMs: number[];
  /** From the first request until the last message is done. */
  elapsedMs: number;
}

/** Sends as fast as possible with `concurrency` messages in flight; each counts as in flight until it is done. */
export async function sendClosedLoop(side: Side, ledger: Ledger, messages: BenchMessage[], concurrency: number): Promise<Samples> {
  const run = new Run(side, ledger, messages);
  const rest = messages.values();
  const lane = async () => {
    for (const message of rest) await run.send(message);
  };
  await Promise.all(Array.from({ length: concurrency }, lane));
  return run.samples();
}

/** Sends `perSecond` messages per second, however long the responses take. */
export async function sendOpenLoop(side: Side, ledger: Ledger, messages: BenchMessage[], perSecond: number): Promise<Samples> {
  const run = new Run(side, ledger, messages);
  const startedAtMs = nowMs();
  const sent: Promise<void>[] = [];
  for (const [index, message] of messages.entries()) {
    await sleep(Math.max(0, startedAtMs + (index * 1_000) / perSecond - nowMs()));
    const one = run.send(message);
    // Awaited below with all the others; an earlier failure must not count as unhandled.
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
    // Give up: the measurement is spoiled, and every further message would take as long.
    if (doneAtMs === undefined) throw new Error(`${message.mark} was not done within ${DONE_TIMEOUT_MS / 1_000} s (${this.#side.name})`);
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
