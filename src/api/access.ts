/** Bearer keys of the REST API (RFC 6750). */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { RequestHandler } from 'express';
import { ApiError } from './errors';

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** Lets requests through that carry one of the keys. No key configured: nobody gets in. */
export function requireApiKey(keys: readonly string[]): RequestHandler {
  const known = keys.map(digest);
  return (request, response, next) => {
    const given = /^Bearer\s+(\S+)$/i.exec(request.get('authorization') ?? '')?.[1];
    const matches = given === undefined ? [] : known.filter((key) => timingSafeEqual(key, digest(given)));
    if (matches.length > 0) return next();
    response.set('WWW-Authenticate', 'Bearer');
    throw new ApiError(401, known.length === 0 ? 'no API key is configured (API_KEYS)' : 'a valid bearer key is needed');
  };
}
