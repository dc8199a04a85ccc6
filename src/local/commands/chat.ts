/** `npm run chat`: write as a WhatsApp customer from the terminal. Talks to the sandbox of a running instance. */
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { readArguments, runCommand, UsageError } from '../../platform/command-line';
import { loadEnvFile, readSettings } from '../../platform/config';
import { type Instance, messageOf, readEvents, readInstanceFile, TerminalError, workflowsLink } from '../instance-file';
import { findAuthor, findConversation, whyNoReply } from './conversation-api';

const eventSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('reply'),
    wamid: z.string(),
    text: z.string(),
    atMs: z.number(),
    /** Missing in events of earlier versions of the sandbox. */
    by: z.enum(['business', 'owner']).optional(),
    correlation: z.string().optional(),
  }),
  z.object({ type: z.literal('ticks'), wamid: z.string(), direction: z.enum(['inbound', 'outbound']), status: z.string() }),
  z.object({ type: z.literal('typing') }),
]);
type ChatEvent = z.output<typeof eventSchema>;
/** Earlier versions of the sandbox give no name. */
const chatSchema = z.object({
  name: z.string().nullish(),
  data: z.array(z.object({ wamid: z.string(), direction: z.enum(['inbound', 'outbound']), text: z.string() })),
});
const sentSchema = z.object({ wamid: z.string(), delivered: z.number(), attempts: z.number() });

interface Options {
  phone: string;
  /** Undefined: the name that the customer has used so far. */
  name: string | undefined;
  /** For piped input: done after this many ms without a reply. */
  quietMs: number;
  /** For piped input: timeout for the first reply, in ms. */
  timeoutMs: number;
}

const TICKS: Record<string, string> = { sent: '✓', delivered: '✓✓', read: '✓✓', failed: '✗' };

/** Prints the chat. On a terminal, the ticks of the last line update in place. */
class Screen {
  readonly #terminal = process.stdout.isTTY === true;
  #prompt: Interface | undefined;
  #lastTicks: string | undefined;

