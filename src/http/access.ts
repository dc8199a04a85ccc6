/** Bearer keys of the REST API (RFC 6750): who sends a request, for which workspace, and whether the key's role allows it. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Request, RequestHandler, Response } from 'express';
import { ApiError } from './errors';
import type { PathFinder } from './paths';
import { isAllowed, type Permission, type Role } from './permissions';
import { bearerToken, type RateLimits } from './rate-limits';

/** Who sends a request to the API. */
export interface Access {
  /** The name of the key, for the record of what people did. */
  name: string;
  /** Undefined: a key of `API_KEYS`. */
  keyId: string | undefined;
  role: Role;
  /** The workspace that the key belongs to. Undefined: the whole installation. */
  workspaceId: string | undefined;
}

/** Finds the workspace key with this SHA-256 (hex); undefined if there is none. @throws if the database is unreachable */
export type FindKey = (keyHash: string) => Promise<Access | undefined>;

export interface AccessOptions {
  /** `API_KEYS`: the installation's administrators. */
  keys: readonly string[];
  findKey: FindKey;
  findPath: PathFinder;
  limits: Pick<RateLimits, 'goodKeys' | 'badKeys'>;
}

/** The form of a workspace key. Anything else is rejected without a query. */
const WORKSPACE_KEY = /^parley_[A-Za-z0-9_-]{43}$/;

/** Makes a workspace key from 32 random bytes. */
export function workspaceKey(bytes: Buffer): string {
  return `parley_${bytes.toString('base64url')}`;
}

/** SHA-256 of a key in hex, as stored. A random key of 256 bits needs no slow hash. */
export function hashOfKey(key: string): string {
  return digest(key).toString('hex');
}

/** Who sends the request that `response` answers; only behind `requireApiKey`. */
export function accessOf(response: Response): Access {
  return response.locals.access as Access;
}

/**
 * The workspace whose rows a request may see; undefined for all. `requested`: the one that the request itself names.
 * @throws ApiError 404 if the key does not open it
 */
export function workspaceOf(response: Response, requested?: string): string | undefined {
  const { workspaceId } = accessOf(response);
  if (workspaceId !== undefined && requested !== undefined && requested !== workspaceId) throw new ApiError(404, 'no such workspace');
  return workspaceId ?? requested;
}

/**
 * Requires a key whose role has the permission of the requested operation (`needs` in the OpenAPI document); an operation without one is
 * closed. Requests with a valid key are counted per key, the others per address. A valid key is never held to the limit of its address:
 * keys are too long to be guessed, and a client with a wrong key must not lock out others behind the same address.
 */
export function requireApiKey({ keys, findKey, findPath, limits }: AccessOptions): RequestHandler {
  const known = keys.map(digest);
  return async (request, response, next) => {
    const access = await accessOfKey(bearerToken(request), known, findKey);
    if (access === undefined) {
      return limits.badKeys(request, response, (error: unknown) =>
        next(error ?? new ApiError(401, 'a valid bearer key is required', { 'WWW-Authenticate': 'Bearer' })),
      );
    }
    response.locals.access = access;
    return limits.goodKeys(request, response, (error: unknown) => next(error ?? refusalOf(access, requestedPermission(request, findPath))));
  };
}

async function accessOfKey(key: string | undefined, installationKeys: Buffer[], findKey: FindKey): Promise<Access | undefined> {
  if (key === undefined) return undefined;
  const given = digest(key);
  const index = installationKeys.reduce((found, each, at) => (timingSafeEqual(each, given) ? at : found), -1);
  if (index >= 0) return { name: `API_KEYS #${index + 1}`, keyId: undefined, role: 'admin', workspaceId: undefined };
  return WORKSPACE_KEY.test(key) ? await findKey(given.toString('hex')) : undefined;
}

function requestedPermission({ method, baseUrl, path }: Request, findPath: PathFinder): Permission | undefined {
  return findPath(path === '/' ? baseUrl : `${baseUrl}${path}`)?.permissions.get(method === 'HEAD' ? 'GET' : method);
}

/** Undefined if the key allows it. */
function refusalOf(access: Access, permission: Permission | undefined): ApiError | undefined {
  if (permission === undefined) return new ApiError(404, 'no such path');
  return isAllowed(access, permission) ? undefined : new ApiError(403, `the role ${access.role} lacks the permission ${permission}`);
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
