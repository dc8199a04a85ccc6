/** Bearer keys of the REST API (RFC 6750). */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { RequestHandler } from 'express';
import { ApiError } from './errors';
import { bearerToken, type RateLimits } from './rate-limits';

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/**
 * Lets requests through that carry one of the keys, counted per key. No key configured: nobody gets in.
 * The others are counted per address. A good key always passes that count: keys are too long to be guessed, and behind one
 * address a caller with a wrong key must not lock out the others.
 */
export function requireApiKey(keys: readonly string[], limits: Pick<RateLimits, 'goodKeys' | 'badKeys'>): RequestHandler {
  const known = keys.map(digest);
  return (request, response, next) => {
    const given = bearerToken(request);
    const matches = given === undefined ? [] : known.filter((key) => timingSafeEqual(key, digest(given)));
    if (matches.length > 0) return limits.goodKeys(request, response, next);
    return limits.badKeys(request, response, (error: unknown) => {
      if (error) return next(error);
      const reason = known.length === 0 ? 'no API key is configured (API_KEYS)' : 'a valid bearer key is needed';
      return next(new ApiError(401, reason, { 'WWW-Authenticate': 'Bearer' }));
    });
  };
}
