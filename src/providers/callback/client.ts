/**
 * Posting a call's result to the address that a caller gave. Whoever may start calls chooses where our worker connects
 * to (SSRF): so the host must be allowed by the operator, the resolved address must be public, and the connection goes
 * to exactly the address that was checked. No retries, no hidden state, no redirects.
 */
import { lookup as systemLookup } from 'node:dns/promises';
import { type RequestOptions as HttpOptions, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { Webhook } from 'standardwebhooks';
import type { Settings } from '../../platform/config';
import { withDeadline } from '../../platform/deadline';
import { retryAfterMs } from '../../platform/retry-after';

/** Longer addresses are cut by common servers and proxies. */
const MAX_URL_LENGTH = 2_048;

/** Addresses on the public internet are in here (RFC 4291; the forms that embed another address are not, except 6to4). */
const GLOBAL_UNICAST = ipaddr.parseCIDR('2000::/3');

/** What the operator set (CALLBACK_*). */
export interface CallbackSettings {
  allowedHosts: readonly string[];
  signingSecret?: string | undefined;
  kestraAuthorization?: string | undefined;
}

/** `mayBeInternal`: the operator named the host together with its port, and so means it wherever it is. */
export type CallbackUrlCheck = { ok: true; url: URL; mayBeInternal: boolean } | { ok: false; problem: string };

/**
 * What is known after a delivery. `answered`: any status; the caller judges it. `forbidden`: nothing was sent, because the
 * address may not be used. `no_answer`: it may have arrived or not.
 */
export type CallbackAnswer =
  | { kind: 'answered'; httpStatus: number; retryAfterMs?: number }
  | { kind: 'forbidden'; problem: string }
  | { kind: 'no_answer'; reason: string };

/** What of a posted call is looked at here; all of it is sent. */
export interface CallbackBody {
  callId: string;
  outcome: string | null;
  done: boolean;
}

export interface CallbackClient {
  /** Posts `body` to `url`. Resolves whatever happens. */
  post(url: string, body: CallbackBody): Promise<CallbackAnswer>;
}

export interface Address {
  address: string;
  family: number;
}

export interface CallbackClientOptions extends CallbackSettings {
  /** Bound of one delivery, with the look-up of the name. */
  timeoutMs: number;
  /** All addresses of a name; the system's resolver by default. */
  resolve?: (hostname: string) => Promise<Address[]>;
}

/**
 * Whether a callback may go to `text`. An entry `host` of the list allows https on its usual port; an entry `host:port`
 * allows http or https on that port, and an internal address. Says in words what is wrong.
 */
export function checkCallbackUrl(text: string, allowedHosts: readonly string[]): CallbackUrlCheck {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (allowedHosts.length === 0) return refused('callbacks are switched off: no host is allowed (CALLBACK_ALLOWED_HOSTS)');
  if (url === undefined || text.length > MAX_URL_LENGTH)
    return refused(`the callback address must be a URL of at most ${MAX_URL_LENGTH} characters`);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return refused('the callback address must begin with https://');
  if (url.username !== '' || url.password !== '') return refused('the callback address must not carry a user name or a password');
  const port = url.port === '' ? usualPort(url) : url.port;
  const entries = allowedHosts.flatMap((entry) => readAllowedHost(entry) ?? []).filter(({ hostname }) => hostname === url.hostname);
  if (entries.some((entry) => entry.port === port)) return { ok: true, url, mayBeInternal: true };
  if (!entries.some((entry) => entry.port === undefined)) return refused('the host of the callback address is not allowed');
  if (url.protocol !== 'https:') return refused('the callback address must begin with https://');
  if (port !== usualPort(url)) return refused('the port of the callback address is not allowed');
  const literal = literalAddress(url);
  if (literal !== undefined && !isPublicAddress(literal)) return refused('the callback address is an internal one');
  return { ok: true, url, mayBeInternal: false };
}

/** The settings of callbacks among all. */
export function callbackSettings(settings: Settings): CallbackSettings {
  return {
    allowedHosts: settings.CALLBACK_ALLOWED_HOSTS,
    signingSecret: settings.CALLBACK_SIGNING_SECRET,
    kestraAuthorization: settings.CALLBACK_KESTRA_AUTHORIZATION,
  };
}

/** What stands against a callback to `text`, before a call is taken; undefined when nothing does. */
export function callbackProblem(text: string, settings: CallbackSettings): string | undefined {
  const check = checkCallbackUrl(text, settings.allowedHosts);
  if (!check.ok) return check.problem;
  if (isKestraResume(check.url) || settings.signingSecret !== undefined) return undefined;
  return 'callbacks cannot be signed: no key is set (CALLBACK_SIGNING_SECRET)';
}

function refused(problem: string): CallbackUrlCheck {
  return { ok: false, problem };
}

function usualPort(url: URL): string {
  return url.protocol === 'https:' ? '443' : '80';
}

/** Reads `host` or `host:port`; the host is spelt as the URL parser spells it, so that 127.1 and 127.0.0.1 are one. */
function readAllowedHost(entry: string): { hostname: string; port: string | undefined } | undefined {
  const [, host = '', port] = /^(\[[^\]]+\]|[^:/@]+)(?::(\d{1,5}))?$/.exec(entry) ?? [];
  const url = `https://${host}`;
  return host !== '' && URL.canParse(url) ? { hostname: new URL(url).hostname, port } : undefined;
}

/** The address when the host is one, in any of its spellings; the URL parser has made them one. */
function literalAddress({ hostname }: URL): string | undefined {
  const bare = hostname.replace(/^\[|\]$/g, '');
  return isIP(bare) === 0 ? undefined : bare;
}