  prompt(input: Interface): void {
    this.#prompt = input;
    if (this.#terminal) input.prompt();
  }

  line(text: string): void {
    this.#lastTicks = undefined;
    this.#write(text);
  }

  ticks(wamid: string, status: string, direction: 'inbound' | 'outbound'): void {
    const of = direction === 'inbound' ? 'your message' : 'reply';
    const word = status === 'taken' ? 'delivered' : status;
    if (this.#terminal) this.#colouredTicks(wamid, word, of);
    else this.#write(`  (${of}: ${word})`);
  }

  #colouredTicks(wamid: string, status: string, of: string): void {
    const colour = status === 'read' ? 36 : status === 'failed' ? 31 : 90;
    const above = this.#lastTicks === wamid ? '\x1b[1A\x1b[2K\r' : '';
    this.#write(`\x1b[${colour}m  ${TICKS[status] ?? ''} ${of} ${status}\x1b[0m`, above);
    this.#lastTicks = wamid;
  }

  /** Call after Enter: the cursor has moved on, so the ticks above can no longer update in place. */
  typed(): void {
    this.#lastTicks = undefined;
  }

  /** A message of the chat. */
  said(who: string, text: string): void {
    const shownWho = this.#terminal && who !== 'You:' ? `\x1b[1m${who}\x1b[0m` : who;
    this.line(`${shownWho} ${text.replaceAll('\n', `\n${' '.repeat(who.length + 1)}`)}`);
  }

  #write(text: string, above = ''): void {
    process.stdout.write(`${this.#terminal ? `\r\x1b[2K${above}` : ''}${text}\n`);
    if (this.#terminal) this.#prompt?.prompt(true);
  }
}

/** The sandbox's name for a new customer. */
const NEW_NAME = 'Sandbox Customer';
/** How many messages of an earlier chat are shown. */
const SHOWN_LINES = 10;

const OPTIONS = {
  phone: { type: 'string', default: '15550100001' },
  name: { type: 'string' },
  quiet: { type: 'string', default: '5000' },
  timeout: { type: 'string', default: '60000' },
} as const;
const HELP = `usage: npm run chat -- [--phone ${OPTIONS.phone.default}] [--name <name>]

Writes to a running Parley (npm start) as a customer on simulated WhatsApp. Shows the chat's last messages first. Ctrl-D quits.
"/owner <text>" writes to the customer as the owner does in the WhatsApp Business app: the bot is silent then, for a while.
With piped input, sends every line and waits for the replies.

  --phone <digits>  the customer's phone number
  --name <name>     the customer's name (default: the one used before, or ${NEW_NAME})
  --quiet <ms>      piped input: done after this long without a reply (${OPTIONS.quiet.default})
  --timeout <ms>    piped input: longest wait for the first reply (${OPTIONS.timeout.default})
  -h, --help        show this help

exit status: 0; 1 if piped input gets no reply, or on an error; 2 for wrong arguments; 78 for invalid settings`;

/** How often the API is queried for why there is no reply. */
const SILENCE_POLL_MS = 1_000;
/** A reply that takes longer than this is explained. */
const SILENCE_EXPLAINED_AFTER_MS = 8_000;

/** Undefined if help is requested. @throws UsageError */
function readOptions(args: string[]): Options | undefined {
  const line = readArguments(args, { help: HELP, options: OPTIONS });
  if (line === undefined) return undefined;
  const milliseconds = z.coerce.number({ error: 'must be a number of milliseconds' }).int().min(1);
  const phone = z
    .string()
    .transform((written) => written.replace(/[\s()./-]/g, ''))
    .pipe(z.string().regex(/^\+?\d{5,15}$/, 'must be a phone number of 5 to 15 digits'));
  const parsed = z
    .object({ phone, name: z.string().min(1, 'must not be empty').optional(), quiet: milliseconds, timeout: milliseconds })
    .safeParse(line.values);
  if (!parsed.success) throw new UsageError(parsed.error.issues.map((issue) => `--${issue.path.join('.')} ${issue.message}`).join('; '));
  return { phone: parsed.data.phone, name: parsed.data.name, quietMs: parsed.data.quiet, timeoutMs: parsed.data.timeout };
}

/** A customer's chat in the sandbox. */
class Chat {
  /** Number of replies since the customer's last message. */
  replies = 0;
  lastReplyAtMs = 0;
  /** Why the customer's last message will get no reply. */
  refusal: string | undefined;
  /** WhatsApp's id of the customer's last message. */
  #lastSent: string | undefined;
  readonly #url: string;
  readonly #phone: string;
  readonly #name: string | undefined;
  readonly #screen: Screen;
  /** WhatsApp's ids of the messages that were there before. */
  readonly #earlier = new Set<string>();
  readonly #findAuthor: (messageId: string) => ReturnType<typeof findAuthor>;
  readonly #whyNoReply: (wamid: string) => ReturnType<typeof whyNoReply>;
  /** Called once, when Parley accepts the first message. */
  #onFirstAccepted: () => void;
  #changed: () => void = () => undefined;

  constructor(instance: Instance, sandboxUrl: string, options: Options, screen: Screen) {
    this.#findAuthor = (messageId) => findAuthor(instance, options.phone, messageId);
    this.#whyNoReply = (wamid) => whyNoReply(instance, options.phone, wamid);
    this.#onFirstAccepted = () => void sayConversation(instance, options, screen);
    this.#url = `${sandboxUrl}/sandbox/customers/${encodeURIComponent(options.phone)}`;
    this.#phone = options.phone;
    this.#name = options.name;
    this.#screen = screen;
  }

  /** Subscribes to events; resolves once subscribed. Calls `ended` when the stream ends. @throws TerminalError if the sandbox is down */
  async watch(ended: (error: Error) => void): Promise<void> {
    const response = await this.#fetch('/events', {});
    const body = response.body;
    if (!response.ok || body === null) throw new TerminalError(`the sandbox responded with HTTP ${response.status}`);
    this.#follow(body).then(
      () => ended(new TerminalError('the sandbox stopped')),
      () => ended(new TerminalError('the sandbox stopped')),
    );
  }

  /** Greets the customer and shows the last messages of the chat. Call once it is watched, so that nothing is missed. @throws TerminalError */
  async open(): Promise<void> {
    const response = await this.#fetch('/messages', {});
    if (!response.ok) throw new TerminalError(`the sandbox responded with HTTP ${response.status}`);
    const { name, data } = chatSchema.parse(await response.json());
    const who = this.#name ?? name ?? NEW_NAME;
    this.#screen.line(`You are ${who} (${this.#phone}), writing to Parley on simulated WhatsApp. Ctrl-D quits.`);
    for (const { wamid } of data) this.#earlier.add(wamid);
    const shown = data.slice(-SHOWN_LINES);
    if (shown.length < data.length) this.#screen.line(`  (${data.length - shown.length} earlier messages)`);
    for (const { direction, text } of shown) this.#screen.said(direction === 'inbound' ? 'You:' : 'Parley:', text);
    if (shown.length > 0) this.#screen.line('  (until now)');
  }

  /** Sends a line as the customer, or after `/owner` as the owner, and reports if delivery failed. @returns whether Parley accepted it */
  async send(line: string): Promise<boolean> {
    const [, ownersText] = /^\/owner\s+(.+)$/s.exec(line.trim()) ?? [];
    return ownersText === undefined ? await this.#sendAsCustomer(line) : await this.#sendAsOwner(ownersText);
  }

  async #sendAsOwner(text: string): Promise<boolean> {
    // Nobody else answers the customer's last message.
    this.#lastSent = undefined;
    const response = await this.#fetch('/owner-messages', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ text }),
    });
    if (!response.ok) throw new TerminalError(`the sandbox rejected the owner's message (HTTP ${response.status})`);
    const { delivered, attempts } = sentSchema.parse(await response.json());
    return delivered === 200 || this.#sayNotDelivered(delivered, attempts);
  }

  async #sendAsCustomer(text: string): Promise<boolean> {
    this.replies = 0;
    this.lastReplyAtMs = 0;
    this.refusal = undefined;
    const response = await this.#fetch('/messages', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ text, name: this.#name }),
    });
    if (!response.ok) throw new TerminalError(`the sandbox rejected the message (HTTP ${response.status})`);
    const { wamid, delivered, attempts } = sentSchema.parse(await response.json());
    if (delivered === 200) {
      this.#lastSent = wamid;
      void this.#explainSilence(wamid);
      this.#onFirstAccepted();
      this.#onFirstAccepted = () => undefined;
      return true;
    }
    return this.#sayNotDelivered(delivered, attempts);
  }

  #sayNotDelivered(delivered: number, attempts: number): false {
    const reason = delivered === 0 ? 'did not respond' : `responded with HTTP ${delivered}`;
    this.#screen.line(`  not delivered: Parley ${reason} (${attempts} attempts)`);
    return false;
  }

  /** Prints why the message has no reply, until it has one or a later message is sent. */
  async #explainSilence(wamid: string): Promise<void> {
    const sentAtMs = Date.now();
    let shown = '';
    while (this.#lastSent === wamid && this.replies === 0 && this.refusal === undefined) {
      await sleep(SILENCE_POLL_MS);
      const reason = await this.#whyNoReply(wamid);
      if (reason === undefined || this.#lastSent !== wamid || this.replies > 0) continue;
      if (reason.isFinal) this.refusal = reason.text;
      const isDue = reason.isFinal || Date.now() - sentAtMs >= SILENCE_EXPLAINED_AFTER_MS;
      if (isDue && reason.text !== shown) {
        this.#screen.line(`  no reply${reason.isFinal ? '' : ' yet'}: ${reason.text}`);
        shown = reason.text;
      }
      this.#changed();
    }
  }

  /** Resolves at the next event, or after `ms`. */
  waitForEvent(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#changed = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(`${this.#url}${path}`, init);
    } catch {
      throw new TerminalError('the sandbox does not respond; start Parley again: npm start');
    }
  }

  async #follow(body: ReadableStream<Uint8Array>): Promise<void> {
    for await (const event of readEvents(body)) {
      await this.#show(eventSchema.parse(event));
      this.#changed();
    }
  }

  async #show(event: ChatEvent): Promise<void> {
    switch (event.type) {
      case 'reply':
        if (this.#earlier.has(event.wamid)) break;
        this.replies += 1;
        this.lastReplyAtMs = Date.now();
        this.#screen.said(await this.#whoSaid(event), event.text);
        break;
      case 'ticks':
        this.#screen.ticks(event.wamid, event.status, event.direction);
        break;
      case 'typing':
        this.#screen.line('  Parley is typing…');
        break;
    }
  }

  async #whoSaid({ by, correlation }: Extract<ChatEvent, { type: 'reply' }>): Promise<string> {
    if (by === 'owner') return 'Owner:';
    const person = correlation === undefined ? undefined : await this.#findAuthor(correlation);
    return person === undefined ? 'Parley:' : `${person} (by hand):`;
  }
}

