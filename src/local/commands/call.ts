/**
 * `npm run call -- +15550100`: places a voice call through the API of a running instance and shows it live: what the API knows of it
 * and, when the sandbox plays the call, what happens on the phone. Ctrl-C ends the call.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { callWorkflowId } from '../../../workflows/contract';
import { loadEnvFile, readSettings } from '../../platform/config';
import { type Instance, messageOf, readEvents, readInstanceFile, TerminalError, workflowsLink } from '../instance-file';
import { playedCallTimings } from '../played-calls';
import { type CallBounds, overdueText, waitOf } from './call-waits';

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
/** Longer than the API itself takes to place a call or to wait for one. */
const ANSWER_WITHIN_MS = 10_000;
/** Named when a call is placed, so that what is said of its length holds. */
const TALK_SECONDS = 600;
/** What Vapi says when it is asked needs a moment to get here. */
const ASKING_MS = 5_000;
/** Ctrl-C reaches us from the terminal, from npm and from the bootstrap, all for one press of the keys. */
const ONE_PRESS_MS = 700;

/** The calls of a running instance, over its API. */
class CallApi {
  readonly #url: string;
  readonly #key: string;

  constructor({ apiUrl, apiKey }: Instance) {
    this.#url = `${apiUrl}/api/v1/vapi/calls`;
    this.#key = apiKey;
  }

  /** Places a call. The key is this command's own, so that a repeated attempt would not dial twice. @throws TerminalError with the API's words */
  place(to: string): Promise<Call> {
    const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': `terminal-${randomUUID()}` };
    return this.#ask('', { method: 'POST', headers, body: JSON.stringify({ to, maxDurationSeconds: TALK_SECONDS }) });
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
    const { ok, status, text } = await this.#fetch(path, init);
    if (ok) return callSchema.parse(JSON.parse(text));
    throw new TerminalError(`the API refused (HTTP ${status}): ${reasonIn(text)}`);
  }

  async #fetch(path: string, init: RequestInit & { headers?: Record<string, string> }) {
    const headers = { ...init.headers, Authorization: `Bearer ${this.#key}` };
    try {
      const response = await fetch(`${this.#url}${path}`, { ...init, headers, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
      return { ok: response.ok, status: response.status, text: await response.text() };
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

/** Follows a call to its result; every new status is said, and what is waited for. @throws TerminalError when the API stays away */
async function follow(api: PatientApi, placed: Call, bounds: CallBounds): Promise<Call> {
  const progress = new Progress(bounds);
  let call = placed;
  progress.show(call);
  while (!call.done) {
    call = await api.show(call);
    progress.show(call);
  }
  return call;
}

/** Asks again when the API does not answer, and says so. */
class PatientApi {
  readonly #api: CallApi;
  #awaySinceMs: number | undefined;

  constructor(api: CallApi) {
    this.#api = api;
  }

  /** The call as it is now; as it was when the API does not answer. @throws TerminalError when it stays away */
  async show(call: Call): Promise<Call> {
    try {
      const shown = await this.#api.show(call.callId);
      if (this.#awaySinceMs !== undefined) say('  the API answers again');
      this.#awaySinceMs = undefined;
      return shown;
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      if (this.#awaySinceMs === undefined) say('  the API does not answer; asking again for a minute');
      this.#awaySinceMs ??= Date.now();
      if (Date.now() - this.#awaySinceMs > PATIENCE_MS) throw error;
      await sleep(ASK_AGAIN_MS);
      return call;
    }
  }
}

/** Says each new state of a call once, and once more when it lasts beyond its bound. */
class Progress {
  readonly #bounds: CallBounds;
  #said = '';
  #overdueAtMs = Number.POSITIVE_INFINITY;

  constructor(bounds: CallBounds) {
    this.#bounds = bounds;
  }

  show(call: Call): void {
    const { text, seconds } = waitOf(call, this.#bounds);
    const line = call.done ? call.status : `${call.status}; ${text}`;
    if (call.done && this.#said.startsWith(line)) return;
    if (line !== this.#said) {
      say(`  Parley: ${line}`);
      this.#said = line;
      this.#overdueAtMs = Date.now() + seconds * 1_000 + ASKING_MS;
    } else if (Date.now() > this.#overdueAtMs) {
      say(`  Parley: ${overdueText(this.#bounds)}`);
      this.#overdueAtMs = Number.POSITIVE_INFINITY;
    }
  }
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

const USAGE = 'usage: npm run call -- +15550100 [--real]';
const HELP = `${USAGE}

Places a voice call through a running Parley (npm start) and shows it to its end. Ctrl-C ends the call.

  --real      ring a real phone, where Parley is connected to the real Vapi; it costs money
  -h, --help  show this`;
const OPTIONS = { real: { type: 'boolean', default: false }, help: { type: 'boolean', short: 'h', default: false } } as const;

/** Undefined when help is asked for. @throws TerminalError */
function readOptions(): Options | undefined {
  try {
    const { positionals, values } = parseArgs({ allowPositionals: true, options: OPTIONS });
    const [to] = positionals;
    if (values.help) return undefined;
    if (to !== undefined && positionals.length === 1) return { to, isReal: values.real };
  } catch (error) {
    throw new TerminalError(`${messageOf(error)} (${USAGE})`);
  }
  throw new TerminalError(USAGE);
}

/** The waits as the API and the worker have them: `npm start` gives shorter ones to played calls. */
function readBounds(environment: NodeJS.ProcessEnv, { playsCalls }: Instance): CallBounds {
  const settings = readSettings({ ...environment, ...(playsCalls && playedCallTimings(environment)) });
  return { ring: settings.CALL_RING_TIMEOUT_SECONDS, talk: TALK_SECONDS, grace: settings.CALL_REPORT_GRACE_SECONDS };
}

async function main(environment: NodeJS.ProcessEnv): Promise<void> {
  loadEnvFile();
  const options = readOptions();
  if (options === undefined) return say(HELP);
  const { to, isReal } = options;
  const running = readInstanceFile(readSettings(environment).DATA_DIR);
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
  sayResult(await follow(new PatientApi(api), placed, readBounds(environment, running)));
}

/** Exits at once: the event stream would keep the process alive. */
// biome-ignore lint/style/noProcessEnv: an entry file hands the environment to the one reader of settings
main(process.env).then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(1);
  },
);