/**
 * Whether an address is on the public internet: not loopback, private, link-local, shared (CGNAT), multicast, reserved,
 * nor a form of IPv6 that leads to an IPv4 address (mapped, compatible, 6to4, NAT64, Teredo).
 */
export function isPublicAddress(text: string): boolean {
  if (!ipaddr.isValid(text)) return false;
  const address = ipaddr.parse(text);
  if (address.range() !== 'unicast') return false;
  return address instanceof ipaddr.IPv4 || address.match(GLOBAL_UNICAST);
}

/**
 * Whether the address resumes a paused Kestra execution: `…/executions/{id}/resume` up to 1.3, `…/executions/{id}/actions/resume`
 * from 2.0 on (kestra.io, execution API).
 */
export function isKestraResume(url: URL): boolean {
  return /\/executions\/[^/]+\/(?:actions\/)?resume\/?$/.test(url.pathname);
}

/** A client under the operator's settings. */
export function createCallbackClient(options: CallbackClientOptions): CallbackClient {
  const resolve = options.resolve ?? ((hostname) => systemLookup(hostname, { all: true, verbatim: true }));
  return {
    async post(text, body) {
      const check = checkCallbackUrl(text, options.allowedHosts);
      if (!check.ok) return { kind: 'forbidden', problem: check.problem };
      const message = isKestraResume(check.url)
        ? await kestraMessage(body, options.kestraAuthorization)
        : signedMessage(body, options.signingSecret);
      if (message === undefined) return { kind: 'forbidden', problem: 'no key to sign with is set (CALLBACK_SIGNING_SECRET)' };
      try {
        return await withDeadline(options.timeoutMs, async (signal) => {
          const addresses = await untilAborted(addressesOf(check.url, resolve), signal);
          if (!check.mayBeInternal && !addresses.every(({ address }) => isPublicAddress(address)))
            return { kind: 'forbidden', problem: 'the host of the callback address leads to an internal address' };
          return await send(check.url, message, addresses, signal);
        });
      } catch (error) {
        return { kind: 'no_answer', reason: reasonOf(error) };
      }
    },
  };
}

interface Message {
  headers: Record<string, string>;
  body: Buffer;
}

/** Standard Webhooks: the id is the same at every attempt, so that a receiver can drop what it has. Undefined without a key. */
function signedMessage(body: CallbackBody, signingSecret: string | undefined): Message | undefined {
  if (signingSecret === undefined) return undefined;
  const text = JSON.stringify(body);
  const id = `call-${body.callId}`;
  const now = new Date();
  return {
    headers: {
      'Content-Type': 'application/json',
      'webhook-id': id,
      'webhook-timestamp': String(Math.floor(now.getTime() / 1_000)),
      'webhook-signature': new Webhook(signingSecret).sign(id, now, text),
    },
    body: Buffer.from(text),
  };
}

/** The inputs of a Pause task (`onResume`), as a form: ids and states only, because they stay in Kestra's execution. */
async function kestraMessage(body: CallbackBody, authorization: string | undefined): Promise<Message> {
  const form = new FormData();
  form.set('callId', body.callId);
  form.set('outcome', body.outcome ?? 'unknown');
  form.set('done', String(body.done));
  const encoded = new Response(form);
  return {
    headers: {
      'Content-Type': encoded.headers.get('content-type') ?? '',
      ...(authorization === undefined ? {} : { Authorization: authorization }),
    },
    body: Buffer.from(await encoded.arrayBuffer()),
  };
}

async function addressesOf(url: URL, resolve: (hostname: string) => Promise<Address[]>): Promise<Address[]> {
  const literal = literalAddress(url);
  const addresses = literal === undefined ? await resolve(url.hostname) : [{ address: literal, family: isIP(literal) }];
  if (addresses.length === 0) throw Object.assign(new Error('the name has no address'), { code: 'ENOTFOUND' });
  return addresses;
}

/** A look-up of a name cannot be cancelled: who waits for it can. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return await new Promise<T>((resolve, reject) => {
    const abort = () => reject(new DOMException('took too long', 'AbortError'));
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** One request to one of the checked addresses: the name is not looked up again (DNS rebinding). The answer's body is not read. */
function send(url: URL, { headers, body }: Message, addresses: Address[], signal: AbortSignal): Promise<CallbackAnswer> {
  return new Promise((resolve, reject) => {
    const options: HttpOptions = {
      method: 'POST',
      headers: { ...headers, 'Content-Length': body.byteLength, 'User-Agent': 'parley-callback' },
      signal,
      // A connection of its own: a pooled one may lead to an address that was checked for another delivery.
      agent: false,
      lookup: (_hostname, { all }, callback) => {
        const [first] = addresses;
        if (all) callback(null, addresses);
        else if (first) callback(null, first.address, first.family);
      },
    };
    const request = url.protocol === 'https:' ? httpsRequest(url, options) : httpRequest(url, options);
    request.once('error', reject);
    request.once('response', (response) => {
      const waitMs = retryAfterMs(new Headers({ 'retry-after': response.headers['retry-after'] ?? '' }));
      resolve({ kind: 'answered', httpStatus: response.statusCode ?? 0, ...(waitMs === undefined ? {} : { retryAfterMs: waitMs }) });
      // What follows says nothing more. An error after the answer is no error.
      request.on('error', () => undefined);
      response.destroy();
    });
    request.end(body);
  });
}

/** A code, never a text: an error's text may name the whole address. */
function reasonOf(error: unknown): string {
  const { name, code } = error as { name?: unknown; code?: unknown };
  if (name === 'AbortError') return 'took too long';
  return typeof code === 'string' ? code : 'connection failed';
}
