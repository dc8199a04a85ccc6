/**
 * Posts a call's result to the URL that the API client gave. Guards against SSRF, because an API client chooses where our worker
 * connects: the operator must allow the host, the resolved address must be public, and the connection goes to exactly the address
 * that was checked, also through a proxy. Stateless, without retries; does not follow redirects.
 */
import { lookup as systemLookup } from 'node:dns/promises';
import { type RequestOptions as HttpOptions, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { Webhook } from 'standardwebhooks';
import { ProxyAgent, request as undiciRequest } from 'undici';
import { type ProxySettings, proxiesOfProcess, type Settings } from '../../platform/config';
import { withDeadline } from '../../platform/deadline';
import { proxyFor } from '../../platform/proxies';
import { retryAfterMs } from '../../platform/retry-after';

/** Common servers and proxies truncate longer URLs. */
const MAX_URL_LENGTH = 2_048;

const USER_AGENT = 'parley-callback';

/** All public IPv6 addresses are in this range (RFC 4291); of the forms that embed an IPv4 address, only 6to4 is. */
const GLOBAL_UNICAST = ipaddr.parseCIDR('2000::/3');

/** The operator's settings (CALLBACK_*). */
export interface CallbackSettings {
  allowedHosts: readonly string[];
  signingSecret?: string | undefined;
  kestraAuthorization?: string | undefined;
}

/** `mayBeInternal`: the operator listed the host with its port, which allows internal addresses too. */
export type CallbackUrlCheck = { ok: true; url: URL; mayBeInternal: boolean } | { ok: false; problem: string };

/**
 * The result of a delivery. `answered`: the receiver responded, with any status. `forbidden`: nothing was sent, because the URL
 * is not allowed. `no_answer`: it may or may not have arrived.
 */
export type CallbackAnswer =
  | { kind: 'answered'; httpStatus: number; retryAfterMs?: number }
  | { kind: 'forbidden'; problem: string }
  | { kind: 'no_answer'; reason: string };

/** The fields of the body that are read here; the whole body is sent. */
export interface CallbackBody {
  callId: string;
  outcome: string | null;
  done: boolean;
  /** The second message about a call, after a late report; it has an id of its own. */
  isUpdate: boolean;
}

export interface CallbackClient {
  /** Posts `body` to `url`. Never rejects. */
  post(url: string, body: CallbackBody): Promise<CallbackAnswer>;
}

export interface Address {
  address: string;
  family: number;
}

/** Resolves a host name to all its addresses. */
export type Resolve = (hostname: string) => Promise<Address[]>;

export interface CallbackClientOptions extends CallbackSettings {
  /** Timeout for one delivery, including the DNS look-up. */
  timeoutMs: number;
  /** Default: the system's resolver. */
  resolve?: Resolve | undefined;
  /** Default: the proxies of this process. */
  proxies?: ProxySettings | undefined;
}

/**
 * Checks whether callbacks may go to the URL `text`. A list entry `host` allows https on port 443 and public addresses; an entry
 * `host:port` allows http or https on that port, and internal addresses.
 */
export function checkCallbackUrl(text: string, allowedHosts: readonly string[]): CallbackUrlCheck {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (allowedHosts.length === 0) return refused('callbacks are disabled: no host is allowed (CALLBACK_ALLOWED_HOSTS)');
  if (url === undefined || text.length > MAX_URL_LENGTH)
    return refused(`the callback must be a URL of at most ${MAX_URL_LENGTH} characters`);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return refused('the callback URL must begin with https://');
  if (url.username !== '' || url.password !== '') return refused('the callback URL must not contain a user name or password');
  const port = url.port === '' ? defaultPort(url) : url.port;
  const entries = allowedHosts.flatMap((entry) => readAllowedHost(entry) ?? []).filter(({ hostname }) => hostname === url.hostname);
  if (entries.some((entry) => entry.port === port)) return { ok: true, url, mayBeInternal: true };
  if (!entries.some((entry) => entry.port === undefined)) return refused('the host of the callback URL is not allowed');
  if (url.protocol !== 'https:') return refused('the callback URL must begin with https://');
  if (port !== defaultPort(url)) return refused('the port of the callback URL is not allowed');
  const literal = literalAddress(url);
  if (literal !== undefined && !isPublicAddress(literal)) return refused('the callback URL points to an internal address');
  return { ok: true, url, mayBeInternal: false };
}

/** Picks the callback settings. */
export function callbackSettings(settings: Settings): CallbackSettings {
  return {
    allowedHosts: settings.CALLBACK_ALLOWED_HOSTS,
    signingSecret: settings.CALLBACK_SIGNING_SECRET,
    kestraAuthorization: settings.CALLBACK_KESTRA_AUTHORIZATION,
  };
}

/** Why callbacks to the URL `text` are not possible; undefined if they are. Checked before a call is accepted. */
export function callbackProblem(text: string, settings: CallbackSettings): string | undefined {
  const check = checkCallbackUrl(text, settings.allowedHosts);
  if (!check.ok) return check.problem;
  if (isKestraResume(check.url) || settings.signingSecret !== undefined) return undefined;
  return 'callbacks cannot be signed: no signing key is set (CALLBACK_SIGNING_SECRET)';
}

function refused(problem: string): CallbackUrlCheck {
  return { ok: false, problem };
}

function defaultPort(url: URL): string {
  return url.protocol === 'https:' ? '443' : '80';
}

/** Parses `host` or `host:port`; normalises the host with the URL parser, so that 127.1 and 127.0.0.1 are the same. */
function readAllowedHost(entry: string): { hostname: string; port: string | undefined } | undefined {
  const [, host = '', port] = /^(\[[^\]]+\]|[^:/@]+)(?::(\d{1,5}))?$/.exec(entry) ?? [];
  const url = `https://${host}`;
  return host !== '' && URL.canParse(url) ? { hostname: new URL(url).hostname, port } : undefined;
}

