import type { Measurement, Pair, Slice } from './measure';
import { readOptions } from './options';
import { makeReport, renderReport } from './report';

/** Four messages of two people in a tenth of a second; `ackMs` and `doneMs` are those of each. */
function slice(cpuMs: Partial<Slice['cpuMs']>, ackMs: number, doneMs: number): Slice {
  const none = { api: 0, worker: 0, bareDriver: 0, bareWorker: 0, temporal: 0, postgres: 0, sandbox: 0, loadGenerator: 0 };
  return {
    messages: 4,
    conversations: 2,
    ackMs: Array<number>(4).fill(ackMs),
    doneMs: Array<number>(4).fill(doneMs),
    elapsedMs: 100,
    cpuMs: { ...none, ...cpuMs },
  };
}

/** Ours costs `worker` + 30 ms for the four messages, bare 80 ms. */
function pair({ worker = 50, ackMs = 12, doneMs = 70 }: { worker?: number; ackMs?: number; doneMs?: number } = {}): Pair {
  return {
    ours: slice({ api: 10, worker, temporal: 15, postgres: 5, sandbox: 1_000, loadGenerator: 1_000, bareWorker: 1_000 }, ackMs, doneMs),
    bare: slice({ bareDriver: 10, bareWorker: 40, temporal: 30, loadGenerator: 1_000, api: 1_000, postgres: 1_000 }, 10, 60),
  };
}

function measurement(throughput: Pair[], slow: Pair[] = [pair()]): Measurement {
  return { throughput, paced: [10, 20].map((perSecond) => ({ perSecond, pairs: slow })), messagesToOurs: 4 };
}

const met = (report: ReturnType<typeof makeReport>) => report.aims.map((aim) => aim.met);

test('when CPU is compared, then everything that an operator runs counts, and nothing else', () => {
  const { throughput } = makeReport(measurement([pair({ worker: 70 })]));
  expect(throughput.cpuPerMessage).toEqual({ ours: 25, bare: 20, ratio: 1.25 });
});

test('when rounds differ, then the ratio is the middle one', () => {
  const rounds = [50, 90, 58].map((worker) => pair({ worker }));
  expect(makeReport(measurement(rounds)).throughput.cpuPerMessage.ratio).toBe(1.1);
});

test.each([
  ['nothing', [pair()], [pair()], [true, true, true]],
  ['the CPU', [pair({ worker: 51 })], [pair()], [false, true, true]],
  ['the answer', [pair({ ackMs: 99 })], [pair({ ackMs: 13.1 })], [true, false, true]],
  ['the reply', [pair({ doneMs: 999 })], [pair({ doneMs: 80.1 })], [true, true, false]],
])('when %s is beyond its aim, then that aim is not met', (_what, fast, slow, expected) => {
  expect(met(makeReport(measurement(fast, slow)))).toEqual(expected);
});

test('when the page is printed, then it has each figure, both sides and their ratio', () => {
  const options = readOptions([]);
  if (!options) throw new Error('no options');
  const page = renderReport(makeReport(measurement([pair()])), options);
  const columns = (label: string) => {
    const line = page.split('\n').find((candidate) => candidate.trim().startsWith(label)) ?? '';
    return line.trim().split(/ {2,}/).slice(1);
  };
  expect(columns('conversations/s')).toEqual(['20.0', '20.0', '1.00']);
  expect(columns('ack p50, ms')).toEqual(['12.0', '10.0', '1.20']);
  expect(columns('ack p99, ms')).toEqual(['12.0', '10.0', '1.20']);
  expect(columns('worker')).toEqual(['12.5', '10.0']);
  expect(columns('PostgreSQL')).toEqual(['1.25']);
  expect(page).toContain('At 10 messages/s');
  expect(page).toContain('At 20 messages/s');
  expect(page).toContain("the SDK's own polls");
});
