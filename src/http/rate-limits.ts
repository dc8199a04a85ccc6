/**
 * Limits of requests per minute, counted in the memory of each process. They bound what one sender can cost and are no quota:
 * with several API processes each counts for itself.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { RequestHandler } from 'express';
import { ipKeyGenerator, rateLimit } from 'express-rate-limit';
import type { Settings } from '../platform/config';
import { sendProblem } from './errors';

const WINDOW_MS = 60_000;

/** Share of requests without a good key in those with one: nobody needs many, and each is answered and logged. */
const BAD_KEY_SHARE = 10;
const LEAST_BAD_KEYS = 10;

/** The limits of one process. Each has its own counters. */
export interface RateLimits {
  /** A new count of unsigned webhooks, per address. */
  unsignedWebhooks(): UnsignedWebhooks;
  /** Pages that need no key, per address. */
  open: RequestHandler;
  /** Requests with a good key, per key. */
  goodKeys: RequestHandler;
  /** Requests without a good key, per address, and stricter. */
  badKeys: RequestHandler;
}

/** Counts an unsigned webhook. Undefined: its sender may be told why it is refused; else the seconds until it may ask again. */
export type UnsignedWebhooks = (request: IncomingMessage) => number | undefined;

/** The bearer token of a request (RFC 6750), good or not. */
export function bearerToken(request: IncomingMessage): string | undefined {
  return /^Bearer\s+(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
}

/** Makes the limits that the settings name. */
export function createRateLimits(
  settings: Pick<Settings, 'API_RATE_LIMIT_PER_MINUTE' | 'UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE' | 'TRUST_PROXY_HOPS'>,
): RateLimits {
  const apiLimit = settings.API_RATE_LIMIT_PER_MINUTE;
  const addressOf = senderAddress(settings.TRUST_PROXY_HOPS);
  return {
    unsignedWebhooks: () => unsignedWebhooks(settings.UNSIGNED_WEBHOOK_RATE_LIMIT_PER_MINUTE, addressOf),
    open: limiter(apiLimit, addressOf),
    goodKeys: limiter(apiLimit, keyHash),
    badKeys: limiter(Math.max(LEAST_BAD_KEYS, Math.floor(apiLimit / BAD_KEY_SHARE)), addressOf),
  };
}

function limiter(limit: number, keyGenerator: (request: IncomingMessage) => string): RequestHandler {
  return rateLimit({
    windowMs: WINDOW_MS,
    limit,
    keyGenerator,
    identifier: `${limit}-per-minute`,
    standardHeaders: 'draft-8',
    legacyHeaders: false,
    // express-rate-limit has set Retry-After by then.
    handler: (_request, response) => sendProblem(response, 429, 'too many requests'),
    // Its checks guess at what the settings say (TRUST_PROXY_HOPS), and would write past our log.
    validate: false,
  });
}

/** Addresses that are counted one by one in a minute; all others share a count, so that many addresses take no memory. */
const MOST_ADDRESSES = 10_000;
const ALL_OTHERS = 'all others';

function unsignedWebhooks(limit: number, addressOf: (request: IncomingMessage) => string): UnsignedWebhooks {
  const counts = new Map<string, number>();
  let endsAtMs = 0;
  return (request) => {
    const nowMs = Date.now();
    if (nowMs >= endsAtMs) {
      counts.clear();
      endsAtMs = nowMs + WINDOW_MS;
    }
    const address = addressOf(request);
    const key = counts.has(address) || counts.size < MOST_ADDRESSES ? address : ALL_OTHERS;
    const count = (counts.get(key) ?? 0) + 1;
    counts.set(key, count);
    return count <= limit ? undefined : Math.ceil((endsAtMs - nowMs) / 1_000);
  };
}

/**
 * Who sent a request, when `hops` proxies of ours added to `X-Forwarded-For`: the entry that the first of them wrote.
 * What stands before it, the sender may have made up.
 */
function senderAddress(hops: number): (request: IncomingMessage) => string {
  return ({ socket, headers }) => {
    const seenByUs = socket.remoteAddress ?? 'unknown';
    if (hops === 0) return addressKey(seenByUs);
    const forwarded = String(headers['x-forwarded-for'] ?? '')
      .split(',')
      .map((address) => address.trim())
      .filter((address) => address !== '');
    return addressKey([seenByUs, ...forwarded.reverse()][Math.min(hops, forwarded.length)] ?? seenByUs);
  };
}

/** An IPv4 address as a server that listens for both sees it (RFC 4291, section 2.5.5.2). Told apart here, because ipKeyGenerator takes its time. */
const MAPPED_IPV4 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;

/** An IPv6 sender owns a whole network and could come from a new address each time: /56, as express-rate-limit advises. */
function addressKey(address: string): string {
  return MAPPED_IPV4.exec(address)?.[1] ?? ipKeyGenerator(address);
}

/** Who asks, as a hash of their key: what is made of it outlives requests, and keys should not. */
export function keyHash(request: IncomingMessage): string {
  return createHash('sha256')
    .update(bearerToken(request) ?? '')
    .digest('base64');
}
