/**
 * `npm run bench`: measures the cost and latency of an answered message, relative to the same load on a bare Temporal workflow with
 * three empty regular activities, in the same run on the same server. The machine's speed and other load cancel out in the ratios.
 *
 * Ours: webhooks to the real API, one real worker, PostgreSQL and the Temporal server as in `npm start`, a model that responds
 * instantly, no debounce, three status webhooks per reply. A message is done when the Kapso double accepts its reply.
 * Bare: one process calls `signalWithStart` per message with the options and payload of our call; another is the worker, with the SDK's
 * default settings, or our worker's with `--tuned-bare`. A message is done when its third activity runs.
 *
 * With `--large` both sides are Parley: over a record that is full of an earlier past, and over an empty one. The messages are the same, of
 * people who are new to both; what differs is only how much the statements have to find their way around.
 *
 * CPU time that counts. Ours: what an operator pays for, that is API, worker, Temporal server, and PostgreSQL with all its processes.
 * Bare: the signalling process, its worker, and the Temporal server. Not counted: the sandbox, because Kapso and the models run
 * elsewhere and the bare side has no counterpart, and the load generator (this process), which simulates the senders. Exchanging
 * orders and times with this process costs the bare processes some hundredths of a millisecond per message, as HTTP costs the API.
 */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { findTemporalCli } from '../../src/local/embedded/temporal-cli';
import { exitWithError } from '../../src/platform/command-line';
import { loadEnvFile, readSettings } from '../../src/platform/config';
import { Ledger } from './load';
import { type Measurement, measure } from './measure';
import { type BenchOptions, readOptions } from './options';
import { makeReport, renderReport } from './report';
import { type Sides, Stack } from './stack';

const EXIT_INTERRUPTED = 130;
const PROBLEMS_SHOWN = 10;

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function main(args: string[], environment: Record<string, string | undefined>): Promise<number> {
  const options = readOptions(args);
  if (options === undefined) return 0;
  const startedAtMs = Date.now();
  const onProgress = (line: string) => say(`${String(Math.round((Date.now() - startedAtMs) / 1_000)).padStart(4)} s  ${line}`);
  const setting = readSettings(environment).TEMPORAL_CLI_PATH;
  const cliPath = await findTemporalCli({ setting, environment, onProgress });
  return runOnce(options, cliPath, onProgress);
}

/** Always stops what it started and removes the files. */
async function runOnce(options: BenchOptions, cliPath: string, onProgress: (line: string) => void): Promise<number> {
  const interruption = new AbortController();
  const interrupt = () => interruption.abort(new Error('interrupted'));
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, interrupt);
  // Whoever reads the output has seen enough, as `| head` has.
  process.stdout.on('error', interrupt);
  const ledger = new Ledger();
  const stack = new Stack({
    cliPath,
    profileDir: options.profileDir,
    tunedBare: options.tunedBare,
    largeRecord: options.largeRecord,
    ledger,
    signal: interruption.signal,
    onProgress,
  });
  try {
    const sides = await stack.start();
    const aborted = once(interruption.signal, 'abort').then(() => interruption.signal.throwIfAborted());
    const measurement = await Promise.race([measure(sides, ledger, options, onProgress), stack.failed, aborted]);
    return measurement === undefined ? EXIT_INTERRUPTED : await conclude(sides, ledger, options, measurement);
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
    onProgress('interrupted');
    return EXIT_INTERRUPTED;
  } finally {
    onProgress('stopping');
    await stack.close();
  }
}

/** Prints the results. @returns the exit code */
async function conclude({ products }: Sides, ledger: Ledger, options: BenchOptions, measurement: Measurement): Promise<number> {
  const report = makeReport(measurement, options);
  say(renderReport(report, options));
  const problems = [...ledger.problems, ...products.flatMap((product) => product.problems())];
  const [messages, replies] = [sum(products.map((product) => product.messages)), sum(products.map((product) => product.replies))];
  const merged = messages > replies ? ` (${messages - replies} were answered together with a later one)` : '';
  if (problems.length === 0) say(`${messages} messages, ${replies} replies${merged}: every message was answered exactly once`);
  else say(`WRONG: ${problems.length} problems with ${messages} messages\n  ${problems.slice(0, PROBLEMS_SHOWN).join('\n  ')}`);
  if (options.jsonFile !== undefined)
    await writeFile(options.jsonFile, `${JSON.stringify({ options, ...report, problems }, undefined, 2)}\n`);
  const missed = report.targets.some(({ met }) => !met);
  return problems.length > 0 || (options.check && missed) ? 1 : 0;
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
main(process.argv.slice(2), process.env).then((code) => process.exit(code), exitWithError);
