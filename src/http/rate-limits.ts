/**
 * Rate limits per minute, counted in the memory of each process. They limit the damage that one sender can do and are not quotas:
 * each API process counts for itself.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { RequestHandler } from 'express';
import { ipKeyGenerator, rateLimit } from 'express-rate-limit';
import type { Settings } from '../platform/config';
import { sendProblem } from './errors';

const WINDOW_MS = 60_000;

/** The limit without a valid key is this fraction of the one with a key: nobody needs many such requests, and each is logged. */
const BAD_KEY_SHARE = 10;
const LEAST_BAD_KEYS = 10;

/** The limits of one process. Each has its own counters. */
export interface RateLimits {
  /** Creates a counter of unsigned webhooks, per address. */
  unsignedWebhooks(): UnsignedWebhooks;
  /** Pages without a key, per address. */
  open: RequestHandler;
  /** Requests with a valid key, per key. */
  goodKeys: RequestHandler;
  /** Requests without a valid key, per address; stricter. */
  badKeys: RequestHandler;
}

/** Counts an unsigned webhook. Returns the seconds to wait if the limit is exceeded, otherwise undefined. */
export type UnsignedWebhooks = (request: IncomingMessage) => number | undefined;

/** The bearer token of a request (RFC 6750), valid or not. */
export function bearerToken(request: IncomingMessage): string | undefined {
  return /^Bearer\s+(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
}

/** Creates the limits from the settings. */
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
    // Its checks guess what TRUST_PROXY_HOPS already says, and bypass our logger.
    validate: false,
  });
}

/** Addresses counted individually within a minute; all others share a counter, which bounds the memory. */
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
 * The sender's address, behind `hops` proxies of ours: the entry of `X-Forwarded-For` that the first of them wrote. The sender may have
 * invented any entries before it.
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

/** An IPv4 address as a dual-stack server sees it (RFC 4291, section 2.5.5.2). Handled here because ipKeyGenerator is slow. */
const MAPPED_IPV4 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;

/** An IPv6 sender has a whole network to choose addresses from, so it is counted by /56, as express-rate-limit recommends. */
function addressKey(address: string): string {
  return MAPPED_IPV4.exec(address)?.[1] ?? ipKeyGenerator(address);
}

/** A hash that identifies the API key: it is stored longer than a request lives, and keys should not be. */
export function keyHash(request: IncomingMessage): string {
  return createHash('sha256')
    .update(bearerToken(request) ?? '')
    .digest('base64');
}
