/** The command line of a process or a terminal command: arguments, help, exit status, and a closed output pipe. */
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { SettingsError } from './config';
import { EXIT_SETTINGS, EXIT_USAGE } from './exit-status';

/** Wrong arguments; the message says which. */
export class UsageError extends Error {
  override name = 'UsageError';
}

const HELP = { help: { type: 'boolean', short: 'h' } } as const;

/**
 * Reads `args`. Undefined if help was requested and has been printed.
 * @throws UsageError for an unknown option, a missing value, or more than `maxPositionals` arguments
 */
export function readArguments<const O extends NonNullable<ParseArgsConfig['options']>>(
  args: string[],
  { help, options, maxPositionals = 0 }: { help: string; options: O; maxPositionals?: number },
) {
  const { values, positionals } = parsed(() => parseArgs({ args, options: { ...options, ...HELP }, allowPositionals: true }));
  if ('help' in values) {
    process.stdout.write(`${help}\n`);
    return undefined;
  }
  const [surplus] = positionals.slice(maxPositionals);
  if (surplus !== undefined) throw new UsageError(`unexpected argument: ${surplus}`);
  return { values, positionals };
}

/** Drops the advice at the end of Node's messages, which does not apply here. */
function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (!code?.startsWith('ERR_PARSE_ARGS')) throw error;
    throw new UsageError(message.split(/[.\n]/)[0]);
  }
}

/**
 * Runs a terminal command and exits with the status that it returns. An error is one line on standard error. Ends quietly
 * when the reader of its output closes the pipe, as `| head` does.
 */
export function runCommand(main: (args: string[]) => Promise<number>): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit();
  });
  main(process.argv.slice(2)).then((status) => process.exit(status), exitWithError);
}

/** Prints an error in one line on standard error, and exits with its status. */
export function exitWithError(error: unknown): never {
  process.stderr.write(`${error instanceof Error ? error.message || error.name : String(error)}\n`);
  if (error instanceof UsageError) process.stderr.write('--help shows what this command understands.\n');
  process.exit(statusOf(error));
}

function statusOf(error: unknown): number {
  if (error instanceof UsageError) return EXIT_USAGE;
  return error instanceof SettingsError ? EXIT_SETTINGS : 1;
}
