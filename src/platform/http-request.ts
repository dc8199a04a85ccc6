/**
 * One request to a provider, and its whole answer. Over undici's `request`: `fetch`, which is built upon it, takes
 * three times the CPU of it, and there are two requests for each reply (docs/decisions/0005).
 */
import { Agent, type Dispatcher, request } from 'undici';

export interface HttpRequest {
  method: Dispatcher.HttpMethod;
  headers: Record<string, string>;
  body?: string;
  /** Bounds the request together with its answer's body. */
  signal: AbortSignal;
}

export interface HttpAnswer {
  status: number;
  headers: Headers;
  text: string;
}

/** Shorter than any bound of a request: who cannot be reached has certainly got nothing, which a request that was cut cannot say. */
const CONNECT_TIMEOUT_MS = 5_000;

const dispatcher = new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS } });

/**
 * Sends it once and reads the answer, whatever its status. Redirects are not followed: they are no answer of the
 * provider's, and followed, one could do a thing twice or hand a key on.
 * @throws what undici or the signal throws; `connectionFailure` says what it means
 */
export async function sendRequest(url: string, { method, headers, body, signal }: HttpRequest): Promise<HttpAnswer> {
  const asked = request(url, {
    dispatcher,
    method,
    // Answers are not decompressed here. A server may turn away who gives no name.
    headers: { 'user-agent': 'parley', ...headers, 'accept-encoding': 'identity' },
    signal,
    ...(body === undefined ? {} : { body }),
  });
  // undici looks at the signal only when the connection stands; then it sends nothing.
  const answer = await Promise.race([asked, abortOf(signal)]);
  return { status: answer.statusCode, headers: headersOf(answer.headers), text: await answer.body.text() };
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
