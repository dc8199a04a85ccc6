import type { Measurement, Pair, Slice } from './measure';
import { type BenchOptions, readOptions } from './options';
import { makeReport, renderReport } from './report';

interface SliceOptions {
  cpuMs: Partial<Slice['cpuMs']>;
  /** The latencies of the hundred messages are 1, 2, … 100 times this. */
  ackStepMs?: number;
  doneStepMs?: number;
}

/** A hundred messages from twenty customers in five seconds. */
function slice({ cpuMs, ackStepMs = 1, doneStepMs = 1 }: SliceOptions): Slice {
  const none = { entrance: 0, worker: 0, temporal: 0, postgres: 0, sandbox: 0, loadGenerator: 0 };
  const steps = Array.from({ length: 100 }, (_, index) => index + 1);
  return {
    messages: 100,
    conversations: 20,
    ackMs: steps.map((step) => step * ackStepMs),
    doneMs: steps.map((step) => step * doneStepMs),
    elapsedMs: 5_000,
    cpuMs: { ...none, ...cpuMs },
  };
}

/** CPU time per message in ms: `ours` on our side, `bare` on the other; processes that must not be counted use much more. */
function pair({ ours = 8, bare = 10, ackStepMs = 1, doneStepMs = 0.8 } = {}): Pair {
  const notCounted = { sandbox: 90_000, loadGenerator: 90_000 };
  return {
    ours: slice({
      cpuMs: { entrance: 100, worker: 100 * ours - 450, temporal: 200, postgres: 150, ...notCounted },
      ackStepMs,
      doneStepMs,
    }),
    baseline: slice({ cpuMs: { entrance: 150, worker: 100 * bare - 450, temporal: 300, loadGenerator: 90_000 } }),
  };
}

/** `slow` is the pace of 10 messages/s, which two of the targets use; the other pace misses every target. */
function measurement({ fast = [pair()], slow = [pair()] }: { fast?: Pair[]; slow?: Pair[] } = {}): Measurement {
  const beyond = [pair({ ours: 99, ackStepMs: 99, doneStepMs: 99 })];
  return {
    throughput: fast,
    paced: [
      { perSecond: 10, pairs: slow },
      { perSecond: 20, pairs: beyond },
    ],
    lists: [],
    tableScans: {},
  };
}

const AGAINST_BARE = { largeRecord: undefined };
const met = (input: Measurement) => makeReport(input, AGAINST_BARE).targets.map((target) => target.met);

test('when CPU time is compared, then everything that an operator runs counts, and nothing else', () => {
  const { throughput } = makeReport(measurement({ fast: [pair({ ours: 12.5 })] }), AGAINST_BARE);
  expect(throughput.cpuPerMessage).toEqual({ ours: 12.5, baseline: 10, ratio: 1.25 });
});

test('when rounds differ, then the ratio is the median of the rounds’ ratios', () => {
  const rounds = [pair({ ours: 20, bare: 10 }), pair({ ours: 12, bare: 40 }), pair({ ours: 30, bare: 20 })];
  // The medians of both sides are 20, so their ratio would be 1.
  expect(makeReport(measurement({ fast: rounds }), AGAINST_BARE).throughput.cpuPerMessage.ratio).toBe(1.5);
});

test('when no figure exceeds its target, then all targets are met', () => {
  expect(met(measurement())).toEqual([true, true, true]);
  expect(met(measurement({ fast: [pair({ ours: 9 })], slow: [pair({ ackStepMs: 1.3, doneStepMs: 0.8 })] }))).toEqual([true, true, true]);
});

test.each([
  ['the CPU time', measurement({ fast: [pair({ ours: 9.1 })] }), [false, true, true]],
  ['the acknowledgement', measurement({ slow: [pair({ ackStepMs: 1.31 })] }), [true, false, true]],
  ['the reply', measurement({ slow: [pair({ doneStepMs: 0.81 })] }), [true, true, false]],
])('when %s exceeds its target, then that target is missed, and the others are met', (_what, input, expected) => {
  expect(met(input)).toEqual(expected);
});

