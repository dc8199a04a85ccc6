/**
 * Limits of requests per minute, counted in the memory of each process (express-rate-limit). They bound what one sender
 * can cost, they are no quota: with several API processes each counts for itself.
 */
import { createHash } from 'node:crypto';
import type { Request, RequestHandler } from 'express';
import { ipKeyGenerator, rateLimit } from 'express-rate-limit';
import type { Settings } from '../config';
import { sendProblem } from './errors';

const WINDOW_MS = 60_000;

/** Requests without a good key may be this part of those with one: nobody needs many, and each is answered and logged. */
const BAD_KEY_SHARE = 10;
const LEAST_BAD_KEYS = 10;

/** The limits of one process. Each has its own counters. */
export interface RateLimits {
  /** Webhooks, per address. Make one per source: a burst of one takes nothing from another. */
  webhooks(): RequestHandler;
  /** Pages that need no key, per address. */
  open: RequestHandler;
  /** Requests with a good key, per key. */
  goodKeys: RequestHandler;
  /** Requests without a good key, per address, and stricter. */
  badKeys: RequestHandler;
}

/** The bearer token of a request (RFC 6750), good or not. */
export function bearerToken(request: Request): string | undefined {
  return /^Bearer\s+(\S+)$/i.exec(request.get('authorization') ?? '')?.[1];
}

/** Makes the limits that the settings name. */
export function createRateLimits(settings: Pick<Settings, 'API_RATE_LIMIT_PER_MINUTE' | 'WEBHOOK_RATE_LIMIT_PER_MINUTE'>): RateLimits {
  const apiLimit = settings.API_RATE_LIMIT_PER_MINUTE;
  return {
    webhooks: () => limiter(settings.WEBHOOK_RATE_LIMIT_PER_MINUTE, addressOf),
    open: limiter(apiLimit, addressOf),
    goodKeys: limiter(apiLimit, keyHash),
    badKeys: limiter(Math.max(LEAST_BAD_KEYS, Math.floor(apiLimit / BAD_KEY_SHARE)), addressOf),
  };
}

function limiter(limit: number, keyGenerator: (request: Request) => string): RequestHandler {
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

/** An IPv6 sender owns a whole network and could come from a new address each time: /56, as express-rate-limit advises. */
function addressOf(request: Request): string {
  return ipKeyGenerator(request.ip ?? 'unknown');
}

/** Who asks, as a hash of their key: what is made of it outlives requests, and keys should not. */
export function keyHash(request: Request): string {
  return createHash('sha256')
    .update(bearerToken(request) ?? '')
    .digest('base64');
}
