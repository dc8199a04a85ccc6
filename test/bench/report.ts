/** The numbers of a run, and the page that shows them. */
import { cpus } from 'node:os';
import type { Measurement, Pair, Slice } from './measure';
import type { BenchOptions } from './options';
import { median, percentile } from './stats';

/**
 * Whose CPU counts. Ours: everything that an operator runs. Bare: everything that the bare workflow needs for the same load,
 * with the process that stands where our API stands.
 */
export const COUNTED = {
  ours: ['api', 'worker', 'temporal', 'postgres'],
  bare: ['bareDriver', 'bareWorker', 'temporal'],
} as const satisfies Record<string, readonly (keyof Slice['cpuMs'])[]>;

export interface Comparison {
  ours: number;
  bare: number;
  /** Of the pairs, the middle one: what disturbed the machine disturbed both halves of a pair. */
  ratio: number;
}

export interface Aim {
  name: string;
  value: number;
  limit: number;
  unit: string;
  met: boolean;
}

export interface Report {
  throughput: Figures;
  paced: { perSecond: number; figures: Figures }[];
  aims: Aim[];
}

export interface Figures {
  ackP50: Comparison;
  ackP99: Comparison;
  doneP50: Comparison;
  doneP99: Comparison;
  messagesPerSecond: Comparison;
  conversationsPerSecond: Comparison;
  cpuPerMessage: Comparison;
  /** CPU milliseconds per message of each process, while our side and while the bare side was loaded. */
  cpuOurs: Slice['cpuMs'];
  cpuBare: Slice['cpuMs'];
}

/** The figures of a measurement and what they say about the aims. */
export function makeReport(measurement: Measurement): Report {
  const throughput = figures(measurement.throughput);
  const paced = measurement.paced.map(({ perSecond, pairs }) => ({ perSecond, figures: figures(pairs) }));
  const slow = paced[0]?.figures;
  const aim = (name: string, value: number, limit: number, unit: string): Aim => ({ name, value, limit, unit, met: value <= limit });
  return {
    throughput,
    paced,
    aims: [
      aim('CPU per message', throughput.cpuPerMessage.ratio, 1, 'x bare'),
      aim('ack p50 at 10/s', slow?.ackP50.ratio ?? Number.NaN, 1.3, 'x bare signalWithStart'),
      aim('webhook to send p50 at 10/s', slow?.doneP50.ours ?? Number.NaN, 80, 'ms'),
    ],
  };
}

function figures(pairs: Pair[]): Figures {
  const compare = (figure: (slice: Slice, side: 'ours' | 'bare') => number): Comparison => ({
    ours: median(pairs.map(({ ours }) => figure(ours, 'ours'))),
    bare: median(pairs.map(({ bare }) => figure(bare, 'bare'))),
    ratio: median(pairs.map(({ ours, bare }) => figure(ours, 'ours') / figure(bare, 'bare'))),
  });
  return {
    ackP50: compare(({ ackMs }) => percentile(ackMs, 0.5)),
    ackP99: compare(({ ackMs }) => percentile(ackMs, 0.99)),
    doneP50: compare(({ doneMs }) => percentile(doneMs, 0.5)),
    doneP99: compare(({ doneMs }) => percentile(doneMs, 0.99)),
    messagesPerSecond: compare(({ messages, elapsedMs }) => (1_000 * messages) / elapsedMs),
    conversationsPerSecond: compare(({ conversations, elapsedMs }) => (1_000 * conversations) / elapsedMs),
    cpuPerMessage: compare(({ cpuMs, messages }, side) => COUNTED[side].reduce((sum, name) => sum + cpuMs[name], 0) / messages),
    cpuOurs: cpuPerMessage(pairs.map(({ ours }) => ours)),
    cpuBare: cpuPerMessage(pairs.map(({ bare }) => bare)),
  };
}

function cpuPerMessage(slices: Slice[]): Slice['cpuMs'] {
  const first = slices[0]?.cpuMs;
  if (first === undefined) throw new Error('nothing was measured');
  const names = Object.keys(first) as (keyof Slice['cpuMs'])[];
  return Object.fromEntries(
    names.map((name) => [name, median(slices.map(({ cpuMs, messages }) => cpuMs[name] / messages))]),
  ) as Slice['cpuMs'];
}

// --- As text ---

const LABEL_WIDTH = 38;
const COLUMN_WIDTH = 10;

/** The page that is printed at the end. */
export function renderReport(
  report: Report,
  { messages, conversations, rounds, concurrency, seconds, tunedBare, isSmokeTest }: BenchOptions,
): string {
  const { throughput, paced, aims } = report;
  return [
    '',
    `Parley against a bare workflow with three empty regular activities; ${cpus().length} cores, Node ${process.versions.node}.`,
    isSmokeTest
      ? 'A smoke test of one short round: the programs have just started, and these figures say little.'
      : `Medians of ${rounds} alternating rounds; a ratio is the median of the rounds' own ratios.`,
    `The bare worker has ${tunedBare ? "our worker's polls and compression" : "the SDK's own polls and compression"}.`,
    '',
    row(`As fast as it goes, ${concurrency} under way`, 'ours', 'bare', 'ratio'),
    `${messages} messages over ${conversations} conversations`,
    ...loadRows(throughput),
    compared('messages/s', throughput.messagesPerSecond),
    compared('conversations/s', throughput.conversationsPerSecond),
    ...cpuRows(throughput),
    ...paced.flatMap(({ perSecond, figures }) => [
      '',
      row(`At ${perSecond} messages/s, ${seconds} s`, 'ours', 'bare', 'ratio'),
      ...loadRows(figures),
      compared('CPU per message, ms', figures.cpuPerMessage),
    ]),
    '',
    ...aims.map(({ name, value, limit, unit, met }) =>
      Number.isNaN(value)
        ? `${name}: not measured (aim: at most ${limit} ${unit})`
        : `${name}: ${value.toFixed(2)} ${unit} (aim: at most ${limit}) ${met ? 'met' : 'not met'}`,
    ),
    '',
  ].join('\n');
}

function loadRows({ ackP50, ackP99, doneP50, doneP99 }: Figures): string[] {
  return [
    compared('ack p50, ms', ackP50),
    compared('ack p99, ms', ackP99),
    compared('webhook to send | third activity p50', doneP50),
    compared('webhook to send | third activity p99', doneP99),
  ];
}

function cpuRows({ cpuPerMessage: total, cpuOurs, cpuBare }: Figures): string[] {
  return [
    compared('CPU per message, ms', total),
    row('  API | process that signals', number(cpuOurs.api), number(cpuBare.bareDriver), ''),
    row('  worker', number(cpuOurs.worker), number(cpuBare.bareWorker), ''),
    row('  Temporal server', number(cpuOurs.temporal), number(cpuBare.temporal), ''),
    row('  PostgreSQL', number(cpuOurs.postgres), '', ''),
    row('  not counted: sandbox', number(cpuOurs.sandbox), '', ''),
    row('  not counted: load generator', number(cpuOurs.loadGenerator), number(cpuBare.loadGenerator), ''),
  ];
}

function compared(label: string, { ours, bare, ratio }: Comparison): string {
  return row(label, number(ours), number(bare), number(ratio));
}

function row(label: string, ...columns: string[]): string {
  return label.padEnd(LABEL_WIDTH) + columns.map((column) => column.padStart(COLUMN_WIDTH)).join('');
}

function number(value: number): string {
  if (Number.isNaN(value)) return '-';
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
}
