/**
 * The served OpenAPI document against the served API: schemathesis (PyPI) makes requests of it, right and wrong ones, and looks
 * whether each answer is documented. Where the program is not installed the tests are skipped; in CI they fail.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { oas31 } from 'zod-openapi';
import { newNumber, placeCall, resultOf } from './support/calls';
import { newPhone, outcomesOf } from './support/expectations';
import { findProgram, testWith } from './support/programs';
import { startSuite } from './support/suite';
import { API_KEY, type System } from './support/system';

/** One run makes this many requests of chance per operation at most, and takes no longer than that. */
const EXAMPLES = 40;
const RUN_LIMIT_MS = 240_000;
/** Any; the same in each run, so that a failure comes again. */
const SEED = 20_261_121;

/** Everything that the program checks, except that the data has to be good: it cannot know which ids exist. */
const CHECKS = [
  'not_a_server_error',
  'status_code_conformance',
  'content_type_conformance',
  'response_headers_conformance',
  'response_schema_conformance',
  'negative_data_rejection',
  'unsupported_method',
  'allow_header_conformance',
  'ignored_auth',
];

const PROGRAM = 'schemathesis';

let system: System;
let dir: string;

beforeAll(async () => {
  if (findProgram(PROGRAM) === undefined) return;
  dir = await mkdtemp(join(tmpdir(), 'parley-schemathesis-'));
  system = await startSuite('schemathesis', {
    environment: () => ({ API_RATE_LIMIT_PER_MINUTE: '1000000', UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE: '1000000' }),
  });
});

afterAll(async () => {
  await system?.close();
  if (dir) await rm(dir, { recursive: true, force: true });
});

testWith(PROGRAM).each([
  ['without a key', []],
  ['with a wrong key', ['--header', 'Authorization: Bearer wrong']],
  ['with a key', ['--header', `Authorization: Bearer ${API_KEY}`]],
])(
  'when requests are made of the document %s, then every answer is documented and none is a 5xx',
  async (_how, headers) => {
    const { code, output } = await runProgram([
      ...['run', await documentWithRealIds(), '--url', system.apiUrl, ...headers],
      ...['--checks', CHECKS.join(), '--phases', 'examples,coverage,fuzzing', '--max-examples', String(EXAMPLES), '--seed', String(SEED)],
      ...['--generation-database', 'none', '--continue-on-failure', '--request-timeout', '15', '--warnings', 'off', '--no-color'],
    ]);
    if (code !== 0) throw new Error(`schemathesis ended with ${code}:\n${output.join('\n')}`);
    // It has made requests, and of every operation.
    const cases = output.find((line) => /[1-9]\d+ generated/.test(line));
    expect(cases).toBeDefined();
    process.stderr.write(`schemathesis: ${cases?.trim()}\n`);
  },
  RUN_LIMIT_MS + 10_000,
);

/** Waits that nearly always take all their time: generated references have no calls, nobody needs a person, and the session goes on. */
const ENDLESS_WAITS = ['/api/v1/vapi/calls', '/api/v1/conversations', '/api/v1/conversations/{id}/result'];

/** The served document with the ids of rows that exist as examples, so that good answers are looked at too. */
async function documentWithRealIds(): Promise<string> {
  const document = (await (await fetch(`${system.apiUrl}/openapi.json`)).json()) as oas31.OpenAPIObject;
  const real: Record<string, string> = { id: await aConversation(), callId: await aCall() };
  const letterId = await aDeadLetter();
  const { id: messageId } = await system.db.message.findFirstOrThrow({ select: { id: true } });
  for (const [path, item] of Object.entries(document.paths ?? {})) {
    for (const parameter of [item.get, item.post, item.delete].flatMap((operation) => operation?.parameters ?? [])) {
      if (!('in' in parameter) || parameter.in !== 'path') continue;
      const example = path.startsWith('/api/v1/dead-letters/')
        ? letterId
        : path.startsWith('/api/v1/messages/')
          ? messageId
          : real[parameter.name];
      if (example !== undefined) parameter.example = example;
    }
  }
  for (const path of ENDLESS_WAITS) {
    const operation = document.paths?.[path]?.get;
    if (!operation?.parameters) throw new Error(`${path} is not in the document`);
    operation.parameters = operation.parameters.filter((parameter) => !('name' in parameter && parameter.name === 'wait'));
  }
  const file = join(dir, 'openapi.json');
  await writeFile(file, JSON.stringify(document));
  return file;
}

/** One that cannot be read, so that it stays. */
async function aDeadLetter(): Promise<string> {
  await system.sandbox.kapso.deliver('{"message": {');
  const { id } = await system.db.deadLetter.findFirstOrThrow({ select: { id: true } });
  return id;
}

async function aConversation(): Promise<string> {
  const known = await system.db.conversation.findFirst({ select: { id: true } });
  if (known) return known.id;
  const phone = newPhone();
  await system.sandbox.kapso.customerSends({ from: phone, text: 'hello' });
  await outcomesOf(system, phone, 1);
  const { id } = await system.db.conversation.findFirstOrThrow({ where: { contact: { phone } }, select: { id: true } });
  return id;
}

/** One that is over, and has a recording. */
async function aCall(): Promise<string> {
  const done = { doneAt: { not: null }, outcome: 'completed' };
  const known = await system.db.vapiCallResult.findFirst({ where: done, select: { id: true } });
  return known?.id ?? (await resultOf(system, (await placeCall(system, { to: newNumber() })).body.callId)).callId;
}

async function runProgram(parameters: string[]): Promise<{ code: number | null; output: string[] }> {
  const child = spawn(PROGRAM, parameters, { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] });
  const output: string[] = [];
  for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', (line) => output.push(line));
  const timer = setTimeout(() => child.kill('SIGKILL'), RUN_LIMIT_MS);
  const [code] = (await once(child, 'close')) as [number | null];
  clearTimeout(timer);
  return { code, output };
}
