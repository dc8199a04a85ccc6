/** The flags of the benchmark. */
import { parseArgs } from 'node:util';

export interface BenchOptions {
  /** Messages per side in the throughput phase, over all rounds. */
  messages: number;
  conversations: number;
  rounds: number;
  /** How long each side is loaded at each pace, over all rounds. */
  seconds: number;
  /** Messages under way at once in the throughput phase. */
  concurrency: number;
  /** Messages per side before anything is measured: programs that have run for a while are what an operator pays for. */
  warmUp: number;
  /** It shows that the benchmark runs; its programs are too cold for its figures to mean much. */
  isSmokeTest: boolean;
  /** Messages in front of every slice: the other side has just had the machine for a while. */
  sliceWarmUp: number;
  /** The bare worker gets the product's polls and compression instead of the SDK's own. */
  tunedBare: boolean;
  jsonFile: string | undefined;
  /** Exit code 1 when an aim is not met. */
  check: boolean;
  /** Where Node's CPU profiles of the API and the worker go. */
  profileDir: string | undefined;
}

export const USAGE = `npm run bench -- [options]
  --messages N       webhooks in the throughput phase (1000)
  --conversations M  over so many conversations (200); at each pace, a conversation has as many messages
  --rounds R         alternating rounds, ours and bare, in which they are sent (5)
  --seconds S        how long each pace is kept up, on each side (20)
  --concurrency C    messages under way at once in the throughput phase (16)
  --tuned-bare       the bare worker has our worker's polls and compression, not the SDK's own
  --quick            a smoke test of less than a minute
  --json FILE        writes the numbers there
  --check            exits 1 when an aim is not met
  --profile DIR      writes CPU profiles of the API and the worker there`;

const FLAGS = {
  messages: { type: 'string' },
  conversations: { type: 'string' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  concurrency: { type: 'string' },
  quick: { type: 'boolean', default: false },
  'tuned-bare': { type: 'boolean', default: false },
  json: { type: 'string' },
  check: { type: 'boolean', default: false },
  profile: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

const FULL = { messages: 1_000, conversations: 200, rounds: 5, seconds: 20, concurrency: 16, warmUp: 300, sliceWarmUp: 16 };
const QUICK = { messages: 80, conversations: 40, rounds: 1, seconds: 2, concurrency: 8, warmUp: 20, sliceWarmUp: 4 };

/** Undefined when help was asked for. @throws Error that names a wrong flag */
export function readOptions(args: string[]): BenchOptions | undefined {
  const { values } = parseArgs({ args, options: FLAGS });
  if (values.help) return undefined;
  const defaults = values.quick ? QUICK : FULL;
  const count = (name: 'messages' | 'conversations' | 'rounds' | 'seconds' | 'concurrency') => {
    const value = values[name] === undefined ? defaults[name] : Number(values[name]);
    if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} must be a whole number from 1 on`);
    return value;
  };
  const [messages, conversations, rounds] = [count('messages'), count('conversations'), count('rounds')];
  if (conversations > messages) throw new Error('--conversations must not be more than --messages');
  if (rounds > conversations) throw new Error('--rounds must not be more than --conversations: every round has its own');
  return {
    ...{ ...defaults, messages, conversations, rounds, seconds: count('seconds'), concurrency: count('concurrency') },
    ...{
      tunedBare: values['tuned-bare'],
      isSmokeTest: values.quick,
      jsonFile: values.json,
      check: values.check,
      profileDir: values.profile,
    },
  };
}
