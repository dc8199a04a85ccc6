/** Bearer keys of the REST API (RFC 6750). */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { RequestHandler, Response } from 'express';
import { ApiError } from './errors';
import { bearerToken, type RateLimits } from './rate-limits';

/** Who sends a request to the API. */
export interface Access {
  /** The name of the key, for the record of what people did. */
  name: string;
  role: 'admin' | 'operator' | 'caller';
  /** The workspace that the key belongs to. Undefined: the whole installation. */
  workspaceId: string | undefined;
}

/** The keys of `API_KEYS` are the installation's administrators. */
const INSTALLATION_ADMIN: Access = { name: 'API_KEYS', role: 'admin', workspaceId: undefined };

/** Who sends the request that `response` answers; only behind `requireApiKey`. */
export function accessOf(response: Response): Access {
  return response.locals.access as Access;
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/**
 * Requires one of the keys; without any configured, every request is rejected. Requests with a valid key are counted per key, the others
 * per address. A valid key is never held to the limit of its address: keys are too long to be guessed, and a client with a wrong key must
 * not lock out others behind the same address.
 */
export function requireApiKey(keys: readonly string[], limits: Pick<RateLimits, 'goodKeys' | 'badKeys'>): RequestHandler {
  const known = keys.map(digest);
  return (request, response, next) => {
    const given = bearerToken(request);
    const matches = given === undefined ? [] : known.filter((key) => timingSafeEqual(key, digest(given)));
    if (matches.length > 0) {
      response.locals.access = INSTALLATION_ADMIN;
      return limits.goodKeys(request, response, next);
    }
    return limits.badKeys(request, response, (error: unknown) => {
      if (error) return next(error);
      const reason = known.length === 0 ? 'no API key is configured (API_KEYS)' : 'a valid bearer key is required';
      return next(new ApiError(401, reason, { 'WWW-Authenticate': 'Bearer' }));
    });
  };
}