/** For piped input: sends every line, then waits for replies until none has come for a while. @returns the exit code */
async function chatFromPipe(chat: Chat, input: Interface, options: Options): Promise<number> {
  let sent = 0;
  for await (const line of input) {
    if (line.trim() === '') continue;
    process.stdout.write(`You: ${line}\n`);
    if (!(await chat.send(line))) return 1;
    sent += 1;
  }
  if (sent === 0) return 0;
  const startedAtMs = Date.now();
  for (;;) {
    if (chat.refusal !== undefined) return 1;
    const quietSinceMs = chat.replies > 0 ? chat.lastReplyAtMs : undefined;
    const dueAtMs = quietSinceMs === undefined ? startedAtMs + options.timeoutMs : quietSinceMs + options.quietMs;
    const leftMs = dueAtMs - Date.now();
    if (leftMs <= 0 && quietSinceMs !== undefined) return 0;
    if (leftMs <= 0) throw new TerminalError(`no reply within ${Math.round(options.timeoutMs / 1_000)} s`);
    await chat.waitForEvent(leftMs);
  }
}

/** For typed input: ends with the input. Does not wait for one message's delivery before reading the next. @returns the exit code */
async function chatFromTerminal(chat: Chat, input: Interface, screen: Screen): Promise<number> {
  screen.prompt(input);
  for await (const line of input) {
    screen.typed();
    if (line.trim() !== '') chat.send(line).catch((error: unknown) => screen.line(`  not sent: ${messageOf(error)}`));
    screen.prompt(input);
  }
  process.stdout.write('\n');
  return 0;
}

