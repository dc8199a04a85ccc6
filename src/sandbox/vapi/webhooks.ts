/** Webhooks as Vapi writes them: a credential's proof, the server's own headers, no retry unless the server has a backoff plan. */
import { createHmac } from 'node:crypto';
import type { Webhook, WrittenWebhook } from '../webhook-sender';
import type { VapiServer } from './requests';

/** The credential that the organisation has set up for its webhooks (docs.vapi.ai/server-url/server-authentication). */
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
      /** How the secret is given (default text). */
      secretEncoding?: 'text' | 'base64' | undefined;
    };

export interface VapiWebhookOptions {
  auth: VapiWebhookAuth;
  /** Real seconds of a backoff plan are multiplied by this (default 1). */
  backoffFactor?: number | undefined;
  /** Replaces the server's `timeoutSeconds`, in ms. */
  timeoutMs?: number | undefined;
}

/** Where an event goes. */
export interface VapiTarget {
  server: VapiServer;
  /** True for the address of the organisation's settings; false for the server that one call named. */
  isOrganisation: boolean;
}

/** One event on its way; `message` is written anew for each attempt, as presigned addresses and signatures are. */
export function vapiWebhook(options: VapiWebhookOptions, target: VapiTarget, message: () => object): Webhook {
  const { url, timeoutSeconds = 20 } = target.server;
  return {
    targets: [url],
    write: () => writeWebhook(options.auth, target, JSON.stringify({ message: message() })),
    isTaken: (status) => status >= 200 && status < 300,
    retryDelayMs: (attempts, status) => backoffMs(target.server, attempts, status, options.backoffFactor ?? 1),
    timeoutMs: options.timeoutMs ?? timeoutSeconds * 1000,
  };
}

/** These very bytes with the organisation's proof; headers given win, and an empty one takes a header away. One attempt. */
export function rawVapiWebhook(options: VapiWebhookOptions, url: string, body: string | Buffer, headers: Record<string, string>): Webhook {
  const proof = lowerCase({ 'Content-Type': 'application/json', ...proofOf(options.auth, body) });
  const all = Object.entries({ ...proof, ...lowerCase(headers) }).filter(([, value]) => value !== '');
  return {
    targets: [url],
    write: () => ({ body, headers: Object.fromEntries(all) }),
    isTaken: (status) => status >= 200 && status < 300,
    retryDelayMs: () => undefined,
    timeoutMs: options.timeoutMs ?? 20_000,
  };
}

/**
 * Static secrets belong to the credential of one server, so a call's own server has only the headers that the call gave; the
 * signature of an HMAC credential is on all. Without any credential Vapi still sends X-Vapi-Secret, empty (PostHog PR 58733).
 */
function writeWebhook(auth: VapiWebhookAuth, { server, isOrganisation }: VapiTarget, body: string): WrittenWebhook {
  const proof = isOrganisation || auth.scheme === 'hmac' ? proofOf(auth, body) : {};
  const headers = { 'x-vapi-secret': '', ...lowerCase(proof), ...lowerCase(server.headers ?? {}) };
  return { body, headers: { ...headers, 'content-type': 'application/json' } };
}

/** The headers that prove a body to be Vapi's. */
export function proofOf(auth: VapiWebhookAuth, body: string | Buffer, atMs = Date.now()): Record<string, string> {
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

/** `fixed`: the base each time; `exponential`: doubled each time (schema BackoffPlan). */
function backoffMs({ backoffPlan }: VapiServer, attempts: number, status: number, factor: number): number | undefined {
  if (backoffPlan === undefined || attempts > backoffPlan.maxRetries || backoffPlan.excludedStatusCodes?.includes(status)) return undefined;
  const times = backoffPlan.type === 'exponential' ? 2 ** (attempts - 1) : 1;
  return backoffPlan.baseDelaySeconds * 1000 * times * factor;
}

function lowerCase(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