/** The host if it is an IP address; the URL parser has normalised its spelling. */
function literalAddress({ hostname }: URL): string | undefined {
  const bare = hostname.replace(/^\[|\]$/g, '');
  return isIP(bare) === 0 ? undefined : bare;
}

/**
 * Whether an address is on the public internet: not loopback, private, link-local, shared (CGNAT), multicast or reserved, and
 * not an IPv6 form that embeds an IPv4 address (mapped, compatible, 6to4, NAT64, Teredo).
 */
export function isPublicAddress(text: string): boolean {
  if (!ipaddr.isValid(text)) return false;
  const address = ipaddr.parse(text);
  if (address.range() !== 'unicast') return false;
  return address instanceof ipaddr.IPv4 || address.match(GLOBAL_UNICAST);
}

/**
 * Whether the URL resumes a paused Kestra execution: `…/executions/{id}/resume` up to Kestra 1.3, `…/executions/{id}/actions/resume`
 * from 2.0 (kestra.io, execution API).
 */
export function isKestraResume(url: URL): boolean {
  return /\/executions\/[^/]+\/(?:actions\/)?resume\/?$/.test(url.pathname);
}

/** Creates a client with the operator's settings. */
export function createCallbackClient(options: CallbackClientOptions): CallbackClient {
  return {
    async post(text, body) {
      const check = checkCallbackUrl(text, options.allowedHosts);
      if (!check.ok) return { kind: 'forbidden', problem: check.problem };
      const message = isKestraResume(check.url)
        ? await kestraMessage(body, options.kestraAuthorization)
        : signedMessage(body, options.signingSecret);
      if (message === undefined) return { kind: 'forbidden', problem: 'no signing key is set (CALLBACK_SIGNING_SECRET)' };
      return await postChecked(check, message, options);
    },
  };
}

/** Posts to a URL that was checked, at one of the addresses that its name resolves to, if they are public or may be internal. Never rejects. */
export async function postChecked(
  { url, mayBeInternal }: CallbackUrlCheck & { ok: true },
  message: Message,
  { timeoutMs, resolve = lookUp, proxies = proxiesOfProcess() }: Pick<CallbackClientOptions, 'timeoutMs' | 'resolve' | 'proxies'>,
): Promise<CallbackAnswer> {
  try {
    return await withDeadline(timeoutMs, async (signal) => {
      const addresses = await rejectOnAbort(addressesOf(url, resolve), signal);
      if (!mayBeInternal && !addresses.every(({ address }) => isPublicAddress(address)))
        return { kind: 'forbidden', problem: 'the host of the callback URL resolves to an internal address' };
      const proxied = findProxy(url, addresses, proxies);
      return proxied ? await sendThrough(proxied, url, message, signal) : await send(url, message, addresses, signal);
    });
  } catch (error) {
    return { kind: 'no_answer', reason: reasonOf(error) };
  }
}

const lookUp: Resolve = (hostname) => systemLookup(hostname, { all: true, verbatim: true });

