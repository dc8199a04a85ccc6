/** Webhooks in Vapi's format: authenticated by credential, with the server's headers; retried only if the server has a backoff plan. */
import { createHmac } from 'node:crypto';
import type { Webhook, WrittenWebhook } from '../webhook-sender';
import type { VapiServer } from './requests';

/** The organisation's credential for webhooks (docs.vapi.ai/server-url/server-authentication). */
export type VapiWebhookAuth =
  | { scheme: 'secret' | 'bearer'; secret: string }
  | {
      scheme: 'hmac';
      secret: string;
      /** Default x-signature. */
      header?: string | undefined;
      /** Default x-timestamp; `none` signs the body alone. */
      timestampHeader?: string | undefined;
      prefix?: string | undefined;
      encoding?: 'hex' | 'base64' | undefined;
      algorithm?: 'sha256' | 'sha512' | 'sha1' | undefined;
      /** Encoding of the secret (default text). */
      secretEncoding?: 'text' | 'base64' | undefined;
    };

/** How to deliver Vapi's webhooks. */
export interface VapiWebhookOptions {
  auth: VapiWebhookAuth;
  /** Factor for the delays of a backoff plan (default 1). */
  backoffFactor?: number | undefined;
  /** Overrides the server's `timeoutSeconds`, in ms. */
  timeoutMs?: number | undefined;
}

/** The destination of an event. */
export interface VapiTarget {
  server: VapiServer;
  /** True for the organisation's server; false for a call's own. */
  isOrganisation: boolean;
}

/** An event to deliver. `message` is called for each attempt, because presigned URLs and signatures are generated anew. */
export function vapiWebhook(options: VapiWebhookOptions, target: VapiTarget, message: () => object): Webhook {
  const { url, timeoutSeconds = 20 } = target.server;
  return {
    targets: [url],
    write: () => writeWebhook(options.auth, target, JSON.stringify({ message: message() })),
    isAccepted: (status) => status >= 200 && status < 300,
    retryDelayMs: (attempts, status) => backoffMs(target.server, attempts, status, options.backoffFactor ?? 1),
    timeoutMs: options.timeoutMs ?? timeoutSeconds * 1000,
  };
}

/** The given body unchanged, authenticated, in one attempt. `headers` override the defaults; an empty one removes the header. */
export function rawVapiWebhook(options: VapiWebhookOptions, url: string, body: string | Buffer, headers: Record<string, string>): Webhook {
  const proof = lowerCase({ 'Content-Type': 'application/json', ...authHeaders(options.auth, body) });
  const all = Object.entries({ ...proof, ...lowerCase(headers) }).filter(([, value]) => value !== '');
  return {
    targets: [url],
    write: () => ({ body, headers: Object.fromEntries(all) }),
    isAccepted: (status) => status >= 200 && status < 300,
    retryDelayMs: () => undefined,
    timeoutMs: options.timeoutMs ?? 20_000,
  };
}

/**
 * A static secret belongs to the credential of one server, so a call's own server only gets the headers of the call; an HMAC
 * credential signs all webhooks. Without any credential Vapi still sends an empty X-Vapi-Secret (PostHog PR 58733).
 */
function writeWebhook(auth: VapiWebhookAuth, { server, isOrganisation }: VapiTarget, body: string): WrittenWebhook {
  const proof = isOrganisation || auth.scheme === 'hmac' ? authHeaders(auth, body) : {};
  const headers = { 'x-vapi-secret': '', ...lowerCase(proof), ...lowerCase(server.headers ?? {}) };
  return { body, headers: { ...headers, 'content-type': 'application/json' } };
}

/** The headers that authenticate a body as Vapi's. */
export function authHeaders(auth: VapiWebhookAuth, body: string | Buffer, atMs = Date.now()): Record<string, string> {
  switch (auth.scheme) {
    case 'secret':
      return { 'X-Vapi-Secret': auth.secret };
    case 'bearer':
      return { Authorization: `Bearer ${auth.secret}` };
    case 'hmac': {
      const { header = 'x-signature', timestampHeader = 'x-timestamp', prefix = '', encoding = 'hex', algorithm = 'sha256' } = auth;
      const timestamp = String(Math.floor(atMs / 1000));
      const isTimed = timestampHeader !== 'none';
      const hmac = createHmac(algorithm, Buffer.from(auth.secret, auth.secretEncoding === 'base64' ? 'base64' : 'utf8'));
      if (isTimed) hmac.update(`${timestamp}.`);
      const signature = `${prefix}${hmac.update(body).digest(encoding)}`;
      return { [header]: signature, ...(isTimed && { [timestampHeader]: timestamp }) };
    }
  }
}

/** `fixed`: the base delay each time; `exponential`: doubled each time (schema BackoffPlan). */
function backoffMs({ backoffPlan }: VapiServer, attempts: number, status: number, factor: number): number | undefined {
  if (backoffPlan === undefined || attempts > backoffPlan.maxRetries || backoffPlan.excludedStatusCodes?.includes(status)) return undefined;
  const times = backoffPlan.type === 'exponential' ? 2 ** (attempts - 1) : 1;
  return backoffPlan.baseDelaySeconds * 1000 * times * factor;
}

function lowerCase(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
