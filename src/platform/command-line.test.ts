import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { readArguments, UsageError } from './command-line';

/** Starts a command whose `main` is this source. */
function start(main: string, ...args: string[]) {
  const script = `const { runCommand, UsageError } = require(${JSON.stringify(join(__dirname, 'command-line.ts'))});
    runCommand(${main});`;
  const command = spawn(process.execPath, ['--import', 'tsx', '-e', script, '--', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  command.stderr.on('data', (chunk) => {
    errors += chunk;
  });
  const ended = once(command, 'close').then(([code]) => ({ code, errors }));
  return { command, ended };
}

test('when the reader of its output closes the pipe, then a command ends without an error', async () => {
  const { command, ended } = start("() => new Promise(() => setInterval(() => process.stdout.write('a line\\n'), 1))");
  await once(command.stdout, 'data');
  command.stdout.destroy();
  expect(await ended).toEqual({ code: 0, errors: '' });
}, 30_000);

test.each([
  ['returns a status', 'async () => 11', { code: 11, errors: '' }],
  ['fails', "async () => { throw new Error('the reason'); }", { code: 1, errors: 'the reason\n' }],
  [
    'is given wrong arguments',
    "async () => { throw new UsageError('no number'); }",
    { code: 2, errors: 'no number\n--help shows what this command understands.\n' },
  ],
])(
  'when a command %s, then its exit status says so',
  async (_when, main, expected) => {
    expect(await start(main).ended).toEqual(expected);
  },
  30_000,
);

const COMMAND = { help: 'usage', options: { name: { type: 'string' } }, maxPositionals: 1 } as const;

test.each([
  [['--nmae', 'Bob'], "Unknown option '--nmae'"],
  [['--name'], "Option '--name <value>' argument missing"],
  [['one', 'two'], 'unexpected argument: two'],
])('when the arguments are %j, then the error names what is wrong', (args, message) => {
  expect(() => readArguments(args, COMMAND)).toThrow(new UsageError(message));
});

test('when the arguments are right, then they are returned', () => {
  expect(readArguments(['--name', 'Bob', 'one'], COMMAND)).toEqual({ values: { name: 'Bob' }, positionals: ['one'] });
});
