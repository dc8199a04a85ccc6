/** A double of the model providers: the OpenAI chat protocol, as implemented by aimock, with replies and faults programmed per model. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ChatCompletionRequest, createServer, type FixtureResponse, type ServerInstance } from '@copilotkit/aimock';
import { z } from 'zod';
import { Programs } from '../programs';
import { Changes, Timers } from '../waiting';
import { strictTemplateProblem } from './strict';

/** Behaviour for requests to a model, as JSON. Fields that are not set keep the default behaviour. */
export const modelProgramSchema = z.strictObject({
  /** The model that it applies to (default: all). */
  model: z.string().min(1).optional(),
  times: z.number().int().min(1).optional(),
  skip: z.number().int().min(0).optional(),
  /** Delay of the response, in ms. */
  delayMs: z.number().int().min(0).max(600_000).optional(),
  /** Text of the reply; may be empty. */
  reply: z.string().optional(),
  finishReason: z.enum(['stop', 'length', 'content_filter']).optional(),
  /** Token counts (default: estimated from the texts). */
  usage: z.strictObject({ prompt_tokens: z.number().int().min(0), completion_tokens: z.number().int().min(0) }).optional(),
  /** An error response in OpenAI's format. */
  error: z
    .strictObject({
      status: z.number().int().min(400).max(599),
      message: z.string().optional(),
      code: z.string().optional(),
      retryAfterSeconds: z.number().min(0).optional(),
    })
    .optional(),
  /** A response body sent unchanged, JSON or not. */
  raw: z
    .strictObject({
      status: z.number().int().min(200).max(599).optional(),
      contentType: z.string().optional(),
      /** Additional headers, for example a Retry-After that is not a number. */
      headers: z.record(z.string(), z.string()).optional(),
      body: z.string(),
    })
    .optional(),
  /** Responds with 400 to what strict chat templates refuse (see strict.ts), and to the rest as the other fields say. */
  strict: z.boolean().optional(),
  /** No response: the connection is kept open, or cut. */
  connection: z.enum(['hang', 'cut']).optional(),
});

/** A received request. */
export interface ModelRequest {
  model: string;
  /** ms since 1970. */
  atMs: number;
  messages: { role: string; content: string }[];
  /** The whole body. */
  body: ChatCompletionRequest;
}

/** A program of the model double. `when`, and a function as `reply`, are available within the same process only. */
export interface ModelProgram extends Omit<z.output<typeof modelProgramSchema>, 'reply'> {
  reply?: string | ((request: ModelRequest) => string | Promise<string>) | undefined;
  when?: ((request: ModelRequest) => boolean) | undefined;
}

/** What the provider lists, and the key that it accepts (default: any). */
export interface ModelListing {
  names: string[];
  apiKey?: string;
}

interface ModelRecord {
  count: number;
  recent: ModelRequest[];
}

const RECENT_REQUESTS = 200;
const QUOTE_LIMIT = 400;
/** A reply with more lines would be sent in many messages. */
const MAX_QUOTES = 5;
const FENCED_DATA = /^--- data (\w+).*\n[\s\S]*?^--- end of data \1$/gm;

/** The default reply: says that it is simulated, and quotes the latest lines written since the last reply. */
export function sandboxReply(request: ModelRequest): string {
  const lastAnswer = request.messages.findLastIndex(({ role }) => role === 'assistant');
  const written = request.messages.slice(lastAnswer + 1).filter(({ role }) => role === 'user');
  // Parley joins messages with line breaks, and puts data, such as the note of a call, between lines that begin with dashes.
  const lines = written.flatMap(({ content }) => content.replace(FENCED_DATA, '').split('\n')).filter((line) => line.trim() !== '');
  const quotes = lines.slice(-MAX_QUOTES).map((line) => `“${shorten(line.trim())}”`);
  if (lines.length > MAX_QUOTES) quotes.unshift(`${lines.length - MAX_QUOTES} more lines`);
  const quoted = quotes.length === 0 ? 'I got your message.' : `You wrote: ${quotes.join(' and ')}`;
  return `(sandbox model, no AI) ${quoted}\nSet a model key to get real answers.`;
}

/** Simulated models. */
export class ModelDouble {
  readonly #programs = new Programs<ModelProgram>();
  readonly #records = new Map<string, ModelRecord>();
  readonly #changes = new Changes();
  readonly #timers = new Timers();
  readonly #response = new AsyncLocalStorage<ServerResponse>();
  #server: ServerInstance | undefined;
  #list: ModelListing | undefined;
  #listed = 0;

  /** Starts aimock, which gets its requests through `handle`. Keeps its journal short, so that a long benchmark needs bounded memory. */
  async start(): Promise<void> {
    const options = { host: '127.0.0.1', port: 0, journalMaxEntries: 10, fixtureCountsMaxTestIds: 10 };
    this.#server = await createServer([{ match: { endpoint: 'chat' }, response: (body) => this.#answer(body) }], options);
  }

  /** Handles a request under /v1. aimock passes on only the request, so the response is stored aside for cuts and raw bodies. */
  handle(request: IncomingMessage, response: ServerResponse): void {
    if (request.method === 'GET' && request.url?.split('?', 1)[0] === '/v1/models') this.#answerList(request, response);
    else this.#response.run(response, () => this.#server?.server.emit('request', request, response));
  }

  /** Adds a program; the returned function removes it. Programs with a count apply first, in order, then the latest one without. */
  program(program: ModelProgram): () => void {
    return this.#programs.add(program);
  }

  /** Sets the response to `GET /models`; undefined (the default): the provider has no list (404). */
  list(listing: ModelListing | undefined): void {
    this.#list = listing;
  }

