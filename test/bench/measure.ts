/** The plan of a run: a warm-up, then alternating slices of both sides, each with the CPU time of every process. */
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuOf } from './cpu';
import { type ListSamples, measureLists } from './lists';
import { type BenchMessage, type Ledger, makeMessages, type Role, type Samples, type Side, sendClosedLoop, sendOpenLoop } from './load';
import type { BenchOptions } from './options';
import type { Sides } from './stack';

/** Wait after every slice, on both sides, so that work that trails the last message is counted. */
const TAIL_MS = 200;

/** PostgreSQL's connections report what they have done at most this late. */
const SCANS_REPORTED_MS = 2_000;

/** Rates of the paced phases, in messages per second. */
export const PACES = [10, 20] as const;

/** The measurements of one side in one slice. */
export interface Slice extends Samples {
  /** CPU time of the side's processes during the slice, in ms; 0 for a role that the side does not have. */
  cpuMs: Record<Role | 'loadGenerator', number>;
}

/** Two consecutive slices under the same load. */
export interface Pair {
  ours: Slice;
  baseline: Slice;
}

/** All measurements of a run. */
export interface Measurement {
  throughput: Pair[];
  paced: { perSecond: number; pairs: Pair[] }[];
  /** Of the large record only. */
  lists: ListSamples[];
  /** How often the load and the lists read a large table as a whole, by table. */
  tableScans: Record<string, number>;
}

type Send = (side: Side, messages: BenchMessage[]) => Promise<Samples>;

/** Measures everything. The sides alternate, so that other load on this machine affects both. */
export async function measure(
  { ours, baseline, countTableScans }: Sides,
  ledger: Ledger,
  options: BenchOptions,
  onProgress: (line: string) => void,
): Promise<Measurement> {
  const { messages, conversations, rounds, seconds, concurrency, warmUp, sliceWarmUp, largeRecord } = options;
  const paces = largeRecord === undefined ? PACES : [];
  const measurement: Measurement = {
    throughput: [],
    paced: paces.map((perSecond) => ({ perSecond, pairs: [] })),
    lists: [],
    tableScans: {},
  };
  const closed: Send = (side, batch) => sendClosedLoop(side, ledger, batch, concurrency);
  const pair = async (round: number, what: string, send: Send, count: number, customerCount: number): Promise<Pair> => {
    const slice = async (side: Side) => {
      onProgress(`round ${round + 1} of ${rounds}, ${what}: ${count} messages, ${side.name}`);
      await load(side, makeMessages(sliceWarmUp, sliceWarmUp), closed);
      return measuredSlice(side, makeMessages(count, customerCount), send);
    };
    // Alternate which side goes first, because work that trails a slice is charged to the next one.
    const oursFirst = round % 2 === 0 ? await slice(ours) : undefined;
    const baselineSlice = await slice(baseline);
    return { ours: oursFirst ?? (await slice(ours)), baseline: baselineSlice };
  };

  const scansBefore = await countTableScans?.();
  onProgress(`warm-up: ${warmUp} messages on each side`);
  for (const side of [ours, baseline]) await load(side, makeMessages(warmUp, Math.ceil(warmUp / 5)), closed);
  for (const [round, count] of parts(messages, rounds).entries()) {
    const customerCount = parts(conversations, rounds)[round] ?? 1;
    measurement.throughput.push(await pair(round, 'as fast as possible', closed, count, customerCount));
  }
  for (const { perSecond, pairs } of measurement.paced) {
    const open: Send = (side, batch) => sendOpenLoop(side, ledger, batch, perSecond);
    for (const [round, count] of parts(seconds * perSecond, rounds).entries()) {
      const customerCount = Math.ceil((count * conversations) / messages);
      pairs.push(await pair(round, `${perSecond} messages/s`, open, count, customerCount));
    }
  }
  if (largeRecord !== undefined) {
    onProgress(`lists of conversations for ${seconds} s`);
    measurement.lists = await measureLists(ours, ledger, seconds);
  }
  // A connection reports its scans when it has been idle for a second.
  if (countTableScans) await sleep(SCANS_REPORTED_MS);
  for (const [table, scans] of Object.entries((await countTableScans?.()) ?? {}))
    measurement.tableScans[table] = scans - (scansBefore?.[table] ?? 0);
  return measurement;
}

/** Splits `total` into `count` integers that differ by at most one. */
function parts(total: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => Math.floor(((index + 1) * total) / count) - Math.floor((index * total) / count));
}

async function load(side: Side, messages: BenchMessage[], send: Send): Promise<Samples> {
  await side.prepare([...new Set(messages.map(({ customer }) => customer))]);
  const samples = await send(side, messages);
  await side.settle();
  return samples;
}

async function measuredSlice(side: Side, messages: BenchMessage[], send: Send): Promise<Slice> {
  await sleep(TAIL_MS);
  const before = readCpu(side);
  const samples = await load(side, messages, send);
  await sleep(TAIL_MS);
  const after = readCpu(side);
  const cpuMs = { ...after };
  for (const name of Object.keys(after) as (keyof typeof after)[]) cpuMs[name] = after[name] - before[name];
  return { ...samples, cpuMs };
}

/** The load generator is the parent of all other processes, so its own time is read separately. */
function readCpu({ pids }: Side): Slice['cpuMs'] {
  const { user, system } = process.cpuUsage();
  const none = { entrance: 0, worker: 0, temporal: 0, postgres: 0, sandbox: 0 };
  return { ...none, ...cpuOf(pids as Record<Role, number>), loadGenerator: (user + system) / 1_000 };
}
