/** The command-line options of the benchmark. */
import { readArguments, UsageError } from '../../src/platform/command-line';
import type { RecordSize } from './large-record';

/** Options of a run. */
export interface BenchOptions {
  /** Messages per side in the throughput phase, over all rounds. */
  messages: number;
  conversations: number;
  rounds: number;
  /** Duration of each pace on each side, over all rounds. */
  seconds: number;
  /** Messages in flight in the throughput phase. */
  concurrency: number;
  /** Messages per side before anything is measured, because warm processes are what an operator pays for. */
  warmUp: number;
  /** Only shows that the benchmark works; the processes are too cold for meaningful figures. */
  isSmokeTest: boolean;
  /** Messages before every slice, because the other side has just been using the machine. */
  sliceWarmUp: number;
  /** The bare worker gets Parley's pollers and compression instead of the SDK's defaults. */
  tunedBare: boolean;
  /** Compares Parley over a record of this size with Parley over an empty one, instead of Parley with the bare workflow. */
  largeRecord: RecordSize | undefined;
  jsonFile: string | undefined;
  /** Exit with 1 if a target is missed. */
  check: boolean;
  /** Folder for Node's CPU profiles of the API and the worker. */
  profileDir: string | undefined;
}

const HELP = `usage: npm run bench -- [options]

Measures the cost and latency of an answered message, compared with a bare Temporal workflow in the same run.

  --messages N       number of webhooks in the throughput phase (1000)
  --conversations M  number of conversations for these webhooks (200); paced phases use the same ratio
  --rounds R         number of rounds, alternating between ours and bare (5)
  --seconds S        duration of each paced phase on each side (20)
  --concurrency C    messages in flight in the throughput phase (16)
  --tuned-bare       give the bare worker our pollers and compression instead of the SDK's defaults
  --large            compare Parley over a record of 100,000 contacts, 1,000,000 messages and 3,000,000 status events with Parley over an
                     empty one (2000 messages, 400 conversations, 10 rounds), and time the list of conversations
  --quick            run a smoke test of less than a minute
  --json FILE        write the figures to FILE
  --check            exit with 1 if a target is missed
  --profile DIR      write CPU profiles of the API and the worker to DIR
  -h, --help         show this help`;

const FLAGS = {
  messages: { type: 'string' },
  conversations: { type: 'string' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  concurrency: { type: 'string' },
  quick: { type: 'boolean', default: false },
  large: { type: 'boolean', default: false },
  'tuned-bare': { type: 'boolean', default: false },
  json: { type: 'string' },
  check: { type: 'boolean', default: false },
  profile: { type: 'string' },
} as const;

const FULL = { messages: 1_000, conversations: 200, rounds: 5, seconds: 20, concurrency: 16, warmUp: 300, sliceWarmUp: 16 };
/** More rounds than against the bare workflow: the difference to be seen is smaller. */
const LARGE = { ...FULL, messages: 2_000, conversations: 400, rounds: 10 };
const LARGE_RECORD: RecordSize = { contacts: 100_000, messages: 1_000_000, statusEvents: 3_000_000 };
const QUICK_LARGE_RECORD: RecordSize = { contacts: 1_000, messages: 10_000, statusEvents: 30_000 };
const QUICK = { messages: 80, conversations: 40, rounds: 1, seconds: 2, concurrency: 8, warmUp: 20, sliceWarmUp: 4 };

/** Undefined if help is requested. @throws UsageError that names the invalid option */
export function readOptions(args: string[]): BenchOptions | undefined {
  const line = readArguments(args, { help: HELP, options: FLAGS });
  if (line === undefined) return undefined;
  const { values } = line;
  if (values.large && values['tuned-bare']) throw new UsageError('--tuned-bare goes with the bare workflow, which --large does not run');
  const defaults = values.quick ? QUICK : values.large ? LARGE : FULL;
  const count = (name: 'messages' | 'conversations' | 'rounds' | 'seconds' | 'concurrency') => {
    const value = values[name] === undefined ? defaults[name] : Number(values[name]);
    if (!Number.isInteger(value) || value < 1) throw new UsageError(`--${name} must be a positive integer`);
    return value;
  };
  const [messages, conversations, rounds] = [count('messages'), count('conversations'), count('rounds')];
  if (conversations > messages) throw new UsageError('--conversations must not be more than --messages');
  if (rounds > conversations)
    throw new UsageError('--rounds must not be more than --conversations: every round has conversations of its own');
  return {
    ...{ ...defaults, messages, conversations, rounds, seconds: count('seconds'), concurrency: count('concurrency') },
    ...{
      tunedBare: values['tuned-bare'],
      largeRecord: values.large ? (values.quick ? QUICK_LARGE_RECORD : LARGE_RECORD) : undefined,
      isSmokeTest: values.quick,
      jsonFile: values.json,
      check: values.check,
      profileDir: values.profile,
    },
  };
}
