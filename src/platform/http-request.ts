/**
 * Sends one request to a provider and reads the whole response. Uses undici's `request`, because `fetch` costs three times
 * its CPU, and each reply takes two requests (docs/decisions/0005).
 */
import { Agent, type Dispatcher, request } from 'undici';

export interface HttpRequest {
  method: Dispatcher.HttpMethod;
  headers: Record<string, string>;
  body?: string;
  /** Aborts the request, including reading the response body. */
  signal: AbortSignal;
  /** Called when the connection stands, right before the first byte leaves. If it throws, nothing is sent, and the request fails with its error. */
  beforeSending?: () => void;
}

export interface HttpAnswer {
  status: number;
  headers: Headers;
  text: string;
}

/** Shorter than any request timeout: a failed connect proves that nothing was sent, an aborted request does not. */
const CONNECT_TIMEOUT_MS = 5_000;

const dispatcher = new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS } });

/**
 * Sends the request once and returns the response, whatever its status. Does not follow redirects: doing so could repeat a
 * side effect or send the API key to another host.
 * @throws undici's error or the signal's reason; `connectionFailure` classifies it
 */
export async function sendRequest(url: string, { method, headers, body, signal, beforeSending }: HttpRequest): Promise<HttpAnswer> {
  const response = request(url, {
    dispatcher: beforeSending ? dispatcher.compose(callBefore(beforeSending)) : dispatcher,
    method,
    // Responses are not decompressed here. Some servers reject requests without a user agent.
    headers: { 'user-agent': 'parley', ...headers, 'accept-encoding': 'identity' },
    signal,
    // The signal bounds the request; a model may take longer than undici's own 5 minutes.
    headersTimeout: 0,
    bodyTimeout: 0,
    ...(body === undefined ? {} : { body }),
  });
  // undici checks the signal only once it is connected (and then sends nothing), so race against the signal as well.
  const answer = await Promise.race([response, abortOf(signal)]);
  return { status: answer.statusCode, headers: headersOf(answer.headers), text: await answer.body.text() };
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
