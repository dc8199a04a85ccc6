/**
 * Sends one request to a provider and reads the whole response. Uses undici's `request`, because `fetch` costs three times
 * its CPU, and each reply takes two requests (docs/decisions/0005).
 */
import { Agent, type Dispatcher, EnvHttpProxyAgent, fetch, Pool, type RequestInit, type Response, request } from 'undici';
import { type ProxySettings, proxiesOfProcess } from './config';
import { connectionFailure, ProxyError } from './connection-failure';
import { proxyFor } from './proxies';

export interface HttpRequest {
  method: Dispatcher.HttpMethod;
  headers: Record<string, string>;
  body?: string | Buffer;
  /** Aborts the request, including reading the response body. */
  signal: AbortSignal;
  /** Maximum size of the response body, in bytes (default: `MAX_RESPONSE_BYTES`). */
  maxBytes?: number;
  /** Called when the connection stands, right before the first byte leaves. If it throws, nothing is sent, and the request fails with its error. */
  beforeSending?: () => void;
}

export interface HttpAnswer {
  status: number;
  headers: Headers;
  text: string;
}

/** More than any provider sends, but small: an endless response must not fill the memory. */
const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;

/** The response was too long, and its rest was not read. */
export class ResponseTooLongError extends Error {
  override name = 'ResponseTooLongError';
}

/** Shorter than any request timeout: a failed connect proves that nothing was sent, an aborted request does not. */
const CONNECT_TIMEOUT_MS = 5_000;

/** Created at the first request, when `.env` has been read. */
let way: { dispatcher: Dispatcher; isProxied(url: URL | string): boolean } | undefined;

function wayOut(): NonNullable<typeof way> {
  if (way !== undefined) return way;
  const proxies = proxiesOfProcess();
  const hasNone = proxies.HTTP_PROXY === undefined && proxies.HTTPS_PROXY === undefined;
  const isProxied = (url: URL | string) => !hasNone && proxyFor(new URL(url), proxies) !== undefined;
  way = { dispatcher: hasNone ? directDispatcher() : proxyingDispatcher(proxies, isProxied), isProxied };
  return way;
}

function directDispatcher(): Dispatcher {
  return new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS } });
}

/** Connects through a proxy, unless src/platform/proxies.ts has none for the URL. */
function proxyingDispatcher(proxies: ProxySettings, isProxied: (url: URL | string) => boolean): Dispatcher {
  const proxied = new EnvHttpProxyAgent({
    httpProxy: proxies.HTTP_PROXY ?? '',
    httpsProxy: proxies.HTTPS_PROXY ?? '',
    // src/platform/proxies.ts has applied NO_PROXY already.
    noProxy: '',
    // Many proxies allow tunnels to port 443 only, and expect requests for http URLs without a tunnel.
    proxyTunnel: false,
    proxyTls: { timeout: CONNECT_TIMEOUT_MS },
    requestTls: { timeout: CONNECT_TIMEOUT_MS },
    // The response to CONNECT is part of connecting.
    clientFactory: (origin, options) => new Pool(origin, { ...options, headersTimeout: CONNECT_TIMEOUT_MS }),
  });
  return directDispatcher().compose(
    (dispatch) => (options, handler) =>
      isProxied(String(options.origin)) ? proxied.dispatch(options, handler) : dispatch(options, handler),
  );
}

/** `fetch` through the process's proxies, for responses that are streamed. Does not follow redirects unless `init` says so. */
export async function fetchStream(url: URL | string, init: RequestInit): Promise<Response> {
  return await fetch(url, { redirect: 'manual', ...init, dispatcher: wayOut().dispatcher });
}

/**
 * Sends the request once and returns the response, whatever its status. Does not follow redirects: doing so could repeat a
 * side effect or send the API key to another host.
 * @throws undici's error, ProxyError, ResponseTooLongError or the signal's reason; `connectionFailure` classifies it
 */
export async function sendRequest(
  url: string,
  { method, headers, body, signal, maxBytes, beforeSending }: HttpRequest,
): Promise<HttpAnswer> {
  const { dispatcher, isProxied } = wayOut();
  const isThroughProxy = isProxied(url);
  let hasBegun = false;
  const onStart = () => {
    beforeSending?.();
    hasBegun = true;
  };
  const response = request(url, {
    dispatcher: beforeSending || isThroughProxy ? dispatcher.compose(callBefore(onStart)) : dispatcher,
    method,
    // Responses are not decompressed here. Some servers reject requests without a user agent.
    headers: { 'user-agent': 'parley', ...headers, 'accept-encoding': 'identity' },
    signal,
    // The signal bounds the request; a model may take longer than undici's own 5 minutes.
    headersTimeout: 0,
    bodyTimeout: 0,
    ...(body === undefined ? {} : { body }),
  }).catch((error: unknown) => {
    // A proxy that refuses or does not respond causes the same errors as a server, but before anything was sent.
    const isOfProxy = isThroughProxy && !hasBegun && !signal.aborted && connectionFailure(error).kind === 'unknown';
    throw isOfProxy ? new ProxyError(error) : error;
  });
  // undici checks the signal only once it is connected (and then sends nothing), so race against the signal as well.
  const answer = await Promise.race([response, abortOf(signal)]);
  return { status: answer.statusCode, headers: headersOf(answer.headers), text: await readText(answer.body, maxBytes) };
}

/** Leaving the loop early closes the connection. */
async function readText(body: AsyncIterable<Buffer>, maxBytes = MAX_RESPONSE_BYTES): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw new ResponseTooLongError(`the response has more than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  // Drops a byte order mark.
  return new TextDecoder().decode(Buffer.concat(chunks));
}

/** Connecting can take seconds, and a paused process goes on exactly there: so the check is made as late as undici allows. */
function callBefore(beforeSending: () => void): Dispatcher.DispatcherComposeInterceptor {
  return (dispatch) => (options, handler) =>
    dispatch(options, {
      onRequestStart(controller, context) {
        beforeSending();
        handler.onRequestStart?.(controller, context);
      },
      onResponseStart: (...response) => handler.onResponseStart?.(...response),
      onResponseData: (...data) => handler.onResponseData?.(...data),
      onResponseEnd: (...end) => handler.onResponseEnd?.(...end),
      onResponseError: (...failure) => handler.onResponseError?.(...failure),
    });
}

function headersOf(received: Dispatcher.ResponseData['headers']): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(received)) {
    for (const each of Array.isArray(value) ? value : [value ?? '']) headers.append(name, each);
  }
  return headers;
}

function abortOf(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