  /** Number of requests for the list. */
  listed(): number {
    return this.#listed;
  }

  /** Removes the programs of a model, or all. */
  clear(model?: string): void {
    this.#programs.clear((program) => model === undefined || program.model === model);
  }

  /** The programs that are still active. */
  programs(): ModelProgram[] {
    return this.#programs.list();
  }

  /** Number of requests to a model. */
  count(model: string): number {
    return this.#records.get(model)?.count ?? 0;
  }

  /** Number of requests by model. */
  counts(): Record<string, number> {
    return Object.fromEntries([...this.#records].map(([model, { count }]) => [model, count]));
  }

  /** The latest requests to a model (at most 400), oldest first. */
  requests(model: string): ModelRequest[] {
    return [...(this.#records.get(model)?.recent ?? [])];
  }

  /** Resolves once a model has received at least `count` requests. @throws Error after `timeoutMs` */
  waitForRequests(model: string, count: number, timeoutMs: number): Promise<ModelRequest[]> {
    const check = () => (this.count(model) >= count ? this.requests(model) : undefined);
    return this.#changes.until(model, check, timeoutMs, () => `${model} got ${this.count(model)} of ${count} requests`);
  }

  /** Ends all delays and waits. */
  async close(): Promise<void> {
    this.#timers.close();
    this.#changes.close();
    if (this.#server === undefined) return;
    const closed = once(this.#server.server, 'close');
    this.#server.server.close();
    this.#server = undefined;
    await closed;
  }

  #answerList({ headers }: IncomingMessage, response: ServerResponse): void {
    this.#listed += 1;
    const { names, apiKey } = this.#list ?? {};
    const given = headers['x-api-key'] ?? headers.authorization?.replace(/^Bearer /, '');
    const status = names === undefined ? 404 : apiKey === undefined || given === apiKey ? 200 : 401;
    const error = { error: { message: `The sandbox model responds with ${status}, as programmed.`, type: 'invalid_request_error' } };
    const rows = (names ?? []).map((id) => ({ id, object: 'model', created: 0, owned_by: 'sandbox' }));
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(status === 200 ? { object: 'list', data: rows } : error));
  }

  async #answer(body: ChatCompletionRequest): Promise<FixtureResponse> {
    const request = { model: String(body.model), atMs: Date.now(), messages: body.messages.map(plainMessage), body };
    const program = this.#programs.take((candidate) => matches(candidate, request)) ?? {};
    this.#record(request);
    if (program.delayMs !== undefined) await this.#timers.sleep(program.delayMs);
    if (program.connection !== undefined) return this.#withholdResponse(program.connection);
    if (program.raw !== undefined) return this.#writeRaw(program.raw);
    if (program.error !== undefined) return this.#fail(program.error);
    const problem = program.strict ? strictTemplateProblem(request.messages) : undefined;
    if (problem !== undefined) return this.#fail({ status: 400, message: problem });
    const reply = program.reply ?? sandboxReply;
    return {
      content: typeof reply === 'string' ? reply : await reply(request),
      ...(program.finishReason === undefined ? {} : { finishReason: program.finishReason }),
      ...(program.usage === undefined ? {} : { usage: program.usage }),
    };
  }

  #record(request: ModelRequest): void {
    const record = this.#records.get(request.model) ?? { count: 0, recent: [] };
    record.count += 1;
    record.recent.push(request);
    if (record.recent.length > 2 * RECENT_REQUESTS) record.recent = record.recent.slice(-RECENT_REQUESTS);
    this.#records.set(request.model, record);
    this.#changes.notify(request.model);
  }

  #withholdResponse(how: 'hang' | 'cut'): Promise<never> {
    if (how === 'cut') this.#response.getStore()?.socket?.resetAndDestroy();
    return never();
  }

  #writeRaw(raw: NonNullable<ModelProgram['raw']>): Promise<never> {
    const response = this.#response.getStore();
    response?.writeHead(raw.status ?? 200, { 'Content-Type': raw.contentType ?? 'text/html', ...raw.headers }).end(raw.body);
    return never();
  }

  /** aimock sends Retry-After only with a 429; for other statuses, set it here. */
  #fail(error: NonNullable<ModelProgram['error']>): FixtureResponse {
    const { status, retryAfterSeconds } = error;
    if (retryAfterSeconds !== undefined) this.#response.getStore()?.setHeader('Retry-After', String(retryAfterSeconds));
    const message = error.message ?? `The sandbox model responds with ${status}, as programmed.`;
    return {
      error: { message, type: ERROR_TYPES[status] ?? 'server_error', ...(error.code === undefined ? {} : { code: error.code }) },
      status,
      ...(retryAfterSeconds === undefined ? {} : { retryAfter: retryAfterSeconds }),
    };
  }
}

/** Creates a new promise each time, because a shared one would retain everything that ever awaited it. */
function never(): Promise<never> {
  return new Promise(() => undefined);
}

const ERROR_TYPES: Record<number, string> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'invalid_request_error',
  429: 'rate_limit_error',
};

function matches(program: ModelProgram, request: ModelRequest): boolean {
  return (program.model === undefined || program.model === request.model) && (program.when?.(request) ?? true);
}

function plainMessage({ role, content }: ChatCompletionRequest['messages'][number]): { role: string; content: string } {
  if (typeof content === 'string') return { role, content };
  return { role, content: (content ?? []).map((part) => part.text ?? '').join('') };
}

function shorten(text: string): string {
  return text.length <= QUOTE_LIMIT ? text : `${text.slice(0, QUOTE_LIMIT)}…`;
}
