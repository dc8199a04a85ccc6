/**
 * `npm run call -- +15550100`: places a voice call through the API of a running instance and shows it live: what the API knows of it
 * and, when the sandbox plays the call, what happens on the phone. Ctrl-C ends the call.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { callWorkflowId } from '../workflows/contract';
import { loadEnvFile, readSettings } from './config';
import { messageOf, type Running, readEvents, readRunning, TerminalError, workflowsLink } from './running';

const callSchema = z.object({
  callId: z.string(),
  providerCallId: z.string().nullish(),
  status: z.string(),
  done: z.boolean(),
  outcome: z.string().nullish(),
  endedReason: z.string().nullish(),
  error: z.string().nullish(),
  durationSeconds: z.number().nullish(),
  summary: z.string().nullish(),
  needsAttention: z.boolean().nullish(),
});
type Call = z.output<typeof callSchema>;

const problemSchema = z.object({ title: z.string().optional(), detail: z.string().optional() });

const eventSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('status'), status: z.string(), endedReason: z.string().optional() }),
  z.object({ type: z.literal('words'), role: z.enum(['bot', 'user']), text: z.string() }),
  z.object({ type: z.literal('webhook'), event: z.string(), answer: z.number(), attempts: z.number() }),
]);
type CallEvent = z.output<typeof eventSchema>;

/** One question waits this long for the result; its answer shows the status of then. */
const WAIT_SECONDS = 2;
/** The API may restart meanwhile: it is asked again for this long. */
const PATIENCE_MS = 60_000;
const ASK_AGAIN_MS = 1_000;
/** Ctrl-C reaches us from the terminal, from npm and from the bootstrap, all for one press of the keys. */
const ONE_PRESS_MS = 700;

/** The calls of a running instance, over its API. */
class CallApi {
  readonly #url: string;
  readonly #key: string;

  constructor({ apiUrl, apiKey }: Running) {
    this.#url = `${apiUrl}/api/v1/vapi/calls`;
    this.#key = apiKey;
  }

  /** Places a call. The key is this command's own, so that a repeated attempt would not dial twice. @throws TerminalError with the API's words */
  place(to: string): Promise<Call> {
    const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': `terminal-${randomUUID()}` };
    return this.#ask('', { method: 'POST', headers, body: JSON.stringify({ to }) });
  }

  /** The call, when it is done or after a short while. @throws TerminalError */
  show(callId: string): Promise<Call> {
    return this.#ask(`/${callId}?wait=${WAIT_SECONDS}`, {});
  }

  /** Asks for its end. @throws TerminalError */
  end(callId: string): Promise<Call> {
    return this.#ask(`/${callId}`, { method: 'DELETE' });
  }

  async #ask(path: string, init: RequestInit & { headers?: Record<string, string> }): Promise<Call> {
    const response = await this.#fetch(path, init);
    const text = await response.text();
    if (response.ok) return callSchema.parse(JSON.parse(text));
    throw new TerminalError(`the API refused (HTTP ${response.status}): ${reasonIn(text)}`);
  }

  async #fetch(path: string, init: RequestInit & { headers?: Record<string, string> }): Promise<Response> {
    try {
      return await fetch(`${this.#url}${path}`, { ...init, headers: { ...init.headers, Authorization: `Bearer ${this.#key}` } });
    } catch {
      throw new Unreachable('the API does not answer; start Parley again: npm start');
    }
  }
}

/** Nothing answered: it may be starting again. */
class Unreachable extends TerminalError {}

function reasonIn(text: string): string {
  try {
    const { detail, title } = problemSchema.parse(JSON.parse(text));
    return detail ?? title ?? text;
  } catch {
    return text.slice(0, 200);
  }
}

/** Follows a call to its result; every new status is said. @throws TerminalError when the API stays away */
async function follow(api: CallApi, placed: Call): Promise<Call> {
  let call = placed;
  let heardAtMs = Date.now();
  say(`  Parley: ${call.status}`);
  while (!call.done) {
    const before = call;
    try {
      call = await api.show(call.callId);
      heardAtMs = Date.now();
    } catch (error) {
      if (!(error instanceof Unreachable) || Date.now() - heardAtMs > PATIENCE_MS) throw error;
      await sleep(ASK_AGAIN_MS);
    }
    if (call.status !== before.status) say(`  Parley: ${call.status}`);
  }
  return call;
}

