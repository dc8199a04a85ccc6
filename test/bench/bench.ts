/**
 * `npm run bench`: what an answered message costs and how long it takes, against the same load on a bare Temporal workflow with three
 * empty regular activities, in the same run on the same server. The machine's speed and its other work cancel out in the ratios.
 *
 * Ours: webhooks to the real API, one real worker, PostgreSQL and the Temporal server as `npm start` has them, an instant model, no
 * debounce, three status webhooks per reply. A message is done when the Kapso double accepts its reply.
 * Bare: one process calls `signalWithStart` per message with the options and the payload of our call, another is the worker, with the
 * SDK's own settings; `--tuned-bare` gives it our worker's. A message is done when its third activity runs.
 *
 * CPU that counts. Ours: API, worker, Temporal server, PostgreSQL with all its processes: what an operator has to pay for. Bare: the process
 * that signals, its worker, and the Temporal server. The sandbox is not counted, because Kapso and the models are other people's
 * computers, and it has no counterpart on the bare side; neither is the load generator (this process), which plays the senders. The orders
 * and times that go between this process and the bare ones cost those some hundredths of a millisecond per message, as HTTP costs the API.
 */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { findTemporalCli } from '../../src/local/embedded/temporal-cli';
import { loadEnvFile, readSettings } from '../../src/platform/config';
import { Ledger } from './load';
import { type Measurement, measure } from './measure';
import { type BenchOptions, readOptions, USAGE } from './options';
import { makeReport, renderReport } from './report';
import { Stack } from './stack';

const EXIT_INTERRUPTED = 130;
const PROBLEMS_SHOWN = 10;

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function main(args: string[], environment: Record<string, string | undefined>): Promise<number> {
  const options = readOptions(args);
  if (options === undefined) {
    say(USAGE);
    return 0;
  }
  const startedAtMs = Date.now();
  const onProgress = (line: string) => say(`${String(Math.round((Date.now() - startedAtMs) / 1_000)).padStart(4)} s  ${line}`);
  const setting = readSettings(environment).TEMPORAL_CLI_PATH;
  const cliPath = await findTemporalCli({ setting, environment, onProgress });
  return runOnce(options, cliPath, onProgress);
}

/** Whatever happens, what was started is stopped and its files are removed. */
async function runOnce(options: BenchOptions, cliPath: string, onProgress: (line: string) => void): Promise<number> {
  const interruption = new AbortController();
  const interrupt = () => interruption.abort(new Error('interrupted'));
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, interrupt);
  const ledger = new Ledger();
  const stack = new Stack({
    cliPath,
    profileDir: options.profileDir,
    tunedBare: options.tunedBare,
    ledger,
    signal: interruption.signal,
    onProgress,
  });
  try {
    await stack.start();
    const aborted = once(interruption.signal, 'abort').then(() => interruption.signal.throwIfAborted());
    const measurement = await Promise.race([measure(stack, ledger, options, onProgress), stack.failed, aborted]);
    return measurement === undefined ? EXIT_INTERRUPTED : await conclude(stack, ledger, options, measurement);
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
    onProgress('interrupted');
    return EXIT_INTERRUPTED;
  } finally {
    onProgress('stopping');
    await stack.close();
  }
}

/** Says what came out. @returns the exit code */
async function conclude(stack: Stack, ledger: Ledger, options: BenchOptions, measurement: Measurement): Promise<number> {
  const report = makeReport(measurement);
  say(renderReport(report, options));
  const problems = [...ledger.problems, ...sandboxProblems(stack)];
  const { messagesToOurs: messages } = measurement;
  if (problems.length === 0) say(`${messages} messages, ${stack.replies} replies: each message answered, none twice`);
  else say(`WRONG: ${problems.length} problems with ${messages} messages\n  ${problems.slice(0, PROBLEMS_SHOWN).join('\n  ')}`);
  if (options.jsonFile !== undefined)
    await writeFile(options.jsonFile, `${JSON.stringify({ options, ...report, problems }, undefined, 2)}\n`);
  const missed = report.aims.some(({ met }) => !met);
  return problems.length > 0 || (options.check && missed) ? 1 : 0;
}

function sandboxProblems({ totals, replies }: Stack): string[] {
  const { accepted, refused, unanswered, lostWebhooks } = totals;
  return [
    ...(accepted === replies ? [] : [`the Kapso double accepted ${accepted} sends, and ${replies} replies were seen`]),
    ...(refused + unanswered === 0 ? [] : [`the Kapso double refused ${refused} sends and left ${unanswered} without an answer`]),
    ...(lostWebhooks === 0 ? [] : [`${lostWebhooks} status webhooks were not taken`]),
  ];
}

loadEnvFile();

// biome-ignore lint/style/noProcessEnv: an entry file hands the environment to the one reader of settings
main(process.argv.slice(2), process.env).then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  },
);