/** A request's headers and body. */
export interface Message {
  headers: Record<string, string>;
  body: Buffer;
}

/** Standard Webhooks: the id is the same at every attempt, so that a receiver can drop duplicates. Undefined without a key. */
function signedMessage(body: CallbackBody, signingSecret: string | undefined): Message | undefined {
  if (signingSecret === undefined) return undefined;
  const text = JSON.stringify(body);
  const id = `call-${body.callId}${body.isUpdate ? '-update' : ''}`;
  return { headers: { 'Content-Type': 'application/json', ...signedHeaders(id, text, signingSecret) }, body: Buffer.from(text) };
}

/** The headers of Standard Webhooks for a body that is sent now. */
export function signedHeaders(id: string, text: string, signingSecret: string): Record<string, string> {
  const now = new Date();
  return {
    'webhook-id': id,
    'webhook-timestamp': String(Math.floor(now.getTime() / 1_000)),
    'webhook-signature': new Webhook(signingSecret).sign(id, now, text),
  };
}

/** The inputs of a Pause task (`onResume`) as a form: ids and states only, because Kestra stores them in the execution. */
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
  if (addresses.length === 0) throw Object.assign(new Error('the host name has no address'), { code: 'ENOTFOUND' });
  return addresses;
}

/** A DNS look-up cannot be cancelled, but waiting for it can. */
async function rejectOnAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return await new Promise<T>((resolve, reject) => {
    const abort = () => reject(new DOMException('took too long', 'AbortError'));
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** Sends one request to one of the checked addresses; never resolves the name again (DNS rebinding). Ignores the response's body. */
function send(url: URL, { headers, body }: Message, addresses: Address[], signal: AbortSignal): Promise<CallbackAnswer> {
  return new Promise((resolve, reject) => {
    const options: HttpOptions = {
      method: 'POST',
      headers: { ...headers, 'Content-Length': body.byteLength, 'User-Agent': USER_AGENT },
      signal,
      // No pooling: a pooled connection may lead to an address that was checked for another delivery.
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
      resolve(answered(response.statusCode ?? 0, response.headers['retry-after']));
      // The status is all that matters; ignore errors after it.
      request.on('error', () => undefined);
      response.destroy();
    });
    request.end(body);
  });
}

interface Proxied {
  proxy: URL;
  /** The callback's URL, with the checked address in place of the name. */
  target: URL;
}

/** NO_PROXY may list the name or the address. IPv4 is preferred, because every proxy supports it. */
function findProxy(url: URL, addresses: Address[], proxies: ProxySettings): Proxied | undefined {
  const { address = '', family = 0 } = addresses.find((each) => each.family === 4) ?? addresses[0] ?? {};
  const target = new URL(url);
  target.hostname = family === 6 ? `[${address}]` : address;
  const proxy = proxyFor(url, proxies) && proxyFor(target, proxies);
  return proxy && { proxy, target };
}

/** The proxy gets the checked address, because it would resolve a name again. The certificate must still match the name. */
async function sendThrough({ proxy, target }: Proxied, url: URL, { headers, body }: Message, signal: AbortSignal): Promise<CallbackAnswer> {
  const named = literalAddress(url) === undefined ? { requestTls: { servername: url.hostname } } : {};
  const tunnel = new ProxyAgent({ uri: proxy.href, ...named });
  try {
    const sent = undiciRequest(target, {
      dispatcher: tunnel,
      method: 'POST',
      headers: { ...headers, Host: url.host, 'User-Agent': USER_AGENT },
      body,
      signal,
    });
    // undici checks the signal only once it is connected.
    const answer = await rejectOnAbort(sent, signal);
    // The status is all that matters; ignore errors after it.
    answer.body.on('error', () => undefined).destroy();
    return answered(answer.statusCode, answer.headers['retry-after']);
  } finally {
    await tunnel.destroy();
  }
}

function answered(httpStatus: number, retryAfter: string | string[] | undefined): CallbackAnswer {
  const waitMs = retryAfterMs(new Headers({ 'retry-after': String(retryAfter ?? '') }));
  return { kind: 'answered', httpStatus, ...(waitMs === undefined ? {} : { retryAfterMs: waitMs }) };
}

/** The error's code, never its message, which may contain the whole URL. */
function reasonOf(error: unknown): string {
  const { name, code } = error as { name?: unknown; code?: unknown };
  if (name === 'AbortError') return 'took too long';
  return typeof code === 'string' ? code : 'connection failed';
}