/** Shows what happens on the played phone, until the command ends. */
async function watchPhone(sandboxUrl: string, callId: string): Promise<void> {
  const { body } = await fetch(`${sandboxUrl}/sandbox/calls/${callId}/events`);
  if (body === null) return;
  for await (const event of readEvents(body)) showEvent(eventSchema.parse(event));
}

function showEvent(event: CallEvent): void {
  switch (event.type) {
    case 'status':
      say(`  phone:  ${event.status}${event.endedReason === undefined ? '' : ` (${event.endedReason})`}`);
      break;
    case 'words':
      say(`    ${bold(event.role === 'bot' ? 'Assistant:' : 'Customer: ')} ${event.text}`);
      break;
    case 'webhook':
      if (event.answer < 200 || event.answer > 299) {
        const answer = event.answer === 0 ? 'nothing' : `HTTP ${event.answer}`;
        say(`  webhook ${event.event}: Parley answered ${answer} (${event.attempts} attempts)`);
      }
      break;
  }
}

/** One press ends the call, another one this command. Returns a function that tells which call it is, once that is known. */
function endOnCtrlC(api: CallApi): (call: Call) => void {
  let call: Call | undefined;
  let pressedAtMs: number | undefined;
  const end = ({ callId }: Call) => {
    api.end(callId).catch((error: unknown) => say(`  the call could not be ended: ${messageOf(error)}`));
  };
  process.on('SIGINT', () => {
    if (pressedAtMs !== undefined && Date.now() - pressedAtMs > ONE_PRESS_MS) process.exit(1);
    if (pressedAtMs !== undefined) return;
    pressedAtMs = Date.now();
    say('\n  ending the call; press Ctrl-C again to leave it alone');
    if (call !== undefined) end(call);
  });
  return (placed) => {
    call = placed;
    if (pressedAtMs !== undefined) end(placed);
  };
}

function sayResult(call: Call): void {
  const { outcome, endedReason, durationSeconds, summary, error, needsAttention } = call;
  say('');
  say(`${bold('Outcome:')}  ${outcome ?? 'unknown'}${needsAttention === true ? ' (needs a person)' : ''}`);
  if (endedReason) say(`Reason:   ${endedReason}`);
  if (durationSeconds != null) say(`Duration: ${durationSeconds} s`);
  if (summary) say(`Summary:  ${summary}`);
  if (error) say(`Error:    ${error}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function bold(text: string): string {
  return process.stdout.isTTY === true ? `\x1b[1m${text}\x1b[0m` : text;
}

interface Options {
  to: string;
  isReal: boolean;
}

function readOptions(): Options {
  const usage = 'usage: npm run call -- +15550100 [--real]';
  try {
    const { positionals, values } = parseArgs({ allowPositionals: true, options: { real: { type: 'boolean', default: false } } });
    const [to] = positionals;
    if (to !== undefined && positionals.length === 1) return { to, isReal: values.real };
  } catch (error) {
    throw new TerminalError(`${messageOf(error)} (${usage})`);
  }
  throw new TerminalError(usage);
}

async function main(): Promise<void> {
  loadEnvFile();
  const { to, isReal } = readOptions();
  // biome-ignore lint/style/noProcessEnv: an entry file hands the environment to the one reader of settings
  const running = readRunning(readSettings(process.env).DATA_DIR);
  if (!running.playsCalls && !isReal) {
    throw new TerminalError('Parley is connected to the real Vapi: this rings a real phone and costs money. If you mean it, add --real.');
  }
  const api = new CallApi(running);
  const tellCall = endOnCtrlC(api);
  const placed = await api.place(to);
  tellCall(placed);
  say(`Calling ${to}${running.playsCalls ? ' (played)' : ''}, call ${placed.callId}. Ctrl-C ends it.`);
  if (running.temporalUiUrl) say(`  ${workflowsLink(running.temporalUiUrl, `WorkflowId="${callWorkflowId(placed.callId)}"`)}`);
  // It only adds colour: the result does not depend on it.
  if (running.playsCalls && running.sandboxUrl) watchPhone(running.sandboxUrl, placed.callId).catch(() => undefined);
  sayResult(await follow(api, placed));
}

/** Exits at once: the event stream would keep the process alive. */
main().then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(1);
  },
);
