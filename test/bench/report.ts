/** Computes the figures of a run and renders them as text. */
import { cpus } from 'node:os';
import type { Measurement, Pair, Slice } from './measure';
import type { BenchOptions } from './options';
import { median, percentile } from './stats';

/**
 * The processes whose CPU time counts. Ours: everything that an operator runs. Bare: everything that the bare workflow needs for the
 * same load, including the process that takes the place of our API.
 */
export const COUNTED = {
  ours: ['api', 'worker', 'temporal', 'postgres'],
  bare: ['bareDriver', 'bareWorker', 'temporal'],
} as const satisfies Record<string, readonly (keyof Slice['cpuMs'])[]>;

/** A figure of both sides. */
export interface Comparison {
  ours: number;
  bare: number;
  /** The median of the pairs' ratios, because a disturbance of the machine affects both halves of a pair. */
  ratio: number;
}

/** A target for a figure. */
export interface Target {
  name: string;
  value: number;
  limit: number;
  unit: string;
  met: boolean;
}

/** All figures of a run. */
export interface Report {
  throughput: Figures;
  paced: { perSecond: number; figures: Figures }[];
  targets: Target[];
}

/** The figures of one phase. */
export interface Figures {
  ackP50: Comparison;
  ackP99: Comparison;
  doneP50: Comparison;
  doneP99: Comparison;
  messagesPerSecond: Comparison;
  conversationsPerSecond: Comparison;
  cpuPerMessage: Comparison;
  /** CPU time per message of each process, in ms, while our side or the bare side was under load. */
  cpuOurs: Slice['cpuMs'];
  cpuBare: Slice['cpuMs'];
}

/** Computes the figures of a measurement and checks the targets. */
export function makeReport(measurement: Measurement): Report {
  const throughput = figures(measurement.throughput);
  const paced = measurement.paced.map(({ perSecond, pairs }) => ({ perSecond, figures: figures(pairs) }));
  const slow = paced[0]?.figures;
  const target = (name: string, value: number, limit: number, unit: string): Target => ({ name, value, limit, unit, met: value <= limit });
  return {
    throughput,
    paced,
    targets: [
      target('CPU per message', throughput.cpuPerMessage.ratio, 1, 'x bare'),
      target('ack p50 at 10/s', slow?.ackP50.ratio ?? Number.NaN, 1.3, 'x bare signalWithStart'),
      target('webhook to send p50 at 10/s', slow?.doneP50.ours ?? Number.NaN, 80, 'ms'),
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

/** Renders the report that is printed at the end. */
export function renderReport(
  report: Report,
  { messages, conversations, rounds, concurrency, seconds, tunedBare, isSmokeTest }: BenchOptions,
): string {
  const { throughput, paced, targets } = report;
  return [
    '',
    `Parley against a bare workflow with three empty regular activities; ${cpus().length} cores, Node ${process.versions.node}.`,
    isSmokeTest
      ? 'A smoke test of one short round: the processes have just started, so the figures mean little.'
      : `Medians of ${rounds} alternating rounds; each ratio is the median of the rounds' ratios.`,
    `The bare worker uses ${tunedBare ? 'our pollers and compression' : "the SDK's default pollers and compression"}.`,
    '',
    row(`As fast as possible, ${concurrency} in flight`, 'ours', 'bare', 'ratio'),
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
    ...targets.map(({ name, value, limit, unit, met }) =>
      Number.isNaN(value)
        ? `${name}: not measured (target: at most ${limit} ${unit})`
        : `${name}: ${value.toFixed(2)} ${unit} (target: at most ${limit}) ${met ? 'met' : 'missed'}`,
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
    row('  API | signalling process', number(cpuOurs.api), number(cpuBare.bareDriver), ''),
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
