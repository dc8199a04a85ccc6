/** Computes the figures of a run and renders them as text. */
import { cpus } from 'node:os';
import type { ListSamples } from './lists';
import type { Measurement, Pair, Slice } from './measure';
import type { BenchOptions } from './options';
import { median, percentile } from './stats';

/**
 * The roles whose CPU time counts: what an operator runs. The bare side has no PostgreSQL, and in the place of our API the process that
 * signals.
 */
export const COUNTED = ['entrance', 'worker', 'temporal', 'postgres'] as const satisfies readonly (keyof Slice['cpuMs'])[];

/** A figure of both sides. */
export interface Comparison {
  ours: number;
  baseline: number;
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
  lists: ListFigures[];
  tableScans: Record<string, number>;
  targets: Target[];
}

/** How long one kind of list takes, in ms. */
export interface ListFigures {
  what: string;
  requests: number;
  p50: number;
  p95: number;
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
  /** CPU time per message of each process, in ms, while its side was under load. */
  cpuOurs: Slice['cpuMs'];
  cpuBaseline: Slice['cpuMs'];
}

/** Computes the figures of a measurement and checks the targets. */
export function makeReport(measurement: Measurement, { largeRecord }: Pick<BenchOptions, 'largeRecord'>): Report {
  const throughput = figures(measurement.throughput);
  const paced = measurement.paced.map(({ perSecond, pairs }) => ({ perSecond, figures: figures(pairs) }));
  const lists = measurement.lists.map(listFigures);
  const { tableScans } = measurement;
  const targets =
    largeRecord === undefined
      ? targetsAgainstBare(throughput, paced[0]?.figures)
      : targetsOfLargeRecord(throughput, lists, Object.values(tableScans));
  return { throughput, paced, lists, tableScans, targets };
}

function targetsAgainstBare(throughput: Figures, slow: Figures | undefined): Target[] {
  return [
    target('CPU per message', throughput.cpuPerMessage.ratio, 0.9, 'x bare'),
    target('ack p50 at 10/s', slow?.ackP50.ratio ?? Number.NaN, 1.3, 'x bare signalWithStart'),
    target('webhook to send p50 at 10/s', slow?.doneP50.ours ?? Number.NaN, 40, 'ms'),
  ];
}

/** Of the kinds of lists, the slowest one counts. */
function targetsOfLargeRecord(throughput: Figures, lists: ListFigures[], tableScans: number[]): Target[] {
  return [
    target('CPU per message', throughput.cpuPerMessage.ratio, 1.05, 'x empty record'),
    target('list of conversations p95', Math.max(...lists.map(({ p95 }) => p95)), 50, 'ms'),
    target(
      'reads of a large table as a whole',
      tableScans.reduce((sum, scans) => sum + scans, 0),
      0,
      'times',
    ),
  ];
}

function target(name: string, value: number, limit: number, unit: string): Target {
  return { name, value, limit, unit, met: value <= limit };
}

function listFigures({ what, latenciesMs }: ListSamples): ListFigures {
  return { what, requests: latenciesMs.length, p50: percentile(latenciesMs, 0.5), p95: percentile(latenciesMs, 0.95) };
}

