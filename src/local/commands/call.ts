/**
 * `npm run call -- +15550100`: places a voice call through the API of a running instance and shows its progress: the status from the API
 * and, for a simulated call, what happens on the phone. Ctrl-C ends the call. The exit status tells the outcome.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { callWorkflowId } from '../../../workflows/contract';
import { readArguments, runCommand, UsageError } from '../../platform/command-line';
import { loadEnvFile, readSettings } from '../../platform/config';
import type { CallOutcome } from '../../record/call-outcome';
import { type Instance, messageOf, readEvents, readInstanceFile, TerminalError, workflowsLink } from '../instance-file';
import { simulatedCallTimings } from '../simulated-calls';
import { onSignals, say } from '../terminal';
import { type CallTimeouts, currentWait, overdueText } from './call-waits';

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

/** How long one request waits for the result before it returns the current status. */
const WAIT_SECONDS = 2;
/** How long to keep retrying if the API does not respond, for example during a restart. */
const OUTAGE_LIMIT_MS = 60_000;
const RETRY_DELAY_MS = 1_000;
/** Longer than the API takes to place a call or to wait for one. */
const REQUEST_TIMEOUT_MS = 10_000;
/** Sent when placing the call, so that the printed maximum length is right. */
const TALK_SECONDS = 600;
/** Time for the result of Parley's query to Vapi to arrive here. */
const QUERY_MARGIN_MS = 5_000;

/** Client for the calls of a running instance's API. */
class CallApi {
  readonly #url: string;
  readonly #key: string;

  constructor({ apiUrl, apiKey }: Instance) {
    this.#url = `${apiUrl}/api/v1/vapi/calls`;
    this.#key = apiKey;
  }

  /** Places a call, with a fresh idempotency key. @throws TerminalError with the API's message */
  place(to: string): Promise<Call> {
    const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': `terminal-${randomUUID()}` };
    return this.#ask('', { method: 'POST', headers, body: JSON.stringify({ to, maxDurationSeconds: TALK_SECONDS }) });
  }

  /** Returns the call when it is done, or its current state after WAIT_SECONDS. @throws TerminalError */
  show(callId: string): Promise<Call> {
    return this.#ask(`/${callId}?wait=${WAIT_SECONDS}`, {});
  }

  /** Requests the end of the call. @throws TerminalError */
  end(callId: string): Promise<Call> {
    return this.#ask(`/${callId}`, { method: 'DELETE' });
  }

  async #ask(path: string, init: RequestInit & { headers?: Record<string, string> }): Promise<Call> {
    const { ok, status, text } = await this.#fetch(path, init);
    if (ok) return callSchema.parse(JSON.parse(text));
    throw new TerminalError(`the API rejected the request (HTTP ${status}): ${reasonIn(text)}`);
  }

  async #fetch(path: string, init: RequestInit & { headers?: Record<string, string> }) {
    const headers = { ...init.headers, Authorization: `Bearer ${this.#key}` };
    try {
      const response = await fetch(`${this.#url}${path}`, { ...init, headers, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
      return { ok: response.ok, status: response.status, text: await response.text() };
    } catch {
      throw new UnreachableError('the API does not respond; start Parley again: npm start');
    }
  }
}

/** The API did not respond; it may be restarting. */
class UnreachableError extends TerminalError {}

function reasonIn(text: string): string {
  try {
    const { detail, title } = problemSchema.parse(JSON.parse(text));
    return detail ?? title ?? text;
  } catch {
    return text.slice(0, 200);
  }
}

/** Follows a call to its result; prints every new status and what the call is waiting for. @throws TerminalError if the API stays down */
async function follow(api: RetryingApi, placed: Call, timeouts: CallTimeouts): Promise<Call> {
  const progress = new Progress(timeouts);
  let call = placed;
  progress.show(call);
  while (!call.done) {
    call = await api.show(call);
    progress.show(call);
  }
  return call;
}

/** Retries when the API does not respond, and prints that it does. */
class RetryingApi {
  readonly #api: CallApi;
  #downSinceMs: number | undefined;

  constructor(api: CallApi) {
    this.#api = api;
  }

