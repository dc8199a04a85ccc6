/** Customers who write: ten messages per second for a minute, each customer every six seconds. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { System } from '../support/system';

export const PER_SECOND = 10;
export const SECONDS = 60;
const CUSTOMERS = 60;

/** One message and how its webhook ended. */
export interface Written {
  phone: string;
  /** Its place among the messages of its customer. */
  number: number;
  /** The last HTTP status; undefined while it is being delivered. */
  status?: number;
  attempts?: number;
  /** Duration of the webhook, with all attempts, in ms. */
  tookMs?: number;
  /** When it ended; milliseconds since 1970. */
  endedAtMs?: number;
}

/** The customers' messages so far; grows until `finished`. */
export interface Load {
  written: readonly Written[];
  /** Resolves when every webhook has been accepted or abandoned. */
  finished: Promise<void>;
}

/** The text of a message, which says its place. */
export function textOf(number: number): string {
  return `message number ${number}`;
}

/** The place of a message with this text. */
export function numberIn(text: string): number {
  return Number(/\d+$/.exec(text)?.[0]);
}

export function startLoad(system: System): Load {
  const written: Written[] = [];
  const send = async (index: number) => {
    const message: Written = { phone: `1555${String(1_000_000 + (index % CUSTOMERS))}`, number: Math.floor(index / CUSTOMERS) + 1 };
    written.push(message);
    const startedAtMs = Date.now();
    const { status, attempts } = await system.sandbox.kapso.customerSends({ from: message.phone, text: textOf(message.number) });
    Object.assign(message, { status, attempts, tookMs: Date.now() - startedAtMs, endedAtMs: Date.now() });
  };
  const run = async () => {
    const startedAtMs = Date.now();
    const sending: Promise<void>[] = [];
    for (let index = 0; index < PER_SECOND * SECONDS; index += 1) {
      await sleep(Math.max(0, startedAtMs + (index * 1_000) / PER_SECOND - Date.now()));
      sending.push(send(index));
    }
    await Promise.all(sending);
  };
  return { written, finished: run() };
}