function figures(pairs: Pair[]): Figures {
  const compare = (figure: (slice: Slice) => number): Comparison => ({
    ours: median(pairs.map(({ ours }) => figure(ours))),
    baseline: median(pairs.map(({ baseline }) => figure(baseline))),
    ratio: median(pairs.map(({ ours, baseline }) => figure(ours) / figure(baseline))),
  });
  return {
    ackP50: compare(({ ackMs }) => percentile(ackMs, 0.5)),
    ackP99: compare(({ ackMs }) => percentile(ackMs, 0.99)),
    doneP50: compare(({ doneMs }) => percentile(doneMs, 0.5)),
    doneP99: compare(({ doneMs }) => percentile(doneMs, 0.99)),
    messagesPerSecond: compare(({ messages, elapsedMs }) => (1_000 * messages) / elapsedMs),
    conversationsPerSecond: compare(({ conversations, elapsedMs }) => (1_000 * conversations) / elapsedMs),
    cpuPerMessage: compare(({ cpuMs, messages }) => COUNTED.reduce((sum, role) => sum + cpuMs[role], 0) / messages),
    cpuOurs: cpuPerMessage(pairs.map(({ ours }) => ours)),
    cpuBaseline: cpuPerMessage(pairs.map(({ baseline }) => baseline)),
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

/** How the page names what is compared. */
interface Wording {
  comparison: string;
  note: string;
  columns: [ours: string, baseline: string];
  done: string;
  entrance: string;
}

function wordingOf({ largeRecord, tunedBare }: BenchOptions): Wording {
  if (largeRecord !== undefined) {
    const { contacts, messages, statusEvents } = largeRecord;
    return {
      comparison: 'Parley over a large record against Parley over an empty one',
      note: `The large record has ${contacts} contacts, ${messages} messages and ${statusEvents} status events.`,
      columns: ['large', 'empty'],
      done: 'webhook to send',
      entrance: 'API',
    };
  }
  return {
    comparison: 'Parley against a bare workflow with three empty regular activities',
    note: `The bare worker uses ${tunedBare ? 'our pollers and compression' : "the SDK's default pollers and compression"}.`,
    columns: ['ours', 'bare'],
    done: 'webhook to send | third activity',
    entrance: 'API | signalling process',
  };
}

/** Renders the report that is printed at the end. */
export function renderReport(report: Report, options: BenchOptions): string {
  const { messages, conversations, rounds, concurrency, seconds, isSmokeTest } = options;
  const { throughput, paced, lists, targets } = report;
  const wording = wordingOf(options);
  return [
    '',
    `${wording.comparison}; ${cpus().length} cores, Node ${process.versions.node}.`,
    isSmokeTest
      ? 'A smoke test of one short round: the processes have just started, so the figures mean little.'
      : `Medians of ${rounds} alternating rounds; each ratio is the median of the rounds' ratios.`,
    wording.note,
    '',
    row(`As fast as possible, ${concurrency} in flight`, ...wording.columns, 'ratio'),
    `${messages} messages over ${conversations} conversations`,
    ...loadRows(throughput, wording),
    compared('messages/s', throughput.messagesPerSecond),
    compared('conversations/s', throughput.conversationsPerSecond),
    ...cpuRows(throughput, wording),
    ...paced.flatMap(({ perSecond, figures }) => [
      '',
      row(`At ${perSecond} messages/s, ${seconds} s`, ...wording.columns, 'ratio'),
      ...loadRows(figures, wording),
      compared('CPU per message, ms', figures.cpuPerMessage),
    ]),
    ...(lists.length > 0 ? listRows(lists) : []),
    ...Object.entries(report.tableScans).flatMap(([table, scans]) => (scans > 0 ? [`${table} was read as a whole ${scans} times`] : [])),
    '',
    ...(isSmokeTest ? [] : targets).map(({ name, value, limit, unit, met }) =>
      Number.isNaN(value)
        ? `${name}: not measured (target: at most ${limit} ${unit})`
        : `${name}: ${value.toFixed(2)} ${unit} (target: at most ${limit}) ${met ? 'met' : 'missed'}`,
    ),
    '',
  ].join('\n');
}

function loadRows({ ackP50, ackP99, doneP50, doneP99 }: Figures, { done }: Wording): string[] {
  return [
    compared('ack p50, ms', ackP50),
    compared('ack p99, ms', ackP99),
    compared(`${done} p50`, doneP50),
    compared(`${done} p99`, doneP99),
  ];
}

function cpuRows({ cpuPerMessage: total, cpuOurs, cpuBaseline }: Figures, { entrance }: Wording): string[] {
  const of = (label: string, role: keyof Slice['cpuMs']) => {
    // What one side does not have has no time there.
    const [ours, baseline] = [cpuOurs[role], cpuBaseline[role]];
    return row(label, number(ours), baseline === 0 ? '' : number(baseline), '');
  };
  return [
    compared('CPU per message, ms', total),
    of(`  ${entrance}`, 'entrance'),
    of('  worker', 'worker'),
    of('  Temporal server', 'temporal'),
    of('  PostgreSQL', 'postgres'),
    of('  not counted: sandbox', 'sandbox'),
    of('  not counted: load generator', 'loadGenerator'),
  ];
}

function listRows(lists: ListFigures[]): string[] {
  return [
    '',
    row('Lists of conversations, at 10 messages/s', 'requests', 'p50, ms', 'p95, ms'),
    ...lists.map(({ what, requests, p50, p95 }) => row(`  ${what}`, String(requests), number(p50), number(p95))),
  ];
}

function compared(label: string, { ours, baseline, ratio }: Comparison): string {
  return row(label, number(ours), number(baseline), number(ratio));
}

function row(label: string, ...columns: string[]): string {
  return label.padEnd(LABEL_WIDTH) + columns.map((column) => column.padStart(COLUMN_WIDTH)).join('');
}

function number(value: number): string {
  if (Number.isNaN(value)) return '-';
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
}