/** The cells behind the label of a rendered row. */
function cells(page: string, label: string): string[] {
  const line = page.split('\n').find((candidate) => candidate.trim().startsWith(label)) ?? '';
  return line.trim().split(/ {2,}/).slice(1);
}

function optionsOf(...args: string[]): BenchOptions {
  const options = readOptions(args);
  if (!options) throw new Error('no options');
  return options;
}

test('when the report is rendered, then it has each figure for both sides, with the ratio', () => {
  const options = optionsOf();
  const page = renderReport(makeReport(measurement({ fast: [pair({ ackStepMs: 1.5, doneStepMs: 2 })] }), options), options);
  expect(cells(page, 'conversations/s')).toEqual(['4.00', '4.00', '1.00']);
  expect(cells(page, 'ack p50, ms')).toEqual(['75.0', '50.0', '1.50']);
  expect(cells(page, 'ack p99, ms')).toEqual(['149', '99.0', '1.50']);
  expect(cells(page, 'webhook to send | third activity p50')).toEqual(['100', '50.0', '2.00']);
  expect(cells(page, 'CPU per message, ms')).toEqual(['8.00', '10.0', '0.80']);
  expect(cells(page, 'API | signalling process')).toEqual(['1.00', '1.50']);
  expect(cells(page, 'worker')).toEqual(['3.50', '5.50']);
  expect(cells(page, 'PostgreSQL')).toEqual(['1.50']);
  expect(page).toContain('At 10 messages/s');
  expect(page).toContain('At 20 messages/s');
  expect(page).toContain("the SDK's default pollers");
});

describe('of a large record', () => {
  const options = optionsOf('--large');
  const latenciesMs = Array.from({ length: 100 }, (_, index) => (index + 1) / 2);
  const large = ({ ours = 10.5, slowest = 1, scans = 0 } = {}): Measurement => ({
    throughput: [pair({ ours })],
    paced: [],
    lists: [
      { what: 'first page', latenciesMs },
      { what: 'page in the middle', latenciesMs: latenciesMs.map((latency) => latency * slowest) },
    ],
    tableScans: { contacts: 0, messages: scans },
  });
  const metBy = (input: Measurement) => makeReport(input, options).targets.map((target) => target.met);

  test('when CPU time and lists are within their limits, then all targets are met', () => {
    expect(metBy(large())).toEqual([true, true, true]);
  });

  test('when the CPU time exceeds that of the empty record by more than a twentieth, then its target is missed', () => {
    expect(metBy(large({ ours: 10.6 }))).toEqual([false, true, true]);
  });

  test('when one kind of list is slow, then the target of the lists is missed', () => {
    expect(metBy(large({ slowest: 1.1 }))).toEqual([true, false, true]);
  });

  test('when a statement reads a large table as a whole, then it is counted, and the table is named', () => {
    const input = large({ scans: 3 });
    expect(metBy(input)).toEqual([true, true, false]);
    expect(renderReport(makeReport(input, options), options)).toContain('messages was read as a whole 3 times');
  });

  test('when the report is rendered, then it names the record and each kind of list', () => {
    const page = renderReport(makeReport(large({ slowest: 2 }), options), options);
    expect(cells(page, 'As fast as possible, 16 in flight')).toEqual(['large', 'empty', 'ratio']);
    expect(cells(page, 'webhook to send p50')).toEqual(['40.0', '50.0', '0.80']);
    expect(cells(page, 'page in the middle')).toEqual(['100', '50.0', '95.0']);
    expect(page).toContain('100000 contacts, 1000000 messages and 3000000 status events');
    expect(page).toContain('list of conversations p95: 95.00 ms (target: at most 50) missed');
  });
});

test('when --large is given with --tuned-bare, then it is refused', () => {
  expect(() => readOptions(['--large', '--tuned-bare'])).toThrow('--tuned-bare');
});