  /** The call's current state, or `call` unchanged if the API does not respond. @throws TerminalError if it stays down */
  async show(call: Call): Promise<Call> {
    try {
      const shown = await this.#api.show(call.callId);
      if (this.#downSinceMs !== undefined) say('  the API is responding again');
      this.#downSinceMs = undefined;
      return shown;
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
      if (this.#downSinceMs === undefined) say('  the API does not respond; retrying for a minute');
      this.#downSinceMs ??= Date.now();
      if (Date.now() - this.#downSinceMs > OUTAGE_LIMIT_MS) throw error;
      await sleep(RETRY_DELAY_MS);
      return call;
    }
  }
}

/** Prints each new state of a call once, and once more if it exceeds its timeout. */
class Progress {
  readonly #timeouts: CallTimeouts;
  #lastLine = '';
  #overdueAtMs = Number.POSITIVE_INFINITY;

  constructor(timeouts: CallTimeouts) {
    this.#timeouts = timeouts;
  }

  show(call: Call): void {
    const { text, seconds } = currentWait(call, this.#timeouts);
    const line = call.done ? call.status : `${call.status}; ${text}`;
    if (call.done && this.#lastLine.startsWith(line)) return;
    if (line !== this.#lastLine) {
      say(`  Parley: ${line}`);
      this.#lastLine = line;
      this.#overdueAtMs = Date.now() + seconds * 1_000 + QUERY_MARGIN_MS;
    } else if (Date.now() > this.#overdueAtMs) {
      say(`  Parley: ${overdueText(this.#timeouts)}`);
      this.#overdueAtMs = Number.POSITIVE_INFINITY;
    }
  }
}

/** Prints what happens on the simulated phone, until the command exits. */
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
        const response = event.answer === 0 ? 'did not respond' : `responded with HTTP ${event.answer}`;
        say(`  webhook ${event.event}: Parley ${response} (${event.attempts} attempts)`);
      }
      break;
  }
}

/** The first Ctrl-C ends the call, the second this command. Returns a function that sets the call once it is placed. */
function endOnCtrlC(api: CallApi): (call: Call) => void {
  let call: Call | undefined;
  let isEnding = false;
  const end = ({ callId }: Call) => {
    api.end(callId).catch((error: unknown) => say(`  ending the call failed: ${messageOf(error)}`));
  };
  const endCall = () => {
    isEnding = true;
    say('\n  ending the call; press Ctrl-C again to quit');
    if (call !== undefined) end(call);
  };
  onSignals(['SIGINT'], endCall, () => process.exit(EXIT_INTERRUPTED));
  return (placed) => {
    call = placed;
    if (isEnding) end(placed);
  };
}

function sayResult(call: Call): void {
  const { outcome, endedReason, durationSeconds, summary, error, needsAttention } = call;
  say('');
  say(`${bold('Outcome:')}  ${outcome ?? 'unknown'}${needsAttention === true ? ' (needs attention)' : ''}`);
  if (endedReason) say(`Reason:   ${endedReason}`);
  if (durationSeconds != null) say(`Duration: ${Math.round(durationSeconds)} s`);
  if (summary) say(`Summary:  ${summary}`);
  if (error) say(`Error:    ${error}`);
}

function bold(text: string): string {
  return process.stdout.isTTY === true ? `\x1b[1m${text}\x1b[0m` : text;
}

interface Options {
  to: string;
  isReal: boolean;
}

/** Exit status by outcome. 1, 2 and 78 are errors (`src/platform/exit-status.ts`), 130 is the second Ctrl-C. */
const EXIT_STATUS: Readonly<Record<CallOutcome, number>> = {
  completed: 0,
  no_answer: 10,
  busy: 11,
  voicemail: 12,
  invalid_number: 13,
  canceled: 14,
  transfer_failed: 15,
  failed: 16,
  unknown: 17,
};
const EXIT_INTERRUPTED = 130;

const HELP = `usage: npm run call -- <number> [--real]

Places a voice call through a running Parley (npm start) and follows it to its end. Ctrl-C ends the call. Without a Vapi key the call is
simulated, and the last four digits of the number decide what happens (0101: busy; README.md lists them all).

  <number>    the number to call, such as +15550100
  --real      required if Parley is connected to the real Vapi: rings a real phone and costs money
  -h, --help  show this help

exit status: ${Object.entries(EXIT_STATUS)
  .map(([outcome, status]) => `${status} ${outcome}`)
  .join(', ')};
             1 if the call could not be placed or followed, 2 for wrong arguments, 78 for invalid settings, ${EXIT_INTERRUPTED} after a second Ctrl-C`;

/** Undefined if help is requested. @throws UsageError */
function readOptions(args: string[]): Options | undefined {
  const line = readArguments(args, { help: HELP, options: { real: { type: 'boolean' } }, maxPositionals: 1 });
  if (line === undefined) return undefined;
  const [to] = line.positionals;
  if (to === undefined) throw new UsageError('the number to call is missing, such as +15550100');
  return { to, isReal: line.values.real ?? false };
}

/** An outcome that a later version of the API has added counts as unknown. */
function exitStatusOf({ outcome }: Call): number {
  const known: Readonly<Record<string, number>> = EXIT_STATUS;
  return known[outcome ?? 'unknown'] ?? EXIT_STATUS.unknown;
}

/** The timeouts that the API and the worker use; `npm start` sets shorter ones for simulated calls. */
function readTimeouts(environment: NodeJS.ProcessEnv, { simulatesCalls }: Instance): CallTimeouts {
  const settings = readSettings({ ...environment, ...(simulatesCalls && simulatedCallTimings(environment)) });
  return { ring: settings.CALL_RING_TIMEOUT_SECONDS, talk: TALK_SECONDS, grace: settings.CALL_REPORT_GRACE_SECONDS };
}

async function main(args: string[], environment: NodeJS.ProcessEnv): Promise<number> {
  const options = readOptions(args);
  if (options === undefined) return 0;
  loadEnvFile();
  const { to, isReal } = options;
  const instance = readInstanceFile(readSettings(environment).DATA_DIR);
  if (!instance.hasCalls) {
    throw new TerminalError(
      'voice calls are off: set VAPI_API_KEY and the other settings of Vapi (.env.example), and start Parley again. They are simulated only while WhatsApp is too.',
    );
  }
  if (!instance.simulatesCalls && !isReal) {
    throw new TerminalError('Parley is connected to the real Vapi: this rings a real phone and costs money. Add --real to confirm.');
  }
  const api = new CallApi(instance);
  const setCall = endOnCtrlC(api);
  const placed = await api.place(to);
  setCall(placed);
  say(`Calling ${to}${instance.simulatesCalls ? ' (simulated)' : ''}, call ${placed.callId}. Ctrl-C ends it.`);
  if (instance.temporalUiUrl) say(`  ${workflowsLink(instance.temporalUiUrl, `WorkflowId="${callWorkflowId(placed.callId)}"`)}`);
  // Optional output: the result does not depend on it.
  if (instance.simulatesCalls && instance.sandboxUrl) watchPhone(instance.sandboxUrl, placed.callId).catch(() => undefined);
  const ended = await follow(new RetryingApi(api), placed, readTimeouts(environment, instance));
  sayResult(ended);
  return exitStatusOf(ended);
}

// biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
runCommand((args) => main(args, process.env));