/** Prints where operators find this customer's conversation, once its first message is stored. */
async function sayConversation(instance: Instance, { phone }: Options, screen: Screen): Promise<void> {
  const { apiUrl, temporalUiUrl } = instance;
  const workflowId = await findConversation(instance, phone);
  if (workflowId === undefined) return screen.line(`  Your conversation is not stored yet; ${apiUrl}/api/v1/conversations will list it.`);
  screen.line(`  Your conversation is the workflow ${workflowId}`);
  if (temporalUiUrl) screen.line(`  ${workflowsLink(temporalUiUrl, `WorkflowId="${workflowId}"`)}`);
}

async function main(args: string[]): Promise<number> {
  const options = readOptions(args);
  if (options === undefined) return 0;
  loadEnvFile();
  // biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
  const instance = readInstanceFile(readSettings(process.env).DATA_DIR);
  // A simulated customer may have the number of a real person, who would then get the reply.
  if (!instance.simulatesWhatsApp || !instance.sandboxUrl)
    throw new TerminalError(
      'WhatsApp is not simulated here, so npm run chat sends nothing: write to the business number from a phone instead',
    );
  return converse(instance, instance.sandboxUrl, options);
}

/** Opens the input last, because lines that arrive before it is read would be lost. */
async function converse(instance: Instance, sandboxUrl: string, options: Options): Promise<number> {
  const screen = new Screen();
  const chat = new Chat(instance, sandboxUrl, options, screen);
  let ended: (error: Error) => void = () => undefined;
  const lost = new Promise<never>((_resolve, reject) => {
    ended = reject;
  });
  await chat.watch(ended);
  await chat.open();
  const isTerminal = process.stdin.isTTY === true;
  const input = createInterface({ input: process.stdin, ...(isTerminal ? { output: process.stdout } : {}), prompt: 'You: ' });
  input.on('SIGINT', () => input.close());
  return Promise.race([isTerminal ? chatFromTerminal(chat, input, screen) : chatFromPipe(chat, input, options), lost]);
}

runCommand(main);
