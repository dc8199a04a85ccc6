/** The plan of a run: warm-up, then alternating slices of both sides, each with the CPU of every process around it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuOf } from './cpu';
import { type BenchMessage, type Ledger, makeMessages, type Samples, type Side, sendClosedLoop, sendOpenLoop } from './load';
import type { BenchOptions } from './options';
import type { ProcessName, Stack } from './stack';

/** Behind every slice, on either side: work that trails the last message belongs to it. */
const TAIL_MS = 200;

export const PACES = [10, 20] as const;

export interface Slice extends Samples {
  /** CPU milliseconds of each process during the slice. */
  cpuMs: Record<ProcessName | 'loadGenerator', number>;
}

/** Two slices under the same load, one right after the other. */
export interface Pair {
  ours: Slice;
  bare: Slice;
}

export interface Measurement {
  throughput: Pair[];
  paced: { perSecond: number; pairs: Pair[] }[];
  /** Messages sent to our side, warm-up included, and the replies that they got. */
  messagesToOurs: number;
}

type Send = (side: Side, messages: BenchMessage[]) => Promise<Samples>;

/** Measures everything. The sides take turns, so that what else this machine does hits both. */
export async function measure(
  stack: Stack,
  ledger: Ledger,
  options: BenchOptions,
  onProgress: (line: string) => void,
): Promise<Measurement> {
  const { messages, conversations, rounds, seconds, concurrency, warmUp, sliceWarmUp } = options;
  const measurement: Measurement = { throughput: [], paced: PACES.map((perSecond) => ({ perSecond, pairs: [] })), messagesToOurs: 0 };
  const closed: Send = (side, batch) => sendClosedLoop(side, ledger, batch, concurrency);
  const pair = async (round: number, what: string, send: Send, count: number, people: number): Promise<Pair> => {
    const slice = async (side: Side) => {
      onProgress(`round ${round + 1} of ${rounds}, ${what}: ${count} messages, ${side.name}`);
      await load(side, makeMessages(sliceWarmUp, sliceWarmUp), closed);
      if (side.name === 'ours') measurement.messagesToOurs += sliceWarmUp + count;
      return measuredSlice(stack, side, makeMessages(count, people), send);
    };
    // Who goes first changes: what still trails behind a slice is charged to the next one.
    const oursFirst = round % 2 === 0 ? await slice(stack.ours) : undefined;
    const bare = await slice(stack.bare);
    return { ours: oursFirst ?? (await slice(stack.ours)), bare };
  };

  onProgress(`warm-up: ${warmUp} messages on each side`);
  for (const side of [stack.ours, stack.bare]) await load(side, makeMessages(warmUp, Math.ceil(warmUp / 5)), closed);
  measurement.messagesToOurs += warmUp;
  for (const [round, count] of parts(messages, rounds).entries()) {
    const people = parts(conversations, rounds)[round] ?? 1;
    measurement.throughput.push(await pair(round, 'as fast as it goes', closed, count, people));
  }
  for (const { perSecond, pairs } of measurement.paced) {
    const open: Send = (side, batch) => sendOpenLoop(side, ledger, batch, perSecond);
    for (const [round, count] of parts(seconds * perSecond, rounds).entries()) {
      const people = Math.ceil((count * conversations) / messages);
      pairs.push(await pair(round, `${perSecond} messages/s`, open, count, people));
    }
  }
  return measurement;
}

/** `total` in `count` whole parts that differ by one at most. */
function parts(total: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => Math.floor(((index + 1) * total) / count) - Math.floor((index * total) / count));
}

async function load(side: Side, messages: BenchMessage[], send: Send): Promise<Samples> {
  await side.prepare([...new Set(messages.map(({ customer }) => customer))]);
  const samples = await send(side, messages);
  await side.settle();
  return samples;
}

async function measuredSlice(stack: Stack, side: Side, messages: BenchMessage[], send: Send): Promise<Slice> {
  await sleep(TAIL_MS);
  const before = readCpu(stack);
  const samples = await load(side, messages, send);
  await sleep(TAIL_MS);
  const after = readCpu(stack);
  const cpuMs = { ...after };
  for (const name of Object.keys(after) as (keyof typeof after)[]) cpuMs[name] = after[name] - before[name];
  return { ...samples, cpuMs };
}

/** The load generator is the parent of all others: its own time comes from its own clock. */
function readCpu(stack: Stack): Slice['cpuMs'] {
  const { user, system } = process.cpuUsage();
  return { ...cpuOf(stack.pids), loadGenerator: (user + system) / 1_000 };
}
